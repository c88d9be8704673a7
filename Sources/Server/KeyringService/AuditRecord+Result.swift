internal import AuditLog
internal import KeyringCore
internal import WireProtocol

extension AuditRecord {
  /// What a call came to.
  mutating func take(_ answer: Service.Answer) {
    sequence = answer.sequence
    switch answer.outcome {
    case .failure(let error): refuse(error.status)
    case .success(let result):
      status = "OK"
      take(result)
    }
  }

  /// A refusal, or a failure.
  mutating func refuse(_ status: Status) {
    self.status = status.code.auditName
    reason = status.reason.name
  }

  private mutating func version(_ version: UInt32) {
    guard let key = keys.first else { return }
    keys = [key.with(version: version)]
  }

  private mutating func take(_ result: ReplyResult) {
    switch result {
    case .fetch(let key):
      details.append(("found", .flag(key != nil)))
      if let key { version(key.version) }
    case .describe(let info):
      details.append(("found", .flag(info != nil)))
      if let info { version(info.version) }
    case .store(let number), .generate(let number), .rotate(let number): version(number)
    case .list(let keys, _): details.append(("count", .number(UInt64(keys.count))))
    case .transact(let versions):
      for (index, number) in versions.enumerated() where index < keys.count {
        keys[index] = keys[index].with(version: number)
      }
    case .tenantCreate(let cmkID, let isUnchanged):
      add("new_cmk_id", cmkID)
      details.append(("unchanged", .flag(isUnchanged)))
    case .tenantApply(let results):
      details.append(("made", .number(UInt64(results.count { $0.refusal == nil && !$0.isUnchanged }))))
      details.append(("refused", .number(UInt64(results.count { $0.refusal != nil }))))
    case .tenantMove(let cmkID): add("new_cmk_id", cmkID)
    case .tenantList(let tenants, _): details.append(("count", .number(UInt64(tenants.count))))
    case .variablesSet(let old, let new):
      add("old_value", old)
      add("new_value", new)
    case .rotateCMK(let cmkID, let number):
      add("cmk_id", cmkID)
      details.append(("cmk_version", .number(UInt64(number))))
    case .rotateKeys(let report):
      add("cmk_id", report.cmkID)
      add("wrapping_key", report.wrappingKeyID)
      details.append(("records", .number(report.records)))
    case .cmk(let id, let state, _):
      add("result_cmk_id", id)
      add("cmk_state", state)
    case .backup(.begun(_, _, let digest, let summary)):
      details.append(("backup_digest", .text("\(digest)")))
      details.append(("backup_sequence", .number(summary.sequence)))
    case .restore(.ended(let report)):
      details.append(("restored_sequence", .number(report.summary.sequence)))
      details.append(("replaced_sequence", .number(report.replacedSequence)))
      details.append(("dry_run", .flag(report.isDryRun)))
    case .importKeys(let stored): details.append(("stored", .number(UInt64(stored))))
    case .instanceRevoke(let moment): details.append(("revoked_at", .number(moment)))
    case .tenantDelete(let due, let isDone):
      details.append(("due_ms", .number(due)))
      details.append(("done", .flag(isDone)))
    case .explain, .tenantLock, .tenantUnlock, .tenantUndelete, .tenantReceipt, .serviceReload, .remove,
      .whoAmI, .tenantShow, .tenantDisable,
      .tenantEnable, .instanceAdd, .instanceList,
      .variablesList, .service, .tenant, .tenantAccept, .backup, .restore, .tenantReload:
      break
    }
  }
}

extension Code {
  /// As gRPC spells it: `PERMISSION_DENIED`.
  fileprivate var auditName: String {
    switch self {
    case .ok: "OK"
    case .cancelled: "CANCELLED"
    case .unknown: "UNKNOWN"
    case .invalidArgument: "INVALID_ARGUMENT"
    case .deadlineExceeded: "DEADLINE_EXCEEDED"
    case .notFound: "NOT_FOUND"
    case .alreadyExists: "ALREADY_EXISTS"
    case .permissionDenied: "PERMISSION_DENIED"
    case .resourceExhausted: "RESOURCE_EXHAUSTED"
    case .failedPrecondition: "FAILED_PRECONDITION"
    case .aborted: "ABORTED"
    case .outOfRange: "OUT_OF_RANGE"
    case .unimplemented: "UNIMPLEMENTED"
    case .internalError: "INTERNAL"
    case .unavailable: "UNAVAILABLE"
    case .dataLoss: "DATA_LOSS"
    case .unauthenticated: "UNAUTHENTICATED"
    }
  }
}
