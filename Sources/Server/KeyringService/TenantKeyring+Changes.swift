internal import Synchronization
internal import HashTreeCollections
internal import CMKProviders
internal import Cryptography
internal import KeyringCore
internal import SecureMemory
internal import WireProtocol

/// What a caller wants changed, and how it is to be answered.
struct ChangeRequest: Sendable {
  /// What came as one: it says how much may.
  enum Kind: Sendable {
    case transaction
    /// Of stores alone: every version that it makes is 1.
    case keyImport
  }

  let changes: [KeyChange]
  var kind = Kind.transaction
  /// The URI SAN of the caller.
  let caller: String
  let idempotencyID: IdempotencyID?
  let deadline: RequestDeadline
}

extension TenantKeyring {
  private static let attemptsMax = 16

  /// Makes changes, all or none; durable, and visible to every reader, when it returns.
  func change(_ request: ChangeRequest) async throws(ServiceError) -> CommitOutcome {
    let settings = environment.settings()
    guard !settings.isReadOnly else { throw .readOnly }
    guard (1...request.changesMax).contains(request.changes.count) else {
      throw .keyring(.transactionInvalid("a transaction has 1 to \(request.changesMax) changes"))
    }
    for _ in 0..<Self.attemptsMax {
      do throws(ServiceError) {
        let idempotency = try await requestHash(request)
        if let idempotency, let outcome = try await findRequest(request.caller, idempotency) {
          return outcome
        }
        request.deadline.isKnownToBeNew()
        switch try await attempt(request, idempotency) {
        case .success(let outcome): return outcome
        case .failure(.outdated): continue
        case .failure(.failed(let error)): throw error
        }
      } catch .wrappingKeyReplaced {
        continue
      } catch .keyring(let error) {
        // The same request may have become a commit since it was looked up, and so be what makes it impossible now.
        if let idempotency = try await requestHash(request),
          let outcome = try await findRequest(request.caller, idempotency)
        {
          return outcome
        }
        // "Absent" is said only of a file that is verified to its end.
        guard error == .keyAbsent, let unverified = unverifiedWrappingKey() else { throw .keyring(error) }
        _ = try await usableWrappingKey(unverified)
      }
    }
    throw .throttled("too many changes to the same keys at one time", retryAfterMilliseconds: 50)
  }

  private func attempt(
    _ request: ChangeRequest,
    _ idempotency: (id: IdempotencyID, hash: Digest)?
  ) async throws(ServiceError) -> Result<CommitOutcome, CommitFailure> {
    let settings = environment.settings()
    let writeKey = try await self.writeKey(settings)
    var probe = Preparation(
      state: view.withLock { $0.state },
      writeKey: writeKey,
      profile: settings.profile
    )
    var materials: [Secret?] = []
    for (index, change) in request.changes.enumerated() {
      let material = try await self.material(for: change, probe, settings)
      try probe.add(change, material: material)
      materials.append(material)
      // An import seals for long: others have their turn meanwhile.
      if index % ChangeRequest.turnLength == ChangeRequest.turnLength - 1 { await Task.yield() }
    }
    let made = materials
    let prepare = { @Sendable (preparation: Preparation) -> PreparedChange in
      PreparedChange(
        operations: preparation.operations,
        writeKey: writeKey,
        caller: request.caller,
        idempotency: idempotency.map {
          Commit.Idempotency(
            id: $0.id,
            requestHash: $0.hash,
            versions: request.kind.remembered(preparation.versions)
          )
        },
        versions: preparation.versions,
        deadline: request.deadline
      )
    }
    return await submit(prepare(probe)) { state throws(ServiceError) in
      var again = Preparation(state: state, writeKey: writeKey, profile: settings.profile)
      for (change, material) in zip(request.changes, made) { try again.add(change, material: material) }
      return prepare(again)
    }
  }

  func submit(
    _ change: PreparedChange,
    again: CommitPipeline.Again? = nil
  ) async -> Result<CommitOutcome, CommitFailure> {
    await withCheckedContinuation { continuation in
      pipeline.submit(change, again: again) { continuation.resume(returning: $0) }
    }
  }

  // MARK: Key material

  /// The plaintext that a change brings or has made; all of it that is made, the tenant's provider makes.
  private func material(
    for change: KeyChange,
    _ preparation: Preparation,
    _ settings: KeyringSettings
  ) async throws(ServiceError) -> Secret? {
    switch change {
    case .store(_, _, let value): return value
    case .generate(_, let type, let length):
      try preparation.check(type, length, .generated)
      return try await random(count: length, settings)
    case .rotate(let identity):
      guard let length = preparation.present(identity)?.length else { throw .keyring(.keyAbsent) }
      return try await random(count: length, settings)
    case .remove: return nil
    }
  }

