internal import Logging
internal import TLSTransport
internal import CMKProviders
internal import KeyringCore
internal import SecureMemory
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

extension Service {
  /// Executes an administrator's call. None of them reads key material.
  func administrate(_ call: AdminCall, _ caller: Caller) async throws(ServiceError) -> ReplyResult {
    let name = try Authorization.admit(call, caller)
    switch call {
    case .tenantCreate(let call):
      guard let name else { throw .forbidden }
      logger.info("tenant create by \(caller.uri)", metadata: ["tenant": "\(name)"])
      return try await create(call, name)
    case .tenantApply(let calls): return await apply(calls, caller)
    case .tenantList(let pageSize, let after): return try await list(pageSize, after)
    case .backup(_, let call):
      let tenant = try await find(name, caller)
      return .backup(
        try await tenant.use.run { () async throws(ServiceError) in try await backup(call, tenant, caller) }
      )
    case .restore(_, let call):
      guard let name else { throw .forbidden }
      return .restore(try await restore(call, name, caller))
    case .tenantDelete, .tenantUndelete, .tenantReceipt:
      guard let name else { throw .forbidden }
      logger.notice("\(call.name) by \(caller.uri)", metadata: ["tenant": "\(name)"])
      return try await end(call, name, caller)
    case .explain(let call): return .explain(try await explain(call, name, caller))
    case .status(let text) where text.isEmpty: return .service(try await serviceStatus())
    case .serviceReload:
      logger.info("\(call.name) by \(caller.uri)")
      return .serviceReload(await reload(.request))
    case .status, .tenantShow, .tenantDisable, .tenantEnable, .instanceAdd, .instanceList, .variablesSet,
      .variablesList,
      .rotateCMK, .rotateKeys, .tenantAccept, .tenantReload, .tenantMove, .cmk, .instanceRevoke,
      .tenantLock, .tenantUnlock:
      let tenant = try await find(name, caller)
      logger.info("\(call.name) by \(caller.uri)", metadata: ["tenant": "\(tenant.name)"])
      return try await tenant.use.run { () async throws(ServiceError) in
        try await administrate(call, tenant, caller)
      }
    }
  }

  func find(_ name: TenantName?, _ caller: Caller) async throws(ServiceError) -> Tenant {
    guard let name else { throw .forbidden }
    guard let tenant = try await tenants.find(name) else {
      throw caller.identity == .serviceAdmin ? .tenantAbsent(name) : .forbidden
    }
    // Of the tenant of this name before.
    if caller.tenant != nil, caller.notBefore <= resources.deletions.tombstone(name) { throw .forbidden }
    return tenant
  }

  private func administrate(
    _ call: AdminCall,
    _ tenant: Tenant,
    _ caller: Caller
  ) async throws(ServiceError) -> ReplyResult {
    switch call {
    case .tenantShow: return .tenantShow(show(tenant))
    case .tenantDisable:
      try await tenant.persist { $0.isDisabled = true }
      await shutOut(tenant)
      return .tenantDisable
    case .tenantEnable:
      try checkThatNoDeletionStands(tenant.name)
      try await tenant.persist { $0.isDisabled = false }
      await tenant.close()  // a quarantined tenant is looked at anew
      return .tenantEnable
    case .tenantLock:
      tenant.lock()
      await shutOut(tenant)
      return .tenantLock
    case .tenantUnlock:
      tenant.unlock()
      return .tenantUnlock
    case .instanceAdd(_, let instance, let permissions, let scopes):
      return try await add(instance, permissions: permissions, scopes: scopes, to: tenant)
    case .instanceRevoke(_, let instance): return try await revoke(instance, of: tenant)
    case .instanceList:
      return .instanceList(instances(tenant), anyInstance: tenant.settings.file.instances == .any)
    case .variablesList: return .variablesList(variables(tenant))
    case .variablesSet(_, let variable, let value, let persistence):
      return try await set(variable, value, persistence, tenant)
    case .rotateCMK:
      let description = try await rotateCMK(tenant)
      return .rotateCMK(cmkID: description.id.text, version: description.version)
    case .rotateKeys(_, let allowTransient):
      let rotation = try await tenant.keyring().rotateKeys(caller: caller.uri, allowTransient: allowTransient)
      try await forgetFormerProviders(tenant)
      return .rotateKeys(
        KeyRotationReport(
          cmkID: rotation.cmkID.text,
          wrappingKeyID: rotation.wrappingKeyID.description,
          records: rotation.records,
          recordsElsewhere: rotation.recordsElsewhere,
          formerCMKIDs: rotation.formerCMKIDs.map(\.text)
        )
      )
    case .status: return .tenant(tenant.status())
    case .tenantAccept(_, let sequence):
      try await tenant.accept(sequence: sequence, by: caller.uri)
      return .tenantAccept(sequence: sequence)
    case .tenantReload: return try await reload(tenant)
    case .tenantMove(let call): return try await move(call, tenant)
    case .cmk(_, let action, let cmkID, let days):
      let description = try await manage(action, cmkID, days, tenant)
      return .cmk(id: description.id.text, state: description.state.rawValue, version: description.version)
    case .tenantCreate, .tenantApply, .tenantList, .backup, .restore, .serviceReload, .explain,
      .tenantDelete, .tenantUndelete, .tenantReceipt:
      throw .defect("not a call about a tenant")
    }
  }

