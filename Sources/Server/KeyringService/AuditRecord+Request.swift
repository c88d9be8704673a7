internal import AuditLog
internal import KeyringCore
internal import WireProtocol

extension AuditRecord {
  /// What a request asks for: never a secret, so nothing of key material, and no value that is not yet known to be one of a variable.
  init(_ request: Request, _ caller: Caller) {
    self.init(milliseconds: unixMilliseconds(), caller: caller.audit, call: request.call.auditName)
    trace = request.traceparent
    switch request.call {
    case .fetch(let name, let version), .describe(let name, let version):
      keys = [AuditKey(name, version: version)]
    case .change(let change): keys = [AuditKey(change)]
    case .transact(let changes): keys = changes.map { AuditKey($0, showsOperation: true) }
    case .list(let call):
      details = [("scope", .text("\(call.scope)"))]
      if let owner = call.owner {
        details.append(("owner", .name(Array(owner.prefix(KeyIdentity.ownerBytesMax)))))
      }
    case .importKeys(let imported):
      keys = imported.prefix(Self.importedKeysMax).map { AuditKey($0.name) }
      details = [("count", .number(UInt64(imported.count)))]
    case .whoAmI: break
    case .admin(let call):
      if let tenant = call.tenantText { add("tenant", tenant) }
      describe(call)
    }
  }

  /// Keys of an import that are named, so that an entry stays short; the others are counted.
  static let importedKeysMax = 128

  /// Text from outside, cut.
  mutating func add(_ name: String, _ text: String, charactersMax: Int = 256) {
    details.append((name, .text(String(text.unicodeScalars.prefix(charactersMax)))))
  }

  private mutating func describe(_ call: AdminCall) {
    switch call {
    case .tenantCreate(let call):
      add("provider", call.provider)
      if !call.cmkID.isEmpty { add("cmk_id", call.cmkID) }
      if !call.profile.isEmpty { add("profile", call.profile) }
      details.append(("dry_run", .flag(call.isDryRun)))
    case .tenantApply(let calls):
      details.append(("count", .number(UInt64(calls.count))))
      add("tenants", calls.map(\.tenant).joined(separator: ","), charactersMax: 16_384)
    case .instanceAdd(_, let instance, let permissions, let scopes):
      add("instance", instance)
      if !permissions.isEmpty { add("permissions", permissions.joined(separator: ",")) }
      if !scopes.isEmpty { add("scopes", scopes.joined(separator: ",")) }
    case .instanceRevoke(_, let instance): add("instance", instance)
    case .tenantDelete(let call):
      details.append(("after_seconds", .number(call.afterSeconds)))
      details.append(("cmk_days", .number(UInt64(call.cmkDays))))
    case .variablesSet(_, let name, _, let persistence):
      add("variable", name)
      details.append(("persistence", .text("\(persistence)")))
    case .rotateKeys(_, let allowTransient): details.append(("allow_transient", .flag(allowTransient)))
    case .tenantAccept(_, let sequence): details.append(("accepted_sequence", .number(sequence)))
    case .cmk(_, _, let cmkID, let days):
      if !cmkID.isEmpty { add("cmk_id", cmkID) }
      if days > 0 { details.append(("days", .number(UInt64(days)))) }
    case .backup(_, .begin(let allowUnproved)): details.append(("allow_unproved", .flag(allowUnproved)))
    case .backup(_, .read(_, let offset)): details.append(("offset", .number(offset)))
    case .restore(_, .begin(let call)):
      details.append(("backup_digest", .text("\(call.digest)")))
      details.append(("accept_rollback", .flag(call.acceptRollback)))
      details.append(("accept_unproved", .flag(call.acceptUnproved)))
      details.append(("dry_run", .flag(call.isDryRun)))
    case .restore(_, .write(_, let offset, _)): details.append(("offset", .number(offset)))
    case .tenantMove(let call):
      add("cmk_id", call.cmkID)
      if let provider = call.settings.first(where: { $0.name == "provider" }) {
        add("provider", provider.value)
      }
    case .tenantList, .tenantShow, .tenantDisable, .tenantEnable, .instanceList, .variablesList, .rotateCMK,
      .status, .explain, .tenantReload, .tenantLock, .tenantUnlock, .tenantUndelete,
      .tenantReceipt, .serviceReload, .backup, .restore:
      break
    }
  }
}

