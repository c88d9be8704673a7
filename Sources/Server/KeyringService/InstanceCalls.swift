internal import Dispatch
internal import HashTreeCollections
internal import KeyringCore
internal import SecureMemory
internal import Synchronization
internal import WireProtocol

/// One call of a database instance on its tenant's open keyring.
struct InstanceSession {
  let keyring: TenantKeyring
  let instance: InstanceName
  let caller: Caller
  let request: Request
  let deadline: RequestDeadline

  func execute() async throws(ServiceError) -> (UInt64, ReplyResult) {
    let sequence = keyring.view.withLock { $0.state.sequence }
    guard sequence >= request.minSequence else { throw .stale(sequence: sequence) }
    switch request.call {
    case .fetch(let name, let version): return try await fetch(name, version)
    case .describe(let name, let version): return try await describe(name, version)
    case .change(let change):
      let outcome = try await self.change([change])
      return (outcome.sequence, result(of: change, version: outcome.versions.first ?? 0))
    case .transact(let changes):
      let outcome = try await change(changes)
      return (outcome.sequence, .transact(versions: outcome.versions))
    case .importKeys(let keys):
      let stores = keys.map { Change.store($0.name, type: $0.type, value: $0.value) }
      let outcome = try await change(stores, as: .keyImport)
      return (outcome.sequence, .importKeys(stored: UInt32(keys.count)))
    case .list(let call): return try await list(call)
    case .whoAmI, .admin: throw .defect("not an instance's call")
    }
  }

  private func identity(_ name: KeyName) throws(ServiceError) -> KeyIdentity {
    do {
      return try name.identity(for: instance)
    } catch {
      throw .keyring(error)
    }
  }

  // MARK: Reading

  /// The record of a key under a usable wrapping key; nil if there is none.
  private func read(
    _ name: KeyName,
    _ version: UInt32
  ) async throws(ServiceError) -> (UInt64, (KeyIdentity, Key, Record, HeldWrappingKey)?) {
    let identity = try identity(name)
    // Each turn asks for one wrapping key; a key can move to another by rotate-keys meanwhile, hardly ever twice.
    var granted: HeldWrappingKey?
    for _ in 0..<8 {
      let (answer, sequence) = keyring.read(
        identity,
        version: version,
        now: monotonicNanoseconds(),
        granted: granted
      )
      switch answer {
      case .absent: return (sequence, nil)
      case .present(let identity, let key, let record, let held):
        return (sequence, (identity, key, record, held))
      case .needsWrappingKey(let id):
        do {
          granted = try await keyring.usableWrappingKey(id)
        } catch .wrappingKeyReplaced {
          continue
        }
      }
    }
    throw .throttled("the key moves too fast", retryAfterMilliseconds: 50)
  }

  private func fetch(_ name: KeyName, _ version: UInt32) async throws(ServiceError) -> (UInt64, ReplyResult) {
    do {
      return try await fetchOnce(name, version)
    } catch .wrappingKeyReplaced {
      return try await fetchOnce(name, version)
    }
  }

  private func fetchOnce(
    _ name: KeyName,
    _ version: UInt32
  ) async throws(ServiceError) -> (UInt64, ReplyResult) {
    let (sequence, found) = try await read(name, version)
    guard let (identity, key, record, held) = found else { return (sequence, .fetch(nil)) }
    let value = try held.open(record, identity: identity, type: key.type)
    return (
      sequence,
      .fetch(
        FetchedKey(
          type: key.type.text,
          version: record.version,
          latestVersion: key.latest.version,
          value: value
        )
      )
    )
  }

  private func describe(_ name: KeyName, _ version: UInt32) async throws(ServiceError) -> (
    UInt64, ReplyResult
  ) {
    let (sequence, found) = try await read(name, version)
    guard let (identity, key, record, _) = found else { return (sequence, .describe(nil)) }
    return (sequence, .describe(KeyInfo(identity, key, record)))
  }

  // MARK: Changing

  private func result(of change: Change, version: UInt32) -> ReplyResult {
    switch change {
    case .store: .store(version: version)
    case .generate: .generate(version: version)
    case .remove: .remove
    case .rotate: .rotate(version: version)
    }
  }

