internal import KeyringCore
internal import Logging
internal import Synchronization
internal import TenantRegistry

extension Tenant {
  /// Why nobody gets anything of the tenant, whatever its keyring would say; nil where nothing stands against it.
  static func barrier(_ state: borrowing State) -> ServiceError? {
    if state.persisted.isDisabled { return .tenantDisabled }
    if state.isLocked { return .tenantLocked("an administrator locked the tenant") }
    if state.isDirectoryGone { return .tenantLocked("the tenant's directory is gone") }
    return nil
  }

  /// Refuses everything until `unlock`, or until the server ends.
  func lock() { state.withLock { $0.isLocked = true } }

  /// The way back.
  func unlock() { state.withLock { $0.isLocked = false } }

  /// Says whether the tenant's directory is in its place.
  ///
  /// - Returns: true where that is news.
  func setDirectory(isGone: Bool) -> Bool {
    state.withLock { state in
      defer { state.isDirectoryGone = isGone }
      return state.isDirectoryGone != isGone
    }
  }

  /// Wipes the wrapping keys at once, then closes: what was accepted before becomes durable, which a slow disk may take its time for. Nobody
  /// comes back in who was not let in by `barrier`.
  func withdraw() async {
    heldKeyring?.wipe()
    await close()
  }
}

extension Service {
  /// Ends what the tenant's instances have open, and wipes its wrapping keys: for a tenant that `Tenant.barrier` refuses by now.
  func shutOut(_ tenant: Tenant) async {
    let count = live.cutOff(tenant.name) { $0.instance != nil }
    if count > 0 {
      logger.notice("\(count) connections of instances were closed", metadata: ["tenant": "\(tenant.name)"])
    }
    await tenant.withdraw()
  }

  /// Lets go of a tenant whose directory is gone, or another one now: what is there counts, after a creation, and before a restore looks at it.
  ///
  /// - Returns: what was persisted of it.
  /// - Throws: `storageUnavailable` where the disk does not tell.
  @discardableResult
  func letGoIfGone(_ name: TenantName) async throws(ServiceError) -> PersistedState? {
    guard let tenant = tenants.known(name) else { return nil }
    switch await tenants.place(of: tenant) {
    case .there: return nil
    case .unknown: throw .storageUnavailable("the disk does not tell whether the tenant's directory is there")
    case .gone, .replaced:
      _ = tenant.setDirectory(isGone: true)
      let persisted = tenant.persisted
      await shutOut(tenant)
      tenants.forget(tenant)
      return persisted
    }
  }

  /// After a change of a tenant's settings as a whole: ends what its instances have open, as far as they may not call any more.
  func applyRules(_ tenant: Tenant) async {
    if tenant.isDisabled { await shutOut(tenant) } else { enforce(tenant) }
  }

  /// Ends what those instances have open that may not call any more.
  func enforce(_ tenant: Tenant) {
    live.cutOff(tenant.name) { $0.instance != nil && tenant.access(of: $0) == nil }
  }
}
