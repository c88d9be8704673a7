import Foundation
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Tenants that nobody uses close, and open again at the next call.
@Suite(.timeLimit(.minutes(4))) struct IdleTenantTests {
  private func state(_ admin: TestClient, _ tenant: String = "acme") async throws -> TenantState {
    guard case .tenantList(let tenants, _) = try await admin.call(.admin(.tenantList(pageSize: 0, after: "")))
    else { throw UnexpectedReply() }
    return try #require(tenants.first { $0.tenant == tenant }).state
  }

  private func untilCold(_ admin: TestClient, _ tenant: String = "acme") async throws {
    while try await state(admin, tenant) != .cold { try await Task.sleep(for: .milliseconds(50)) }
  }

  @Test func aTenantThatNobodyUsesClosesAndOpensAgain() async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer(lines: ["idle_close: 1s"])
    var tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    tenant.name = "acme"
    try tenant.put(in: server.data("tenants"))
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.generate(.own("k")))
    let value = try await client.fetch(.own("k"))
    let asked = kms.calls.count
    // The connection is open all the time.
    try await untilCold(admin)
    #expect(kms.calls.count == asked, "closing asks nobody")
    #expect(try await client.fetch(.own("k")) == value)
    #expect(kms.calls.dropFirst(asked).map(\.operation) == ["Decrypt"])
    _ = try await client.call(.generate(.own("more")))
    #expect(try await client.fetch(.own("more")) != nil)
    for client in [client, admin] { await client.close() }
    await server.shutdown()
    try await kms.shutdown()
  }

  /// It closed with one file and opens with another: the settings of before are not in force for a moment once a reload is over.
  @Test func aClosedTenantsFilesAreReadAnew() async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer(lines: ["idle_close: 1s"])
    var tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    tenant.name = "acme"
    try tenant.put(in: server.data("tenants"))
    let (one, two) = (try server.instance("acme", "db1"), try server.instance("acme", "db2"))
    let admin = try server.client(.serviceAdmin)
    for client in [one, two] { _ = try await client.call(.generate(.own("k"))) }
    try await untilCold(admin)
    let file = "tenants/acme/tenant.yaml"
    let text = try String(contentsOfFile: server.data(file), encoding: .utf8)
    try server.data.write(file, text.replacing("instances: any", with: "instances: [db1]"))
    guard case .serviceReload(let report) = try await admin.call(.admin(.serviceReload)) else {
      throw UnexpectedReply()
    }
    #expect(report.failures.isEmpty && report.tenantsReloaded == 1)
    #expect(try await two.refusal(.fetch(.own("k")))?.code == .permissionDenied)
    #expect(try await one.fetch(.own("k")) != nil)
    for client in [one, two, admin] { await client.close() }
    await server.shutdown()
    try await kms.shutdown()
  }

  /// A read that memory answers is a use, though no task has to do with it.
  @Test func aTenantThatIsReadStaysOpen() async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer(lines: ["idle_close: 5s"])
    let other = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    try other.put(in: server.data("tenants"))
    try await server.makeTenant("globex")
    let (client, idle) = (try server.instance("acme", "db1"), try server.instance("globex", "db1"))
    let admin = try server.client(.serviceAdmin)
    _ = try await idle.call(.generate(.own("k")))
    _ = try await client.call(.generate(.own("k")))
    let asked = kms.calls.count
    while try await state(admin, "globex") != .cold {
      _ = try await client.fetch(.own("k"))
      try await Task.sleep(for: .milliseconds(20))
    }
    #expect(try await state(admin) == .ready)
    #expect(kms.calls.count == asked, "it was never opened again")
    for client in [client, idle, admin] { await client.close() }
    await server.shutdown()
    try await kms.shutdown()
  }

  /// More tenants than may be open at one time are all served: some close while others open.
  @Test func moreTenantsThanMayBeOpenAreServed() async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer(limits: ["open_tenants: 4"])
    let names = (0..<12).map { "tenant-\($0)" }
    for name in names {
      var tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
      tenant.name = name
      try tenant.put(in: server.data("tenants"))
      let client = try server.instance(name, "db1")
      _ = try await client.call(.generate(.own("k")))
      await client.close()
    }
    let admin = try server.client(.serviceAdmin)
    for name in names.prefix(4) { try await untilCold(admin, name) }
    for name in names {
      let client = try server.instance(name, "db1")
      #expect(try await client.fetch(.own("k")) != nil)
      await client.close()
    }
    await admin.close()
    await server.shutdown()
    try await kms.shutdown()
  }

  /// Looking at tenants opens none, and does not make one that does not load hide the others.
  @Test func aListUsesNoTenant() async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer()
    var tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    try tenant.put(in: server.data("tenants"))
    (tenant.name, tenant.lines) = ("broken", ["no_such_key: 1"])
    try tenant.put(in: server.data("tenants"))
    let admin = try server.client(.serviceAdmin)
    guard case .tenantList(let tenants, _) = try await admin.call(.admin(.tenantList(pageSize: 0, after: "")))
    else { throw UnexpectedReply() }
    #expect(tenants.map(\.tenant) == ["acme", "broken"])
    #expect(tenants.map(\.provider) == ["aws", ""])
    #expect(tenants.allSatisfy { $0.state == .cold })
    #expect(kms.calls.isEmpty)
    await admin.close()
    await server.shutdown()
    try await kms.shutdown()
  }
}
