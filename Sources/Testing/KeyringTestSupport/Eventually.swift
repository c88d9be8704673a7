/// Looks again and again whether something is so; a bound, and no measurement.
///
/// - Returns: false where it was not within `most`.
public func eventually(
  within most: Duration = .seconds(30),
  _ isSo: () async throws -> Bool
) async throws -> Bool {
  let end = ContinuousClock.now + most
  while ContinuousClock.now < end {
    if try await isSo() { return true }
    try await Task.sleep(for: .milliseconds(20))
  }
  return try await isSo()
}
