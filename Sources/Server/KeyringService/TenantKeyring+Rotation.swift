internal import Dispatch
internal import HashTreeCollections
internal import KeyringCore
import Synchronization

/// What a `rotate-keys` did, and its proof.
struct KeyRotation: Sendable, Equatable {
  let cmkID: CMKID
  let wrappingKeyID: WrappingKeyID
  /// Records re-encrypted.
  let records: UInt64
  /// Records of the new storage file, read back, that depend on another wrapping key; 0.
  let recordsElsewhere: UInt64
  /// CMKs that nothing in the file depends on any more.
  let formerCMKIDs: [CMKID]
}

extension TenantKeyring {
  /// Re-encrypts every record under one new wrapping key of the CMK in force, and replaces the storage file in one step.
  ///
  /// Readers never wait; changes wait for the last step only. A failure, or a crash, leaves the old file or the new one.
  func rotateKeys(caller: String, allowTransient: Bool) async throws(ServiceError) -> KeyRotation {
    try await rotationTurns.run { () async throws(ServiceError) in
      try await rotateKeysNow(caller: caller, allowTransient: allowTransient)
    }
  }

  private func rotateKeysNow(caller: String, allowTransient: Bool) async throws(ServiceError) -> KeyRotation {
    let settings = environment.settings()
    guard allowTransient || !settings.isCMKTransient else { throw .cmkTransient }
    guard !settings.isReadOnly else { throw .readOnly }
    try refuseUnverified()
    let before = view.withLock { $0.state }
    let former = try await heldWrappingKeys(of: before)
    guard let newest = newest(of: former) else { throw .defect("a keyring without records") }
    let made = try await Self.makeWrappingKey(environment, settings, keyring: id)
    rotationProgress.withLock { $0 = (0, UInt64(before.recordCount)) }
    defer { rotationProgress.withLock { $0 = (0, 0) } }
    hold(made.held)
    do {
      defer { arrived(made.held) }
      try await replace(
        former: newest,
        caller: caller,
        make: { source in self.rotated(source, former, made, caller) },
        adapt: { commit throws(ServiceError) in try self.rotated(commit, former, made) }
      )
    }
    return try await proof(of: made, settings.cmkID, before)
  }

  /// A new file carries new HMACs: what nobody could check would be vouched for by the key that makes them.
  private func refuseUnverified() throws(ServiceError) {
    guard let unverified = unverifiedWrappingKey() else { return }
    throw .tenantLocked(
      "batches of the storage file are not verified, since wrapping key \(unverified) cannot be had: the file is not written anew before they are"
    )
  }

  private func newest(of held: [WrappingKeyID: HeldWrappingKey]) -> HeldWrappingKey? {
    let keys = view.withLock { $0.state.wrappingKeys.values }.filter { held[$0.id] != nil }
    return keys.max { $0.createdMilliseconds < $1.createdMilliseconds }.flatMap { held[$0.id] }
  }

  /// Every wrapping key that records depend on; one that cannot be had stops the rotation before it begins.
  private func heldWrappingKeys(
    of state: KeyringState
  ) async throws(ServiceError) -> [WrappingKeyID: HeldWrappingKey] {
    var held: [WrappingKeyID: HeldWrappingKey] = [:]
    for (id, records) in state.recordsByWrappingKey where records > 0 {
      held[id] = try await usableWrappingKey(id)
    }
    return held
  }

  /// The long part: the keyring with every record re-encrypted.
  private func rotated(
    _ source: ReplacementSource,
    _ former: [WrappingKeyID: HeldWrappingKey],
    _ made: MadeWrappingKey,
    _ caller: String
  ) -> Result<Replacement, ServiceError> {
    Result { () throws(ServiceError) in
      var keys: TreeDictionary<KeyIdentity, Key> = [:]
      var wrappingKey = made.key
      for (identity, key) in source.state.keys {
        var records: [Record] = []
        for record in key.records {
          records.append(try reseal(record, identity, key.type, former, made.held))
        }
        keys[identity] = Key(type: key.type, records: records)
        wrappingKey.encryptions += UInt64(records.count)
        rotationProgress.withLock { $0.done += UInt64(records.count) }
      }
      let image = self.image(of: source, keys: keys, wrappingKeys: [wrappingKey], caller: caller)
      return Replacement(image: image, authenticator: made.held)
    }
  }

  /// What a commit made meanwhile is under the new wrapping key, which is the only one in the new file.
  private func rotated(
    _ commit: Commit,
    _ former: [WrappingKeyID: HeldWrappingKey],
    _ made: MadeWrappingKey
  ) throws(ServiceError) -> Commit {
    var operations: [KeyringCore.Operation] = []
    for operation in commit.operations {
      switch operation {
      case .put(let identity, let type, let record):
        operations.append(.put(identity, type, try reseal(record, identity, type, former, made.held)))
      case .remove, .replaced: operations.append(operation)
      case .addWrappingKey: continue
      }
    }
    return Commit(
      sequence: commit.sequence,
      timeMilliseconds: commit.timeMilliseconds,
      caller: commit.caller,
      idempotency: commit.idempotency,
      operations: operations
    )
  }

