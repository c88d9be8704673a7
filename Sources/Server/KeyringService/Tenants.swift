internal import ConfigurationFiles
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
  private let onTheirWay = Mutex<(hidden: Set<TenantName>, doubted: Set<TenantName>)>(([], []))
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
      throw .settingsUnread("\(error)")
    }
    let result = await resources.flushPools.value(device: device) { Result(catching: body) }
    do {
      return try result.get()
    } catch {
      throw error.isUnread ? .settingsUnread("\(error)") : .configuration("\(error)")
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

  /// True if there is a directory of this name, whatever is in it, or the tenant is known.
  func hasDirectory(_ name: TenantName) async throws(ServiceError) -> Bool {
    if known(name) != nil { return true }
    return try await onDisk { () throws(ConfigurationError) in
      do {
        return try self.resources.tenants.directory.status(of: name.text) != nil
      } catch {
        throw ConfigurationError("\(error)", isUnread: true)
      }
    }
  }

  /// Finds a tenant; nil where the directory has none of this name.
  func find(_ name: TenantName) async throws(ServiceError) -> Tenant? {
    if let tenant = known(name) { return tenant }
    guard try mayBeFound(name) else { return nil }
    let found = try await onDisk { () throws(ConfigurationError) -> Tenant? in
      guard let files = try self.resources.tenants.open(name) else { return nil }
      return try self.tenant(files)
    }
    guard let found, try mayBeFound(name) else { return nil }
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
        throw ConfigurationError("\(error)", isUnread: true)
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
    try claim(name)
    defer { release([name]) }
    return try await body()
  }

  /// Lets nobody else make or restore a tenant of this name.
  ///
  /// - Throws: `throttled` where somebody does.
  func claim(_ name: TenantName) throws(ServiceError) {
    guard claimed.withLock({ $0.insert(name).inserted }) else {
      throw .throttled("the tenant '\(name)' is being made or restored", retryAfterMilliseconds: 1000)
    }
  }

  /// The end of `claim`.
  func release(_ names: Set<TenantName>) { claimed.withLock { $0.subtract(names) } }

  // MARK: Tenants on their way

  /// Until `show`, tenants of these names are not there, whatever the directory has: what is not durable yet is used by nobody.
  func hide(_ names: Set<TenantName>) { onTheirWay.withLock { $0.hidden.formUnion(names) } }

  /// The end of `hide`.
  func show(_ names: Set<TenantName>) { onTheirWay.withLock { $0.hidden.subtract(names) } }

  /// Until `trust`, whether tenants of these names were made cannot be told.
  func doubt(_ names: Set<TenantName>) { onTheirWay.withLock { $0.doubted.formUnion(names) } }

  /// The end of `doubt`.
  func trust(_ names: Set<TenantName>) { onTheirWay.withLock { $0.doubted.subtract(names) } }

  /// - Returns: false where the tenant is hidden.
  private func mayBeFound(_ name: TenantName) throws(ServiceError) -> Bool {
    if resources.deletions.standing(name)?.phase == .begun { return false }
    return try onTheirWay.withLock { onTheirWay throws(ServiceError) in
      guard !onTheirWay.doubted.contains(name) else {
        throw .storageUnavailable(
          "whether the tenant '\(name)' was made is not settled: run its creation again"
        )
      }
      return !onTheirWay.hidden.contains(name)
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
