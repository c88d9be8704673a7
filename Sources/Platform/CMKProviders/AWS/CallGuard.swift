internal import KeyringCore
internal import Synchronization

/// Stands between one tenant and its endpoints: bounds the calls in flight and waiting, repeats what may succeed a moment later, and refuses at
/// once those to an endpoint that does not answer, so that its trouble is nobody else's.
public final class CallGuard: Sendable {
  /// Calls in flight, at most.
  public static let inFlightMax = 4
  /// Calls that wait for their turn, at most.
  public static let waitingMax = 64

  /// Endpoints that are known, at most: a ciphertext goes to the region of its key, whichever that is.
  static let endpointsMax = 16

  /// Monotonic time by which the present task wants its answer, in nanoseconds as `now` has them; nil: the call's own limits alone.
  @TaskLocal public static var deadline: UInt64?

  /// What the guard needs from around it.
  public struct Surroundings: Sendable {
    let now: @Sendable () -> UInt64
    let sleep: @Sendable (UInt64) async -> Void
    let random: @Sendable () -> Double

    /// - Parameters:
    ///   - now: monotonic nanoseconds.
    ///   - sleep: for so many nanoseconds.
    ///   - random: 0 to 1.
    public init(
      now: @escaping @Sendable () -> UInt64,
      sleep: @escaping @Sendable (UInt64) async -> Void,
      random: @escaping @Sendable () -> Double
    ) {
      self.now = now
      self.sleep = sleep
      self.random = random
    }
  }

  private struct Endpoint {
    var breaker = CircuitBreaker()
    var lastFailure = ""
    var usedAt: UInt64 = 0
  }

  private struct State {
    /// By URL.
    var endpoints: [String: Endpoint] = [:]
    var retries = RetryPolicy()
    var inFlight = 0
    /// Confirmations, which are for all callers, and few: they come first.
    var confirming: [CheckedContinuation<Bool, Never>] = []
    var waiting: [CheckedContinuation<Bool, Never>] = []

    /// Forgets the endpoint that was used least recently; one that does not answer last.
    mutating func makeRoom() {
      guard endpoints.count >= CallGuard.endpointsMax else { return }
      let closed = endpoints.filter { !$0.value.breaker.isOpen }
      let oldest = (closed.isEmpty ? endpoints : closed).min { $0.value.usedAt < $1.value.usedAt }
      if let oldest { endpoints[oldest.key] = nil }
    }
  }

  private let surroundings: Surroundings
  private let attemptsMax: Int
  private let budget: @Sendable (_ isRefusable: Bool) -> UInt32?
  private let state = Mutex(State())

  /// - Parameters:
  ///   - surroundings: clock and randomness.
  ///   - attempts: of one call, at most.
  ///   - budget: asked before each attempt: nil where it may be made, else milliseconds after which to ask again. What is not refusable is made in
  ///     any case: it is only counted.
  public init(
    _ surroundings: Surroundings,
    attempts: Int = RetryPolicy.attemptsMax,
    budget: @escaping @Sendable (_ isRefusable: Bool) -> UInt32? = { _ in nil }
  ) {
    self.surroundings = surroundings
    self.budget = budget
    attemptsMax = attempts
  }

  /// True while an endpoint is taken for one that does not answer.
  public var isOpen: Bool { state.withLock { $0.endpoints.values.contains { $0.breaker.isOpen } } }

  /// Endpoints that are known at this moment.
  var endpoints: Int { state.withLock { $0.endpoints.count } }

  /// Calls that wait for their turn at this moment.
  var waiting: Int { state.withLock { $0.confirming.count + $0.waiting.count } }

  /// Milliseconds that the next attempt may take: `most`, or less where the task's deadline comes earlier; rounded up, so that an attempt that is
  /// cut short ends past the deadline, and is told from one that the endpoint left without an answer.
  func attemptMilliseconds(_ most: Int) -> Int {
    guard let deadline = Self.deadline else { return most }
    let now = surroundings.now()
    return min(most, deadline > now ? Int(clamping: (deadline - now - 1) / 1_000_000 + 1) : 1)
  }

