internal import MessageEncoding

extension ReplyEncoder {
  static func writeAdmin(_ result: ReplyResult, to message: inout MessageWriter) {
    switch result {
    case .tenantCreate(let cmkID, let isUnchanged):
      message.message(64) { inner in
        inner.bytes(1, cmkID.utf8)
        inner.number(2, isUnchanged ? 1 : 0)
      }
    case .tenantList(let tenants, let more):
      message.message(65) { inner in
        for tenant in tenants { inner.message(1) { write(tenant, to: &$0) } }
        inner.number(2, more ? 1 : 0)
      }
    case .tenantShow(let details): message.message(66) { write(details, to: &$0) }
    case .tenantDisable: message.message(67) { _ in }
    case .tenantEnable: message.message(68) { _ in }
    case .instanceAdd(let instance): message.message(69) { $0.message(1) { write(instance, to: &$0) } }
    case .instanceRevoke(let revokedAt): message.message(87) { $0.number(1, revokedAt) }
    case .tenantLock: message.message(97) { _ in }
    case .tenantUnlock: message.message(98) { _ in }
    case .tenantDelete(let due, let isDone):
      message.message(89) { inner in
        inner.number(1, due)
        inner.number(2, isDone ? 1 : 0)
      }
    case .tenantUndelete: message.message(90) { _ in }
    case .tenantReceipt(let receipt, let key): message.message(92) { write(receipt, key, to: &$0) }
    case .serviceReload(let report): message.message(88) { write(report, to: &$0) }
    case .instanceList(let instances, let anyInstance):
      message.message(70) { inner in
        for instance in instances { inner.message(1) { write(instance, to: &$0) } }
        inner.number(2, anyInstance ? 1 : 0)
      }
    case .variablesSet(let old, let new): message.message(71) { write(old, new, to: &$0) }
    case .variablesList(let variables):
      message.message(72) { inner in
        for variable in variables { inner.message(1) { write(variable, to: &$0) } }
      }
    case .rotateCMK(let cmkID, let version):
      message.message(73) { inner in
        inner.bytes(1, cmkID.utf8)
        inner.number(2, UInt64(version))
      }
    case .rotateKeys(let report): message.message(74) { write(report, to: &$0) }
    case .service(let status): message.message(75) { $0.message(1) { write(status, to: &$0) } }
    case .tenant(let status): message.message(75) { $0.message(2) { write(status, to: &$0) } }
    case .tenantAccept(let sequence): message.message(76) { $0.number(1, sequence) }
    case .cmk(let id, let state, let version):
      message.message(77) { inner in
        inner.bytes(1, id.utf8)
        inner.bytes(2, state.utf8)
        inner.number(3, UInt64(version))
      }
    case .backup(let result): write(result, to: &message)
    case .restore(let result): write(result, to: &message)
    case .tenantReload(let credentials): message.message(84) { $0.bytes(1, credentials.utf8) }
    case .tenantMove(let cmkID): message.message(85) { $0.bytes(1, cmkID.utf8) }
    case .explain(let explanation): message.message(96) { write(explanation, to: &$0) }
    case .tenantApply(let results):
      message.message(91) { inner in
        for result in results { inner.message(1) { write(result, to: &$0) } }
      }
    case .fetch, .describe, .store, .generate, .remove, .rotate, .list, .transact, .importKeys, .whoAmI:
      preconditionFailure("not an administrator's reply")
    }
  }

  private static func write(_ first: String, _ second: String, to message: inout MessageWriter) {
    message.bytes(1, first.utf8)
    message.bytes(2, second.utf8)
  }

  static func write(_ summary: TenantSummary, to message: inout MessageWriter) {
    message.bytes(1, summary.tenant.utf8)
    message.number(2, summary.state.rawValue)
    message.bytes(3, summary.provider.utf8)
    message.bytes(4, summary.cmkID.utf8)
  }

