internal import KeyringCore
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

extension Service {
  func checked(_ instance: String) throws(ServiceError) -> InstanceName {
    do {
      return try InstanceName(instance)
    } catch {
      throw .keyring(error)
    }
  }

  /// Those of the tenant's file, those added, and those revoked and not added since.
  func instances(_ tenant: Tenant) -> [InstanceEntry] {
    var names: [InstanceName] = []
    if case .listed(let listed) = tenant.settings.file.instances { names = listed.map(\.name) }
    let persisted = tenant.persisted
    names += persisted.instances.map(\.name).filter { !names.contains($0) }
    names += persisted.revoked.keys.sorted { $0.text < $1.text }.filter { !names.contains($0) }
    return names.map { entry($0, tenant) }
  }

  private func entry(_ name: InstanceName, _ tenant: Tenant) -> InstanceEntry {
    let (persisted, rules) = tenant.state.withLock { ($0.persisted, $0.rules) }
    let access = rules.access(of: name)
    let isAdded = persisted.instances.contains { $0.name == name }
    return InstanceEntry(
      name: name.text,
      source: access == nil ? "revoked" : isAdded ? "added" : "file",
      connections: UInt32(tenant.connections(of: name)),
      notBefore: persisted.revoked[name] ?? 0,
      permissions: access?.permissions ?? [],
      scopes: access?.scopes ?? []
    )
  }

  /// Lets an instance call, or changes what it may do: in force at once, on open connections too.
  func add(
    _ text: String,
    permissions: [String],
    scopes: [String],
    to tenant: Tenant
  ) async throws(ServiceError) -> ReplyResult {
    let instance = try checked(text)
    let present = tenant.state.withLock { $0.rules }.access(of: instance)
    let access: InstanceAccess
    do {
      access = try InstanceAccess(
        permissions: permissions.isEmpty ? nil : permissions,
        scopes: scopes.isEmpty ? nil : scopes,
        base: present ?? .all
      )
    } catch {
      throw .malformed("\(error)")
    }
    if access != present {
      try await tenant.persist { $0.add(AllowedInstance(name: instance, access: access)) }
    }
    return .instanceAdd(entry(instance, tenant))
  }

  /// Refuses an instance for good: durable first, then its connections are closed.
  func revoke(_ text: String, of tenant: Tenant) async throws(ServiceError) -> ReplyResult {
    let instance = try checked(text)
    var second: UInt64 = 0
    try await tenant.persist { persisted in
      second = unixMilliseconds() / 1000
      persisted.revoke(instance, at: second)
    }
    let count = live.cutOff(tenant.name) { $0.instance == instance && tenant.access(of: $0) == nil }
    logger.notice(
      "the instance \(instance) is revoked; \(count) connections were closed",
      metadata: ["tenant": "\(tenant.name)"]
    )
    await Self.pass(second)
    return .instanceRevoke(revokedAt: second)
  }

  /// Waits until a second of the clock is over: a certificate that is issued once this call is answered begins in a later one.
  static func pass(_ second: UInt64) async {
    let now = unixMilliseconds()
    guard now / 1000 == second else { return }
    do {
      try await Task.sleep(for: .milliseconds(1000 - Int64(now % 1000)))
    } catch {
      return  // the server ends; the revocation is durable
    }
  }
}
