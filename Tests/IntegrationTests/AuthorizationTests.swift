import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Who may do what: every call with every kind of certificate, over four tenants.
@Suite struct AuthorizationTests {
  static let tenants = ["alpha", "beta", "gamma", "delta"]

  static func instanceCalls() throws -> [Call] {
    [
      .fetch(.shared("secret")), .fetch(.own("secret")), .describe(.shared("secret"), version: 0),
      try .store(.shared("new"), "x"), .generate(.shared("new2")), .remove(.shared("secret")),
      .change(.rotate(.shared("secret"))), .list(ListCall(scope: .shared)),
      .transact([.remove(.shared("secret"))]), .importKeys([try imported(.shared("new3"), "x")]),
    ]
  }

  /// The calls that name a tenant.
  static func tenantCalls(_ tenant: String) -> [AdminCall] {
    [
      .tenantShow(tenant), .instanceList(tenant), .variablesList(tenant), .status(tenant),
      .variablesSet(tenant: tenant, name: "read_only", value: "true", .global), .rotateCMK(tenant),
      .rotateKeys(tenant, allowTransient: true), .cmk(tenant: tenant, .create, cmkID: "", days: 0),
      .backup(tenant, .begin(allowUnproved: true)), .backup(tenant, .read(TransferID(value: 1), offset: 0)),
      .backup(tenant, .end(TransferID(value: 1))), .explain(ExplainCall(tenant: tenant)), explainKey(tenant),
    ]
  }

  static func imported(_ name: KeyName, _ text: String) throws -> ImportedKey {
    guard case .change(.store(_, let type, let value)) = try Call.store(name, text) else {
      throw UnexpectedReply()
    }
    return ImportedKey(name: name, type: type, value: value)
  }

  /// For the tenant's administrator alone.
  static func explainKey(_ tenant: String) -> AdminCall {
    .explain(ExplainCall(tenant: tenant, key: .init(instance: "", owner: [], keyID: Array("secret".utf8))))
  }

  /// The calls for the service's administrator alone.
  static func serviceCalls(_ tenant: String) -> [AdminCall] {
    [
      .tenantCreate(TenantCreateCall(tenant: "epsilon")),
      .tenantApply([TenantCreateCall(tenant: tenant), TenantCreateCall(tenant: "epsilon")]),
      .tenantList(pageSize: 0, after: ""), .status(""),
      .tenantDelete(TenantDeleteCall(tenant: tenant, afterSeconds: 0)), .tenantUndelete(tenant),
      .tenantReceipt(tenant),
      .tenantDisable(tenant), .tenantEnable(tenant), .instanceAdd(tenant: tenant, instance: "x"),
      .tenantAccept(tenant, sequence: 1), .tenantMove(.init(tenant: tenant, cmkID: "x", settings: [])),
      .restore(tenant, .begin(RestoreBeginCall(bytes: 1, digest: .zero, acceptRollback: true))),
      .restore(tenant, .write(TransferID(value: 1), offset: 0, data: [1])),
      .restore(tenant, .end(TransferID(value: 1))),
    ]
  }

  @Test func nobodyReachesAnotherTenantAndNoAdministratorReachesKeys() async throws {
    let server = try await TestServer()
    for tenant in Self.tenants {
      try await server.makeTenant(tenant)
      let instance = try server.instance(tenant, "db1")
      _ = try await instance.call(try .store(.shared("secret"), "of \(tenant)"))
      await instance.close()
    }
    let forbidden = Status(.forbidden, "this certificate may not do this")
    var refusals = 0
    func expectForbidden(_ client: TestClient, _ call: Call, _ who: String) async throws {
      #expect(try await client.refusal(call) == forbidden, "\(who): \(call)")
      refusals += 1
    }
    for tenant in Self.tenants {
      let name = try TenantName(tenant)
      let admin = try server.client(.tenantAdmin(name))
      let instance = try server.instance(tenant, "db1")
      for call in try Self.instanceCalls() {
        try await expectForbidden(admin, call, "\(tenant)'s administrator")
      }
      for other in Self.tenants + ["unknown"] {
        for call in Self.tenantCalls(other) {
          try await expectForbidden(instance, .admin(call), "\(tenant)'s instance")
          if other != tenant { try await expectForbidden(admin, .admin(call), "\(tenant)'s administrator") }
        }
        for call in Self.serviceCalls(other) {
          try await expectForbidden(instance, .admin(call), "\(tenant)'s instance")
          try await expectForbidden(admin, .admin(call), "\(tenant)'s administrator")
        }
      }
      #expect(try await instance.fetch(.shared("secret")) == hexadecimal("of \(tenant)".utf8))
      await admin.close()
      await instance.close()
    }
    let admin = try server.client(.serviceAdmin)
    for call in try Self.instanceCalls() {
      try await expectForbidden(admin, call, "the service's administrator")
    }
    for tenant in Self.tenants + ["unknown"] {
      try await expectForbidden(admin, .admin(Self.explainKey(tenant)), "the service's administrator")
    }
    let stranger = try server.instance("unknown", "db1")
    for call in try Self.instanceCalls() {
      try await expectForbidden(stranger, call, "an unknown tenant's instance")
    }
    #expect(refusals > 500)
    await admin.close()
    await stranger.close()
    await server.shutdown()
  }

  @Test func onlyListedInstancesMayCall() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    _ = try await admin.call(.admin(.tenantCreate(TenantCreateCall(tenant: "acme", instances: ["db1"]))))
    let listed = try server.instance("acme", "db1")
    let other = try server.instance("acme", "db2")
    #expect(try await listed.fetch(.own("k")) == nil)
    #expect(try await other.refusal(.fetch(.own("k")))?.reason == .forbidden)
    _ = try await admin.call(.admin(.instanceAdd(tenant: "acme", instance: "db2")))
    #expect(try await other.fetch(.own("k")) == nil)
    for client in [admin, listed, other] { await client.close() }
    await server.shutdown()
  }

  @Test func instancesSeeTheirOwnKeysAndSharedOnes() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let (one, two) = (try server.instance("acme", "db1"), try server.instance("acme", "db2"))
    _ = try await one.call(try .store(.own("DefaultMasterKey"), "of db1"))
    #expect(try await two.fetch(.own("DefaultMasterKey")) == nil)
    _ = try await two.call(try .store(.own("DefaultMasterKey"), "of db2"))
    #expect(try await one.fetch(.own("DefaultMasterKey")) == hexadecimal("of db1".utf8))
    _ = try await one.call(.generate(.shared("MyKey")))
    #expect(try await one.fetch(.shared("MyKey")) == two.fetch(.shared("MyKey")))
    guard case .list(let keys, _) = try await two.call(.list(ListCall(scope: .instance))) else {
      throw UnexpectedReply()
    }
    #expect(keys.count == 1)
    await one.close()
    await two.close()
    await server.shutdown()
  }
}
