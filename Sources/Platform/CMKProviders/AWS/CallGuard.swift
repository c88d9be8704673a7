internal import KeyringCore
internal import Synchronization

/// Stands between one tenant and one endpoint: bounds the calls in flight and waiting, repeats what may succeed a moment later, and refuses at
/// once while the endpoint does not answer, so that its trouble is nobody else's.
public final class CallGuard: Sendable {
  /// Calls in flight, at most.
  public static let inFlightMax = 4
  /// Calls that wait for their turn, at most.
  public static let waitingMax = 64

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

  fileprivate struct State {
    var breaker = CircuitBreaker()
    var retries = RetryPolicy()
    var inFlight = 0
    /// Confirmations, which are for all callers, and few: they come first.
    var confirming: [CheckedContinuation<Bool, Never>] = []
    var waiting: [CheckedContinuation<Bool, Never>] = []
    var lastFailure = ""
  }

  private let surroundings: Surroundings
  private let attemptsMax: Int
  private let state = Mutex(State())

  /// - Parameters:
  ///   - surroundings: clock and randomness.
  ///   - attempts: of one call, at most.
  public init(_ surroundings: Surroundings, attempts: Int = RetryPolicy.attemptsMax) {
    self.surroundings = surroundings
    attemptsMax = attempts
  }

  /// True while the endpoint is taken for one that does not answer.
  public var isOpen: Bool { state.withLock { $0.breaker.isOpen } }

  /// Calls that wait for their turn at this moment.
  var waiting: Int { state.withLock { $0.confirming.count + $0.waiting.count } }

  /// Milliseconds that the next attempt may take: `most`, or less where the task's deadline comes earlier; rounded up, so that an attempt that is
  /// cut short ends past the deadline, and is told from one that the endpoint left without an answer.
  func attemptMilliseconds(_ most: Int) -> Int {
    guard let deadline = Self.deadline else { return most }
    let now = surroundings.now()
    return min(most, deadline > now ? Int(clamping: (deadline - now - 1) / 1_000_000 + 1) : 1)
  }

  /// Runs `body`, again where that may help.
  ///
  /// - Throws: `CMKError.overloaded` at once where too many wait, `.unreachable` at once while the endpoint does not answer, and what the
  ///   last attempt failed with.
  func attempt<Value: Sendable>(
    _ body: @Sendable () async throws(CallFailure) -> Value
  ) async throws(CMKError) -> Value {
    try await takeTurn()
    defer { giveTurn() }
    var attempt = 1
    var taken = 0
    while true {
      if let deadline = Self.deadline, surroundings.now() >= deadline {
        throw .unreachable("AWS: not asked: the time of the request ran out")
      }
      try admit()
      let failure: CallFailure
      do throws(CallFailure) {
        let value = try await body()
        state.withLock { $0.answered(surroundings.now(), taken: taken) }
        return value
      } catch {
        failure = error
      }
      note(failure)
      guard attempt < attemptsMax, let pause = pause(after: failure, attempt) else {
        throw failure.cmkError
      }
      taken = pause.tokens
      attempt += 1
      await surroundings.sleep(pause.nanoseconds)
    }
  }

  private func admit() throws(CMKError) {
    let (now, random) = (surroundings.now(), surroundings.random())
    let refusal = state.withLock { state in
      state.breaker.admit(now: now, random: random) ? nil : state.lastFailure
    }
    if let refusal {
      throw .unreachable("AWS: not asked, since it did not answer a moment ago: \(refusal)")
    }
  }

  private func note(_ failure: CallFailure) {
    let (now, random) = (surroundings.now(), surroundings.random())
    state.withLock { state in
      switch failure.kind {
      // A caller in a hurry says nothing of the endpoint: another is asked how it is.
      case .unreachable where Self.deadline.map({ now >= $0 }) ?? false: state.breaker.abandoned(now: now)
      case .unreachable, .serverFailure, .outcomeUnknown:
        state.breaker.failed(now: now, random: random)
        state.lastFailure = failure.text
      // An answer, though not the one wished for.
      case .denied, .disabled, .pendingDeletion, .notFound, .invalidCiphertext, .credential, .configuration,
        .refused, .throttled:
        state.breaker.counted(now: now)
        state.breaker.succeeded()
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

extension CallGuard.State {
  fileprivate mutating func answered(_ now: UInt64, taken: Int) {
    breaker.counted(now: now)
    breaker.succeeded()
    retries.succeeded(taken)
  }
}