  private func random(count: Int, _ settings: KeyringSettings) async throws(ServiceError) -> Secret {
    do {
      let provider = try environment.provider(settings.provider)
      var parts: [Secret] = []
      var missing = count
      while missing > 0 {
        let part = try await provider.generateRandom(count: min(missing, 1024))
        guard part.count == min(missing, 1024) else {
          throw CMKError.unreachable("the provider gave too few random bytes")
        }
        parts.append(part)
        missing -= part.count
      }
      return parts.count == 1 ? parts[0] : try Secret(joining: parts)
    } catch let error as CMKError {
      noteFailureToMake(ServiceError(error))
      throw ServiceError(error)
    } catch {
      throw .throttled("no locked memory left", retryAfterMilliseconds: 100)
    }
  }

  // MARK: Idempotency

  /// The keyed hash of a request: keyed, so that a reader of the storage file cannot try values of a weak secret.
  private func requestHash(
    _ request: ChangeRequest
  ) async throws(ServiceError) -> (id: IdempotencyID, hash: Digest)? {
    guard let id = request.idempotencyID else { return nil }
    let key: Secret
    do {
      key = try await requestHashKey()
    } catch .tenantLocked {
      key = try await newRequestHashKeyTurns.run { () async throws(ServiceError) in
        try await newRequestHashKey(request.deadline)
      }
    }
    do {
      var hash = try HMACSHA256.Context(key: key)
      try hash.update(request.kind.tag)
      for change in request.changes { try change.authenticate(into: &hash) }
      guard let digest = Digest(bytes: try hash.finish().bytes) else { preconditionFailure("32 bytes") }
      return (id, digest)
    } catch {
      throw .defect("the request cannot be hashed: \(error)")
    }
  }

  private func requestHashKey() async throws(ServiceError) -> Secret {
    guard let stored = view.withLock({ $0.state.keys[.requestHashKey] }) else {
      throw .tenantQuarantined("the keyring has no request-hash key")
    }
    let wrappingKey = try await usableWrappingKey(stored.latest.wrappingKeyID)
    return try wrappingKey.open(stored.latest, identity: .requestHashKey, type: stored.type)
  }

  /// A new version of it under the CMK in force, where the one that it lies under is denied: `set cmk_id` cures a locked tenant's writing.
  /// A request that is repeated across this is refused as another one, never executed again.
  private func newRequestHashKey(_ deadline: RequestDeadline) async throws(ServiceError) -> Secret {
    do {
      return try await requestHashKey()  // another request has made it meanwhile
    } catch .tenantLocked {
      environment.log("the request-hash key is locked: a new version is made under the CMK in force")
    }
    let writeKey = try await self.writeKey(environment.settings())
    let key: Secret
    do {
      key = try SystemRandom.secret(count: 32)
    } catch {
      throw .throttled("\(error)", retryAfterMilliseconds: 100)
    }
    let prepare = { @Sendable (state: KeyringState) throws(ServiceError) -> PreparedChange in
      guard let stored = state.keys[.requestHashKey] else { throw .defect("no request-hash key") }
      let record = try writeKey.seal(
        key,
        identity: .requestHashKey,
        type: stored.type,
        version: stored.latest.version + 1,
        createdMilliseconds: unixMilliseconds()
      )
      return PreparedChange(
        operations: [.put(.requestHashKey, stored.type, record)],
        writeKey: writeKey,
        caller: "keyringd",
        idempotency: nil,
        versions: [],
        deadline: RequestDeadline(deadline.nanoseconds)  // it is not what the caller asked for
      )
    }
    let change = try prepare(view.withLock { $0.state })
    switch await submit(change, again: prepare) {
    case .success: return try await requestHashKey()
    case .failure(.failed(let error)): throw error
    case .failure(.outdated):
      throw .throttled("the wrapping key changed meanwhile", retryAfterMilliseconds: 10)
    }
  }

  private func findRequest(
    _ caller: String,
    _ idempotency: (id: IdempotencyID, hash: Digest)
  ) async throws(ServiceError) -> CommitOutcome? {
    let found = await withCheckedContinuation { continuation in
      pipeline.findRequest(caller: caller, id: idempotency.id, requestHash: idempotency.hash) {
        continuation.resume(returning: $0)
      }
    }
    switch found {
    case .success(let outcome): return outcome
    case .failure(.failed(.keyring(.idempotencyExpired(let why)))): throw .outcomeUnknown(why)
    case .failure(.failed(let error)): throw error
    case .failure(.outdated): throw .defect("looking a request up cannot be outdated")
    }
  }
}

