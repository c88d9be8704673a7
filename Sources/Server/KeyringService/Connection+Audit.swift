internal import AuditLog
internal import KeyringCore
internal import TenantRegistry
internal import WireProtocol

/// A fetch that memory may answer.
struct FetchRequest {
  let identity: KeyIdentity
  let version: UInt32
  let id: UInt64
  let minSequence: UInt64
  let trace: String

  init(_ request: Request, _ identity: KeyIdentity, _ version: UInt32) {
    self.identity = identity
    self.version = version
    id = request.id
    minSequence = request.minSequence
    trace = request.traceparent
  }

  init(_ view: FetchView) {
    identity = view.identity
    version = view.version
    id = view.id
    minSequence = view.minSequence
    trace = ""  // one that has a trace is no FetchView
  }
}

/// What is answered on the event loop is noted there, and written elsewhere.
extension Connection {
  /// False where the tenant's audit log is strict.
  var mayAnswerBeforeAudit: Bool { tenant?.auditTarget?.mode != .strict }

  /// A fetch was answered.
  ///
  /// - Parameter version: that was found; nil where the key is absent.
  func audit(_ fetch: FetchRequest, version: UInt32?, _ sequence: UInt64) {
    note(fetch) { record in
      record.keys = [AuditKey(fetch.identity, version: version ?? fetch.version)]
      record.details = [("found", .flag(version != nil))]
      record.status = "OK"
      record.sequence = sequence
    }
  }

  /// A fetch was refused.
  func audit(_ fetch: FetchRequest, refused error: ServiceError) {
    note(fetch) { record in
      record.keys = [AuditKey(fetch.identity, version: fetch.version)]
      record.refuse(error.status)
    }
  }

  private func note(_ fetch: FetchRequest, _ fill: (inout AuditRecord) -> Void) {
    guard let log = tenant?.auditTarget?.log, let caller else { return }
    var record = AuditRecord(milliseconds: unixMilliseconds(), caller: caller.audit, call: "fetch")
    record.trace = fetch.trace
    fill(&record)
    log.note(record)
  }

  /// A request was refused before it was executed; nothing happened that would have to wait for its entry.
  ///
  /// - Parameter request: nil for one that cannot be understood.
  func auditRefusal(_ status: Status, _ request: Request?) {
    guard let caller, let target = tenant.map(\.auditTarget) ?? service.serviceAuditTarget else { return }
    var record =
      request.map { AuditRecord($0, caller) }
      ?? AuditRecord(milliseconds: unixMilliseconds(), caller: caller.audit, call: "unknown")
    record.refuse(status)
    target.log.note(record)
  }
}
