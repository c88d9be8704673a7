import HTTPTransport
import KeyringCore
import Synchronization
import Testing

@testable import CMKProviders

/// A clock that moves when somebody sleeps by it, and dice that always fall alike.
final class ManualClock: Sendable {
  private let nanoseconds = Atomic<UInt64>(1_000_000_000_000)
  private let slept = Mutex<[UInt64]>([])

  var pauses: [UInt64] { slept.withLock { $0 } }
  var now: UInt64 { nanoseconds.load(ordering: .acquiring) }

  func advance(_ seconds: Double) {
    nanoseconds.add(UInt64(seconds * 1e9), ordering: .acquiringAndReleasing)
  }

  func guarded(
    random: Double = 0.5,
    attempts: Int = RetryPolicy.attemptsMax,
    budget: @escaping @Sendable (Bool) -> UInt32? = { _ in nil }
  ) -> CallGuard {
    CallGuard(
      .init(
        now: { self.now },
        sleep: { pause in
          self.slept.withLock { $0.append(pause) }
          self.nanoseconds.add(pause, ordering: .acquiringAndReleasing)
        },
        random: { random }
      ),
      attempts: attempts,
      budget: budget
    )
  }
}

/// Fails as told, one after the other, then answers; counts the attempts.
final class Script: Sendable {
  private let rest: Mutex<[CallFailure?]>
  private let count = Atomic(0)
  init(_ answers: [CallFailure?]) { rest = Mutex(answers) }
  var attempts: Int { count.load(ordering: .acquiring) }

  func next() throws(CallFailure) -> Int {
    count.add(1, ordering: .acquiringAndReleasing)
    let failure = rest.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    if let failure { throw failure }
    return attempts
  }
}

private let url = "https://kms.eu-central-1.amazonaws.com/"

@Suite struct CallGuardTests {
  let clock = ManualClock()

  private func fails(
    _ guarded: CallGuard,
    _ script: Script,
    at url: String = url
  ) async -> CMKError? {
    do {
      _ = try await guarded.attempt(at: url) { () throws(CallFailure) in try script.next() }
      return nil
    } catch {
      return error
    }
  }

  // MARK: Repeating

  @Test(arguments: [CallFailure.Kind.unreachable, .serverFailure, .throttled])
  func whatMayPassIsTriedThreeTimes(_ kind: CallFailure.Kind) async throws {
    let script = Script([CallFailure(kind, "1"), CallFailure(kind, "2")])
    #expect(await fails(clock.guarded(), script) == nil)
    #expect(script.attempts == 3)
    // Full jitter at one half: of 50 and 100 ms, or of 1 and 2 s.
    let base: UInt64 = kind == .throttled ? 500_000_000 : 25_000_000
    #expect(clock.pauses == [base, 2 * base])
  }

  @Test func afterThreeAttemptsTheLastFailureIsTheAnswer() async {
    let script = Script((1...5).map { CallFailure(.serverFailure, "number \($0)") })
    #expect(await fails(clock.guarded(), script) == .unreachable("AWS: server failure: number 3"))
    #expect(script.attempts == 3)
  }

  @Test(arguments: CallFailure.Kind.allCases.filter { !CallFailure($0, "").isTransient })
  func whatWillNotPassIsNotRepeated(_ kind: CallFailure.Kind) async {
    let script = Script([CallFailure(kind, "no", requestID: "r-1")])
    let error = await fails(clock.guarded(), script)
    #expect(error?.description == "AWS: \(kind.rawValue): no (request id r-1)")
    #expect(script.attempts == 1)
  }

  @Test func theServicesOwnPauseIsKeptToFiveSecondsMore() async {
    let script = Script([CallFailure(.throttled, "", retryAfterMilliseconds: 60_000)])
    #expect(await fails(clock.guarded(), script) == nil)
    #expect(clock.pauses == [5_500_000_000])
  }