extension AuditKey {
  init(_ name: KeyName, version: UInt32 = 0, operation: String? = nil) {
    self.init(
      scope: "\(name.scope)",
      owner: name.owner.prefix(KeyIdentity.ownerBytesMax),
      keyID: name.keyID.prefix(KeyIdentity.keyIDBytesMax),
      version: version,
      operation: operation
    )
  }

  init(_ change: Change, showsOperation: Bool = false) {
    let operation = showsOperation ? change.auditName : nil
    switch change {
    case .store(let name, _, _), .generate(let name, _, _), .remove(let name), .rotate(let name):
      self.init(name, operation: operation)
    }
  }
}

extension Change {
  fileprivate var auditName: String {
    switch self {
    case .store: "store"
    case .generate: "generate"
    case .remove: "remove"
    case .rotate: "rotate"
    }
  }
}

extension Call {
  /// What entries call it.
  var auditName: String {
    switch self {
    case .fetch: "fetch"
    case .describe: "describe"
    case .change(let change): change.auditName
    case .list: "list"
    case .transact: "transact"
    case .importKeys: "import"
    case .whoAmI: "whoami"
    case .admin(let call): call.auditName
    }
  }
}

extension AdminCall {
  fileprivate var auditName: String {
    switch self {
    case .tenantCreate: "tenant-create"
    case .tenantApply: "tenant-apply"
    case .tenantList: "tenant-list"
    case .tenantShow: "tenant-show"
    case .tenantDisable: "tenant-disable"
    case .tenantEnable: "tenant-enable"
    case .instanceAdd: "instance-add"
    case .instanceRevoke: "instance-revoke"
    case .instanceList: "instance-list"
    case .variablesSet: "variables-set"
    case .variablesList: "variables-list"
    case .rotateCMK: "rotate-cmk"
    case .rotateKeys: "rotate-keys"
    case .status: "status"
    case .tenantAccept: "tenant-accept"
    case .cmk(_, let action, _, _): "cmk-\(action.auditName)"
    case .backup(_, .begin): "backup-begin"
    case .backup(_, .read): "backup-read"
    case .backup(_, .end): "backup-end"
    case .restore(_, .begin): "restore-begin"
    case .restore(_, .write): "restore-write"
    case .restore(_, .end): "restore-end"
    case .tenantReload: "tenant-reload"
    case .tenantMove: "tenant-move"
    case .tenantLock: "tenant-lock"
    case .tenantUnlock: "tenant-unlock"
    case .tenantDelete: "tenant-delete"
    case .tenantUndelete: "tenant-undelete"
    case .tenantReceipt: "tenant-receipt"
    case .serviceReload: "service-reload"
    case .explain: "explain"
    }
  }

  /// The tenant as the call names it; nil for a call about the service.
  var tenantText: String? {
    switch self {
    case .tenantCreate(let call): call.tenant
    case .tenantApply, .tenantList, .serviceReload: nil
    case .status(let name): name.isEmpty ? nil : name
    case .tenantShow(let name), .tenantDisable(let name), .tenantEnable(let name),
      .instanceAdd(let name, _, _, _), .instanceRevoke(let name, _), .tenantLock(let name),
      .tenantUnlock(let name), .tenantUndelete(let name), .tenantReceipt(let name), .instanceList(let name),
      .variablesSet(let name, _, _, _),
      .variablesList(let name),
      .rotateCMK(let name), .rotateKeys(let name, _), .tenantAccept(let name, _), .cmk(let name, _, _, _),
      .backup(let name, _), .restore(let name, _), .tenantReload(let name):
      name
    case .tenantMove(let call): call.tenant
    case .explain(let call): call.tenant
    case .tenantDelete(let call): call.tenant
    }
  }
}

extension CMKAction {
  fileprivate var auditName: String {
    switch self {
    case .create: "create"
    case .describe: "describe"
    case .disable: "disable"
    case .enable: "enable"
    case .scheduleDeletion: "schedule-deletion"
    case .cancelDeletion: "cancel-deletion"
    }
  }
}
