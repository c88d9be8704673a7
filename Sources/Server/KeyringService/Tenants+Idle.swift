internal import Logging
internal import SecureMemory
internal import Synchronization
internal import TenantRegistry

/// How many tenants are open at one time, and which of them close.
///
/// An open tenant takes locked memory, which is little, and descriptors. One that nobody used for `idle_close` closes; and before there is no
/// room for others, those that were used least recently close earlier. The next call opens it again, which asks the KMS.
final class TenantRoom: Sendable {
  /// Tenants that are to be open at most: `limits.open_tenants`, and fewer where descriptors do not suffice.
  let openMax: Int
  /// Nanoseconds without use after which a tenant closes.
  let idleNanoseconds: UInt64
  private let arenaBytes: Int
  private let lookedAt = Atomic<UInt64>(0)

  /// Nobody who was used within this time is closed to make room: two tenants in use do not close each other by turns.
  static let restNanoseconds: UInt64 = 5_000_000_000
  private static let pauseNanoseconds: UInt64 = 100_000_000

  /// - Parameter descriptorsMax: of the process: three for each open tenant, one for each connection, and some for all else.
  init(_ configuration: ServiceConfiguration, descriptorsMax: Int) {
    let rest = descriptorsMax - configuration.limits.connections - 256
    openMax = min(configuration.limits.openTenants, max(rest / 3, 1))
    idleNanoseconds = configuration.idleClose.nanoseconds
    arenaBytes = configuration.secureMemoryBytes
  }

  /// True where it is time to look again.
  func isDue(now: UInt64) -> Bool {
    let last = lookedAt.load(ordering: .relaxed)
    guard now >= last + Self.pauseNanoseconds else { return false }
    return lookedAt.compareExchange(expected: last, desired: now, ordering: .relaxed).exchanged
  }

  /// Which tenants are to close, of those that are open and used by nobody.
  ///
  /// - Parameters:
  ///   - idle: how long each was not used, nanoseconds.
  ///   - open: how many are open, used or not.
  ///   - arenaBytesInUse: of the locked memory; from half of it on there is to be more room.
  /// - Returns: indices into `idle`.
  func closing(idle: [UInt64], open: Int, arenaBytesInUse: Int) -> [Int] {
    let isCrowded = open > openMax || arenaBytesInUse > arenaBytes / 2
    // Some at a time: looking for the next one costs as much as looking for many.
    let count = isCrowded ? max(open - openMax, 0) + max(open / 16, 1) : 0
    let byAge = idle.indices.sorted { idle[$0] > idle[$1] }
    return byAge.enumerated().filter { place, index in
      idle[index] >= idleNanoseconds || (place < count && idle[index] >= Self.restNanoseconds)
    }.map(\.element)
  }
}

extension Tenants {
  /// Closes tenants that nobody uses, as `TenantRoom` says. Does not wait for them: a disk that hangs holds up its own tenants only.
  func closeIdle(now: UInt64) {
    guard room.isDue(now: now) else { return }
    let open = all.filter { $0.isOpen }
    let idle = open.compactMap { tenant in
      tenant.use.idleNanoseconds(now: now).map { (tenant: tenant, idle: $0) }
    }
    let closing = room.closing(
      idle: idle.map(\.idle),
      open: open.count,
      arenaBytesInUse: SecureHeap.bytesInUse
    )
    for index in closing { idle[index].tenant.closeUnlessUsed(now: now) }
  }
}

extension Tenant {
  var isOpen: Bool {
    state.withLock { state in
      switch state.phase {
      case .open: true
      case .cold, .opening, .recovering, .closing, .quarantined: false
      }
    }
  }

  /// Begins to close the keyring, and lets go of credentials; not where somebody uses it, or it is at work by itself.
  func closeUnlessUsed(now: UInt64) {
    state.withLock { state in
      // Whoever took the keyring did so under this lock, and said before that it uses the tenant.
      guard case .open(let keyring) = state.phase, use.idleNanoseconds(now: now) != nil, !keyring.isAtWork
      else { return }
      state.phase = .closing(
        Task {
          await self.end(.open(keyring)) { self.providers.forget() }
          self.logger.debug("closed: nobody uses it")
        }
      )
    }
  }
}

extension TenantKeyring {
  /// True while it is compacted, rotated, or its provider asked.
  fileprivate var isAtWork: Bool {
    isCompacting.load(ordering: .relaxed) || rotationProgress.withLock { $0.total > 0 }
      || !makingWriteKey.withLock { $0.isEmpty }
  }
}