  @Test func theBucketOfTokensEndsRepeating() async {
    let guarded = clock.guarded()
    // 500 tokens; a call that is throttled throughout takes 5 twice.
    for _ in 0..<50 {
      _ = await fails(guarded, Script([CallFailure](repeating: CallFailure(.throttled, ""), count: 3)))
    }
    let script = Script([CallFailure(.throttled, "")])
    #expect(await fails(guarded, script) == .unreachable("AWS: throttled: "))
    #expect(script.attempts == 1)
    // Five successes bring back one repetition.
    for _ in 0..<5 { #expect(await fails(guarded, Script([])) == nil) }
    #expect(await fails(guarded, Script([CallFailure(.throttled, "")])) == nil)
  }

  @Test func nobodyWaitsPastItsDeadline() async {
    let guarded = clock.guarded()
    let script = Script([CallFailure(.throttled, "")])
    let error = await CallGuard.$deadline.withValue(clock.now + 100_000_000) { await fails(guarded, script) }
    #expect(error == .unreachable("AWS: throttled: "))
    #expect(script.attempts == 1)
    CallGuard.$deadline.withValue(clock.now + 100_000_000) {
      #expect(guarded.attemptMilliseconds(3000) == 100)
    }
    #expect(guarded.attemptMilliseconds(3000) == 3000)
    // Whole milliseconds: less would end before the deadline, and count against the endpoint.
    for (left, milliseconds) in [(20_900_000, 21), (20_000_001, 21), (20_000_000, 20), (1, 1), (0, 1)] {
      CallGuard.$deadline.withValue(clock.now + UInt64(left)) {
        #expect(guarded.attemptMilliseconds(3000) == milliseconds)
      }
    }
  }

  // MARK: The circuit breaker

  @Test func fiveFailuresInARowOpenItAndOneProbeClosesIt() async {
    let guarded = clock.guarded()
    let down = Script([CallFailure](repeating: CallFailure(.unreachable, "down"), count: 100))
    _ = await fails(guarded, down)
    _ = await fails(guarded, down)
    #expect(guarded.isOpen)
    let asked = down.attempts
    #expect(asked == 5)
    let refusal = await fails(guarded, down)
    #expect(
      refusal == .unreachable("AWS: not asked, since it did not answer a moment ago: AWS: unreachable: down")
    )
    #expect(down.attempts == asked)
    // Dice at one half: a probe after 5 s, one only.
    clock.advance(5)
    _ = await fails(guarded, down)
    #expect(down.attempts == asked + 1)
    #expect(guarded.isOpen)
    clock.advance(5)
    #expect(await fails(guarded, Script([])) == nil)
    #expect(!guarded.isOpen)
  }

  @Test func anEndpointIsRefusedForItsOwnFailuresOnly() async {
    let guarded = clock.guarded()
    let down = Script([CallFailure](repeating: CallFailure(.unreachable, "down"), count: 100))
    for _ in 0..<2 { _ = await fails(guarded, down, at: "https://dead/") }
    #expect(guarded.isOpen)
    #expect(await fails(guarded, Script([])) == nil)
    #expect(guarded.isOpen, "another's answer closes it not")
    // Others come and go; which one is down is not forgotten for them.
    for number in 0..<100 {
      clock.advance(0.001)
      #expect(await fails(guarded, Script([]), at: "https://\(number)/") == nil)
    }
    #expect(guarded.endpoints == CallGuard.endpointsMax)
    let asked = down.attempts
    #expect(await fails(guarded, down, at: "https://dead/") != nil)
    #expect(down.attempts == asked)
  }

  @Test func whileOneProbesTheOthersAreRefused() {
    var breaker = CircuitBreaker()
    for _ in 0..<5 { breaker.failed(now: 0, random: 0.5) }
    // A probe that is never heard of again does not keep it open for good.
    let times: [UInt64] = [4_999_999_999, 5_000_000_000, 5_000_000_001, 10_000_000_000]
    let admitted = times.map { breaker.admit(now: $0, random: 0.5) }
    #expect(admitted == [false, true, false, true])
  }

  @Test func halfOfTenWithinTenSecondsOpensIt() {
    var breaker = CircuitBreaker()
    for _ in 0..<5 {
      breaker.counted(now: 0)
      breaker.succeeded()
    }
    for number in 0..<5 {
      #expect(!breaker.isOpen, "after \(number) failures")
      if number == 2 { breaker.succeeded() }
      breaker.failed(now: 1, random: 0)
    }
    #expect(breaker.isOpen)
    var slow = CircuitBreaker()
    for second in 0..<20 {
      slow.counted(now: UInt64(second) * 11_000_000_000)
      slow.succeeded()
      slow.failed(now: UInt64(second) * 11_000_000_000, random: 0)
    }
    #expect(!slow.isOpen)
  }

  @Test(arguments: [CallFailure.Kind.denied, .disabled, .credential, .throttled])
  func anAnswerKeepsItClosed(_ kind: CallFailure.Kind) async {
    let guarded = clock.guarded()
    let script = Script([CallFailure](repeating: CallFailure(kind, ""), count: 100))
    for _ in 0..<20 { _ = await fails(guarded, script) }
    #expect(!guarded.isOpen)
  }

