/// Whether, and when, a failed call is repeated: the standard mode of AWS's SDKs (AWS SDKs and Tools Reference Guide, "Retry behavior"), with
/// its bucket of tokens, so that a service in trouble is not asked three times by everybody. Without clock and randomness.
public struct RetryPolicy: Sendable {
  /// Attempts of one call, at most.
  public static let attemptsMax = 3
  static let tokensMax = 500
  static let backoffMaxNanoseconds: UInt64 = 20_000_000_000

  private(set) var tokens = RetryPolicy.tokensMax

  /// Nanoseconds to wait before the next attempt, and what it took from the bucket; nil: no further attempt.
  ///
  /// - Parameters:
  ///   - attempt: how many there were, from 1.
  ///   - random: 0 to 1.
  mutating func pause(
    after failure: CallFailure,
    attempt: Int,
    random: Double
  ) -> (nanoseconds: UInt64, tokens: Int)? {
    guard failure.isTransient, attempt < Self.attemptsMax else { return nil }
    let isThrottled = failure.kind == .throttled
    let cost = isThrottled ? 5 : 14
    guard tokens >= cost else { return nil }
    tokens -= cost
    let base: UInt64 = isThrottled ? 1_000_000_000 : 50_000_000
    let most = min(base << UInt64(attempt - 1), Self.backoffMaxNanoseconds)
    let computed = UInt64(Double(most) * random)
    // What the service asks for counts from there to 5 s more.
    let asked = failure.retryAfterMilliseconds.map { UInt64(clamping: $0) * 1_000_000 } ?? 0
    return (max(computed, min(asked, computed + 5_000_000_000)), cost)
  }

  /// A call succeeded: what its last repetition took comes back, or one token where it took none.
  mutating func succeeded(_ taken: Int) { tokens = min(tokens + max(taken, 1), Self.tokensMax) }
}
