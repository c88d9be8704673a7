internal import TLSTransport
import Foundation
import KeyringCore
import KeyringTestSupport
import Testing
import WireProtocol

/// What becomes of a tenant when its CMK is refused, its file exchanged, or an administrator decides.
@Suite struct LockingTests {
  private func set(_ admin: TestClient, _ name: String, _ value: String) async throws {
    _ = try await admin.call(.admin(.variablesSet(tenant: "acme", name: name, value: value, .global)))
  }

  private func status(_ admin: TestClient) async throws -> TenantStatus {
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return status
  }

  /// With wrapping_key_ttl 0 each operation asks the provider, so that a refusal is known at once.
  @Test func aDisabledCMKLocksItsKeysAndOnlyThem() async throws {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    try await server.makeTenant("globex")
    let (client, other) = (try server.instance("acme", "db1"), try server.instance("globex", "db1"))
    let admin = try server.client(.serviceAdmin)
    _ = try await client.call(.generate(.own("k")))
    let value = try await client.fetch(.own("k"))
    try await set(admin, "outage_grace", "0")
    try await set(admin, "wrapping_key_ttl", "0")
    #expect(try await client.fetch(.own("k")) == value)
    _ = try await admin.call(.admin(.cmk(tenant: "acme", .disable, cmkID: cmk, days: 0)))
    #expect(try await client.refusal(.fetch(.own("k")))?.reason == .tenantLocked)
    #expect(try await client.refusal(.generate(.own("new")))?.reason == .tenantLocked)
    #expect(try await status(admin).summary.state == .locked)
    #expect(try await status(admin).wrappingKeys.map(\.state) == ["denied"])
    #expect(try await other.fetch(.own("k")) == nil)
    // `set cmk_id` is a cure for writing: a new CMK, new keys; the old ones stay locked.
    let second = try await admin.makeCMK("acme")
    try await set(admin, "cmk_id", second)
    _ = try await client.call(.generate(.own("new")))
    #expect(try await client.fetch(.own("new")) != nil)
    #expect(try await client.refusal(.fetch(.own("k")))?.reason == .tenantLocked)
    #expect(
      try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: true)))?.reason == .tenantLocked
    )
    await server.shutdown()
    // Enabled again, and after a restart: everything is there.
    let again = try await TestServer(pki: server.pki, data: server.data)
    let operatorClient = try again.client(.serviceAdmin)
    _ = try await operatorClient.call(.admin(.cmk(tenant: "acme", .enable, cmkID: cmk, days: 0)))
    let back = try again.instance("acme", "db1")
    #expect(try await back.fetch(.own("k")) == value)
    #expect(try await back.fetch(.own("new")) != nil)
    for client in [client, other, admin, operatorClient, back] { await client.close() }
    await again.shutdown()
  }

  /// A crash leaves the anchor behind the file. Once the tenant is open again it is not, and an older file put back is noticed.
  @Test func theAnchorIsBroughtUpWhenATenantIsOpened() async throws {
    var server = try await TestServer()
    try await server.makeTenant("acme")
    let (file, anchor) = (server.data("tenants/acme/keyring"), server.data("anchors/acme.anchor"))
    func copy(_ from: String, _ to: String) throws {
      let bytes = try Data(contentsOf: URL(filePath: from))
      try bytes.write(to: URL(filePath: to))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: to)
    }
    func use(_ body: (TestClient) async throws -> Void) async throws {
      let client = try server.instance("acme", "db1")
      try await body(client)
      await client.close()
    }
    try await use { _ = try await $0.call(.generate(.own("first"))) }
    await server.shutdown()
    try copy(file, file + ".old")
    try copy(anchor, anchor + ".old")
    server = try await TestServer(pki: server.pki, data: server.data)
    try await use { _ = try await $0.call(.generate(.own("second"))) }
    await server.shutdown()
    try copy(anchor + ".old", anchor)
    server = try await TestServer(pki: server.pki, data: server.data)
    try await use { client in
      let found = try await client.fetch(.own("second"))
      #expect(found != nil)
    }
    await server.shutdown()
    try copy(file + ".old", file)
    server = try await TestServer(pki: server.pki, data: server.data)
    try await use { client in
      let refusal = try await client.refusal(.fetch(.own("first")))
      #expect(refusal?.reason == .tenantQuarantined)
    }
    await server.shutdown()
  }

  /// The CMK of a new tenant's file refuses: no keyring can be made, and another CMK is the cure.
  @Test func anotherCMKCuresATenantWhoseFirstOneRefuses() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await server.makeTenant("other")
    try FileManager.default.createDirectory(
      atPath: server.data("tenants/acme"),
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
    try server.data.write("tenants/acme/tenant.yaml", "cmk_id: local-absent\ninstances: any\n")
    let client = try server.instance("acme", "db1")
    #expect(try await client.refusal(.generate(.own("k")))?.reason == .kmsDenied)
    let cmk = try await admin.makeCMK("acme")
    try await set(admin, "cmk_id", cmk)
    #expect(try await client.refusal(.generate(.own("k"))) == nil)
    for client in [admin, client] { await client.close() }
    await server.shutdown()
  }

  /// A file whose batches cannot be checked yet says of no key that it is absent.
  @Test func nothingIsSaidToBeAbsentWhileTheFileIsUnverified() async throws {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    let admin = try server.client(.serviceAdmin)
    _ = try await client.call(.generate(.own("k")))
    _ = try await admin.call(.admin(.cmk(tenant: "acme", .disable, cmkID: cmk, days: 0)))
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let back = try again.instance("acme", "db1")
    for call in [
      .fetch(.own("missing")), .remove(.own("missing")), .change(.rotate(.own("missing"))),
      .describe(.own("missing"), version: 0), .list(ListCall(scope: .instance)),
    ] as [Call] {
      #expect(try await back.refusal(call)?.reason == .tenantLocked, "\(call)")
    }
    for client in [client, admin, back] { await client.close() }
    await again.shutdown()
  }

  @Test func globalEndsWithARestartAndPersistDoesNot() async throws {
    let server = try await TestServer()
    let first = try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    let second = try await admin.makeCMK("acme")
    try await set(admin, "cmk_id", second)
    #expect(try await status(admin).summary.cmkID == second)
    // A restart would come back to the first CMK, which an operator might delete after rotating: refused.
    #expect(
      try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false)))?.reason == .cmkTransient
    )
    await admin.close()
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let operatorClient = try again.client(.serviceAdmin)
    #expect(try await status(operatorClient).summary.cmkID == first)
    let persist = AdminCall.variablesSet(tenant: "acme", name: "cmk_id", value: second, .persist)
    _ = try await operatorClient.call(.admin(persist))
    guard
      case .rotateKeys(let report) = try await operatorClient.call(
        .admin(.rotateKeys("acme", allowTransient: false))
      )
    else { throw UnexpectedReply() }
    #expect(report.cmkID == second)
    #expect(report.formerCMKIDs == [first])
    await operatorClient.close()
    await again.shutdown()
    let third = try await TestServer(pki: server.pki, data: server.data)
    let last = try third.client(.serviceAdmin)
    guard case .variablesList(let variables) = try await last.call(.admin(.variablesList("acme"))) else {
      throw UnexpectedReply()
    }
    let cmk = variables.first { $0.name == "cmk_id" }
    #expect(cmk?.value == second)
    #expect(cmk?.source == "persisted")
    await last.close()
    await third.shutdown()
  }

  @Test func refusedVariablesLeaveTheOldValue() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    for (name, value) in [
      ("unknown", "1"), ("provider", "aws"), ("wrapping_key_ttl", "soon"), ("wrapping_key_ttl", "0"),
      ("read_only", "perhaps"),
      ("profile", "keyring"), ("cmk_id", ""), ("storage_file", "x"),
    ] {
      let call = Call.admin(.variablesSet(tenant: "acme", name: name, value: value, .global))
      #expect(try await admin.refusal(call)?.reason == .variableInvalid, "\(name)")
    }
    guard case .variablesList(let variables) = try await admin.call(.admin(.variablesList("acme"))) else {
      throw UnexpectedReply()
    }
    #expect(variables.filter { $0.source == "global" }.isEmpty)
    try await set(admin, "read_only", "true")
    let client = try server.instance("acme", "db1")
    #expect(try await client.refusal(.generate(.own("k"))) != nil)
    try await set(admin, "read_only", "false")
    #expect(try await client.refusal(.generate(.own("k"))) == nil)
    await admin.close()
    await client.close()
    await server.shutdown()
  }

  @Test func aDisabledTenantIsRefusedAcrossRestarts() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let (admin, client) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    _ = try await client.call(.generate(.own("k")))
    _ = try await admin.call(.admin(.tenantDisable("acme")))
    #expect(try await client.refusal(.fetch(.own("k")))?.reason == .tenantDisabled)
    await admin.close()
    await client.close()
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let (second, back) = (try again.client(.serviceAdmin), try again.instance("acme", "db1"))
    #expect(try await back.refusal(.fetch(.own("k")))?.reason == .tenantDisabled)
    _ = try await second.call(.admin(.tenantEnable("acme")))
    #expect(try await back.fetch(.own("k")) != nil)
    await second.close()
    await back.close()
    await again.shutdown()
  }

  @Test func aTenantWhoseFileChangedIsQuarantinedAndOthersGoOn() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    try await server.makeTenant("globex")
    let (client, other) = (try server.instance("acme", "db1"), try server.instance("globex", "db1"))
    let admin = try server.client(.serviceAdmin)
    _ = try await client.call(.generate(.own("k")))
    let file = server.data("tenants/acme/keyring")
    let good = try Data(contentsOf: URL(filePath: file))
    // Someone puts another file in its place: the next write notices, nothing is written, and the tenant waits for an operator.
    try FileManager.default.removeItem(atPath: file)
    try good.write(to: URL(filePath: file))
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: file)
    #expect(try await client.refusal(.generate(.own("k2")))?.reason == .storageChanged)
    #expect(try Data(contentsOf: URL(filePath: file)) == good)
    #expect(try await client.refusal(.fetch(.own("k")))?.reason == .tenantQuarantined)
    #expect(try await status(admin).summary.state == .quarantined)
    _ = try await other.call(.generate(.own("k")))
    // It is the right file after all: looked at anew, it opens.
    _ = try await admin.call(.admin(.tenantEnable("acme")))
    #expect(try await client.fetch(.own("k")) != nil)
    _ = try await client.call(.generate(.own("k2")))
    for client in [client, other, admin] { await client.close() }
    await server.shutdown()
  }

  @Test func anOlderFilePutBackIsNoticedAndCanBeAccepted() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.generate(.own("old")))
    let file = server.data("tenants/acme/keyring")
    let older = try Data(contentsOf: URL(filePath: file))
    _ = try await client.call(.generate(.own("new")))
    await client.close()
    await server.shutdown()
    try older.write(to: URL(filePath: file))
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: file)
    let again = try await TestServer(pki: server.pki, data: server.data)
    let (admin, back) = (try again.client(.serviceAdmin), try again.instance("acme", "db1"))
    #expect(try await back.refusal(.fetch(.own("old")))?.reason == .tenantQuarantined)
    #expect(try await admin.refusal(.admin(.tenantAccept("acme", sequence: 3))) != nil)
    _ = try await admin.call(.admin(.tenantAccept("acme", sequence: 2)))
    #expect(try await back.fetch(.own("old")) != nil)
    #expect(try await back.fetch(.own("new")) == nil)
    await admin.close()
    await back.close()
    await again.shutdown()
  }
}
