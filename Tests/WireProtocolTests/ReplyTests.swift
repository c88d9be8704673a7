import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing
import WireProtocol

/// `decode(encode(x)) == x` for every kind of reply.
@Suite struct ReplyTests {
  static let info = KeyInfo(
    name: KeyName(scope: .shared, owner: Array("u@h".utf8), keyID: [0, 0xff]),
    type: "AES",
    version: 1,
    latestVersion: .max,
    length: 32,
    createdMilliseconds: .max,
    wrappingKeyID: String(repeating: "a", count: 32)
  )

  static func service() -> ServiceStatus {
    var status = ServiceStatus()
    status.version = "0.1.0"
    status.startedMilliseconds = 1
    (status.connections, status.connectionsUnauthenticated, status.tenants) = (2, 3, 4)
    status.states = TenantState.allCases.map { ($0, UInt32($0.rawValue)) }
    status.isMemoryLocked = true
    (status.secureBytesUsed, status.calls, status.callsFailed) = (5, 6, .max)
    status.files = reloaded().files
    (status.auditWritten, status.auditDropped, status.auditFailure, status.syslogDropped) = (7, 8, "full", 9)
    return status
  }

  static func reloaded() -> ReloadReport {
    var files = LoadedFiles(name: "client_crl")
    (files.loadedMilliseconds, files.ends, files.failure) = (1, .max, "why")
    var report = ReloadReport()
    (report.files, report.tenantsReloaded) = ([files, LoadedFiles(name: "")], 7)
    report.tenantFailures = [.init(tenant: "acme", failure: "why"), .init(tenant: "", failure: "")]
    return report
  }

  static func tenant() -> TenantStatus {
    var key = WrappingKeyStatus()
    (key.id, key.cmkID, key.state) = ("1", "c", "held")
    (key.encryptions, key.records, key.isCurrent, key.createdMilliseconds) = (1 << 31, 2, true, 3)
    var status = TenantStatus(summary: summary)
    (status.reason, status.digest, status.keyringID) = ("why", "d", "k")
    (status.sequence, status.keys, status.records, status.storageBytes) = (1, 2, 3, .max)
    status.wrappingKeys = [key, WrappingKeyStatus()]
    status.limitsHit = [LimitHit(limit: "keys", count: 3), LimitHit(limit: "", count: .max)]
    (status.connections, status.batchesUnverified, status.rotationDone, status.rotationTotal) = (4, 5, 6, 7)
    (status.audit, status.auditWritten, status.auditDropped, status.auditFailure) = (
      "strict", 8, .max, "full"
    )
    return status
  }

  static let summary = TenantSummary(tenant: "acme", state: .locked, provider: "local", cmkID: "c")
  static let instances = [
    InstanceEntry(name: "db1", source: "file", connections: 2),
    InstanceEntry(name: "", source: "", connections: 0),
    InstanceEntry(
      name: "backup",
      source: "added",
      connections: .max,
      notBefore: .max,
      permissions: ["read", ""],
      scopes: ["own", "shared"]
    ),
  ]
  static let variables = [
    VariableEntry(name: "cmk_id", value: "c", source: "file", isDynamic: true, meaning: "which"),
    VariableEntry(name: "", value: "", source: "", isDynamic: false, meaning: ""),
  ]

