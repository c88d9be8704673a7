/// When temporary credentials are had anew, in Unix milliseconds.
struct RefreshSchedule: Sendable, Equatable {
  /// From here on beside the calls, which still use the old ones.
  let refreshMilliseconds: UInt64
  /// From here on calls wait for it.
  let waitMilliseconds: UInt64
  let expiresMilliseconds: UInt64

  static let windowMillisecondsMax: UInt64 = 600_000
  static let waitMillisecondsMax: UInt64 = 60_000

  /// The refresh begins ten minutes before the end, or a fifth of the lifetime where that is less, and at random up to a quarter of that
  /// later, so that many tenants do not ask at one moment; calls wait in the last minute, or the last half of the same time.
  init(loadedMilliseconds: UInt64, expiresMilliseconds: UInt64, jitter: (ClosedRange<UInt64>) -> UInt64) {
    let lifetime = expiresMilliseconds - min(loadedMilliseconds, expiresMilliseconds)
    let window = min(Self.windowMillisecondsMax, lifetime / 5)
    refreshMilliseconds = expiresMilliseconds - window + min(jitter(0...window / 4), window / 4)
    waitMilliseconds = expiresMilliseconds - min(Self.waitMillisecondsMax, window / 2)
    self.expiresMilliseconds = expiresMilliseconds
  }
}

/// The pause after refreshes that failed: one second, doubled with each failure, at most a minute, and half of it at random.
struct RetryPause: Sendable {
  static let millisecondsMax: UInt64 = 60_000

  private(set) var failures = 0
  private var beganMilliseconds: UInt64 = 0
  private var milliseconds: UInt64 = 0

  mutating func fail(_ nowMilliseconds: UInt64, jitter: (ClosedRange<UInt64>) -> UInt64) {
    let longest = min(Self.millisecondsMax, 1000 << UInt64(min(failures, 10)))
    failures += 1
    beganMilliseconds = nowMilliseconds
    milliseconds = longest / 2 + min(jitter(0...longest / 2), longest / 2)
  }

  /// True once it is over; also where the clock was set back.
  func isOver(_ nowMilliseconds: UInt64) -> Bool {
    failures == 0 || nowMilliseconds < beganMilliseconds
      || nowMilliseconds - beganMilliseconds >= milliseconds
  }
}
