import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// A tenant that is moved to another provider or account, and one whose credentials change: the old state or the new one, never a mix.
@Suite struct MovingTests {
  private func move(_ tenant: AWSTenant, _ file: String? = nil) -> Call {
    var settings: [TenantMoveCall.Setting] = [
      .init(name: "provider", value: "aws"), .init(name: "endpoint", value: tenant.endpoint),
    ]
    if let file { settings.append(.init(name: "credentials_file", value: file)) }
    return .admin(.tenantMove(TenantMoveCall(tenant: "acme", cmkID: tenant.cmkID, settings: settings)))
  }

  private func moveToLocal(_ cmk: String) -> Call {
    .admin(
      .tenantMove(
        TenantMoveCall(tenant: "acme", cmkID: cmk, settings: [.init(name: "provider", value: "local")])
      )
    )
  }

  private func summary(_ admin: TestClient) async throws -> TenantSummary {
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return status.summary
  }

  private func cmks(_ admin: TestClient) async throws -> Set<String> {
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return Set(status.wrappingKeys.map(\.cmkID))
  }

  @Test func fromTheLocalProviderToAWSAndBack() async throws {
    let kms = try await ScriptedKMS()
    var server = try await TestServer()
    let first = try await server.makeTenant("acme")
    var (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.generate(.own("old")))
    let old = try await client.fetch(.own("old"))
    let tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    try tenant.putCredentials(in: server.data("tenants"))
    _ = try await admin.call(move(tenant))
    _ = try await client.call(.generate(.own("new")))
    #expect(try await cmks(admin) == [first, tenant.cmkID])
    #expect(try await client.fetch(.own("old")) == old)
    // It lasts beyond a restart, and the old key is read from the old provider.
    for each in [client, admin] { await each.close() }
    await server.shutdown()
    server = try await TestServer(pki: server.pki, data: server.data)
    (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    #expect(try await client.fetch(.own("old")) == old)
    #expect(try await summary(admin).provider == "aws")
    // rotate-keys finishes it: the old CMK may go.
    _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
    #expect(try await cmks(admin) == [tenant.cmkID])
    let json = try String(contentsOfFile: server.data("tenants/acme/persisted.json"), encoding: .utf8)
    #expect(!json.contains("former_providers"))
    // And back.
    #expect(try await admin.refusal(moveToLocal("local-absent"))?.reason == .kmsDenied)
    _ = try await admin.call(moveToLocal(first))
    _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
    try await kms.shutdown()
    #expect(try await client.fetch(.own("old")) == old)
    #expect(try await cmks(admin) == [first])
    for each in [client, admin] { await each.close() }
    await server.shutdown()
  }

  @Test func fromAccountToAccount() async throws {
    try await AWSFixture.use { fixture in
      let (client, admin) = (fixture.client, fixture.admin)
      _ = try await client.call(.generate(.own("old")))
      let old = try await client.fetch(.own("old"))
      // The other account: its credentials know nothing of the first CMK, and the first ones nothing of it.
      let other = try await ScriptedKMS()
      var tenant = AWSTenant(cmkID: other.makeKey(), endpoint: other.endpoint)
      tenant.accessKeyID = "AKIATESTTESTTEST0002"
      try tenant.putCredentials(in: fixture.server.data("tenants"), as: "credentials.2")
      #expect(try await admin.refusal(move(tenant, "credentials.3"))?.reason != nil)
      other.refuse(tenant.accessKeyID, with: "AccessDeniedException")
      #expect(try await admin.refusal(move(tenant, "credentials.2"))?.reason == .kmsDenied)
      #expect(try await summary(admin).cmkID == fixture.cmk)
      other.refuse(tenant.accessKeyID, with: nil)
      _ = try await admin.call(move(tenant, "credentials.2"))
      _ = try await client.call(.generate(.own("new")))
      try await fixture.expire()
      #expect(try await client.fetch(.own("old")) == old)
      #expect(try await client.fetch(.own("new")) != nil)
      #expect(Set(other.calls.map(\.accessKeyID)) == [tenant.accessKeyID])
      #expect(Set(fixture.kms.calls.map(\.accessKeyID)) == [fixture.tenant.accessKeyID])
      _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
      fixture.kms.behave(.error("AccessDeniedException", "gone"))
      try await fixture.expire()
      #expect(try await client.fetch(.own("old")) == old)
      try await other.shutdown()
    }
  }

  /// Whichever call to the KMS fails, the tenant is where it was or where it was to go, and every key is there.
  @Test func interruptedAtAnyCallItIsTheOldStateOrTheNewOne() async throws {
    for failing in ["GenerateDataKey", "Decrypt"] {
      let kms = try await ScriptedKMS()
      let server = try await TestServer()
      let first = try await server.makeTenant("acme")
      let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
      _ = try await client.call(.generate(.own("old")))
      let old = try await client.fetch(.own("old"))
      let tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
      try tenant.putCredentials(in: server.data("tenants"))
      kms.behave(failing, .hangUp)
      #expect(try await admin.refusal(move(tenant))?.reason == .kmsUnreachable)
      #expect(try await summary(admin).provider == "local")
      _ = try await client.call(.generate(.own("meanwhile")))
      #expect(try await cmks(admin) == [first])
      kms.behave(failing, nil)
      for _ in 0..<400 where try await admin.refusal(move(tenant)) != nil {
        try await Task.sleep(for: .milliseconds(50))
      }
      #expect(try await summary(admin).provider == "aws")
      // And the rotation that finishes it.
      kms.behave(failing, .error("AccessDeniedException", "no"))
      #expect(try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false))) != nil)
      #expect(try await cmks(admin) == [first])
      #expect(try await client.fetch(.own("old")) == old)
      kms.behave(failing, nil)
      _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
      #expect(try await cmks(admin) == [tenant.cmkID])
      #expect(try await client.fetch(.own("old")) == old)
      for each in [client, admin] { await each.close() }
      await server.shutdown()
      try await kms.shutdown()
    }
  }

  @Test func onlyTheServiceAdministratorMovesATenant() async throws {
    try await AWSFixture.use { fixture in
      let tenantAdmin = try fixture.server.client(.tenantAdmin(TenantName("acme")))
      #expect(try await tenantAdmin.refusal(move(fixture.tenant))?.reason == .forbidden)
      let elsewhere = AWSTenant(cmkID: fixture.cmk, endpoint: "https://evil.example")
      let refusal = try await fixture.admin.refusal(move(elsewhere))
      #expect(refusal?.reason == .requestMalformed && refusal?.message.contains("allowed_endpoints") == true)
      await tenantAdmin.close()
    }
  }

  // MARK: Credentials

  @Test func newCredentialsAreProvedBeforeTheyAreTaken() async throws {
    try await AWSFixture.use { fixture in
      let (client, admin, kms) = (fixture.client, fixture.admin, fixture.kms)
      _ = try await client.call(.generate(.own("k")))
      var next = fixture.tenant
      next.accessKeyID = "AKIATESTTESTTEST0002"
      for error in ["AccessDeniedException", "UnrecognizedClientException"] {
        kms.refuse(next.accessKeyID, with: error)
        try next.putCredentials(in: fixture.server.data("tenants"))
        #expect(try await admin.refusal(.admin(.tenantReload("acme"))) != nil, "\(error)")
        kms.forgetCalls()
        try await fixture.expire()
        #expect(try await client.fetch(.own("k")) != nil)
        _ = try await client.call(.generate(.own("with old after \(error)")))
        // The new ones may be tried again meanwhile; KMS refuses them.
        #expect(kms.calls.contains { $0.accessKeyID == fixture.tenant.accessKeyID })
      }
      kms.refuse(next.accessKeyID, with: nil)
      guard case .tenantReload(let text) = try await admin.call(.admin(.tenantReload("acme"))) else {
        throw UnexpectedReply()
      }
      #expect(text.contains("0002") && !text.contains(next.secretAccessKey))
      kms.refuse(fixture.tenant.accessKeyID, with: "UnrecognizedClientException")
      kms.forgetCalls()
      try await fixture.expire()
      #expect(try await client.fetch(.own("k")) != nil)
      #expect(Set(kms.calls.map(\.accessKeyID)) == [next.accessKeyID])
      let credentials = try #require(try await fixture.status().credentials)
      #expect(credentials.accessKeyID == "0002" && credentials.loadedMilliseconds > 0)
    }
  }

  /// Credentials that open the CMK in force but not one that old keys depend on would lock those: they are refused.
  @Test func newCredentialsMustOpenWhatIsInUse() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      let second = fixture.kms.makeKey()
      try await fixture.set("cmk_id", second, .persist)
      _ = try await fixture.client.call(.generate(.own("under the second")))
      fixture.kms.set(fixture.cmk, .disabled)
      let refusal = try await fixture.admin.refusal(.admin(.tenantReload("acme")))
      #expect(refusal?.reason == .configurationInvalid && refusal?.message.contains("in use") == true)
    }
  }

  @Test func aFileOfCredentialsThatOthersReadIsRefused() async throws {
    try await AWSFixture.use { fixture in
      let file = fixture.server.data("tenants/acme/credentials")
      try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: file)
      let refusal = try await fixture.client.refusal(.generate(.own("k")))
      #expect(
        [.kmsUnreachable, .configurationInvalid].contains(refusal?.reason),
        "\(String(describing: refusal))"
      )
      #expect(refusal?.message.contains(fixture.tenant.secretAccessKey) == false)
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: file)
      _ = try await fixture.admin.call(.admin(.tenantReload("acme")))
      _ = try await fixture.client.call(.generate(.own("k")))
    }
  }

  // MARK: The region

  @Test func aRegionIsProvedBeforeItIsTaken() async throws {
    let kms = try await ScriptedKMS()
    let id = String(kms.makeKey().split(separator: "/").last ?? "")
    let server = try await TestServer()
    try AWSTenant(cmkID: id, endpoint: kms.endpoint, lines: ["region: eu-central-1"])
      .put(in: server.data("tenants"))
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.generate(.own("k")))
    func set(_ region: String) -> Call {
      .admin(.variablesSet(tenant: "acme", name: "region", value: region, .global))
    }
    for wrong in ["us-east-1", "no region", "evil/"] {
      #expect(try await admin.refusal(set(wrong))?.reason == .variableInvalid, "\(wrong)")
    }
    _ = try await client.call(.generate(.own("still there")))
    #expect(Set(kms.calls.map(\.region)) == ["eu-central-1", "us-east-1"])
    _ = try await admin.call(set("eu-central-1"))
    #expect(try await client.fetch(.own("k")) != nil)
    for each in [client, admin] { await each.close() }
    await server.shutdown()
    try await kms.shutdown()
  }
}