  /// Runs `body`, which asks the endpoint at `url`, again where that may help.
  ///
  /// - Throws: `CMKError.overloaded` at once where too many wait, or the budget has no call for one caller's sake, `.unreachable` at once while the endpoint does not answer, and what the
  ///   last attempt failed with.
  func attempt<Value: Sendable>(
    at url: String,
    _ body: @Sendable () async throws(CallFailure) -> Value
  ) async throws(CMKError) -> Value {
    // What is for all callers, or an administrator's, has no deadline: it is made, and counted. So are repeats: they have a bound of their own.
    if let retryAfterMilliseconds = budget(Self.deadline != nil) {
      throw .overloaded(
        "limits.kms_calls_per_second: the tenant needs its KMS more often than it may",
        retryAfterMilliseconds: retryAfterMilliseconds
      )
    }
    try await takeTurn()
    defer { giveTurn() }
    var attempt = 1
    var taken = 0
    while true {
      if let deadline = Self.deadline, surroundings.now() >= deadline {
        throw .unreachable("AWS: not asked: the time of the request ran out")
      }
      try admit(url)
      let failure: CallFailure
      do throws(CallFailure) {
        let value = try await body()
        answered(url, taken: taken)
        return value
      } catch {
        failure = error
      }
      note(failure, url)
      guard attempt < attemptsMax, let pause = pause(after: failure, attempt) else {
        throw failure.cmkError
      }
      taken = pause.tokens
      attempt += 1
      await surroundings.sleep(pause.nanoseconds)
      _ = budget(false)
    }
  }

  private func admit(_ url: String) throws(CMKError) {
    let (now, random) = (surroundings.now(), surroundings.random())
    let refusal = state.withLock { state -> String? in
      if state.endpoints[url] == nil { state.makeRoom() }
      var endpoint = state.endpoints[url, default: Endpoint()]
      endpoint.usedAt = now
      defer { state.endpoints[url] = endpoint }
      return endpoint.breaker.admit(now: now, random: random) ? nil : endpoint.lastFailure
    }
    if let refusal {
      throw .unreachable("AWS: not asked, since it did not answer a moment ago: \(refusal)")
    }
  }

  private func answered(_ url: String, taken: Int) {
    let now = surroundings.now()
    state.withLock { state in
      state.endpoints[url]?.breaker.counted(now: now)
      state.endpoints[url]?.breaker.succeeded()
      state.retries.succeeded(taken)
    }
  }

  private func note(_ failure: CallFailure, _ url: String) {
    let (now, random) = (surroundings.now(), surroundings.random())
    state.withLock { state in
      guard failure.isOfEndpoint else {
        state.endpoints[url]?.breaker.abandoned(now: now)
        return
      }
      switch failure.kind {
      // A caller in a hurry says nothing of the endpoint: another is asked how it is.
      case .unreachable where Self.deadline.map({ now >= $0 }) ?? false:
        state.endpoints[url]?.breaker.abandoned(now: now)
      case .unreachable, .serverFailure, .outcomeUnknown:
        state.endpoints[url]?.breaker.failed(now: now, random: random)
        state.endpoints[url]?.lastFailure = failure.text
      // An answer, though not the one wished for; `local` is none, and does not come here.
      case .local, .denied, .disabled, .pendingDeletion, .notFound, .invalidCiphertext, .credential,
        .configuration,
        .refused, .throttled:
        state.endpoints[url]?.breaker.counted(now: now)
        state.endpoints[url]?.breaker.succeeded()
      }
    }
  }

  private func pause(after failure: CallFailure, _ attempt: Int) -> (nanoseconds: UInt64, tokens: Int)? {
    let (now, random) = (surroundings.now(), surroundings.random())
    return state.withLock { state in
      guard let pause = state.retries.pause(after: failure, attempt: attempt, random: random) else {
        return nil
      }
      if let deadline = Self.deadline, now + pause.nanoseconds >= deadline { return nil }
      return pause
    }
  }

  // MARK: Turns

  private func takeTurn() async throws(CMKError) {
    let isFull = await withCheckedContinuation { (turn: CheckedContinuation<Bool, Never>) in
      enter(turn)
    }
    if isFull { throw .overloaded("too many calls to AWS wait for their turn") }
  }

  private func enter(_ turn: CheckedContinuation<Bool, Never>) {
    let answer = state.withLock { state -> Bool? in
      if state.inFlight < Self.inFlightMax {
        state.inFlight += 1
        return false
      }
      if Self.deadline == nil {
        state.confirming.append(turn)
        return nil
      }
      guard state.waiting.count < Self.waitingMax else { return true }
      state.waiting.append(turn)
      return nil
    }
    if let answer { turn.resume(returning: answer) }
  }

  private func giveTurn() {
    let next = state.withLock { state -> CheckedContinuation<Bool, Never>? in
      if !state.confirming.isEmpty { return state.confirming.removeFirst() }
      if !state.waiting.isEmpty { return state.waiting.removeFirst() }
      state.inFlight -= 1
      return nil
    }
    next?.resume(returning: false)
  }
}
