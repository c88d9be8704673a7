internal import KeyringCore

/// What a change needs to become a commit: operations already sealed, and how its caller is to be answered.
struct PreparedChange: Sendable {
  let operations: [Operation]
  /// The wrapping key that sealed the records: still current when the change is accepted, or it is prepared anew.
  let writeKey: HeldWrappingKey
  let caller: String
  let idempotency: Commit.Idempotency?
  /// The versions made, in order; 0 for a remove.
  let versions: [UInt32]
  let deadline: RequestDeadline
  /// Asked when it is accepted: false where what it was prepared for is over.
  var isStillWanted: @Sendable () -> Bool = { true }
}

/// What a commit became.
struct CommitOutcome: Sendable, Equatable {
  let sequence: UInt64
  let versions: [UInt32]
}

/// Why a change was not committed.
enum CommitFailure: Error, Sendable, Equatable {
  /// Something changed since it was prepared: prepare it again.
  case outdated
  /// It failed.
  case failed(ServiceError)
}

/// What a replacement is made from, and gives.
struct ReplacementSource: Sendable {
  let state: KeyringState
  let idempotency: IdempotencyWindow
}

/// A new whole keyring, the key that authenticates it, and what readers see after it.
struct Replacement: Sendable {
  let image: KeyringImage
  let authenticator: HeldWrappingKey
}
