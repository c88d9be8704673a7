public import HashTreeCollections

/// One keyring at one sequence: an immutable snapshot once it is published. A copy costs nothing, and a change to a copy
/// costs what it changes (the dictionary is a tree that shares its branches).
public struct KeyringState: Sendable {
  /// Whose keyring it is.
  public let tenant: TenantName
  /// Which keyring it is.
  public let id: KeyringID
  /// The sequence of the last commit in it.
  public private(set) var sequence: UInt64
  /// The keys.
  public private(set) var keys: TreeDictionary<KeyIdentity, Key> = [:]
  /// The wrapping keys, with their counts of encryptions.
  public private(set) var wrappingKeys: [WrappingKeyID: WrappingKey] = [:]
  /// Records under each wrapping key.
  public private(set) var recordsByWrappingKey: [WrappingKeyID: Int] = [:]
  /// What `Compaction` counts as useful: of the keys and wrapping keys that are there, whatever commits brought them.
  public private(set) var usefulBytes: UInt64 = 0

  /// A keyring without keys, before its first commit.
  public init(tenant: TenantName, id: KeyringID, sequence: UInt64 = 0) {
    self.tenant = tenant
    self.id = id
    self.sequence = sequence
  }

  /// Versions of keys in it.
  public var recordCount: Int { recordsByWrappingKey.values.reduce(0, +) }

  /// Keys in it, the server's own left out.
  public var keyCount: Int { keys.count - (keys[.requestHashKey] == nil ? 0 : 1) }

  /// Applies a commit.
  ///
  /// - Throws: `KeyringError`, with the state unchanged, where an operation does not follow from the one before: `.keyExists`,
  ///   `.keyAbsent`, `.wrappingKeyExhausted`, or `.inconsistent`.
  public mutating func apply(_ commit: Commit) throws(KeyringError) {
    if commit.operations.count == 1 {
      // All or nothing by itself: no copy, and so no second copy of the branches that this state owns alone.
      try replay(commit)
    } else {
      var next = self
      try next.replay(commit)
      self = next
    }
  }

  /// Applies a commit of a file, in place: nothing is copied, however many versions a key has.
  ///
  /// - Throws: as `apply(_: Commit)`; the state is then of no more use.
  public mutating func replay(_ commit: Commit) throws(KeyringError) {
    guard commit.sequence == sequence + 1 else {
      throw .inconsistent("commit \(commit.sequence) does not follow \(sequence)")
    }
    for operation in commit.operations { try apply(operation) }
    sequence = commit.sequence
  }

  /// Applies one operation.
  ///
  /// - Throws: as `apply(_: Commit)`, with the state unchanged.
  public mutating func apply(_ operation: Operation) throws(KeyringError) {
    switch operation {
    case .put(let identity, let type, let record): try put(identity, type, record)
    case .remove(let identity): try remove(identity)
    case .addWrappingKey(let key):
      guard wrappingKeys[key.id] == nil else {
        throw .inconsistent("wrapping key \(key.id) is there twice")
      }
      wrappingKeys[key.id] = key
      usefulBytes += Compaction.usefulBytes(of: key)
    case .replaced: break
    }
  }

  private mutating func put(_ identity: KeyIdentity, _ type: KeyType, _ record: Record) throws(KeyringError) {
    if record.version == 1 {
      guard keys[identity] == nil else { throw .keyExists }
      try countEncryption(record.wrappingKeyID)
      keys[identity] = Key(type: type, records: [record])
    } else {
      // Nothing holds the key beside the dictionary when it is appended to: its records are not copied.
      guard try keys[identity]?.checkNext(record.version, type) != nil else { throw .keyAbsent }
      try countEncryption(record.wrappingKeyID)
      try keys[identity]?.append(record, type: type)
    }
    usefulBytes += Compaction.usefulBytes(of: record, identity, type)
  }

  /// The last check of a put: what it throws, it throws before anything changed.
  private mutating func countEncryption(_ id: WrappingKeyID) throws(KeyringError) {
    guard let encryptions = wrappingKeys[id]?.encryptions else {
      throw .inconsistent("a record names a wrapping key that is not there")
    }
    guard encryptions < WrappingKey.encryptionsMax else { throw .wrappingKeyExhausted }
    wrappingKeys[id]?.encryptions = encryptions + 1
    recordsByWrappingKey[id, default: 0] += 1
  }

  private mutating func remove(_ identity: KeyIdentity) throws(KeyringError) {
    guard let key = keys.removeValue(forKey: identity) else { throw .keyAbsent }
    for record in key.records {
      recordsByWrappingKey[record.wrappingKeyID, default: 1] -= 1
      usefulBytes -= Compaction.usefulBytes(of: record, identity, key.type)
    }
  }

  /// Rebuilds a keyring from a whole image of it, as storage that was written anew begins with it.
  ///
  /// - Throws: `KeyringError.inconsistent` where the image contradicts itself.
  public init(_ image: KeyringImage) throws(KeyringError) {
    self.init(tenant: image.tenant, id: image.id, sequence: image.sequence)
    // An image carries the counts of all encryptions ever made: records are counted, not applied.
    for key in image.wrappingKeys { try apply(.addWrappingKey(key)) }
    for (identity, key) in image.keys {
      for (index, record) in key.records.enumerated() {
        guard record.version == UInt32(index + 1) else {
          throw .inconsistent("a version of a key does not follow the one before")
        }
        recordsByWrappingKey[record.wrappingKeyID, default: 0] += 1
        usefulBytes += Compaction.usefulBytes(of: record, identity, key.type)
      }
    }
    guard recordsByWrappingKey.keys.allSatisfy({ wrappingKeys[$0] != nil }) else {
      throw .inconsistent("a record names a wrapping key that is not there")
    }
    keys = image.keys
  }
}

extension KeyIdentity {
  /// The server's own key, in every keyring, under which requests are hashed for the idempotency window.
  public static let requestHashKey: KeyIdentity = {
    do {
      return try KeyIdentity(scope: .server, owner: [], keyID: Array("request-hash".utf8))
    } catch {
      preconditionFailure("a constant identity is valid: \(error)")
    }
  }()
}

/// A whole keyring, as storage that is written anew begins with.
public struct KeyringImage: Sendable {
  /// Whose keyring it is.
  public let tenant: TenantName
  /// Which keyring it is.
  public let id: KeyringID
  /// Of the state that it holds.
  public let sequence: UInt64
  /// When, Unix milliseconds.
  public let timeMilliseconds: UInt64
  /// Who asked for it.
  public let caller: String
  /// The wrapping keys that records depend on, and the current one.
  public let wrappingKeys: [WrappingKey]
  /// The keys.
  public let keys: TreeDictionary<KeyIdentity, Key>
  /// What is remembered of requests.
  public let idempotency: IdempotencyWindow

  /// Puts the parts together.
  public init(
    tenant: TenantName,
    id: KeyringID,
    sequence: UInt64,
    timeMilliseconds: UInt64,
    caller: String,
    wrappingKeys: [WrappingKey],
    keys: TreeDictionary<KeyIdentity, Key>,
    idempotency: IdempotencyWindow
  ) {
    self.tenant = tenant
    self.id = id
    self.sequence = sequence
    self.timeMilliseconds = timeMilliseconds
    self.caller = caller
    self.wrappingKeys = wrappingKeys
    self.keys = keys
    self.idempotency = idempotency
  }
}
