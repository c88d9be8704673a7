import Dispatch
import Foundation
import Glibc
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// What a restore leaves alone, and what it says when it does not end.
///
/// One at a time: each stretches a passphrase several times, with 128 MiB and a core.
@Suite(.serialized) struct RestoreTests {
  /// Holds the first call up that a test waits for, until it says.
  final class Gate: Sendable {
    enum Phase { case idle, armed, held, open }
    private let phase = Mutex(Phase.idle)
    private let release = DispatchSemaphore(value: 0)
    private let then: Interception
    private let isHeld: @Sendable (SystemCall) -> Bool

    init(then: Interception = .proceed, _ isHeld: @escaping @Sendable (SystemCall) -> Bool) {
      self.then = then
      self.isHeld = isHeld
    }

    var calls: SystemCalls { SystemCalls { self.holds($0) ? self.then : .proceed } }

    /// True if it held the call up, once that is over.
    func holds(_ call: SystemCall) -> Bool {
      let isFirst = phase.withLock { phase in
        guard phase == .armed, isHeld(call) else { return false }
        phase = .held
        return true
      }
      if isFirst { release.wait() }
      return isFirst
    }

    func arm() { phase.withLock { $0 = .armed } }
    func open() {
      phase.withLock { $0 = .open }
      release.signal()
    }
    func reached() async { while phase.withLock({ $0 }) != .held { await Task.yield() } }
  }

  private static func server(
    _ data: TestDirectory?,
    _ pki: TestPKI,
    _ calls: SystemCalls = SystemCalls()
  ) async throws -> TestServer {
    try await TestServer(pki: pki, data: data, backupPassphrase: BackupTests.passphrase, calls: calls)
  }

  private static func state(_ admin: TestClient) async throws -> TenantState {
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return status.summary.state
  }

  /// A backup of acme, and the server that it is of, shut down.
  private static func taken() async throws -> (bytes: [UInt8], server: TestServer) {
    let (server, admin, instance) = try await BackupTests.filled(1)
    let bytes = try await admin.backup("acme").bytes
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    return (bytes, server)
  }

