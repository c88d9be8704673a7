import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Every call with every identity that may not make it: refused alike.
@Suite(.timeLimit(.minutes(5))) struct IdentityMatrixTests {
  static let forbidden = Status(.forbidden, "this certificate may not do this")

  /// Who may make a call.
  enum Right: CaseIterable {
    case instance, tenantAdministrator, serviceAdministrator, everybody
    /// About a key: not the service's.
    case tenantAdministratorAlone
  }

  /// The right that each call needs; without a default, so that a new call is not forgotten.
  static func right(_ call: Call) -> Right {
    switch call {
    case .fetch, .describe, .change, .list, .transact, .importKeys: .instance
    case .whoAmI: .everybody
    case .admin(let call): right(call)
    }
  }

  private static func right(_ call: AdminCall) -> Right {
    switch call {
    case .tenantCreate, .tenantApply, .tenantList, .tenantDisable, .tenantEnable, .tenantAccept, .instanceAdd,
      .instanceRevoke, .tenantMove, .restore, .tenantLock, .tenantUnlock, .serviceReload,
      .tenantDelete, .tenantUndelete, .tenantReceipt:
      .serviceAdministrator
    case .explain(let call): call.key == nil ? .tenantAdministrator : .tenantAdministratorAlone
    case .status(let tenant): tenant.isEmpty ? .serviceAdministrator : .tenantAdministrator
    case .variablesSet(_, let name, _, _):
      name.hasPrefix("limits.") ? .serviceAdministrator : .tenantAdministrator
    case .tenantShow, .instanceList, .variablesList, .rotateCMK, .rotateKeys, .cmk, .backup,
      .tenantReload:
      .tenantAdministrator
    }
  }

  /// One of each kind, in the order of their names; `kinds` fails to compile where one is missing.
  static func calls(_ tenant: String) throws -> [Call] {
    let id = TransferID(value: 1)
    let admin: [AdminCall] = [
      .tenantCreate(TenantCreateCall(tenant: tenant)),
      .tenantApply([TenantCreateCall(tenant: "intruder")]), .explain(ExplainCall(tenant: tenant)),
      AuthorizationTests.explainKey(tenant), .tenantList(pageSize: 0, after: ""),
      .tenantShow(tenant), .tenantDisable(tenant), .tenantEnable(tenant),
      .instanceAdd(tenant: tenant, instance: "intruder"), .instanceRevoke(tenant: tenant, instance: "db1"),
      .instanceList(tenant), .variablesSet(tenant: tenant, name: "read_only", value: "true", .persist),
      .variablesSet(tenant: tenant, name: "limits.weight", value: "10000", .persist),
      .variablesList(tenant), .rotateCMK(tenant), .rotateKeys(tenant, allowTransient: true), .status(""),
      .status(tenant), .tenantAccept(tenant, sequence: 1),
      .cmk(tenant: tenant, .create, cmkID: "", days: 0), .backup(tenant, .begin(allowUnproved: true)),
      .backup(tenant, .read(id, offset: 0)), .backup(tenant, .end(id)),
      .restore(tenant, .begin(RestoreBeginCall(bytes: 1, digest: .zero, acceptRollback: true))),
      .restore(tenant, .write(id, offset: 0, data: [1])), .restore(tenant, .end(id)), .tenantReload(tenant),
      .tenantMove(.init(tenant: tenant, cmkID: "x", settings: [])), .tenantLock(tenant),
      .tenantUnlock(tenant), .serviceReload,
      .tenantDelete(TenantDeleteCall(tenant: tenant, afterSeconds: 0)), .tenantUndelete(tenant),
      .tenantReceipt(tenant),
    ]
    return try AuthorizationTests.instanceCalls() + [.whoAmI] + admin.map { .admin($0) }
  }

  /// A number of each kind of call; those of `calls` have to have all of them.
  private static func kind(_ call: Call) -> Int {
    switch call {
    case .fetch: 0
    case .describe: 1
    case .change(.store): 2
    case .change(.generate): 3
    case .change(.remove): 4
    case .change(.rotate): 5
    case .list: 6
    case .transact: 7
    case .whoAmI: 8
    case .importKeys: 9
    case .admin(let call): 10 + kind(call)
    }
  }

  private static func kind(_ call: AdminCall) -> Int {
    switch call {
    case .tenantCreate: 0
    case .tenantList: 1
    case .tenantShow: 2
    case .tenantDisable: 3
    case .tenantEnable: 4
    case .instanceAdd: 5
    case .instanceRevoke: 6
    case .instanceList: 7
    case .variablesSet: 8
    case .variablesList: 9
    case .rotateCMK: 10
    case .rotateKeys: 11
    case .status: 12
    case .tenantAccept: 13
    case .cmk: 14
    case .backup: 15
    case .restore: 16
    case .tenantReload: 17
    case .tenantMove: 18
    case .tenantLock: 19
    case .tenantUnlock: 20
    case .serviceReload: 21
    case .tenantApply: 22
    case .explain: 23
    case .tenantDelete: 24
    case .tenantUndelete: 25
    case .tenantReceipt: 26
    }
  }

  private static let kinds = 10 + 27

  /// Everything on the disk of the server.
  private func everything(_ server: TestServer) throws -> [String: Data] {
    let root = URL(filePath: server.data.path)
    let files = try #require(FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil))
    var found: [String: Data] = [:]
    for case let file as URL in files
    where try file.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile == true {
      found[file.path] = try Data(contentsOf: file)
    }
    return found
  }

  @Test func whoMayNotIsToldTheSame() async throws {
    let server = try await TestServer()
    for tenant in ["acme", "globex"] {
      try await server.makeTenant(tenant)
      let client = try server.instance(tenant, "db1")
      _ = try await client.call(try .store(.shared("secret"), "of \(tenant)"))
      await client.close()
    }
    let admin = try server.client(.serviceAdmin)
    let revoked = try server.instance("acme", "gone")
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "gone")))
    let (acme, globex) = (try TenantName("acme"), try TenantName("globex"))
    // Of each: what it may do with acme.
    let identities: [(String, TestClient, Set<Right>)] = [
      ("the service's administrator", admin, [.serviceAdministrator, .tenantAdministrator]),
      (
        "the tenant's administrator", try server.client(.tenantAdmin(acme)),
        [.tenantAdministrator, .tenantAdministratorAlone]
      ),
      ("an instance", try server.instance("acme", "db1"), [.instance]),
      ("another tenant's administrator", try server.client(.tenantAdmin(globex)), []),
      ("an unknown tenant's administrator", try server.client(.tenantAdmin(TenantName("nobody"))), []),
      ("an unknown tenant's instance", try server.instance("nobody", "db1"), []),
      ("a revoked instance", revoked, []),
    ]
    let calls = try Self.calls("acme")
    #expect(Set(calls.map { Self.kind($0) }) == Set(0..<Self.kinds))
    let before = try everything(server)
    var refusals = 0
    for (who, client, rights) in identities {
      for call in calls where Self.right(call) != .everybody && !rights.contains(Self.right(call)) {
        #expect(try await client.refusal(call) == Self.forbidden, "\(who): \(call)")
        refusals += 1
      }
      // An instance's calls are about the tenant of its certificate; those of another's are about that.
      if case .whoAmI(let identity) = try await client.call(.whoAmI) { #expect(!identity.uri.isEmpty) }
    }
    // Another tenant's instance names acme in administrators' calls alone.
    let foreign = try server.instance("globex", "db1")
    for call in calls where Self.right(call) != .everybody && Self.right(call) != .instance {
      #expect(try await foreign.refusal(call) == Self.forbidden)
      refusals += 1
    }
    #expect(try await foreign.fetch(.shared("secret")) == hexadecimal("of globex".utf8))
    #expect(refusals > 200)
    #expect(try everything(server) == before, "something was changed")
    for (_, client, _) in identities { await client.close() }
    await foreign.close()
    await server.shutdown()
  }

  /// Shows a certificate and sends all calls at once; answers what came back, and the alert.
  private func knock(_ server: TestServer, _ name: String, _ frames: Data) async throws -> (Data, String) {
    let outcome = try await TestProgram(path: "/usr/bin/openssl").run(
      [
        "s_client", "-connect", "localhost:\(server.port)", "-CAfile", server.pki.directory("ca.crt"),
        "-alpn",
        "keyring/1", "-quiet", "-ign_eof", "-cert", server.pki.directory("\(name).crt"), "-key",
        server.pki.directory("\(name).key"),
      ],
      input: frames
    )
    let alerts = outcome.error.matches(of: /SSL alert number (\d+)/).map { String($0.1) }
    return (outcome.output, alerts.joined(separator: ","))
  }

  /// What is refused in the handshake: the same alert, and nothing that was sent is read.
  @Test func certificatesThatNameNobodyAreRefusedAlike() async throws {
    let server = try await TestServer(pki: try withList(), revocationList: "ca.crl")
    try await server.makeTenant("acme")
    let pki = server.pki
    let uri = "URI:spiffe://test.example/tenant/acme/admin"
    func issue(_ name: String, _ names: String?, _ change: (inout OddCertificate.Shape) -> Void = { _ in })
      throws
    {
      var shape = OddCertificate.Shape.client(names)
      change(&shape)
      try pki.issue(name, odd: shape)
    }
    try issue("good", uri)
    try issue("expired", uri) { ($0.notBefore, $0.notAfter) = (-7200, -3600) }
    try issue("early", uri) { ($0.notBefore, $0.notAfter) = (3600, 7200) }
    try issue("nobody", nil)
    try issue("host", "DNS:acme.example")
    try issue("two", "\(uri),URI:spiffe://test.example/admin")
    try issue("elsewhere", "URI:spiffe://other.example/tenant/acme/admin")
    try issue("listed", uri)
    try pki.revoke(["listed"])
    let other = try TestPKI()
    try OddCertificate(.client(uri), issuer: OddCertificate(readingFrom: other.directory, "ca")).write(
      "foreign",
      pki.directory
    )
    let admin = try server.client(.serviceAdmin)
    _ = try await admin.call(.admin(.serviceReload))
    await admin.close()
    let before = try everything(server)
    var id: UInt64 = 0
    var frames = Data()
    for call in try Self.calls("acme") {
      id += 1
      frames.append(contentsOf: Request(id: id, call: call).frame)
    }
    // The last frame says that it is compressed: the server ends the connection.
    let hello = Data(Request(id: 1, call: .whoAmI).frame + [1, 0, 0, 0, 0])
    let (answers, alert) = try await knock(server, "good", hello)
    #expect(!answers.isEmpty && alert.isEmpty)
    for name in ["expired", "early", "nobody", "host", "two", "elsewhere", "listed", "foreign"] {
      let (answers, alert) = try await knock(server, name, frames)
      #expect(answers.isEmpty && alert == "40", "\(name): alert \(alert), \(answers.count) bytes")
    }
    #expect(try everything(server) == before, "something was changed")
    await server.shutdown()
  }

  private func withList() throws -> TestPKI {
    let pki = try TestPKI()
    try pki.revoke([])
    return pki
  }
}