extension ChangeRequest {
  /// Changes that are sealed before others have their turn.
  fileprivate static let turnLength = 128

  fileprivate var changesMax: Int {
    switch kind {
    case .transaction: RequestDecoder.changesMax
    case .keyImport: ImportLimits.keysMax
    }
  }
}

extension ChangeRequest.Kind {
  /// What the hash of a request begins with: an import is not answered as the transaction of the same stores.
  fileprivate var tag: [UInt8] {
    switch self {
    case .transaction: []
    case .keyImport: Array("import".utf8)
    }
  }

  /// The versions that a repeated request is answered with; those of an import are known, and 10,000 of them a request would take memory for
  /// as long as it is remembered.
  fileprivate func remembered(_ versions: [UInt32]) -> [UInt32] {
    switch self {
    case .transaction: versions
    case .keyImport: []
    }
  }
}

extension KeyChange {
  /// Adds the change to the hash of its request, every part length-prefixed.
  fileprivate func authenticate(into hash: inout HMACSHA256.Context) throws(CryptographyError) {
    var head: [UInt8] = []
    func part(_ bytes: some Collection<UInt8>) {
      appendBigEndian(UInt32(bytes.count), to: &head)
      head += bytes
    }
    switch self {
    case .store(let identity, let type, let value):
      head.append(1)
      part(identity.encoded)
      part(type.text.utf8)
      appendBigEndian(UInt32(value.count), to: &head)
      try hash.update(head)
      try hash.update(value)
    case .generate(let identity, let type, let length):
      head.append(2)
      part(identity.encoded)
      part(type.text.utf8)
      appendBigEndian(UInt64(length), to: &head)
      try hash.update(head)
    case .remove(let identity):
      head.append(3)
      part(identity.encoded)
      try hash.update(head)
    case .rotate(let identity):
      head.append(4)
      part(identity.encoded)
      try hash.update(head)
    }
  }
}

/// The operations of a transaction as they come together: a later change sees the effect of an earlier one.
struct Preparation {
  struct Present {
    let type: KeyType
    let version: UInt32
    let length: Int
  }

  let state: KeyringState
  let writeKey: HeldWrappingKey
  let profile: Profile
  private(set) var operations: [Operation] = []
  private(set) var versions: [UInt32] = []
  private var changed: [KeyIdentity: Present?] = [:]

  init(state: KeyringState, writeKey: HeldWrappingKey, profile: Profile) {
    self.state = state
    self.writeKey = writeKey
    self.profile = profile
  }

  /// What a key is at this point of the transaction; nil if there is none.
  func present(_ identity: KeyIdentity) -> Present? {
    if let changed = changed[identity] { return changed }
    return state.keys[identity].map {
      Present(type: $0.type, version: $0.latest.version, length: Int($0.latest.length))
    }
  }

  func check(_ type: KeyType, _ length: Int, _ source: Profile.Source) throws(ServiceError) {
    do {
      try profile.check(type: type, length: length, source: source)
    } catch {
      throw .keyring(error)
    }
  }

  mutating func add(_ change: KeyChange, material: Secret?) throws(ServiceError) {
    switch change {
    case .store(let identity, let type, let value):
      try check(type, value.count, .stored)
      try put(identity, type, version: 1, value)
    case .generate(let identity, let type, let length):
      guard let material, material.count == length else { throw .defect("no material for a generated key") }
      try put(identity, type, version: 1, material)
    case .rotate(let identity):
      guard let present = present(identity) else { throw .keyring(.keyAbsent) }
      guard let material, material.count == present.length else {
        throw .throttled("the key was replaced meanwhile", retryAfterMilliseconds: 10)
      }
      try put(identity, present.type, version: present.version + 1, material)
    case .remove(let identity):
      operations.append(.remove(identity))
      versions.append(0)
      changed[identity] = .some(nil)
    }
  }

  private mutating func put(
    _ identity: KeyIdentity,
    _ type: KeyType,
    version: UInt32,
    _ material: Secret
  ) throws(ServiceError) {
    let record = try writeKey.seal(
      material,
      identity: identity,
      type: type,
      version: version,
      createdMilliseconds: unixMilliseconds()
    )
    operations.append(.put(identity, type, record))
    versions.append(version)
    changed[identity] = Present(type: type, version: version, length: material.count)
  }
}
