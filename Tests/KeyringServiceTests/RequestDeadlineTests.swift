import Testing

@testable import KeyringService

/// Whether anything may come of a request, as those who answer for it see it.
@Suite struct RequestDeadlineTests {
  /// Cut off before it began, it is never executed; cut off after, nobody says that it was not.
  @Test func whatIsCancelledBeforeItBeganIsNeverExecuted() {
    let early = RequestDeadline(.max)
    early.cancel()
    #expect(!early.isAhead && !early.mayHaveExecuted)
    #expect(!early.mayExecute())
    let late = RequestDeadline(.max)
    #expect(late.isAhead && late.mayExecute())
    late.cancel()
    #expect(late.mayHaveExecuted)
    let repeated = RequestDeadline(.max, mayBeRepeated: true)
    repeated.cancel()
    #expect(repeated.mayHaveExecuted && !repeated.mayExecute())
  }
}
