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
    guard let unwritten = refusals.admit(error.status, now: lastRequest) else { return }
    note(fetch) { record in
      record.keys = [AuditKey(fetch.identity, version: fetch.version)]
      record.refuse(error.status, unwritten: unwritten)
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
    guard let caller, let target = tenant.map(\.auditTarget) ?? service.serviceAuditTarget,
      let unwritten = refusals.admit(status, now: lastRequest)
    else { return }
    var record =
      request.map { AuditRecord($0, caller) }
      ?? AuditRecord(milliseconds: unixMilliseconds(), caller: caller.audit, call: "unknown")
    record.refuse(status, unwritten: unwritten)
    target.log.note(record)
  }
}

extension AuditRecord {
  fileprivate mutating func refuse(_ status: Status, unwritten: UInt64) {
    refuse(status)
    if unwritten > 0 { details.append(("unwritten_before", .number(unwritten))) }
  }
}

/// Which refusals by limits are written: a few a second of each connection, each with the number of those that were not; or whoever is past a
/// limit would fill the disk of the logs, which others need.
struct LimitRefusals {
  private static let mostPerSecond = 8
  private static let second: UInt64 = 1_000_000_000

  private var began: UInt64 = 0
  private var written = 0
  private var unwritten: UInt64 = 0

  /// - Parameter now: monotonic nanoseconds.
  /// - Returns: how many were left out since the last that was written; nil where this one is to be left out.
  mutating func admit(_ status: Status, now: UInt64) -> UInt64? {
    guard status.reason == .throttled else { return 0 }
    if now >= began + Self.second { (began, written) = (now, 0) }
    guard written < Self.mostPerSecond else {
      unwritten += 1
      return nil
    }
    written += 1
    defer { unwritten = 0 }
    return unwritten
  }
}
