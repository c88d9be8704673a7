public import KeyringStorage
internal import Synchronization

/// Makes the Nth system call of a kind fail, or that one and every later one, and remembers the calls that were made.
public final class FaultPlan: Sendable {
  /// How long a fault lasts.
  public enum Duration: Sendable, CaseIterable {
    /// For one call.
    case once
    /// Until it is disarmed.
    case persistent
  }

  private struct Target {
    let call: SystemCall
    let number: Int
    let interception: Interception
    let duration: Duration
    let then: Interception
    let also: [SystemCall: Interception]

    func isHit(_ count: Int) -> Bool {
      switch duration {
      case .once: count == number
      case .persistent: count >= number
      }
    }
  }

  private struct State {
    var counts: [SystemCall: Int] = [:]
    var log: [SystemCall] = []
    var target: Target?
    var hits = 0
  }
  private let state = Mutex(State())

  /// Nothing fails at first.
  public init() {}

  /// What asks this plan before each call.
  public var calls: SystemCalls {
    SystemCalls { call in
      self.state.withLock { state in
        state.counts[call, default: 0] += 1
        state.log.append(call)
        guard let target = state.target else { return .proceed }
        guard target.call == call, target.isHit(state.counts[call, default: 0]) else {
          return state.hits > 0 ? target.also[call] ?? .proceed : .proceed
        }
        state.hits += 1
        return state.hits == 1 ? target.interception : target.then
      }
    }
  }

  /// Counts from now on, and makes the call of this number (from 1) fail.
  ///
  /// - Parameters:
  ///   - then: what becomes of the calls behind it where the fault is persistent; nil for the same.
  ///   - also: what becomes of calls of other kinds once it was hit.
  public func arm(
    _ call: SystemCall,
    _ number: Int,
    _ interception: Interception,
    _ duration: Duration = .once,
    then: Interception? = nil,
    also: [SystemCall: Interception] = [:]
  ) {
    state.withLock { state in
      state = State()
      state.target = Target(
        call: call,
        number: number,
        interception: interception,
        duration: duration,
        then: then ?? interception,
        also: also
      )
    }
  }

  /// Counts from now on, and lets every call be made.
  public func disarm() { state.withLock { $0 = State() } }

  /// True if a call failed since `arm`.
  public var wasHit: Bool { state.withLock { $0.hits > 0 } }

  /// The calls since `arm` or `disarm`, in their order.
  public var log: [SystemCall] { state.withLock { $0.log } }
}
