internal import AuditLog
internal import CMKProviders
internal import KeyringCore
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// The log that a call is written to, and what happens where it cannot be.
struct AuditTarget: Sendable {
  let log: AuditLogWriter
  let mode: AuditMode
}

extension Service {
  /// Executes a call, and writes down what it came to, once; in strict mode before a change too, and then nothing is done, and nothing leaves,
  /// that is not written down.
  func audited(_ request: Request, _ caller: Caller, _ body: () async -> Answer) async -> Answer {
    var answer: Answer
    if let target = await auditTarget(request.call, caller) {
      answer = await audited(request, caller, target, body)
    } else {
      answer = await body()
    }
    answer.isAudited = true
    return answer
  }

  private func audited(
    _ request: Request,
    _ caller: Caller,
    _ target: AuditTarget,
    _ body: () async -> Answer
  ) async -> Answer {
    var record = AuditRecord(request, caller)
    if target.mode == .strict, request.call.mayChange {
      record.phase = .intent
      switch await target.log.write(record) {
      case .success(let serial): record.intent = serial
      case .failure(let error):
        return Answer(sequence: 0, outcome: .failure(.auditUnavailable("\(error)")))
      }
      record.phase = .outcome
    }
    let ids: KMSRequestIDs? = KMSRequestIDs()
    let answer = await ids.collecting(body)
    record.milliseconds = unixMilliseconds()
    record.kmsRequestIDs = ids?.all ?? []
    record.take(answer)
    guard target.mode == .strict else {
      target.log.note(record)
      return answer
    }
    switch await target.log.write(record) {
    case .success: return answer
    case .failure(let error): return answer.withoutEntry(request.call, "\(error)")
    }
  }

  /// Of a call about a tenant, and of its instances' calls: the tenant's own. Of a caller of a tenant that refers to another one: the caller's,
  /// so that nobody writes to a log that is not theirs. Else the service's. Nil where nothing is to be written.
  private func auditTarget(_ call: Call, _ caller: Caller) async -> AuditTarget? {
    guard resources.audit != nil else { return nil }
    if let name = caller.tenant ?? call.subject, let tenant = await knownTenant(name) {
      return tenant.auditTarget
    }
    return serviceAuditTarget
  }

  private func knownTenant(_ name: TenantName) async -> Tenant? {
    if let known = tenants.known(name) { return known }
    do throws(ServiceError) {
      return try await tenants.find(name)
    } catch {
      return nil  // the call itself meets it, and says so
    }
  }

  /// Nil where nothing is to be written.
  var serviceAuditTarget: AuditTarget? {
    guard let settings = resources.configuration.audit, settings.service != .off,
      let log = resources.serviceLog
    else { return nil }
    return AuditTarget(log: log, mode: settings.service)
  }

  // MARK: What is no call

  /// Something that happened to the service.
  func auditEvent(_ name: String, _ details: [(name: String, value: AuditRecord.Value)] = []) {
    guard let target = serviceAuditTarget else { return }
    var record = AuditRecord(milliseconds: unixMilliseconds(), caller: nil, call: name)
    record.details = details
    target.log.note(record)
  }

  /// A connection with a certificate that is good was refused, or broken off for what came through it.
  func auditRefusedConnection(_ caller: Caller, _ status: Status) {
    guard let target = serviceAuditTarget else { return }
    var record = AuditRecord(milliseconds: unixMilliseconds(), caller: caller.audit, call: "connection")
    record.refuse(status)
    target.log.note(record)
  }

  /// What `status` shows.
  func addAudit(to status: inout ServiceStatus) {
    guard let audit = resources.audit else { return }
    let counts = audit.counts
    status.auditWritten = counts.written
    status.auditDropped = counts.dropped
    status.auditFailure = counts.lastFailure
    status.syslogDropped = audit.syslogDropped
  }

  /// The last entry; then all logs are written, and signed.
  func closeAudit() async {
    auditEvent("server-stop")
    await resources.audit?.close()
  }
}

extension Tenant {
  /// Nil where nothing is to be written.
  var auditTarget: AuditTarget? {
    guard let auditLog else { return nil }
    let mode = state.withLock { $0.audit }
    return mode == .off ? nil : AuditTarget(log: auditLog, mode: mode)
  }

  /// What `status` shows.
  func addAudit(to status: inout TenantStatus) {
    let counts = auditLog?.counts
    status.audit = auditLog == nil ? AuditMode.off.rawValue : state.withLock { $0.audit }.rawValue
    status.auditWritten = counts?.written ?? 0
    status.auditDropped = counts?.dropped ?? 0
    status.auditFailure = counts?.lastFailure ?? ""
  }
}

extension Service.Answer {
  /// What the caller is told where no entry of the outcome could be written.
  fileprivate func withoutEntry(_ call: Call, _ why: String) -> Service.Answer {
    switch outcome {
    case .failure(.outcomeUnknown), .failure(.restoreUnfinished): return self
    case .success where call.mayChange:
      // It is made; its intent is in the log.
      return Service.Answer(
        sequence: 0,
        outcome: .failure(.outcomeUnknown("not written to the audit log: \(why)"))
      )
    case .success, .failure: return Service.Answer(sequence: 0, outcome: .failure(.auditUnavailable(why)))
    }
  }
}

extension Call {
  /// True where it may change something that outlives it.
  var mayChange: Bool {
    switch self {
    case .change, .transact, .importKeys: true
    case .fetch, .describe, .list, .whoAmI: false
    case .admin(let call):
      switch call {
      case .tenantCreate(let call): !call.isDryRun
      case .tenantApply(let calls): calls.contains { !$0.isDryRun }
      case .tenantDisable, .tenantEnable, .instanceAdd, .variablesSet, .rotateCMK, .rotateKeys,
        .tenantAccept, .tenantReload, .tenantMove, .instanceRevoke, .tenantLock, .tenantUnlock, .tenantDelete,
        .tenantUndelete,
        .serviceReload, .restore(_, .end):
        true
      case .cmk(_, let action, _, _): action != .describe
      case .backup, .restore, .tenantList, .tenantShow, .instanceList, .variablesList, .status, .explain,
        .tenantReceipt:
        false
      }
    }
  }

  /// The tenant that an administrator's call is about, where it may be there.
  fileprivate var subject: TenantName? {
    guard case .admin(let call) = self, let text = call.tenantText else { return nil }
    do {
      return try TenantName(text)
    } catch {
      return nil  // no tenant has such a name
    }
  }
}