  // MARK: Tenants

  private func list(_ pageSize: UInt32, _ after: String) async throws(ServiceError) -> ReplyResult {
    let size = pageSize == 0 ? 500 : min(Int(pageSize), 500)
    let rest = try await tenants.names().filter { $0.text > after }
    var page: [TenantSummary] = []
    for name in rest.prefix(size) { page.append(await summary(name)) }
    return .tenantList(page, more: rest.count > size)
  }

  private func summary(_ name: TenantName) async -> TenantSummary {
    do throws(ServiceError) {
      if let tenant = tenants.known(name) { return tenant.summary() }
      if let (settings, persisted) = try await tenants.settings(ofUnused: name) {
        return TenantSummary(name, settings, persisted.isDisabled ? .disabled : .cold)
      }
    } catch {
      logger.warning("\(error.status.message)")
    }
    return TenantSummary(tenant: name.text, state: .cold, provider: "", cmkID: "")
  }

  private func show(_ tenant: Tenant) -> TenantDetails {
    TenantDetails(
      summary: tenant.summary(),
      profile: tenant.settings.profile.rawValue,
      instances: instances(tenant),
      anyInstance: tenant.settings.file.instances == .any,
      variables: variables(tenant)
    )
  }

  // MARK: Service

  private func serviceStatus() async throws(ServiceError) -> ServiceStatus {
    var status = ServiceStatus()
    status.version = Self.version
    status.startedMilliseconds = startedMilliseconds
    status.connections = UInt32(connections.load(ordering: .relaxed))
    status.connectionsUnauthenticated = UInt32(connectionsUnauthenticated.load(ordering: .relaxed))
    let names = try await tenants.names()
    status.tenants = UInt32(names.count)
    var states: [TenantState: UInt32] = [:]
    for name in names { states[tenants.known(name)?.condition().state ?? .cold, default: 0] += 1 }
    status.states = states.sorted { $0.key.rawValue < $1.key.rawValue }.map { ($0.key, $0.value) }
    status.isMemoryLocked = isMemoryLocked
    status.secureBytesUsed = UInt64(SecureHeap.bytesInUse)
    status.calls = calls.load(ordering: .relaxed)
    status.callsFailed = callsFailed.load(ordering: .relaxed)
    status.files = tls.withLock { $0 }?.files ?? []
    addAudit(to: &status)
    return status
  }
}

extension AdminCall {
  /// For the log.
  fileprivate var name: String {
    switch self {
    case .tenantCreate: "tenant create"
    case .tenantApply: "tenant apply"
    case .tenantList: "tenant list"
    case .tenantShow: "tenant show"
    case .tenantDisable: "tenant disable"
    case .tenantEnable: "tenant enable"
    case .instanceAdd: "instance add"
    case .instanceRevoke: "instance revoke"
    case .tenantLock: "tenant lock"
    case .tenantUnlock: "tenant unlock"
    case .tenantDelete: "tenant delete"
    case .tenantUndelete: "tenant undelete"
    case .tenantReceipt: "tenant receipt"
    case .serviceReload: "reload"
    case .instanceList: "instance list"
    case .variablesSet(_, let name, _, let persistence):
      "set \(persistence) \(printable(String(name.prefix(64))))"
    case .variablesList: "variables"
    case .rotateCMK: "rotate-cmk"
    case .rotateKeys: "rotate-keys"
    case .status: "status"
    case .explain: "explain"
    case .tenantAccept: "tenant accept"
    case .tenantReload: "tenant reload"
    case .tenantMove: "tenant move"
    case .backup: "backup"
    case .restore: "restore"
    case .cmk(_, let action, let id, _): "cmk \(action) \(printable(String(id.prefix(64))))"
    }
  }
}