  /// Neither a failure nor an answer: it does not open the breaker, does not close it, and leaves the probe to another.
  @Test(arguments: [
    CallFailure(HTTPError.local("kms: the request was cancelled")),
    CallFailure(withoutCredentials: .unreachable("credentials: none yet")),
  ])
  func whatIsLocalSaysNothingOfTheEndpoint(_ failure: CallFailure) async {
    let guarded = clock.guarded()
    let local = Script([CallFailure](repeating: failure, count: 100))
    for _ in 0..<20 { #expect(await fails(guarded, local)?.name == .unreachable) }
    #expect(!guarded.isOpen && local.attempts == 20)
    let down = Script([CallFailure](repeating: CallFailure(.unreachable, "down"), count: 100))
    for _ in 0..<2 { _ = await fails(guarded, down) }
    clock.advance(10)
    for number in 0..<5 {
      _ = await fails(guarded, local)
      #expect(guarded.isOpen && local.attempts == 21 + number)
    }
    #expect(await fails(guarded, Script([])) == nil)
    #expect(!guarded.isOpen)
  }

  // MARK: Turns

  @Test func fourAreInFlightSixtyFourWaitAndTheNextIsRefused() async throws {
    let guarded = clock.guarded()
    let gate = Gate()
    let running = MostAtOnce()
    // Calls of callers; confirmations, which have no deadline, always find a place.
    await CallGuard.$deadline.withValue(.max) {
      await refusedPastTheBound(guarded, gate, running)
    }
    #expect(running.most == 4)
    #expect(await fails(guarded, Script([])) == nil)
  }

  private func refusedPastTheBound(_ guarded: CallGuard, _ gate: Gate, _ running: MostAtOnce) async {
    await withTaskGroup(of: CMKError?.self) { group in
      for _ in 0..<68 {
        group.addTask {
          do throws(CMKError) {
            _ = try await guarded.attempt(at: url) { () async throws(CallFailure) in
              running.begin()
              await gate.passed()
              running.end()
            }
            return nil
          } catch {
            return error
          }
        }
      }
      while guarded.waiting < 64 { await Task.yield() }
      let refused = Script([])
      #expect(await fails(guarded, refused) == .overloaded("too many calls to AWS wait for their turn"))
      #expect(refused.attempts == 0)
      gate.open()
      for await error in group { #expect(error == nil) }
    }
  }

  /// One caller's call is refused before it is made, with the time to come again; a confirmation, and a repeat, is made and counted.
  @Test func callsOverTheBudgetAreNotMade() async {
    let asked = Mutex<[Bool]>([])
    let guarded = clock.guarded { isRefusable in
      asked.withLock { $0.append(isRefusable) }
      return isRefusable ? 1234 : nil
    }
    let script = Script([CallFailure(.throttled, "slower")])
    await CallGuard.$deadline.withValue(.max) {
      guard case .overloaded(let why, retryAfterMilliseconds: 1234) = await fails(guarded, script) else {
        Issue.record("a call over the budget was made")
        return
      }
      #expect(why.contains("limits.kms_calls_per_second"))
    }
    #expect(script.attempts == 0)
    #expect(await fails(guarded, script) == nil)
    #expect(script.attempts == 2)
    #expect(asked.withLock { $0 } == [true, false, false])
  }

  @Test func confirmationsComeFirst() async {
    let guarded = clock.guarded()
    let (first, others, order) = (Gate(), Gate(), Order())
    var tasks = (0..<4).map { begin("running", guarded, $0 == 0 ? first : others, order, deadline: .max) }
    while order.names.count < 4 { await Task.yield() }
    for (index, name) in ["caller", "caller", "confirmation"].enumerated() {
      tasks.append(begin(name, guarded, others, order, deadline: name == "caller" ? .max : nil))
      while guarded.waiting < index + 1 { await Task.yield() }
    }
    first.open()
    while order.names.count < 5 { await Task.yield() }
    #expect(order.names.last == "confirmation")
    others.open()
    for task in tasks { await task.value }
  }

  private func begin(_ name: String, _ guarded: CallGuard, _ gate: Gate, _ order: Order, deadline: UInt64?)
    -> Task<Void, Never>
  {
    Task {
      await CallGuard.$deadline.withValue(deadline) {
        // It does not fail; whether it ran is seen in the order.
        _ = try? await guarded.attempt(at: url) { () async throws(CallFailure) in
          order.add(name)
          await gate.passed()
        }
      }
    }
  }

  @Test func aCallerInAHurrySaysNothingOfTheEndpoint() async {
    let guarded = clock.guarded()
    for _ in 0..<20 {
      let script = Script([])
      await CallGuard.$deadline.withValue(clock.now) {
        #expect(
          await fails(guarded, script) == .unreachable("AWS: not asked: the time of the request ran out")
        )
      }
      #expect(script.attempts == 0)
      // Cut off by its deadline while it was asked.
      await CallGuard.$deadline.withValue(clock.now + 1) {
        _ = try? await guarded.attempt(at: url) { () async throws(CallFailure) -> Int in
          clock.advance(0.001)
          throw CallFailure(.unreachable, "timed out")
        }
      }
    }
    #expect(!guarded.isOpen)
  }
}

/// Who began, in order.
private final class Order: Sendable {
  private let state = Mutex<[String]>([])
  var names: [String] { state.withLock { $0 } }

  func add(_ name: String) { state.withLock { $0.append(name) } }
}

/// Counts those that run at one time.
private final class MostAtOnce: Sendable {
  private let state = Mutex((now: 0, most: 0))
  var most: Int { state.withLock { $0.most } }

  func begin() {
    state.withLock { state in
      state.now += 1
      state.most = max(state.most, state.now)
    }
  }

  func end() { state.withLock { $0.now -= 1 } }
}

/// Closed until it is opened.
final class Gate: Sendable {
  private let state = Mutex((isOpen: false, waiting: [CheckedContinuation<Void, Never>]()))

  func passed() async {
    await withCheckedContinuation { continuation in
      let isOpen = state.withLock { state in
        if !state.isOpen { state.waiting.append(continuation) }
        return state.isOpen
      }
      if isOpen { continuation.resume() }
    }
  }

  func open() {
    let waiting = state.withLock { state in
      state.isOpen = true
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }
}
