import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// What is read anew while the server runs, each with the last good one in force.
@Suite(.timeLimit(.minutes(10))) struct ReloadTests {
  private func pkiWithList() throws -> TestPKI {
    let pki = try TestPKI()
    try pki.revoke([])
    return pki
  }

  private func reload(_ admin: TestClient) async throws -> ReloadReport {
    guard case .serviceReload(let report) = try await admin.call(.admin(.serviceReload)) else {
      throw UnexpectedReply()
    }
    return report
  }

  private func status(_ admin: TestClient) async throws -> ServiceStatus {
    guard case .service(let status) = try await admin.call(.admin(.status(""))) else {
      throw UnexpectedReply()
    }
    return status
  }

  private func text(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

  /// SHA-256 of the certificate that the server shows to connections that begin now.
  private func shown(_ server: any TestEndpoint) async throws -> String {
    let outcome = try await TestProgram(path: "/usr/bin/openssl").run(
      ["s_client", "-connect", "localhost:\(server.port)", "-alpn", "keyring/1", "-showcerts"]
    )
    let lines = outcome.text.split(separator: "\n")
    let first = try #require(lines.firstIndex { $0.contains("BEGIN CERTIFICATE") })
    let last = try #require(lines.firstIndex { $0.contains("END CERTIFICATE") })
    return lines[first...last].joined(separator: "\n")
  }

  private func isShown(_ name: String, _ server: any TestEndpoint) async throws -> Bool {
    let shown = try await shown(server)
    return try text(server.pki.directory(name)).contains(shown)
  }

  // MARK: Last good

  /// What is wrong with a file, and what of it is said.
  static let damages: [(file: String, content: String?, part: String, words: String)] = [
    ("server.crt", "rubbish\n", "certificate", "holds no PEM certificate"),
    ("server.crt", nil, "certificate", "cannot open"),
    ("server.key", "rubbish\n", "certificate", "holds no private key"),
    ("server.key", nil, "certificate", "not there"),
    ("server.key", "OTHER", "certificate", "is not the private key of"),
    ("ca.crt", "rubbish\n", "client_ca", "holds no PEM certificate"),
    ("ca.crt", nil, "client_ca", "cannot open"),
    ("ca.crl", "rubbish\n", "client_crl", "holds no PEM revocation list"),
    ("ca.crl", nil, "client_crl", "cannot open"),
    ("ca.crl", "HALF", "client_crl", "cannot be read"),
  ]

  /// New connections are served as before, status says why, and once the file is good again it is taken by itself.
  @Test func whatCannotBeUsedLeavesTheLastGoodInForce() async throws {
    let pki = try pkiWithList()
    let server = try await TestServer(pki: pki, revocationList: "ca.crl")
    try await server.makeTenant("acme")
    try pki.issue("other", .server(hosts: ["localhost"]))
    let revoked = try server.instance("acme", "revoked")
    _ = try await revoked.call(.whoAmI)
    try pki.revoke(["tenant-acme-instance-revoked"])
    let admin = try server.client(.serviceAdmin, attempts: 3)
    #expect(try await reload(admin).failures.isEmpty)
    await #expect(throws: (any Error).self) {
      try await server.client(showing: "tenant-acme-instance-revoked").call(.whoAmI)
    }
    for (file, content, part, words) in Self.damages {
      let path = pki.directory(file)
      let good = try text(path)
      // Made before: they read some of these files themselves.
      let client = try server.client(.serviceAdmin)
      let refused = try server.client(showing: "tenant-acme-instance-revoked")
      if let content {
        let damaged =
          content == "OTHER"
          ? try text(pki.directory("other.key"))
          : content == "HALF" ? String(good.prefix(good.count / 2)) : content
        try pki.directory.write(file, damaged)
      } else {
        try FileManager.default.removeItem(atPath: path)
      }
      let failures = try await reload(admin).files.filter { !$0.failure.isEmpty }
      #expect(failures.map(\.name) == [part], "\(file): \(failures)")
      #expect(failures.first?.failure.contains(words) == true, "\(file): \(failures)")
      #expect(try await status(admin).files.first { $0.name == part }?.failure.contains(words) == true)
      // The last good ones: a new connection, and a certificate that is on the list.
      _ = try await client.call(.whoAmI)
      await client.close()
      await #expect(throws: (any Error).self, "\(file)") { try await refused.call(.whoAmI) }
      await refused.close()
      try pki.directory.write(file, good)
      #expect(try await eventually { try await status(admin).files.allSatisfy(\.failure.isEmpty) }, "\(file)")
    }
    for client in [admin, revoked] { await client.close() }
    await server.shutdown()
  }

  /// Certificate and key are two files: with the first of them nothing changes, with the second the new pair is there.
  @Test func aPairIsTakenOnceBothAreThere() async throws {
    let server = try await TestServer()
    let pki = server.pki
    try pki.issue("next", .server(hosts: ["localhost", "127.0.0.1"]))
    let old = try text(pki.directory("server.crt"))
    try pki.directory.write("old.crt", old)
    try pki.directory.write("server.crt", text(pki.directory("next.crt")))
    let admin = try server.client(.serviceAdmin)
    #expect(
      try await eventually {
        try await status(admin).files.first?.failure.contains("is not the private key of") == true
      }
    )
    #expect(try await isShown("old.crt", server))
    try pki.directory.write("server.key", text(pki.directory("next.key")))
    #expect(try await eventually { try await isShown("next.crt", server) })
    #expect(try await status(admin).files.first?.failure == "")
    await admin.close()
    await server.shutdown()
  }

  /// Connections of a CA that is trusted no more close, those of the new one come in.
  @Test func anotherClientCAIsTaken() async throws {
    let server = try await TestServer()
    let (pki, other) = (server.pki, try TestPKI())
    let open = try #require(try await RawClient.connected(server, "acme"))
    let both = try text(pki.directory("ca.crt")) + text(other.directory("ca.crt"))
    try other.issue("admin", .client(uri: "spiffe://test.example/admin"))
    try pki.directory.write("admin2.crt", text(other.directory("admin.crt")))
    try pki.directory.write("admin2.key", text(other.directory("admin.key")))
    let trusted = try text(pki.directory("ca.crt"))
    try pki.directory.write("ca.crt", both)
    let admin = try server.client(.serviceAdmin)
    #expect(try await reload(admin).failures.isEmpty)
    _ = try await admin.call(.whoAmI)  // both are trusted
    // Clients trust the server by the same file; from here on it has the other CA alone for them too.
    let second = try server.client(showing: "admin2")
    _ = try await second.call(.whoAmI)
    try pki.directory.write("ca.crt", text(other.directory("ca.crt")))
    #expect(try await reload(second).failures.isEmpty)
    #expect(await open.isClosedWithoutReply())
    try pki.directory.write("ca.crt", trusted)
    let late = try server.client(.serviceAdmin)
    #expect(
      try await eventually {
        do {
          _ = try await late.call(.whoAmI)
          return true
        } catch {
          return false
        }
      }
    )
    for client in [admin, second, late] { await client.close() }
    await server.shutdown()
  }

  // MARK: Revocation lists

  /// Nobody asks for it: the list changes, the connection of who is on it closes, and everybody else's stays.
  @Test func aListEndsConnectionsThatAreOpen() async throws {
    let pki = try pkiWithList()
    let server = try await TestServer(pki: pki, revocationList: "ca.crl")
    try await server.makeTenant("acme")
    let bad = try #require(try await RawClient.connected(server, "acme", "bad"))
    let good = try #require(try await RawClient.connected(server, "acme", "good"))
    try pki.revoke(["tenant-acme-instance-bad"])
    #expect(await bad.isClosedWithoutReply())
    try await good.send([Request(id: 1, call: .generate(.own("k")))])
    #expect(await good.reply()?.refusal == nil)
    let again = try server.client(showing: "tenant-acme-instance-bad")
    await #expect(throws: (any Error).self) { try await again.call(.whoAmI) }
    for client in [bad, good] { await client.close() }
    await again.close()
    await server.shutdown()
  }

  /// A connection that began before the list changed, and shakes hands after it: it is refused by the list in force then.
  @Test func aListCountsForConnectionsThatBeganBeforeIt() async throws {
    let pki = try pkiWithList()
    let server = try await TestServer(pki: pki, limits: ["handshake_timeout: 60s"], revocationList: "ca.crl")
    try await server.makeTenant("acme")
    let (proxy, admin) = (
      try await CuttingProxy(to: server.port, holds: true), try server.client(.serviceAdmin)
    )
    let late = ["bad", "good"]
    let clients = try late.map { name in
      try server.client(
        .instance(TenantName("acme"), InstanceName(name)),
        port: proxy.port,
        timeout: .seconds(60)
      )
    }
    let calls = clients.map { client in
      Task { do { return try await client.refusal(.generate(.own("k"))) == nil } catch { return false } }
    }
    #expect(try await eventually { try await status(admin).connectionsUnauthenticated == 2 })
    try pki.revoke(["tenant-acme-instance-bad"])
    #expect(try await reload(admin).failures.isEmpty)
    try await proxy.release()
    #expect(await calls[0].value == false)
    #expect(await calls[1].value == true)
    for client in clients + [admin] { await client.close() }
    try await proxy.close()
    await server.shutdown()
  }

  /// A reload that somebody asked for waits for a tenant's KMS; the lists do not.
  @Test func aKMSThatDoesNotAnswerHoldsUpNoList() async throws {
    let (pki, kms) = (try pkiWithList(), try await ScriptedKMS())
    let server = try await TestServer(pki: pki, revocationList: "ca.crl")
    var tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    tenant.name = "acme"
    try tenant.put(in: server.data("tenants"))
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.generate(.own("k")))
    let bad = try #require(try await RawClient.connected(server, "acme", "bad"))
    kms.behave(.silence)
    let asked = kms.calls.count
    tenant.lines = ["read_only: true"]
    try tenant.put(in: server.data("tenants"))
    let end = End()
    let reloading = Task {
      let report = try await reload(admin)
      end.isReached.withLock { $0 = true }
      return report
    }
    #expect(try await eventually { kms.calls.count > asked })
    try pki.revoke(["tenant-acme-instance-bad"])
    #expect(await bad.isClosedWithoutReply())
    #expect(end.isReached.withLock { !$0 })
    #expect(try await reloading.value.tenantFailures.map(\.tenant) == ["acme"])
    for client in [client, admin] { await client.close() }
    await bad.close()
    await server.shutdown()
    try await kms.shutdown()
  }

  // MARK: Under load

  /// A certificate and a list a hundred times, while clients connect and call all the time.
  @Test func certificatesAndListsChangeUnderLoadWithoutAFailedRequest() async throws {
    let pki = try pkiWithList()
    let server = try await TestServer(pki: pki, revocationList: "ca.crl")
    try await server.makeTenant("acme")
    let end = End()
    let admin = try server.client(.serviceAdmin)
    let first = try server.instance("acme", "db0")
    _ = try await first.call(.generate(.shared("k")))
    let value = try await first.fetch(.shared("k"))
    let made = try await withThrowingTaskGroup(of: Int.self) { group in
      for index in 0..<3 {
        group.addTask {
          var calls = 0
          while !end.isReached.withLock({ $0 }) {
            let client = try server.instance("acme", "db\(index + 1)")
            for _ in 0..<5 {
              #expect(try await client.fetch(.shared("k")) == value)
              calls += 1
            }
            await client.close()
          }
          return calls
        }
      }
      for turn in 0..<100 {
        try pki.issue("victim\(turn)", .client(uri: "spiffe://test.example/tenant/acme/instance/victim"))
        try pki.revoke(["victim\(turn)"])
        try pki.issue("server", .server(hosts: ["localhost", "127.0.0.1"]))
        #expect(try await reload(admin).failures.isEmpty, "turn \(turn)")
        if turn % 20 == 19 {
          let refused = try server.client(showing: "victim\(turn)")
          await #expect(throws: (any Error).self) { try await refused.call(.whoAmI) }
          await refused.close()
        }
      }
      end.isReached.withLock { $0 = true }
      return try await group.reduce(0, +)
    }
    #expect(made > 100)
    #expect(try await isShown("server.crt", server))
    #expect(try await first.fetch(.shared("k")) == value)
    for client in [admin, first] { await client.close() }
    await server.shutdown()
  }

  // MARK: The program

  @Test func aHangupReloadsTheProgram() async throws {
    let pki = try pkiWithList()
    let daemon = try await TestDaemon(pki: pki, revocationList: "ca.crl")
    try await daemon.makeTenant("acme")
    let client = try daemon.instance("acme", "db1")
    #expect(try await client.fetch(.own("k")) == nil)
    try daemon.data.write(
      "tenants/acme/tenant.yaml",
      text(daemon.data("tenants/acme/tenant.yaml")) + "read_only: true\n"
    )
    try pki.issue("server", .server(hosts: ["localhost", "127.0.0.1"]))
    try pki.directory.write("ca.crl", "rubbish\n")
    daemon.process.signal(SIGHUP)
    #expect(try await eventually { try await isShown("server.crt", daemon) })
    #expect(
      try await eventually {
        let log = try daemon.log
        return log.contains("client_crl was not taken over")
          && log.contains("the tenant's files were read anew")
      }
    )
    #expect(try await client.refusal(.generate(.own("k")))?.message.contains("read-only") == true)
    #expect(daemon.process.isRunning)
    await client.close()
    await daemon.shutdown()
    #expect(daemon.process.status == 0 && !daemon.process.isSignal)
  }

  // MARK: Tenants

  private func move(_ server: TestServer, _ from: String, _ to: String) throws {
    try FileManager.default.moveItem(atPath: server.data(from), toPath: server.data(to))
  }

  private func state(_ admin: TestClient, _ tenant: String) async throws -> TenantState {
    guard case .tenant(let status) = try await admin.call(.admin(.status(tenant))) else {
      throw UnexpectedReply()
    }
    return status.summary.state
  }

  /// Its sessions close and it answers TENANT_LOCKED; back, it goes on; and so it does with a copy of its directory.
  @Test func aTenantWhoseDirectoryVanishesIsLockedUntilItIsBack() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await server.makeTenant("acme")
    try await server.makeTenant("globex")
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.generate(.own("k")))
    let value = try await client.fetch(.own("k"))
    let open = try #require(try await RawClient.connected(server, "acme", "db2"))
    let other = try #require(try await RawClient.connected(server, "globex"))
    try move(server, "tenants/acme", "away")
    #expect(await open.isClosedWithoutReply())
    for call in try AuthorizationTests.instanceCalls() {
      #expect(try await client.refusal(call)?.reason == .tenantLocked, "\(call)")
    }
    #expect(try await state(admin, "acme") == .locked)
    try await other.send([Request(id: 1, call: .generate(.own("k")))])
    #expect(await other.reply()?.refusal == nil)

    try move(server, "away", "tenants/acme")
    #expect(try await eventually { try await client.refusal(.fetch(.own("k"))) == nil })
    #expect(try await client.fetch(.own("k")) == value)

    // Another directory in its place, with the same files.
    try move(server, "tenants/acme", "away")
    let copied = try await TestProgram(path: "/bin/cp").run([
      "-a", server.data("away"), server.data("tenants/acme"),
    ])
    #expect(copied.status == 0)
    #expect(
      try await eventually {
        _ = try await reload(admin)
        let names = try FileManager.default.contentsOfDirectory(atPath: server.data("tenants/acme"))
        guard !names.isEmpty else { return false }
        return try await client.refusal(.generate(.own("new"))) == nil
      }
    )
    #expect(try await client.fetch(.own("k")) == value)
    let grown =
      try FileManager.default.attributesOfItem(atPath: server.data("tenants/acme/keyring"))[.size] as? Int
    let left = try FileManager.default.attributesOfItem(atPath: server.data("away/keyring"))[.size] as? Int
    #expect(try #require(grown) > #require(left), "it writes to the directory in its place")
    for client in [admin, client] { await client.close() }
    await server.shutdown()
  }

  /// A new one is there without anybody saying so: for its instances, in the list, in the status.
  @Test func aTenantDroppedIntoTheDirectoryIsThere() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    let cmk = try await server.makeTenant("acme")
    let early = try server.instance("globex", "db1")
    #expect(try await early.refusal(.fetch(.own("k")))?.reason == .forbidden)
    try FileManager.default.createDirectory(
      atPath: server.data("dropped"),
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
    let own = try await admin.makeCMK("acme")
    #expect(own != cmk)
    try server.data.write(
      "dropped/tenant.yaml",
      "cmk_id: \(own)\ninstances: [db1, {name: backup1, permissions: [read], scopes: [shared]}]\n"
    )
    try move(server, "dropped", "tenants/globex")
    guard case .tenantList(let tenants, _) = try await admin.call(.admin(.tenantList(pageSize: 0, after: "")))
    else {
      throw UnexpectedReply()
    }
    #expect(tenants.map(\.tenant) == ["acme", "globex"])
    #expect(try await status(admin).tenants == 2)
    // Its CMK is another tenant's: refused, but not as an unknown tenant is.
    #expect(try await early.refusal(.fetch(.own("k")))?.reason == .kmsDenied)
    let made = try await admin.makeCMK("globex")
    _ = try await admin.call(
      .admin(.variablesSet(tenant: "globex", name: "cmk_id", value: made, .persist))
    )
    #expect(try await early.refusal(.generate(.shared("k"))) == nil)
    let backup = try server.instance("globex", "backup1")
    #expect(try await backup.fetch(.shared("k")) == early.fetch(.shared("k")))
    #expect(try await backup.refusal(.remove(.shared("k")))?.reason == .forbidden)
    for client in [admin, early, backup] { await client.close() }
    await server.shutdown()
  }

  /// An open tenant's file is read anew once it lies still, and what does not work is left.
  @Test func anOpenTenantsFileIsReadAnew() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.generate(.own("k")))
    let open = try #require(try await RawClient.connected(server, "acme", "db2"))
    let good = try text(server.data("tenants/acme/tenant.yaml"))
    try server.data.write("tenants/acme/tenant.yaml", good + "unknown: 1\n")
    let report = try await reload(admin)
    #expect(report.tenantFailures.map(\.tenant) == ["acme"] && report.tenantsReloaded == 0)
    #expect(report.tenantFailures.first?.failure.contains("unknown key") == true)
    #expect(try await client.fetch(.own("k")) != nil)
    // The instance db2 is not listed any more: without anybody asking, its connection closes.
    try server.data.write(
      "tenants/acme/tenant.yaml",
      good.replacing("instances: any", with: "instances: [db1]")
    )
    #expect(await open.isClosedWithoutReply())
    #expect(try await client.fetch(.own("k")) != nil)
    for client in [admin, client] { await client.close() }
    await server.shutdown()
  }
}

/// Of a test's load.
private final class End: Sendable {
  let isReached = Mutex(false)
}