  static let results: [ReplyResult] = [
    .fetch(nil), .describe(nil), .describe(info), .store(version: 1), .generate(version: .max), .remove,
    .rotate(version: 2), .list([], nextPageToken: []), .list([info, info], nextPageToken: [0, 1]),
    .transact(versions: []), .transact(versions: [1, 0, 300, .max]),
    .whoAmI(Identity(uri: "spiffe://t/admin", tenant: "", instance: "", notAfter: .max, serverVersion: "1")),
    .whoAmI(
      Identity(
        uri: "u",
        tenant: "t",
        instance: "i",
        notAfter: 0,
        serverVersion: "",
        profile: "any",
        isReadOnly: true
      )
    ),
    .importKeys(stored: .max), .explain(Explanation(summary: summary)), .explain(explained),
    .whoAmI(Identity(uri: "u", tenant: "t", instance: "i", notAfter: 0, serverVersion: "")),
    .tenantCreate(cmkID: "c", isUnchanged: true), .tenantCreate(cmkID: "", isUnchanged: false),
    .tenantApply([]), .tenantApply(applied), .tenantList([], more: false),
    .tenantList([summary, summary], more: true),
    .tenantShow(
      TenantDetails(
        summary: summary,
        profile: "any",
        instances: instances,
        anyInstance: true,
        variables: variables
      )
    ),
    .tenantDisable, .tenantEnable, .instanceAdd(instances[2]), .instanceList(instances, anyInstance: false),
    .instanceList([], anyInstance: true), .variablesSet(oldValue: "a", newValue: ""),
    .variablesList(variables), .rotateCMK(cmkID: "c", version: 7),
    .rotateKeys(
      KeyRotationReport(
        cmkID: "c",
        wrappingKeyID: "w",
        records: 1,
        recordsElsewhere: 2,
        formerCMKIDs: ["", "d"]
      )
    ),
    .service(service()), .service(ServiceStatus()), .tenant(tenant()),
    .tenant(TenantStatus(summary: summary)), .tenantAccept(sequence: .max),
    .tenantReload(credentials: "the file 'credentials'"), .tenantMove(cmkID: "alias/acme"),
    .cmk(id: "c", state: "enabled", version: 1),
    .instanceRevoke(revokedAt: .max), .tenantLock, .tenantUnlock,
    .tenantDelete(dueMilliseconds: .max, isDone: true), .tenantUndelete,
    .tenantReceipt("{}\n{}\n", publicKey: "p"),
    .serviceReload(ReloadReport()),
    .serviceReload(reloaded()),
    .backup(.begun(TransferID(value: 1), bytes: .max, digest: .zero, summary(""))),
    .backup(.begun(TransferID(value: .max), bytes: 0, digest: .zero, BackupSummary())),
    .backup(.data([])), .backup(.data(Array(repeating: 1, count: TransferID.chunkBytes))), .backup(.ended),
    .restore(.begun(TransferID(value: 3))), .restore(.written), .restore(.ended(RestoreReport())),
    .restore(.ended(restored)),
  ]

  static var applied: [TenantApplyResult] {
    var (made, differing) = (TenantApplyResult(tenant: "acme"), TenantApplyResult(tenant: "beta"))
    (made.cmkID, made.isUnchanged) = ("c", true)
    differing.refusal = Status(.tenantExists, "it is there")
    differing.differences = [
      SettingDifference(name: "profile", present: "", wanted: "any", isDynamic: true),
      SettingDifference(name: "", present: "", wanted: "", isDynamic: false),
    ]
    return [made, differing, TenantApplyResult(tenant: "")]
  }

  static func summary(_ text: String) -> BackupSummary {
    var summary = BackupSummary()
    (summary.keyringID, summary.digest) = ("k" + text, "d" + text)
    (summary.sequence, summary.keys, summary.records) = (1, 2, .max)
    (summary.cmksNeeded, summary.cmksIncluded, summary.unprovedWrappingKeys) = (
      ["a"], ["b", ""], ["c", "d"]
    )
    return summary
  }

  static var restored: RestoreReport {
    var report = RestoreReport()
    report.summary = summary("!")
    (report.cmksMade, report.replacedSequence) = (["", "b"], .max)
    (report.isDryRun, report.notices) = (true, ["a notice"])
    return report
  }

  /// Every field set, and every code of a finding.
  static var explained: Explanation {
    var cmk = ExplainedCMK()
    (cmk.id, cmk.provider, cmk.state, cmk.why) = ("c", "aws", "unknown", "denied")
    (cmk.createdMilliseconds, cmk.isInForce, cmk.records) = (1, true, 2)
    var key = ExplainedWrappingKey()
    (key.key.id, key.key.isCurrent, key.sinceMilliseconds, key.heldUntilMilliseconds) = ("w", true, 3, .max)
    key.failure = KMSFailure(message: "no", requestID: "r", atMilliseconds: 4)
    var dependency = ExplainedKey.Dependency()
    (dependency.wrappingKeyID, dependency.versions, dependency.firstVersion) = ("w", 5, 1)
    (dependency.lastVersion, dependency.createdMilliseconds) = (9, 10)
    var explanation = Explanation(summary: summary)
    (explanation.reason, explanation.nowMilliseconds) = ("why", .max)
    (explanation.cmks, explanation.wrappingKeys) = ([cmk, ExplainedCMK()], [key, ExplainedWrappingKey()])
    explanation.lastFailure = key.failure
    explanation.findings = FindingCode.allCases.map { code in
      var finding = Finding(code)
      (finding.cmkID, finding.wrappingKeyID, finding.detail) = ("c", "w", "detail")
      (finding.count, finding.sinceMilliseconds, finding.untilMilliseconds) = (1, 2, .max)
      return finding
    }
    var explainedKey = ExplainedKey()
    (explainedKey.presence, explainedKey.why, explainedKey.type) = (.present, "w", "AES")
    (explainedKey.latestVersion, explainedKey.dependencies) = (9, [dependency])
    explanation.key = explainedKey
    explanation.credentials = CredentialsStatus()
    explanation.credentials?.source = "file"
    return explanation
  }

