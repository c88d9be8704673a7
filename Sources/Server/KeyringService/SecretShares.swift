internal import KeyringCore
internal import SecureMemory
internal import Synchronization
internal import WireProtocol

/// Who holds how much of the locked memory for requests that are being executed: no tenant takes so much that the others' commits, whose HMACs
/// need a little of it, find none.
final class SecretShares: Sendable {
  private let tenantMax: Int
  private let totalMax: Int
  private let held = Mutex<(total: Int, byTenant: [TenantName?: Int])>((0, [:]))

  /// - Parameter arenaBytes: of the locked memory: half of it for one tenant, three quarters for all.
  init(arenaBytes: Int) {
    tenantMax = arenaBytes / 2
    totalMax = arenaBytes / 4 * 3
  }

  /// Takes bytes; false where there are not as many.
  ///
  /// - Parameter tenant: nil for the service's administrators.
  func take(_ bytes: Int, _ tenant: TenantName?) -> Bool {
    held.withLock { held in
      let of = held.byTenant[tenant, default: 0]
      guard of + bytes <= tenantMax, held.total + bytes <= totalMax else { return false }
      held.total += bytes
      held.byTenant[tenant] = of + bytes
      return true
    }
  }

  /// Gives them back.
  func give(_ bytes: Int, _ tenant: TenantName?) {
    held.withLock { held in
      held.total -= bytes
      let rest = held.byTenant[tenant, default: bytes] - bytes
      held.byTenant[tenant] = rest == 0 ? nil : rest
    }
  }
}

extension Call {
  /// Locked memory that executing the call takes, in bytes, roughly: the arena gives powers of two.
  var secretBytes: Int {
    switch self {
    case .change(let change): change.secretBytes
    case .transact(let changes): changes.reduce(0) { $0 + $1.secretBytes }
    case .importKeys(let keys): keys.reduce(0) { $0 + ImportLimits.lockedBytes($1.value.count) }
    case .admin(.tenantCreate(let call)): call.secretBytes
    case .admin(.tenantApply(let calls)): calls.reduce(0) { $0 + $1.secretBytes }
    case .fetch, .describe, .list, .whoAmI, .admin: 0
    }
  }
}

extension TenantCreateCall {
  fileprivate var secretBytes: Int { credentials.map { ImportLimits.lockedBytes($0.count) } ?? 0 }
}

extension Change {
  fileprivate var secretBytes: Int {
    switch self {
    case .store(_, _, let value): ImportLimits.lockedBytes(value.count)
    case .generate(_, _, let length): ImportLimits.lockedBytes(min(Int(length), Profile.valueBytesMax))
    case .rotate: Profile.valueBytesMax
    case .remove: 0
    }
  }
}
