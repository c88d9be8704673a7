internal import Synchronization

/// Who uses a tenant at this moment, and when it was used last: a tenant that nobody uses is closed.
final class TenantUse: Sendable {
  private let users = Atomic<Int>(0)
  /// Monotonic nanoseconds.
  private let last = Atomic<UInt64>(monotonicNanoseconds())

  /// Of two uses within this many nanoseconds the second is not noted: readers on many threads would pass one cache line around.
  private static let resolution: UInt64 = 1_000_000_000

  /// Runs `body`, which may open the keyring and hold it: nobody calls it idle before it returns.
  func run<Value, Failure: Error>(_ body: () async throws(Failure) -> Value) async throws(Failure) -> Value {
    users.add(1, ordering: .sequentiallyConsistent)
    defer {
      last.store(monotonicNanoseconds(), ordering: .relaxed)
      users.subtract(1, ordering: .sequentiallyConsistent)
    }
    return try await body()
  }

  /// Notes a use that is over at once.
  ///
  /// - Parameter now: monotonic nanoseconds.
  func note(_ now: UInt64) {
    if now > last.load(ordering: .relaxed) + Self.resolution { last.store(now, ordering: .relaxed) }
  }

  /// Nanoseconds since the last use; nil while somebody uses it.
  func idleNanoseconds(now: UInt64) -> UInt64? {
    guard users.load(ordering: .sequentiallyConsistent) == 0 else { return nil }
    let last = last.load(ordering: .relaxed)
    return now > last ? now - last : 0
  }
}
