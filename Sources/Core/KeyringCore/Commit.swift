/// One change to a keyring.
public enum Operation: Sendable, Equatable {
  /// A new key (version 1), or the next version of one.
  case put(KeyIdentity, KeyType, Record)
  /// A key goes, with all its versions.
  case remove(KeyIdentity)
  /// A wrapping key comes into use.
  case addWrappingKey(WrappingKey)
  /// Storage was written anew; it stood there. Changes nothing else.
  case replaced(StorePosition)
}

/// Changes that happen together or not at all, with who asked for them.
public struct Commit: Sendable, Equatable {
  /// Most operations of one commit: 128 changes of a `Transact`, and a wrapping key that they may need first.
  public static let operationsMax = 129

  /// One more than the commit before.
  public let sequence: UInt64
  /// Unix milliseconds.
  public let timeMilliseconds: UInt64
  /// The URI SAN of the caller, or `keyringd`.
  public let caller: String
  /// What answers the same request sent again, if the caller asked for that.
  public let idempotency: Idempotency?
  /// In order.
  public let operations: [Operation]

  /// What the caller sent along to make its request repeatable.
  public struct Idempotency: Sendable, Equatable {
    /// The id.
    public let id: IdempotencyID
    /// HMAC-SHA-256 of the request under a key of the keyring.
    public let requestHash: Digest
    /// The versions made, in order of the changes; 0 for a remove.
    public let versions: [UInt32]

    /// Puts the parts together.
    public init(id: IdempotencyID, requestHash: Digest, versions: [UInt32]) {
      self.id = id
      self.requestHash = requestHash
      self.versions = versions
    }
  }

  /// Puts the parts together.
  public init(
    sequence: UInt64,
    timeMilliseconds: UInt64,
    caller: String,
    idempotency: Idempotency?,
    operations: [Operation]
  ) {
    self.sequence = sequence
    self.timeMilliseconds = timeMilliseconds
    self.caller = caller
    self.idempotency = idempotency
    self.operations = operations
  }
}