/// What a review found that could go wrong when what reaches a CMK changes.
@Suite struct ProviderChangeTests {
  private func move(_ tenant: AWSTenant, _ file: String) -> Call {
    let settings: [TenantMoveCall.Setting] = [
      .init(name: "provider", value: "aws"), .init(name: "endpoint", value: tenant.endpoint),
      .init(name: "credentials_file", value: file),
    ]
    return .admin(.tenantMove(TenantMoveCall(tenant: "acme", cmkID: tenant.cmkID, settings: settings)))
  }

  /// `set cmk_id` is proved with the credentials in force: a file that was exchanged comes by `reload`, which sees to the keys in use.
  @Test func settingACMKTakesNoNewCredentials() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      let second = fixture.kms.makeKey()
      var next = fixture.tenant
      next.accessKeyID = "AKIATESTTESTTEST0002"
      try next.putCredentials(in: fixture.server.data("tenants"))
      fixture.kms.forgetCalls()
      try await fixture.set("cmk_id", second, .persist)
      // What makes sure of the new CMK, before the server looks at the file by itself.
      let proof = fixture.kms.calls.first { $0.operation == "GenerateDataKey" && $0.keyID == second }
      #expect(proof?.accessKeyID == fixture.tenant.accessKeyID)
      try await fixture.expire()
      #expect(try await fixture.client.fetch(.own("k")) != nil)
    }
  }

  /// The old account's credentials were written over: after the move nothing would open the old keys any more.
  @Test func aMoveThatWouldLoseOldKeysIsRefused() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("old")))
      let other = try await ScriptedKMS()
      var tenant = AWSTenant(cmkID: other.makeKey(), endpoint: other.endpoint)
      tenant.accessKeyID = "AKIATESTTESTTEST0002"
      fixture.kms.refuse(tenant.accessKeyID, with: "UnrecognizedClientException")
      try tenant.putCredentials(in: fixture.server.data("tenants"))
      let refusal = try await fixture.admin.refusal(move(tenant, "credentials"))
      #expect(refusal?.message.contains("in use") == true, "\(String(describing: refusal))")
      try await fixture.expire()
      #expect(try await fixture.client.fetch(.own("old")) != nil)
      #expect(try await fixture.status().summary.cmkID == fixture.cmk)
      try await other.shutdown()
    }
  }

  /// From AWS to local by the file alone: refused, since nothing would reach AWS any more.
  @Test func aReloadFromAWSToLocalIsRefused() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      guard
        case .cmk(let local, _, _) = try await fixture.admin.call(
          .admin(.cmk(tenant: "acme", .create, cmkID: "", days: 0))
        )
      else { throw UnexpectedReply() }
      try Data("cmk_id: \(local)\ninstances: any\n".utf8).write(
        to: URL(filePath: fixture.server.data("tenants/acme/tenant.yaml"))
      )
      let refusal = try await fixture.admin.refusal(.admin(.tenantReload("acme")))
      #expect(refusal?.reason == .configurationInvalid && refusal?.message.contains("tenant move") == true)
      try await fixture.expire()
      #expect(try await fixture.client.fetch(.own("k")) != nil)
      #expect(try await fixture.status().summary.provider == "aws")
    }
  }

  /// After a move the old account is gone and the new CMK refuses: that is a refusal, not a silence.
  @Test func aFormerProviderThatIsSilentExcusesNoRefusal() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("old")))
      let other = try await ScriptedKMS(account: "444455556666")
      let tenant = AWSTenant(cmkID: other.makeKey(), endpoint: other.endpoint)
      try tenant.putCredentials(in: fixture.server.data("tenants"), as: "credentials.2")
      _ = try await fixture.admin.call(move(tenant, "credentials.2"))
      _ = try await fixture.client.call(.generate(.own("new")))
      fixture.kms.behave(.hangUp)
      other.set(tenant.cmkID, .disabled)
      try await fixture.expire()
      #expect(try await fixture.client.refusal(.fetch(.own("new")))?.reason == .tenantLocked)
      // And the old account's silence is no refusal of the old keys.
      #expect(try await fixture.client.fetch(.own("old")) != nil)
      try await other.shutdown()
    }
  }
}
