internal import KeyringCore

/// Whether a call may be made again after an attempt that failed.
public enum Repeatability: Sendable {
  /// It changes nothing, or the same thing twice.
  case anyTime
  /// Each execution counts: again only where none can have happened.
  case onlyIfNotSent
}

/// What stands before calls to AWS.
public final class CallGuard: Sendable {
  /// One attempt a call.
  public init() {}

  /// Makes a call, and tells its failure as what it means for the CMK.
  func attempt<Value: Sendable>(
    _ isRepeatable: Repeatability,
    _ body: @Sendable () async throws(CallFailure) -> Value
  ) async throws(CMKError) -> Value {
    do {
      return try await body()
    } catch {
      throw error.cmkError
    }
  }
}