  private static func makeDirectory(_ path: String) throws {
    try FileManager.default.createDirectory(
      atPath: path,
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
  }

  // MARK: What is given up

  @Test func anotherHistoryIsGivenUpOnlyWhereThatIsAccepted() async throws {
    let (server, admin, instance) = try await BackupTests.filled(1)
    let old = try await admin.backup("acme").bytes
    _ = try await instance.call(try .store(.shared("k1"), "of k1"))
    let new = try await admin.backup("acme").bytes
    _ = try await admin.restore("acme", old, .acceptingRollback)
    _ = try await instance.call(try .store(.shared("k2"), "of k2"))
    // As long as the backup's history, and another.
    for bytes in [new, old] {
      let refusal = try #require(try await admin.restoreRefusal("acme", bytes))
      #expect(refusal.reason == .restoreRefused && refusal.message.contains("--accept-rollback"))
      #expect(try await BackupTests.fetch(instance, 2))
    }
    let report = try await admin.restore("acme", new, .acceptingRollback)
    #expect(report.notices.count == 1 && report.notices[0].contains("another history"))
    #expect(try await BackupTests.fetch(instance, 1))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func aDryRunAndARefusalLeaveAnOpenTenantOpen() async throws {
    let (server, admin, instance) = try await BackupTests.filled(1)
    let bytes = try await admin.backup("acme").bytes
    var dry = TestClient.Restoring()
    dry.isDryRun = true
    #expect(try await Self.state(admin) == .ready)
    #expect(try await admin.restore("acme", bytes, dry).replacedSequence > 0)
    #expect(try await Self.state(admin) == .ready)
    _ = try await instance.call(try .store(.shared("k1"), "of k1"))
    #expect(try await admin.restoreRefusal("acme", bytes)?.reason == .restoreRefused)
    #expect(try await Self.state(admin) == .ready)
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  /// What the server remembers of it is not there: not "as it was asked for", and nothing that a restart would be needed for.
  @Test func aTenantWhoseDirectoryWentAwayIsRestoredWhileTheServerRuns() async throws {
    let (server, admin, instance) = try await BackupTests.filled(1)
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db2")))
    let bytes = try await admin.backup("acme").bytes
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db3")))
    try FileManager.default.removeItem(atPath: server.data("tenants/acme"))
    #expect(try await admin.refusal(admin.create("acme"))?.reason == .configurationInvalid)
    // Known again only once it is there; and gone again.
    #expect(try await admin.restore("acme", bytes).summary.keys == 1)
    let later = try server.instance("acme", "db1")
    #expect(try await BackupTests.fetch(later, 0))
    try FileManager.default.removeItem(atPath: server.data("tenants/acme"))
    _ = try await admin.restore("acme", bytes)
    for client in [instance, later] { await client.close() }
    let last = try server.instance("acme", "db1")
    #expect(try await BackupTests.fetch(last, 0))
    guard case .instanceList(let instances, _) = try await admin.call(.admin(.instanceList("acme"))) else {
      throw UnexpectedReply()
    }
    // Revoked after the backup was taken, and known to this server.
    #expect(Set(instances.filter { $0.source == "revoked" }.map(\.name)) == ["db2", "db3"])
    // It is really over: removed with its anchor, it can be made anew.
    for path in ["tenants/acme", "anchors/acme.anchor"] {
      try FileManager.default.removeItem(atPath: server.data(path))
    }
    #expect(try await admin.refusal(admin.create("acme")) == nil)
    let new = try server.instance("acme", "db1")
    #expect(try await new.refusal(try .store(.shared("k"), "v")) == nil)
    for client in [admin, last, new] { await client.close() }
    await server.shutdown()
  }

  @Test(arguments: ["tenant.yaml", "persisted.json"])
  func aTenantWhoseConfigurationDoesNotLoadStaysDisabled(_ file: String) async throws {
    let (server, admin, instance) = try await BackupTests.filled(1)
    let bytes = try await admin.backup("acme").bytes
    _ = try await admin.call(.admin(.tenantDisable("acme")))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    try server.data.write("tenants/acme/\(file)", "nonsense: [\n")
    let second = try await Self.server(server.data, server.pki)
    let (again, other) = (try second.client(.serviceAdmin), try second.instance("acme", "db1"))
    let report = try await again.restore("acme", bytes)
    #expect(report.notices.contains { $0.contains("stays disabled") })
    #expect(try await other.refusal(.fetch(.shared("k0")))?.reason == .tenantDisabled)
    _ = try await again.call(.admin(.tenantEnable("acme")))
    #expect(try await BackupTests.fetch(other, 0))
    for client in [again, other] { await client.close() }
    await second.shutdown()
  }

  @Test func aDirectoryThatWasMovedAwayIsNotRestoredInto() async throws {
    let (server, admin, instance) = try await BackupTests.filled(1)
    let bytes = try await admin.backup("acme").bytes
    try FileManager.default.moveItem(
      atPath: server.data("tenants/acme"),
      toPath: server.data("tenants/aside")
    )
    try Self.makeDirectory(server.data("tenants/acme"))
    let aside = server.data("tenants/aside/keyring")
    let before = try Data(contentsOf: URL(fileURLWithPath: aside))
    _ = try await admin.restore("acme", bytes)
    #expect(try Data(contentsOf: URL(fileURLWithPath: aside)) == before)
    #expect(FileManager.default.fileExists(atPath: server.data("tenants/acme/keyring")))
    let later = try server.instance("acme", "db1")
    #expect(try await BackupTests.fetch(later, 0))
    await later.close()
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func backupsThatHangHoldUpNobodysOpening() async throws {
    let first = try await BackupTests.server()
    for name in ["acme", "globex", "initech"] { try await first.makeTenant(name) }
    await first.shutdown()
    // As many as there are threads of a kind.
    let gates = (0..<2).map { _ in Gate { $0 == .write } }
    let calls = SystemCalls { call in
      for gate in gates where gate.holds(call) { return .proceed }
      return .proceed
    }
    let server = try await Self.server(first.data, first.pki, calls)
    let (one, two) = (try server.client(.serviceAdmin), try server.client(.serviceAdmin))
    let instance = try server.instance("initech", "db1")
    for gate in gates { gate.arm() }
    async let a = one.backup("acme")
    async let b = two.backup("globex")
    for gate in gates { await gate.reached() }
    defer { for gate in gates { gate.open() } }
    #expect(try await instance.refusal(.fetch(.shared("k0"))) == nil)
    for gate in gates { gate.open() }
    #expect(try await a.summary.records == b.summary.records)
    for client in [one, two, instance] { await client.close() }
    await server.shutdown()
  }

  // MARK: What is left behind

  @Test func aRefusalMakesNoDirectoryAndACreationCompletesAnEmptyOne() async throws {
    let (bytes, first) = try await Self.taken()
    try FileManager.default.removeItem(atPath: first.data("tenants/acme"))
    // An anchor of another keyring alone.
    let other = try await Self.taken().server
    let anchor = first.data("anchors/acme.anchor")
    try FileManager.default.removeItem(atPath: anchor)
    try FileManager.default.copyItem(atPath: other.data("anchors/acme.anchor"), toPath: anchor)
    let server = try await Self.server(first.data, first.pki)
    let admin = try server.client(.serviceAdmin)
    #expect(try await admin.restoreRefusal("acme", bytes)?.reason == .restoreRefused)
    #expect(!FileManager.default.fileExists(atPath: server.data("tenants/acme")))
    try Self.makeDirectory(server.data("tenants/acme"))
    let create = Call.admin(.tenantCreate(TenantCreateCall(tenant: "acme", anyInstance: true)))
    #expect(try await admin.refusal(create) != nil, "there is an anchor")
    try FileManager.default.removeItem(atPath: anchor)
    try server.data.write("tenants/acme/keyring", "of somebody")
    #expect(try await admin.refusal(create) != nil, "there is a file")
    try FileManager.default.removeItem(atPath: server.data("tenants/acme/keyring"))
    try await server.makeTenant("acme")
    await admin.close()
    await server.shutdown()
  }

  // MARK: What is said

  @Test func aRestoreThatDidNotEndSaysWhatToDo() async throws {
    let (bytes, first) = try await Self.taken()
    let plan = FaultPlan()
    let server = try await Self.server(first.data, first.pki, plan.calls)
    let (admin, instance) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    plan.arm(.rename, 3, .fail(EIO))  // storage file, anchor, tenant.yaml
    let refusal = try #require(try await admin.restoreRefusal("acme", bytes))
    #expect(plan.wasHit)
    #expect(refusal.reason == .outcomeUnknown && refusal.message.contains("run the same again"), "\(refusal)")
    plan.disarm()
    _ = try await admin.restore("acme", bytes)
    #expect(try await BackupTests.fetch(instance, 0))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func anInstanceMayWriteBeforeARestoreIsLookedAt() async throws {
    let (bytes, first) = try await Self.taken()
    let data = try TestDirectory()
    try data.write("root.key", BackupTests.otherRootKey + "\n")
    let yaml = data("tenants/acme/tenant.yaml")
    // The first that opens anything once the tenant is there is the restore itself.
    let gate = Gate { $0 == .open && FileManager.default.fileExists(atPath: yaml) }
    let server = try await Self.server(data, first.pki, gate.calls)
    let (admin, instance) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    gate.arm()
    async let report = admin.restore("acme", bytes)
    await gate.reached()
    let refusal = try await instance.refusal(try .store(.shared("k1"), "of k1"))
    gate.open()
    #expect(refusal == nil)
    #expect(try await report.notices.isEmpty)
    for index in 0..<2 { #expect(try await BackupTests.fetch(instance, index)) }
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func aRestoreThatMustWaitKeepsWhatWasSent() async throws {
    let (bytes, first) = try await Self.taken()
    let gate = Gate(then: .fail(EIO)) { $0 == .mkdir }
    let server = try await Self.server(nil, first.pki, gate.calls)
    let (admin, other) = (try server.client(.serviceAdmin), try server.client(.serviceAdmin))
    let begin = RestoreBeginCall(bytes: UInt64(bytes.count), digest: try Backup(bytes).digest)
    guard case .restore(.begun(let id)) = try await admin.call(.admin(.restore("acme", .begin(begin)))) else {
      throw UnexpectedReply()
    }
    _ = try await admin.call(.admin(.restore("acme", .write(id, offset: 0, data: bytes))))
    gate.arm()
    let create = Call.admin(.tenantCreate(TenantCreateCall(tenant: "acme", anyInstance: true)))
    async let created = other.refusal(create)
    await gate.reached()
    let refusal = try await admin.refusal(.admin(.restore("acme", .end(id))))
    gate.open()
    #expect(refusal?.reason == .throttled)
    #expect(try await created != nil)
    guard case .restore(.ended) = try await admin.call(.admin(.restore("acme", .end(id)))) else {
      throw UnexpectedReply()
    }
    for client in [admin, other] { await client.close() }
    await server.shutdown()
  }
}