  private func reseal(
    _ record: Record,
    _ identity: KeyIdentity,
    _ type: KeyType,
    _ former: [WrappingKeyID: HeldWrappingKey],
    _ new: HeldWrappingKey
  ) throws(ServiceError) -> Record {
    // What was written since may lie under a wrapping key that is newer than `former`.
    guard let old = former[record.wrappingKeyID] ?? view.withLock({ $0.held[record.wrappingKeyID] }) else {
      throw .tenantLocked("a record depends on wrapping key \(record.wrappingKeyID), which is not held")
    }
    let plaintext = try old.open(record, identity: identity, type: type)
    return try new.seal(
      plaintext,
      identity: identity,
      type: type,
      version: record.version,
      createdMilliseconds: record.createdMilliseconds
    )
  }

  private func image(
    of source: ReplacementSource,
    keys: TreeDictionary<KeyIdentity, Key>,
    wrappingKeys: [WrappingKey],
    caller: String
  ) -> KeyringImage {
    KeyringImage(
      tenant: environment.tenant,
      id: id,
      sequence: source.state.sequence,
      timeMilliseconds: unixMilliseconds(),
      caller: caller,
      wrappingKeys: wrappingKeys,
      keys: keys,
      idempotency: source.idempotency
    )
  }

  private func replace(
    former: HeldWrappingKey,
    caller: String,
    make: @escaping @Sendable (ReplacementSource) -> Result<Replacement, ServiceError>,
    adapt: @escaping @Sendable (Commit) throws(ServiceError) -> Commit
  ) async throws(ServiceError) {
    let result = await withCheckedContinuation { continuation in
      pipeline.replace(
        CommitPipeline.PendingReplacement(
          make: make,
          adapt: adapt,
          former: former,
          caller: caller,
          completion: { continuation.resume(returning: $0) }
        )
      )
    }
    _ = try result.get()
  }

  /// Reads the storage file back and counts what does not depend on the new wrapping key.
  private func proof(
    of made: MadeWrappingKey,
    _ cmkID: CMKID,
    _ before: KeyringState
  ) async throws(ServiceError) -> KeyRotation {
    let store = environment.store
    let read = await environment.flushPools.value(device: environment.device) {
      Result { () throws(StoreError) in try store.read() }
    }
    let state: KeyringState
    do {
      state = try read.get().state
    } catch {
      throw .outcomeUnknown("the keys were rotated, but the new file cannot be read back: \(error)")
    }
    // What was written since under a CMK that came into force meanwhile is no concern of this rotation.
    let elsewhere = state.keys.values.recordCount { before.wrappingKeys[$0.wrappingKeyID] != nil }
    guard elsewhere == 0 else {
      throw .defect("\(elsewhere) records of the new file still depend on another wrapping key")
    }
    let present = Set(state.wrappingKeys.values.map(\.cmkID))
    let former = Set(before.wrappingKeys.values.map(\.cmkID)).subtracting(present)
    return KeyRotation(
      cmkID: cmkID,
      wrappingKeyID: made.key.id,
      records: UInt64(state.recordCount),
      recordsElsewhere: 0,
      formerCMKIDs: former.sorted { $0.text < $1.text }
    )
  }

  // MARK: Compaction

  /// After a failure, a full disk say, commits go on for this many nanoseconds before a whole file is written again.
  static let compactionPause: UInt64 = 60_000_000_000

  /// Writes the file anew where that is worth it.
  func compactIfWorthwhile(_ state: KeyringState, _ window: IdempotencyWindow) {
    let bytes = environment.store.storageBytes
    guard Compaction.isWorthwhile(storageBytes: bytes, state: state, idempotency: window),
      compactionNotBefore.load(ordering: .relaxed) < monotonicNanoseconds(),
      isCompacting.exchange(true, ordering: .acquiringAndReleasing) == false
    else { return }
    Task {
      defer { isCompacting.store(false, ordering: .releasing) }
      do throws(ServiceError) {
        try await compact()
      } catch {
        compactionNotBefore.store(
          monotonicNanoseconds() + Self.compactionPause,
          ordering: .relaxed
        )
        environment.log("compaction did not happen: \(error)")
      }
    }
  }

  /// Writes the file anew, without what is superseded or removed, under the wrapping keys that are in use.
  func compact() async throws(ServiceError) {
    try refuseUnverified()
    let settings = environment.settings()
    guard let newest = newestWrappingKey(under: settings) else { return }
    let authenticator = try await usableWrappingKey(newest.id)
    let make = { @Sendable (source: ReplacementSource) -> Result<Replacement, ServiceError> in
      let used = source.state.wrappingKeys.values.filter {
        $0.id == newest.id || source.state.recordsByWrappingKey[$0.id, default: 0] > 0
      }
      guard used.contains(where: { $0.id == newest.id }) else {
        return .failure(.storageUnavailable("the wrapping key was replaced meanwhile"))
      }
      let image = self.image(
        of: source,
        keys: source.state.keys,
        wrappingKeys: used.sorted { $0.id.value < $1.id.value },
        caller: "keyringd"
      )
      return .success(Replacement(image: image, authenticator: authenticator))
    }
    try await replace(former: authenticator, caller: "keyringd", make: make, adapt: { $0 })
    forgetFormerWrappingKeys()
  }
}

extension Sequence where Element == Key {
  fileprivate func recordCount(where isCounted: (Record) -> Bool) -> Int {
    reduce(0) { $0 + $1.records.count(where: isCounted) }
  }
}
