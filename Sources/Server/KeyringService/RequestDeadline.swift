internal import Synchronization

/// Until when a request may be executed, and whether that has begun: who answers at the deadline knows whether anything may still come of it.
final class RequestDeadline: Sendable {
  /// Monotonic nanoseconds.
  let nanoseconds: UInt64
  private let began = Atomic(false)

  init(_ nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// For what serves several callers, each with a deadline of its own.
  static let never = RequestDeadline(.max)

  /// True while there is time.
  var isAhead: Bool { monotonicNanoseconds() < nanoseconds }

  /// Asked at the last moment at which a change can still be left undone.
  func mayExecute() -> Bool {
    // First the mark, then the clock: whoever finds no mark after the deadline knows that none of this comes to anything.
    began.store(true, ordering: .sequentiallyConsistent)
    return isAhead
  }

  /// After the deadline: false where the change is not executed, and never will be.
  var mayHaveExecuted: Bool { began.load(ordering: .sequentiallyConsistent) }
}
