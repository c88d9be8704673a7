internal import Cryptography
internal import KeyringCore
internal import KeyringStorage
internal import Synchronization
internal import WireProtocol

/// The backups and restores under way: few, each of one connection, each gone with it or when it is idle.
final class Transfers: Sendable {
  /// What a transfer is for.
  enum Kind: Equatable {
    case backup
    case restore(RestoreBeginCall)

    var name: String {
      switch self {
      case .backup: "backup"
      case .restore: "restore"
      }
    }
  }

  private struct Entry {
    let kind: Kind
    let tenant: TenantName
    let connection: UInt64
    var spool: SpoolFile?
    var lastUsed: UInt64
    /// True while the call that makes or ends it works: it is not idle then.
    var isWorking: Bool
    /// Its connection ended while it worked: it keeps its place until that is done.
    var isAbandoned = false
    let begun: UInt64
  }

  /// Of the service at one time.
  static let most = 4
  /// Without a call for this long, in nanoseconds, a transfer is dropped.
  static let idleNanoseconds: UInt64 = 120_000_000_000
  /// So long after its beginning, in nanoseconds, it is dropped, used or not: a place is nobody's for ever.
  static let lifeNanoseconds: UInt64 = 7_200_000_000_000

  private let now: @Sendable () -> UInt64
  private let entries = Mutex<[TransferID: Entry]>([:])

  /// - Parameter now: monotonic nanoseconds.
  init(now: @escaping @Sendable () -> UInt64 = { monotonicNanoseconds() }) { self.now = now }

  /// Takes a place; `fill` or `drop` follows.
  ///
  /// - Throws: `throttled` where the tenant has one of this kind, or the service as many as it may.
  func reserve(_ kind: Kind, _ tenant: TenantName, connection: UInt64) throws(ServiceError) -> TransferID {
    let id: TransferID
    do {
      id = TransferID(value: try SystemRandom.uint128())
    } catch {
      throw .defect("no random bytes: \(error)")
    }
    dropIdle()
    try entries.withLock { entries throws(ServiceError) in
      guard !entries.values.contains(where: { $0.tenant == tenant && $0.kind.name == kind.name }) else {
        throw .throttled("a \(kind.name) of this tenant is under way", retryAfterMilliseconds: 0)
      }
      guard entries.count < Self.most else {
        throw .throttled("as many backups and restores as may be are under way", retryAfterMilliseconds: 0)
      }
      entries[id] = Entry(
        kind: kind,
        tenant: tenant,
        connection: connection,
        lastUsed: now(),
        isWorking: true,
        begun: now()
      )
    }
    return id
  }

  /// Gives a reserved place its file.
  ///
  /// - Throws: `transferExpired` where its connection ended meanwhile.
  func fill(_ id: TransferID, _ spool: SpoolFile) throws(ServiceError) {
    try entries.withLock { entries throws(ServiceError) in
      guard let entry = entries[id], !entry.isAbandoned else {
        entries[id] = nil
        throw .transferExpired
      }
      entries[id]?.spool = spool
      entries[id]?.isWorking = false
      entries[id]?.lastUsed = now()
    }
    dropWhenIdle(id)
  }

  /// The file of a transfer of this connection and tenant, which is used now.
  ///
  /// - Parameter isLast: nothing else uses it after: it is not idle while this call works.
  /// - Throws: `transferExpired`.
  func use(
    _ id: TransferID,
    _ tenant: TenantName,
    connection: UInt64,
    isLast: Bool = false
  ) throws(ServiceError) -> (kind: Kind, spool: SpoolFile) {
    dropIdle()
    return try entries.withLock { entries throws(ServiceError) in
      guard let entry = entries[id], entry.tenant == tenant, entry.connection == connection, !entry.isWorking,
        let spool = entry.spool
      else { throw .transferExpired }
      entries[id]?.lastUsed = now()
      entries[id]?.isWorking = isLast
      return (entry.kind, spool)
    }
  }

  /// Lets go of one.
  func drop(_ id: TransferID) { entries.withLock { $0[id] = nil } }

  /// Its last call did not begin to work: it may be made again.
  func keep(_ id: TransferID) {
    entries.withLock { entries in
      guard let entry = entries[id] else { return }
      guard !entry.isAbandoned else { return entries[id] = nil }
      entries[id]?.isWorking = false
      entries[id]?.lastUsed = now()
    }
  }

  /// Lets go of those of a connection that ended. What works goes on, and goes with its end: until then it counts.
  func drop(connection: UInt64) { drop { $0.connection == connection } }

  /// Lets go of those of a tenant that is deleted, in the same way: nobody reads them any more.
  func drop(tenant: TenantName) { drop { $0.tenant == tenant } }

  private func drop(_ isDoomed: (Entry) -> Bool) {
    entries.withLock { entries in
      for (id, entry) in entries where isDoomed(entry) {
        if entry.isWorking { entries[id]?.isAbandoned = true } else { entries[id] = nil }
      }
    }
  }

  /// Those under way.
  var count: Int { entries.withLock { $0.count } }

  private static func isIdle(_ entry: Entry, _ now: UInt64) -> Bool {
    guard !entry.isWorking, now >= entry.lastUsed else { return false }
    return now - entry.lastUsed > idleNanoseconds || now - entry.begun > lifeNanoseconds
  }

  private func dropIdle() {
    let now = now()
    entries.withLock { entries in entries = entries.filter { !Self.isIdle($0.value, now) } }
  }

  /// Its file takes room on a disk: it goes though nobody calls any more.
  private func dropWhenIdle(_ id: TransferID) {
    Task { [weak self] in
      while self?.entries.withLock({ $0[id] }) != nil {
        do {
          try await Task.sleep(for: .nanoseconds(Int64(Self.idleNanoseconds / 2)))
        } catch {
          return
        }
        self?.dropIdle()
      }
    }
  }
}
