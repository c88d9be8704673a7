import AuditLog
import Foundation
import Glibc
import KeyringCore
import KeyringService
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// Every call is in the audit log, once, with who made it; and a strict one is not made without.
@Suite struct AuditTests {
  typealias Entry = [String: Any]

  /// The files of a log, in their order.
  static func files(_ server: TestServer, _ log: String) -> [String] {
    (1...).lazy.map { server.data("audit/\(log).\($0).jsonl") }
      .prefix { FileManager.default.fileExists(atPath: $0) }
  }

  static func entries(_ server: TestServer, _ log: String) throws -> [Entry] {
    try files(server, log).flatMap { path in
      try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").compactMap { line in
        try JSONSerialization.jsonObject(with: Data(line.utf8)) as? Entry
      }
    }.filter { ["call", "event"].contains($0["type"] as? String) }
  }

  static func outcomes(_ server: TestServer, _ log: String) throws -> [Entry] {
    try entries(server, log).filter { $0["phase"] as? String == "outcome" }
  }

  static func verify(_ server: TestServer, _ log: String) async throws -> TestProgram.Outcome {
    try await TestProgram(product: "keyringctl").run([
      "audit", "verify", server.data("audit"), log, "--public-key", server.data("audit/checkpoint.pub"),
      "--head", server.data("anchors/\(log).audit"),
    ])
  }

  static func set(_ tenant: String, _ value: String) -> Call {
    .admin(.variablesSet(tenant: tenant, name: "audit", value: value, .global))
  }

  /// Decides what becomes of the calls of one log.
  final class Disk: Sendable {
    private let decide = Mutex<(@Sendable (SystemCall) -> Interception)?>(nil)

    func set(_ decide: (@Sendable (SystemCall) -> Interception)?) { self.decide.withLock { $0 = decide } }

    /// Of `log`; those of others are made.
    func auditing(_ log: String) -> Auditing {
      var auditing = Auditing()
      auditing.limits.gatherMilliseconds = 1
      auditing.limits.retryMilliseconds = 10
      auditing.calls = { name in
        guard name == log else { return SystemCalls() }
        return SystemCalls { call in
          let decide = self.decide.withLock { $0 }
          return decide?(call) ?? .proceed
        }
      }
      return auditing
    }
  }

  // MARK: What is in it

  @Test(arguments: ["lenient", "strict"])
  func everyCallOfAnInstanceLeavesOneOutcomeWithItsCaller(_ mode: String) async throws {
    let server = try await TestServer(audit: ["service: \(mode)"])
    try await server.makeTenant("acme")
    let (admin, db) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    _ = try await admin.call(Self.set("acme", mode))
    let odd = KeyName(scope: .shared, owner: Array("u@h".utf8), keyID: [0x6b, 0xff, 0x5c])
    let calls: [(Call, String, String)] = [
      (try .store(odd, "CANARY-KEY-VALUE"), "store", "OK"),
      (.fetch(odd), "fetch", "OK"), (.fetch(.own("absent")), "fetch", "OK"),
      (.describe(odd, version: 0), "describe", "OK"), (.generate(.own("g")), "generate", "OK"),
      (.change(.rotate(.own("g"))), "rotate", "OK"), (.list(ListCall(scope: .shared)), "list", "OK"),
      (.transact([.generate(.own("a"), type: "AES", length: 16), .remove(.own("g"))]), "transact", "OK"),
      (.whoAmI, "whoami", "OK"), (.remove(odd), "remove", "OK"),
      (.remove(odd), "remove", "NOT_FOUND"), (.generate(.own("a")), "generate", "ALREADY_EXISTS"),
      (.fetch(KeyName(scope: .instance, owner: [], keyID: [])), "fetch", "INVALID_ARGUMENT"),
      (.admin(.tenantShow("acme")), "tenant-show", "PERMISSION_DENIED"),
      (.admin(.status("")), "status", "PERMISSION_DENIED"),
      (.admin(.tenantShow("other")), "tenant-show", "PERMISSION_DENIED"),
    ]
    for (call, _, status) in calls { #expect((try await db.refusal(call) == nil) == (status == "OK")) }
    for client in [admin, db] { await client.close() }
    await server.shutdown()
    let outcomes = try Self.outcomes(server, "acme")
    let mine = outcomes.filter { ($0["identity"] as? String)?.hasSuffix("/tenant/acme/instance/db1") == true }
    #expect(mine.map { $0["call"] as? String } == calls.map(\.1))
    #expect(mine.map { $0["status"] as? String } == calls.map(\.2))
    for entry in mine {
      #expect((entry["certificate"] as? String)?.count == 64)
      #expect((entry["address"] as? String)?.hasPrefix("127.0.0.1:") == true)
      #expect((entry["reason"] == nil) == (entry["status"] as? String == "OK"))
    }
    let key = try #require(mine[1]["key"] as? Entry)
    #expect(key["key_id"] as? String == "k\\xff\\\\" && key["owner"] as? String == "u@h")
    #expect(key["scope"] as? String == "shared" && key["version"] as? Int == 1)
    #expect(mine[1]["found"] as? Bool == true && mine[2]["found"] as? Bool == false)
    #expect((mine[0]["sequence"] as? Int ?? 0) > 0)
    #expect((mine[7]["keys"] as? [Entry])?.map { $0["op"] as? String } == ["generate", "remove"])
    // The administrator's, with both values.
    let change = try #require(outcomes.first { $0["call"] as? String == "variables-set" })
    #expect(change["new_value"] as? String == mode && change["variable"] as? String == "audit")
    let intents = try Self.entries(server, "acme").filter { $0["phase"] as? String == "intent" }
    let changes = mine.filter {
      ["store", "generate", "rotate", "transact", "remove"].contains($0["call"] as? String)
    }
    #expect(intents.count == (mode == "strict" ? changes.count : 0))
    #expect(mode != "strict" || changes.allSatisfy { $0["intent"] is Int })
    for log in ["acme", "_service"] {
      let outcome = try await Self.verify(server, log)
      #expect(outcome.status == 0, "\(outcome.error)")
    }
  }

  @Test func theServicesLogHasItsOwnCallsAndEvents() async throws {
    let server = try await TestServer(audit: [])
    try await server.makeTenant("acme")
    let (admin, stranger) = (try server.client(.serviceAdmin), try server.instance("unknown", "db1"))
    _ = try await admin.call(.admin(.tenantList(pageSize: 0, after: "")))
    _ = try await admin.call(.admin(.status("")))
    _ = try await admin.refusal(.admin(.tenantShow("nobody")))
    _ = try await admin.refusal(.fetch(.own("k")))
    _ = try await stranger.refusal(.fetch(.own("k")))
    _ = try await admin.call(.admin(.tenantDisable("acme")))
    _ = try await admin.call(.admin(.tenantEnable("acme")))
    for client in [admin, stranger] { await client.close() }
    await server.shutdown()
    let entries = try Self.entries(server, "_service")
    #expect(
      entries.map { $0["call"] as? String } == [
        "server-start", "tenant-create", "tenant-list", "status", "tenant-show", "fetch", "fetch",
        "server-stop",
      ]
    )
    #expect(
      entries.map { $0["reason"] as? String } == [
        nil, nil, nil, nil, "TENANT_ABSENT", "FORBIDDEN", "FORBIDDEN", nil,
      ]
    )
    #expect(
      try Self.outcomes(server, "acme").map { $0["call"] as? String } == ["tenant-disable", "tenant-enable"]
    )
    #expect(Self.files(server, "unknown").isEmpty && Self.files(server, "nobody").isEmpty)
  }

  @Test func aConnectionTooManyIsInTheServicesLog() async throws {
    let server = try await TestServer(limits: ["connections_per_tenant: 1"], audit: [])
    try await server.makeTenant("acme")
    let (one, two) = (try server.instance("acme", "db1"), try server.instance("acme", "db2"))
    _ = try await one.call(.whoAmI)
    await #expect(throws: (any Error).self) { try await two.call(.whoAmI) }
    for client in [one, two] { await client.close() }
    await server.shutdown()
    let refused = try Self.entries(server, "_service").filter { $0["call"] as? String == "connection" }
    #expect(refused.count == 1 && refused.first?["reason"] as? String == "THROTTLED")
    #expect((refused.first?["identity"] as? String)?.hasSuffix("/instance/db2") == true)
  }

  /// What went through the server is not in the audit directory, in any form in which it went.
  @Test func noSecretIsInTheDirectory() async throws {
    let server = try await TestServer(backupPassphrase: "CANARY-PASSPHRASE", audit: [])
    try await server.makeTenant("acme")
    let (admin, db) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    let canary = "CANARY-KEY-VALUE-0123456789abcde"
    for mode in ["lenient", "strict"] {
      _ = try await admin.call(Self.set("acme", mode))
      _ = try await db.call(try .store(.own("\(mode)1"), canary))
      _ = try await db.refusal(try .store(.own("\(mode)1"), canary))
      _ = try await db.refusal(try .store(.own("\(mode)2"), canary, type: "NONE"))
      #expect(try await db.fetch(.own("\(mode)1")) == hexadecimal(canary.utf8))
      _ = try await admin.refusal(
        .admin(.variablesSet(tenant: "acme", name: "region", value: "CANARY-CREDENTIAL", .global))
      )
      _ = try await admin.refusal(
        .admin(.variablesSet(tenant: "acme", name: "secret_access_key", value: "CANARY-CREDENTIAL", .global))
      )
    }
    for client in [admin, db] { await client.close() }
    await server.shutdown()
    var read = 0
    for name in try FileManager.default.contentsOfDirectory(atPath: server.data("audit")) {
      let content = try Data(contentsOf: URL(filePath: server.data("audit/\(name)")))
      read += content.count
      let texts = ["CANARY", hexadecimal("CANARY".utf8), Data("CANARY".utf8).base64EncodedString()]
      for text in texts + [String(repeating: "5a", count: 32)] {
        #expect(content.range(of: Data(text.utf8)) == nil, "\(text) in \(name)")
      }
    }
    #expect(read > 5000)
  }

  /// By which AWS knows what a call led to; its credentials are nowhere.
  @Test func theRequestIDsOfTheKMSAreInTheEntryThatLedToThem() async throws {
    let fixture = try await AWSFixture(audit: [])
    _ = try await fixture.client.call(.generate(.own("k")))
    #expect(try await fixture.client.fetch(.own("k")) != nil)
    fixture.kms.refuse(fixture.tenant.accessKeyID, with: "AccessDeniedException")
    #expect(try await fixture.client.refusal(.generate(.own("k2"))) != nil)
    for client in [fixture.client, fixture.admin] { await client.close() }
    await fixture.server.shutdown()
    let outcomes = try Self.outcomes(fixture.server, "acme")
    #expect(outcomes.map { $0["call"] as? String } == ["generate", "fetch", "generate"])
    let ids = outcomes.map { $0["kms_request_ids"] as? [String] ?? [] }
    // GenerateDataKey and GenerateRandom at least; none for what memory answers; and of the refusal too.
    #expect(ids[0].count >= 2 && ids[1].isEmpty && !ids[2].isEmpty)
    #expect(
      ids.joined().allSatisfy { $0.hasPrefix("scripted-") } && Set(ids.joined()).count == ids.joined().count
    )
    #expect(outcomes[2]["status"] as? String != "OK")
    let text = try Self.files(fixture.server, "acme").map { try String(contentsOfFile: $0, encoding: .utf8) }
      .joined()
    #expect(!text.contains(fixture.tenant.secretAccessKey) && !text.contains(fixture.tenant.accessKeyID))
    try await fixture.kms.shutdown()
  }

  /// A fetch that memory answers and one that a task does, each with its trace; and what is refused before it is executed.
  @Test(arguments: ["lenient", "strict"])
  func tracesAndRefusalsOfTheConnectionAreInIt(_ mode: String) async throws {
    let server = try await TestServer(audit: [])
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    _ = try await admin.call(Self.set("acme", mode))
    let raw = try await RawClient(server, "acme")
    let trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    for id in 1...2 as ClosedRange<UInt64> {
      try await raw.send([Request(id: id, traceparent: trace, call: .fetch(.own("k")))])
      #expect(await raw.reply()?.id == id)
    }
    let large = KeyName(scope: .instance, owner: [], keyID: Array(repeating: 0x61, count: 70_000))
    try await raw.send([Request(id: 3, call: .describe(large, version: 0))])
    #expect(await raw.reply() != nil)
    await raw.close()
    await admin.close()
    await server.shutdown()
    let mine = try Self.outcomes(server, "acme").filter {
      ($0["identity"] as? String)?.hasSuffix("db1") == true
    }
    #expect(mine.map { $0["call"] as? String } == ["fetch", "fetch", "describe"])
    #expect(mine.map { $0["trace"] as? String } == [trace, trace, nil])
    #expect(mine.last?["reason"] as? String == "MESSAGE_TOO_LARGE")
  }

  /// Each refusal says what was asked: of requests that nobody can read, too, which count like others.
  @Test func whatALimitRefusesIsInItByName() async throws {
    let server = try await TestServer(audit: [])
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    let raw = try await RawClient(server, "acme")
    try await raw.send([Request(id: 1, call: .generate(.own("k")))])
    #expect(await raw.reply()?.refusal == nil)
    for (name, value) in [("limits.requests_per_second", "1"), ("limits.requests_burst", "1")] {
      _ = try await admin.call(
        .admin(.variablesSet(tenant: "acme", name: name, value: value, .global))
      )
    }
    // The first takes what there is.
    let trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    let calls = [
      Request(id: 2, call: .fetch(.own("k"))), Request(id: 3, call: .fetch(.own("k"))),
      Request(id: 4, traceparent: trace, call: .fetch(.own("k"))), Request(id: 5, call: .remove(.own("k"))),
    ]
    var unreadable = Request(id: 6, traceparent: String(repeating: "x", count: 65), call: .whoAmI).frame
    unreadable += Request(id: 7, call: .whoAmI).frame
    // A flood has as many entries as there may be a second, and the next says how many have none.
    let flood = (8...60).map { Request(id: $0, call: .fetch(.own("k"))) }
    try await raw.send(calls.flatMap(\.frame) + unreadable + flood.flatMap(\.frame))
    for id in 2...60 as ClosedRange<UInt64> {
      let reply = await raw.reply()
      #expect(reply?.id == id)
      if id > 2 { #expect(reply?.refusal?.reason == .throttled, "\(id)") }
    }
    try await Task.sleep(for: .milliseconds(1100))
    var later = [Request(id: 61, call: .fetch(.own("k"))), Request(id: 62, call: .fetch(.own("k")))]
    later.append(Request(id: 63, call: .remove(.own("k"))))
    try await raw.send(later.flatMap(\.frame))
    for _ in later { _ = await raw.reply() }
    for client in [admin] { await client.close() }
    await raw.close()
    await server.shutdown()
    let refused = try Self.outcomes(server, "acme").filter { $0["reason"] as? String == "THROTTLED" }
    #expect(
      refused.prefix(5).map { $0["call"] as? String } == ["fetch", "fetch", "remove", "unknown", "whoami"]
    )
    let unwritten = refused.compactMap { $0["unwritten_before"] as? Int }
    #expect(refused.count <= 18 && (unwritten.first ?? 0) >= 40, "\(refused.count), \(unwritten)")
    #expect(refused.first?["key"] != nil && refused[1]["trace"] as? String == trace)
  }

  // MARK: Disks

  @Test func strictRefusesAndChangesNothingWhileOthersGoOn() async throws {
    let disk = Disk()
    let server = try await TestServer(audit: [], auditing: disk.auditing("acme"))
    for tenant in ["acme", "other"] { try await server.makeTenant(tenant) }
    let (admin, db) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    let other = try server.instance("other", "db1")
    for tenant in ["acme", "other"] { _ = try await admin.call(Self.set(tenant, "strict")) }
    _ = try await db.call(try .store(.own("k"), "value"))
    let before = try Data(contentsOf: URL(filePath: server.data("tenants/acme/keyring")))
    for failing in [SystemCall.write, .fdatasync] {
      disk.set { $0 == failing ? .fail(ENOSPC) : .proceed }
      let calls: [Call] = [
        .fetch(.own("k")), .fetch(.own("none")), try .store(.own("new"), "value"), .remove(.own("k")),
        .list(ListCall(scope: .instance)), .describe(.own("k"), version: 0),
      ]
      for call in calls {
        let refusal = try await db.refusal(call)
        #expect(refusal?.reason == .auditUnavailable && refusal?.code == .unavailable, "\(call)")
      }
      #expect(try await admin.refusal(Self.set("acme", "off"))?.reason == .auditUnavailable)
      _ = try await other.call(try .store(.own("k\(failing)"), "value"))
      #expect(try await other.fetch(.own("k\(failing)")) != nil)
    }
    #expect(try Data(contentsOf: URL(filePath: server.data("tenants/acme/keyring"))) == before)
    disk.set(nil)
    #expect(try await db.fetch(.own("k")) != nil)
    #expect(try await db.fetch(.own("new")) == nil)
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    #expect(status.audit == "strict" && status.auditDropped >= 14 && status.auditFailure.isEmpty)
    for client in [admin, db, other] { await client.close() }
    await server.shutdown()
    let outcome = try await Self.verify(server, "acme")
    #expect(outcome.status == 0, "\(outcome.error)")
    #expect(outcome.text.contains("the server could not write"))
    #expect(try await Self.verify(server, "other").status == 0)
  }

  /// The change is made, and the disk fails before its outcome: the caller is told that it cannot be known, and the intent is there.
  @Test func aStrictChangeHasItsIntentBeforeItAndIsUnknownWithoutItsOutcome() async throws {
    let disk = Disk()
    var auditing = disk.auditing("acme")
    auditing.limits.checkpointMilliseconds = 600_000  // nothing is written but entries
    let server = try await TestServer(audit: [], auditing: auditing)
    try await server.makeTenant("acme")
    let (admin, db) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    _ = try await admin.call(Self.set("acme", "strict"))
    _ = try await db.call(try .store(.own("first"), "value"))
    let writes = Atomic(0)
    disk.set { call in
      guard call == .write else { return .proceed }
      return writes.add(1, ordering: .relaxed).newValue > 1 ? .fail(EIO) : .proceed
    }
    #expect(try await db.refusal(try .store(.own("second"), "value"))?.reason == .outcomeUnknown)
    disk.set(nil)
    #expect(try await db.fetch(.own("second")) != nil)
    for client in [admin, db] { await client.close() }
    await server.shutdown()
    let stores = try Self.entries(server, "acme").filter { $0["call"] as? String == "store" }
    #expect(stores.map { $0["phase"] as? String } == ["intent", "outcome", "intent"])
  }

  @Test func lenientGoesOnAndTellsTheGapLater() async throws {
    let disk = Disk()
    var auditing = disk.auditing("acme")
    auditing.limits.queueItems = 4
    let server = try await TestServer(audit: [], auditing: auditing)
    try await server.makeTenant("acme")
    let db = try server.instance("acme", "db1")
    _ = try await db.call(try .store(.own("k"), "value"))
    disk.set { $0 == .write || $0 == .open ? .fail(ENOSPC) : .proceed }
    for _ in 0..<30 { #expect(try await db.fetch(.own("k")) != nil) }
    disk.set(nil)
    let admin = try server.client(.serviceAdmin)
    while true {
      guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
        throw UnexpectedReply()
      }
      if status.auditFailure.isEmpty, status.auditWritten > 0 { break }
      try await Task.sleep(for: .milliseconds(20))
    }
    for client in [admin, db] { await client.close() }
    await server.shutdown()
    let outcome = try await Self.verify(server, "acme")
    #expect(outcome.status == 0 && outcome.text.contains("the server could not write"), "\(outcome.error)")
    #expect(try Self.outcomes(server, "acme").contains { $0["call"] as? String == "store" })
  }

  /// A write that hangs: lenient calls go on, strict ones are refused in time, other tenants notice nothing, and the server ends.
  @Test func aDiskThatHangsHoldsNobody() async throws {
    let (disk, gate) = (Disk(), DispatchSemaphore(value: 0))
    var auditing = disk.auditing("acme")
    auditing.limits.patienceMilliseconds = 1000
    let server = try await TestServer(audit: [], auditing: auditing)
    for tenant in ["acme", "other"] { try await server.makeTenant(tenant) }
    let (admin, db) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    let other = try server.instance("other", "db1")
    _ = try await admin.call(Self.set("other", "strict"))
    _ = try await db.call(try .store(.own("k"), "value"))
    let hangs = Atomic(0)
    disk.set { call in
      if call == .write {
        hangs.add(1, ordering: .relaxed)
        gate.wait()
      }
      return .proceed
    }
    while hangs.load(ordering: .relaxed) == 0 { #expect(try await db.fetch(.own("k")) != nil) }
    for number in 0..<10 {
      #expect(try await db.fetch(.own("k")) != nil)
      _ = try await other.call(try .store(.own("k\(number)"), "value"))
    }
    _ = try await admin.call(Self.set("acme", "strict"))
    #expect(try await db.refusal(.fetch(.own("k")))?.reason == .auditUnavailable)
    #expect(try await db.refusal(try .store(.own("new"), "value"))?.reason == .auditUnavailable)
    #expect(try await other.fetch(.own("k3")) != nil)
    disk.set(nil)
    gate.signal()
    #expect(try await db.fetch(.own("new")) == nil)
    for client in [admin, db, other] { await client.close() }
    await server.shutdown()
    for log in ["acme", "other"] { #expect(try await Self.verify(server, log).status == 0) }
  }

  // MARK: Settings

  @Test func strictNeedsADirectoryAndOffWritesNothing() async throws {
    let bare = try await TestServer()
    try await bare.makeTenant("acme")
    let admin = try bare.client(.serviceAdmin)
    #expect(try await admin.refusal(Self.set("acme", "strict"))?.reason == .variableInvalid)
    await admin.close()
    await bare.shutdown()
    let server = try await TestServer(audit: [])
    try await server.makeTenant("acme")
    let (second, db) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    #expect(try await second.refusal(Self.set("acme", "loose"))?.reason == .variableInvalid)
    _ = try await second.call(
      .admin(.variablesSet(tenant: "acme", name: "audit", value: "off", .persist))
    )
    _ = try await db.call(.whoAmI)
    for client in [second, db] { await client.close() }
    await server.shutdown()
    // Switching it off is the last that is there.
    #expect(try Self.outcomes(server, "acme").map { $0["status"] as? String } == ["INVALID_ARGUMENT", "OK"])
    let again = try await TestServer(pki: server.pki, data: server.data, audit: [])
    let back = try again.instance("acme", "db1")
    _ = try await back.call(.whoAmI)
    await back.close()
    await again.shutdown()
    #expect(try Self.outcomes(server, "acme").count == 2)
    let outcome = try await Self.verify(server, "_service")
    #expect(outcome.status == 0, "\(outcome.error)")
  }

  /// docs/AUDIT.md suffices to write a verifier: this one shares no code with ours.
  @Test func anIndependentVerifierAgrees() async throws {
    let server = try await TestServer(audit: ["file_bytes_max: 4096"])
    try await server.makeTenant("acme")
    let db = try server.instance("acme", "db1")
    for number in 0..<30 { _ = try await db.call(.generate(.shared("k\(number)"))) }
    await db.close()
    await server.shutdown()
    let script = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "PythonClient/audit_verify.py").path
    func run() async throws -> TestProgram.Outcome {
      try await TestProgram(path: script).run(
        [server.data("audit/checkpoint.pub"), server.data("anchors/acme.audit")] + Self.files(server, "acme")
      )
    }
    let whole = try await run()
    #expect(whole.status == 0 && whole.text.contains("whole: 30 entries"), "\(whole.text)\(whole.error)")
    let path = Self.files(server, "acme")[1]
    var bytes = try Data(contentsOf: URL(filePath: path))
    let place = try #require(bytes.range(of: Data("generate".utf8)))
    bytes[place.lowerBound] = UInt8(ascii: "G")
    try bytes.write(to: URL(filePath: path))
    #expect(try await run().status == 1)
  }

  @Test func verifyFindsWhatWasChangedAndSaysWhatItCannotProve() async throws {
    let server = try await TestServer(audit: ["file_bytes_max: 4096"])
    try await server.makeTenant("acme")
    let db = try server.instance("acme", "db1")
    for number in 0..<30 { _ = try await db.call(.generate(.own("k\(number)"))) }
    await db.close()
    await server.shutdown()
    let program = try TestProgram(product: "keyringctl")
    let files = Self.files(server, "acme")
    let plain = try await program.run(["audit", "verify"] + files.reversed())
    #expect(plain.status == 0 && plain.text.contains("not proved"), "\(plain.error)")
    #expect(plain.text.contains("--head") && plain.text.contains("public key"))
    let json = try await program.run(["audit", "verify", server.data("audit"), "acme", "--output", "json"])
    let report = try #require(try JSONSerialization.jsonObject(with: json.output) as? Entry)
    #expect(report["whole"] as? Bool == true && report["entries"] as? Int == 30)
    #expect((report["not_proved"] as? [String])?.count == 2)
    var bytes = try Data(contentsOf: URL(filePath: files[0]))
    let whole = bytes
    bytes[700] ^= 1
    try bytes.write(to: URL(filePath: files[0]))
    let changed = try await Self.verify(server, "acme")
    #expect(changed.status != 0 && changed.error.contains("not whole"))
    try whole.write(to: URL(filePath: files[0]))
    let last = try #require(files.last)
    let lines = try String(contentsOfFile: last, encoding: .utf8).split(separator: "\n")
    try (lines.dropLast(2).joined(separator: "\n") + "\n").write(
      toFile: last,
      atomically: false,
      encoding: .utf8
    )
    let cut = try await Self.verify(server, "acme")
    #expect(cut.status != 0 && cut.error.contains("the end is missing"))
  }
}
