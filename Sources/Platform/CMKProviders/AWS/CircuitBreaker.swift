/// Spares an endpoint that does not answer, and those who would wait for it: a state machine without clock and randomness.
///
/// It opens after 5 failures one after the other, or when half of at least 10 calls within 10 s failed. Open, it lets one probe through every
/// 5 s, give or take half of that; the probe's success closes it.
struct CircuitBreaker: Sendable {
  static let consecutiveMax = 5
  static let windowNanoseconds: UInt64 = 10_000_000_000
  static let windowCallsMin = 10
  static let probeNanoseconds: UInt64 = 5_000_000_000

  private enum State {
    case closed
    case open(probeAt: UInt64)
    /// One call is on its way to see; where it is never heard of again, another goes at this time.
    case probing(until: UInt64)
  }

  private var state = State.closed
  private var consecutive = 0
  private var windowBegan: UInt64 = 0
  private var calls = 0
  private var failures = 0

  /// True while calls are refused, but for a probe now and then.
  var isOpen: Bool {
    switch state {
    case .closed: false
    case .open, .probing: true
    }
  }

  /// Whether a call may go out at `now`; one that is let through is answered for by `succeeded` or `failed`.
  ///
  /// - Parameter random: 0 to 1.
  mutating func admit(now: UInt64, random: Double) -> Bool {
    switch state {
    case .closed: return true
    case .open(let probeAt), .probing(let probeAt):
      guard now >= probeAt else { return false }
      state = .probing(until: now + Self.pause(random))
      return true
    }
  }

  mutating func succeeded() {
    state = .closed
    consecutive = 0
  }

  /// A call that tells nothing of the endpoint: where it was the probe, another may go at once.
  mutating func abandoned(now: UInt64) {
    if case .probing = state { state = .open(probeAt: now) }
  }

  mutating func failed(now: UInt64, random: Double) {
    consecutive += 1
    count(now: now, isFailure: true)
    let isHalf = calls >= Self.windowCallsMin && failures * 2 >= calls
    guard isOpen || consecutive >= Self.consecutiveMax || isHalf else { return }
    // Those that were under way when it opened put the probe off no further.
    if case .open = state { return }
    state = .open(probeAt: now + Self.pause(random))
    (calls, failures) = (0, 0)
  }

  /// Counts a call that was answered.
  mutating func counted(now: UInt64) { count(now: now, isFailure: false) }

  private mutating func count(now: UInt64, isFailure: Bool) {
    if now >= windowBegan + Self.windowNanoseconds {
      windowBegan = now
      (calls, failures) = (0, 0)
    }
    calls += 1
    failures += isFailure ? 1 : 0
  }

  private static func pause(_ random: Double) -> UInt64 {
    UInt64(Double(probeNanoseconds) * (0.5 + random))
  }
}
