internal import Synchronization

/// Until when a request may be executed, and whether that has begun: who answers at the deadline knows whether anything may still come of it.
final class RequestDeadline: Sendable {
  /// Monotonic nanoseconds.
  let nanoseconds: UInt64
  private let began = Atomic(false)
  private let isCancelled = Atomic(false)
  private let isNew: Atomic<Bool>

  /// - Parameter mayBeRepeated: it has an idempotency id, and may have been sent before.
  init(_ nanoseconds: UInt64, mayBeRepeated: Bool = false) {
    self.nanoseconds = nanoseconds
    isNew = Atomic(!mayBeRepeated)
  }

  /// For what serves several callers, each with a deadline of its own.
  static let never = RequestDeadline(.max)

  /// True while there is time.
  var isAhead: Bool {
    !isCancelled.load(ordering: .sequentiallyConsistent) && monotonicNanoseconds() < nanoseconds
  }

  /// There is no time any more: whoever asked may not, by now.
  func cancel() { isCancelled.store(true, ordering: .sequentiallyConsistent) }

  /// No earlier sending of it was executed, or is being executed.
  func isKnownToBeNew() { isNew.store(true, ordering: .sequentiallyConsistent) }

  /// From here on it may come to something, if only by an earlier sending that is under way.
  func mayBegin() { began.store(true, ordering: .sequentiallyConsistent) }

  /// Asked at the last moment at which a change can still be left undone.
  func mayExecute() -> Bool {
    // First the mark, then the clock: whoever finds no mark after the deadline, or after cancelling, knows that none of this comes to anything.
    mayBegin()
    return isAhead
  }

  /// After the deadline: false where the change was not executed, and never will be.
  var mayHaveExecuted: Bool {
    began.load(ordering: .sequentiallyConsistent) || !isNew.load(ordering: .sequentiallyConsistent)
  }
}