  @Test func whatIsEncodedIsDecoded() throws {
    let decoder = ReplyDecoder()
    for result in Self.results {
      for (id, sequence) in [(1, 0), (UInt64.max, UInt64.max)] as [(UInt64, UInt64)] {
        let bytes = ReplyEncoder.bytes(id: id, sequence: sequence, result)
        let reply = try decoder.decode(bytes)
        #expect(reply.id == id && reply.sequence == sequence)
        let decoded = try reply.outcome.get()
        #expect("\(decoded)" == "\(result)")
        #expect(ReplyEncoder.bytes(id: id, sequence: sequence, decoded) == bytes)
      }
    }
    #expect(Self.results.count == 58)
  }

  @Test(arguments: [1, 127, 128, 16_384])
  func aPresentKeyIsDecoded(count: Int) throws {
    let value = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
    for number: UInt32 in [1, 127, 128, .max] {
      var output = WipedBuffer()
      unsafe ReplyEncoder.appendFetch(
        id: UInt64(number) << 31,
        sequence: UInt64(number) - 1,
        type: "SECRET",
        version: number,
        latestVersion: number,
        valueBytes: count,
        to: &output
      ) { room in unsafe room.copyBytes(from: value) }
      let frame = output.copied()
      #expect(Array(frame.prefix(5)) == Frame.prefix(count: frame.count - 5))
      let reply = try ReplyDecoder().decode(Array(frame.dropFirst(5)))
      #expect(reply.id == UInt64(number) << 31 && reply.sequence == UInt64(number) - 1)
      guard case .success(.fetch(.some(let key))) = reply.outcome else { throw UnexpectedReply() }
      #expect(key.type == "SECRET" && key.version == number && key.latestVersion == number)
      #expect(key.value.isEqual(to: try secret(value)))
    }
  }

  @Test func aFetchThatFailsLeavesNothing() throws {
    struct Failure: Error {}
    var output = WipedBuffer()
    output.append([1, 2, 3])
    #expect(throws: Failure.self) {
      try unsafe ReplyEncoder.appendFetch(
        id: 1,
        sequence: 1,
        type: "AES",
        version: 1,
        latestVersion: 1,
        valueBytes: 16,
        to: &output
      ) { room throws(Failure) in
        unsafe room.storeBytes(of: 0x55, as: UInt8.self)
        throw Failure()
      }
    }
    #expect(output.copied() == [1, 2, 3])
  }

  @Test func everyReasonIsDecoded() throws {
    let decoder = ReplyDecoder()
    for reason in Reason.allCases {
      let status = Status(reason, "wörds of \(reason.name)", retryAfterMilliseconds: 7)
      let reply = try decoder.decode(ReplyEncoder.bytes(id: 9, sequence: 3, status))
      #expect(reply.id == 9 && reply.sequence == 3)
      guard case .failure(let decoded) = reply.outcome else { throw UnexpectedReply() }
      #expect(decoded == status)
    }
    #expect(Reason.allCases.count == 36)
  }

  @Test func aStatusIsCutAt1024BytesAndStaysText() throws {
    for text in [String(repeating: "é", count: 1000), "x" + String(repeating: "é", count: 1000), "short"] {
      let status = Status(.internalError, text)
      #expect(status.message.utf8.count <= 1024)
      #expect(text.hasPrefix(status.message))
    }
  }

  @Test func clientsPassOverWhatTheyDoNotKnow() throws {
    let known = ReplyEncoder.bytes(id: 5, sequence: 6, .store(version: 7))
    let reply = try ReplyDecoder().decode(known + Field.text(2000, "new") + Field.number(2001, 1))
    guard case .success(.store(7)) = reply.outcome else { throw UnexpectedReply() }
    #expect(reply.id == 5 && reply.sequence == 6)
  }
}
