internal import Dispatch
internal import KeyringCore
internal import KeyringStorage
internal import Synchronization
internal import TenantRegistry

/// The tenants that were used since the start, each found in the tenants directory at its first use.
final class Tenants: Sendable {
  let resources: ServiceResources
  let room: TenantRoom
  private let known = Mutex<[TenantName: Tenant]>([:])
  /// Names whose directory is being made, or restored.
  private let claimed = Mutex<Set<TenantName>>([])
  /// All tenants' queues target this one, which the system bounds to the cores: nothing blocks on it.
  private let base = DispatchQueue(
    label: "keyring.tenants",
    attributes: .concurrent,
    target: .global(qos: .userInitiated)
  )

  init(_ resources: ServiceResources) {
    self.resources = resources
    room = TenantRoom(resources.configuration, descriptorsMax: ProcessHardening.descriptorsMax)
  }

  /// A tenant on its directory.
  private func tenant(_ files: TenantFiles) throws(ConfigurationError) -> Tenant {
    try Tenant(files, resources, base: base) { [weak self] in self?.closeIdle(now: monotonicNanoseconds()) }
  }

  private func onDisk<Value: Sendable>(
    _ body: @escaping @Sendable () throws(ConfigurationError) -> Value
  ) async throws(ServiceError) -> Value {
    let device: UInt64
    do {
      device = try resources.tenants.directory.status().device
    } catch {
      throw .storageUnavailable("\(error)")
    }
    let result = await resources.flushPools.value(device: device) { Result(catching: body) }
    do {
      return try result.get()
    } catch {
      throw .configuration("\(error)")
    }
  }

  /// A tenant that is known already.
  func known(_ name: TenantName) -> Tenant? { known.withLock { $0[name] } }

  /// All tenants that were used since the start.
  var all: [Tenant] { known.withLock { Array($0.values) } }

  /// The settings of a tenant that was not used since the start, which it is not for being looked at; nil where the directory has none.
  func settings(ofUnused name: TenantName) async throws(ServiceError) -> (TenantSettings, PersistedState)? {
    try await onDisk { () throws(ConfigurationError) in
      guard let files = try self.resources.tenants.open(name) else { return nil }
      let loaded = try files.load()
      return (loaded.settings, loaded.persisted)
    }
  }

  /// Lets go of a tenant in whose place another directory is: the next call finds that.
  func forget(_ tenant: Tenant) {
    known.withLock { known in if known[tenant.name] === tenant { known[tenant.name] = nil } }
  }

  /// Finds a tenant; nil where the directory has none of this name.
  func find(_ name: TenantName) async throws(ServiceError) -> Tenant? {
    if let tenant = known(name) { return tenant }
    let found = try await onDisk { () throws(ConfigurationError) -> Tenant? in
      guard let files = try self.resources.tenants.open(name) else { return nil }
      return try self.tenant(files)
    }
    guard let found else { return nil }
    return known.withLock { known in
      if let first = known[name] { return first }
      known[name] = found
      return found
    }
  }

  /// True if the directory has a tenant of this name, also one that does not load. What a creation that ended leaves, a directory without
  /// anything in it and without an anchor, is none.
  ///
  /// - Throws: `configuration` where one is there that does not load.
  func isThere(_ name: TenantName) async throws(ServiceError) -> Bool {
    let failure: ServiceError
    do throws(ServiceError) {
      return try await find(name) != nil
    } catch {
      guard case .configuration = error else { throw error }
      failure = error
    }
    let resources = self.resources
    let isUnfinished = try await onDisk { () throws(ConfigurationError) in
      do {
        let remains = try resources.tenants.remains(of: name)
        return try remains?.isEmpty == true
          && StandingKeyring.anchor(of: name, in: resources.anchors) == .none
      } catch {
        throw ConfigurationError("\(error)")
      }
    }
    guard isUnfinished else { throw failure }
    return false
  }

  /// The names in the directory, sorted.
  func names() async throws(ServiceError) -> [TenantName] {
    let tenants = resources.tenants
    return try await onDisk { () throws(ConfigurationError) in try tenants.names() }
  }

  /// Runs `body` while nobody else makes or restores a tenant of this name.
  func claiming<Value>(
    _ name: TenantName,
    _ body: () async throws(ServiceError) -> Value
  ) async throws(ServiceError) -> Value {
    guard claimed.withLock({ $0.insert(name).inserted }) else {
      throw .throttled("the tenant '\(name)' is being made or restored", retryAfterMilliseconds: 1000)
    }
    defer { _ = claimed.withLock { $0.remove(name) } }
    return try await body()
  }

  /// Makes a tenant's directory and configuration.
  func create(_ name: TenantName, yaml: String) async throws(ServiceError) -> Tenant {
    let made = try await onDisk { () throws(ConfigurationError) in
      try self.tenant(try self.resources.tenants.create(name, yaml: yaml))
    }
    return known.withLock { known in
      if let first = known[name] { return first }  // an instance that asked in between has it open already
      known[name] = made
      return made
    }
  }

  /// Once a second, until it is cancelled: no wrapping key is held longer than its tenant's settings allow, used or not; and tenants that
  /// nobody uses close.
  func sweep() async {
    while !Task.isCancelled {
      let now = monotonicNanoseconds()
      for tenant in all { tenant.dropExpiredWrappingKeys(now: now) }
      closeIdle(now: now)
      do {
        try await Task.sleep(for: .seconds(1))
      } catch {
        return  // cancelled
      }
    }
  }

  /// Closes all, at one time: a disk that hangs holds up its own tenants only.
  func close() async {
    await withTaskGroup(of: Void.self) { group in
      for tenant in all { group.addTask { await tenant.close() } }
    }
  }
}