  private static func write(_ variable: VariableEntry, to message: inout MessageWriter) {
    message.bytes(1, variable.name.utf8)
    message.bytes(2, variable.value.utf8)
    message.bytes(3, variable.source.utf8)
    message.number(4, variable.isDynamic ? 1 : 0)
    message.bytes(5, variable.meaning.utf8)
  }

  private static func write(_ details: TenantDetails, to message: inout MessageWriter) {
    message.message(1) { write(details.summary, to: &$0) }
    message.bytes(2, details.profile.utf8)
    for instance in details.instances { message.message(3) { write(instance, to: &$0) } }
    message.number(4, details.anyInstance ? 1 : 0)
    for variable in details.variables { message.message(5) { write(variable, to: &$0) } }
  }

  private static func write(_ report: KeyRotationReport, to message: inout MessageWriter) {
    message.bytes(1, report.cmkID.utf8)
    message.bytes(2, report.wrappingKeyID.utf8)
    message.number(3, report.records)
    message.number(4, report.recordsElsewhere)
    for id in report.formerCMKIDs { message.element(5, id.utf8) }
  }

  private static func write(_ status: ServiceStatus, to message: inout MessageWriter) {
    message.bytes(1, status.version.utf8)
    message.number(2, status.startedMilliseconds)
    message.number(3, UInt64(status.connections))
    message.number(4, UInt64(status.connectionsUnauthenticated))
    message.number(5, UInt64(status.tenants))
    for entry in status.states {
      message.message(6) { inner in
        inner.number(1, entry.state.rawValue)
        inner.number(2, UInt64(entry.tenants))
      }
    }
    message.number(7, status.isMemoryLocked ? 1 : 0)
    message.number(8, status.secureBytesUsed)
    message.number(9, status.calls)
    message.number(10, status.callsFailed)
    for files in status.files { message.message(20) { write(files, to: &$0) } }
    message.number(30, status.auditWritten)
    message.number(31, status.auditDropped)
    message.bytes(32, status.auditFailure.utf8)
    message.number(33, status.syslogDropped)
  }

  private static func write(_ status: TenantStatus, to message: inout MessageWriter) {
    message.message(1) { write(status.summary, to: &$0) }
    message.bytes(2, status.reason.utf8)
    message.number(3, status.sequence)
    message.number(4, status.keys)
    message.number(5, status.records)
    message.number(6, status.storageBytes)
    message.bytes(7, status.digest.utf8)
    for key in status.wrappingKeys { message.message(8) { write(key, to: &$0) } }
    message.number(9, UInt64(status.connections))
    message.number(10, status.batchesUnverified)
    message.number(11, status.rotationDone)
    message.number(12, status.rotationTotal)
    message.bytes(13, status.keyringID.utf8)
    if let credentials = status.credentials { message.message(14) { write(credentials, to: &$0) } }
    for hit in status.limitsHit {
      message.message(15) { inner in
        inner.bytes(1, hit.limit.utf8)
        inner.number(2, hit.count)
      }
    }
    message.bytes(30, status.audit.utf8)
    message.number(31, status.auditWritten)
    message.number(32, status.auditDropped)
    message.bytes(33, status.auditFailure.utf8)
  }

  static func write(_ credentials: CredentialsStatus, to message: inout MessageWriter) {
    message.bytes(1, credentials.source.utf8)
    message.bytes(2, credentials.accessKeyID.utf8)
    message.number(3, credentials.loadedMilliseconds)
    message.number(4, credentials.expiresMilliseconds)
    message.bytes(5, credentials.lastFailure.utf8)
  }

  static func write(_ key: WrappingKeyStatus, to message: inout MessageWriter) {
    message.bytes(1, key.id.utf8)
    message.bytes(2, key.cmkID.utf8)
    message.bytes(3, key.state.utf8)
    message.number(4, key.encryptions)
    message.number(5, key.records)
    message.number(6, key.isCurrent ? 1 : 0)
    message.number(7, key.createdMilliseconds)
  }
}