  private func change(
    _ changes: [Change],
    as kind: ChangeRequest.Kind = .transaction
  ) async throws(ServiceError) -> CommitOutcome {
    var wanted: [KeyChange] = []
    do {
      for change in changes {
        switch change {
        case .store(let name, let type, let value):
          wanted.append(.store(try identity(name), try KeyType(type), value))
        case .generate(let name, let type, let length):
          wanted.append(.generate(try identity(name), try KeyType(type), length: Int(length)))
        case .remove(let name): wanted.append(.remove(try identity(name)))
        case .rotate(let name): wanted.append(.rotate(try identity(name)))
        }
      }
    } catch let error as KeyringError {
      throw .keyring(error)
    } catch let error as ServiceError {
      throw error
    } catch {
      throw .defect("\(error)")
    }
    return try await keyring.change(
      ChangeRequest(
        changes: wanted,
        kind: kind,
        caller: caller.uri,
        idempotencyID: request.idempotencyID,
        deadline: deadline
      )
    )
  }

  // MARK: Listing

  private static let pageMax = 500
  /// A page's keys end where the reply would come near the limit of 64 KiB.
  private static let pageBytesMax = 56 * 1024

  private func list(_ call: ListCall) async throws(ServiceError) -> (UInt64, ReplyResult) {
    let (listing, start) = try await listing(call)
    let pageSize = call.pageSize == 0 ? Self.pageMax : Int(call.pageSize)
    var keys: [KeyInfo] = []
    var bytes = 0
    var index = start
    while index < listing.identities.count, keys.count < pageSize, bytes < Self.pageBytesMax {
      let identity = listing.identities[index]
      guard let key = listing.state.keys[identity] else {
        throw .defect("a listed key is not in its snapshot")
      }
      keys.append(KeyInfo(identity, key, key.latest))
      bytes += identity.encoded.count + key.type.text.utf8.count + 90
      index += 1
    }
    var token: [UInt8] = []
    if index < listing.identities.count {
      appendBigEndian(listing.state.sequence, to: &token)
      appendBigEndian(UInt64(index), to: &token)
    }
    return (listing.state.sequence, .list(keys, nextPageToken: token))
  }

  /// The snapshot that a token belongs to, or a new one for a first page.
  private func listing(_ call: ListCall) async throws(ServiceError) -> (Listings.Listing, Int) {
    guard call.pageToken.isEmpty else {
      guard call.pageToken.count == 16, let listing = caller.listings.current,
        listing.scope == call.scope, listing.owner == call.owner,
        call.pageToken.prefix(8).elementsEqual(bigEndian(listing.state.sequence))
      else { throw .listExpired }
      let index = call.pageToken.suffix(8).reduce(0) { $0 << 8 | UInt64($1) }
      guard index < UInt64(listing.identities.count) else { throw .listExpired }
      return (listing, Int(index))
    }
    // What cannot be told from a key that is there is not listed as if it were not.
    if let unverified = keyring.unverifiedWrappingKey() {
      _ = try await keyring.usableWrappingKey(unverified)
    }
    guard deadline.isAhead else { throw .timeout }
    let listing = await snapshot(call)
    caller.listings.current = listing
    return (listing, 0)
  }

  /// Sorting many keys takes a while: not on an event loop, nor on Swift's few threads.
  private func snapshot(_ call: ListCall) async -> Listings.Listing {
    let state = keyring.view.withLock { $0.state }
    let scope: Scope = call.scope == .shared ? .shared : .instance(instance)
    return await withCheckedContinuation { continuation in
      DispatchQueue.global().async {
        let identities = state.keys.keys
          .filter { identity in
            identity.scope == scope && (call.owner.map { identity.owner.elementsEqual($0) } ?? true)
          }
          .sorted()
        continuation.resume(
          returning: Listings.Listing(
            state: state,
            scope: call.scope,
            owner: call.owner,
            identities: identities
          )
        )
      }
    }
  }

  private func bigEndian(_ value: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    appendBigEndian(value, to: &bytes)
    return bytes
  }
}

/// The listing that a connection is in the middle of: one snapshot, kept until the next listing or the end of the connection.
final class Listings: Sendable {
  struct Listing: Sendable {
    let state: KeyringState
    let scope: RequestedScope
    let owner: [UInt8]?
    let identities: [KeyIdentity]
  }

  private let listing = Mutex<Listing?>(nil)

  var current: Listing? {
    get { listing.withLock { $0 } }
    set { listing.withLock { $0 = newValue } }
  }
}

extension KeyInfo {
  init(_ identity: KeyIdentity, _ key: Key, _ record: Record) {
    self.init(
      name: KeyName(
        scope: identity.scope == .shared ? .shared : .instance,
        owner: Array(identity.owner),
        keyID: Array(identity.keyID)
      ),
      type: key.type.text,
      version: record.version,
      latestVersion: key.latest.version,
      length: record.length,
      createdMilliseconds: record.createdMilliseconds,
      wrappingKeyID: record.wrappingKeyID.description
    )
  }
}
