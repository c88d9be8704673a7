import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Every state is explained, and what the explanation says leads out of it.
@Suite struct ExplainTests {
  private func explain(
    _ client: TestClient,
    _ key: ExplainCall.Key? = nil,
    tenant: String = "acme"
  ) async throws -> Explanation {
    guard
      case .explain(let explanation) = try await client.call(
        .admin(.explain(ExplainCall(tenant: tenant, key: key)))
      )
    else { throw UnexpectedReply() }
    return explanation
  }

  private func codes(_ client: TestClient) async throws -> [FindingCode] {
    try await explain(client).findings.map(\.code)
  }

  private func set(_ admin: TestClient, _ name: String, _ value: String) async throws {
    _ = try await admin.call(.admin(.variablesSet(tenant: "acme", name: name, value: value, .global)))
  }

  // MARK: keyringctl's advice

  /// The findings' codes, and the commands that the advice names.
  private func report(_ ctl: Keyringctl) async throws -> (codes: [String], commands: [String], text: String) {
    let output = try await ctl.succeed("explain acme --output json", as: Keyringctl.admin)
    let json = try #require(JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    let findings = try #require(json["findings"] as? [[String: Any]])
    let commands = findings.flatMap { finding in
      (finding["advice"] as? String ?? "").matches(of: /`keyringctl ([^`]*)`/).map { String($0.1) }
    }
    let text = try await ctl.succeed("explain acme", as: Keyringctl.admin)
    for finding in findings {
      #expect(text.contains(finding["cause"] as? String ?? "?"), "\(text)")
      #expect(finding["code"] as? String != "FINDING_CODE_UNSPECIFIED")
    }
    return (findings.compactMap { $0["code"] as? String }, commands, text)
  }

  /// Runs what the advice says; what needs another's decision (OTHER, N) is left out.
  private func follow(_ commands: [String], _ ctl: Keyringctl) async throws {
    for command in commands where !command.contains("OTHER") && !command.contains(" N") {
      try await ctl.succeed(command, as: Keyringctl.admin)
    }
  }

  @Test func theAdviceLeadsOut() async throws {
    let ctl = try await Keyringctl()
    let cmk = try await ctl.server.makeTenant("acme")
    let (admin, client) = (try ctl.server.client(.serviceAdmin), try ctl.server.instance("acme", "db1"))
    _ = try await client.call(.generate(.own("k")))
    let value = try await client.fetch(.own("k"))
    #expect(try await report(ctl).codes == [])
    #expect(try await report(ctl).text.contains("nothing is to be done"))
    let other = try await admin.makeCMK("acme")
    // What goes wrong, and what is then found; the advice is followed, a call is made, and nothing is found any more.
    let story: [(String, [String])] = [
      ("tenant disable acme", ["DISABLED_BY_ADMINISTRATOR"]),
      ("set persist read_only true --tenant acme", ["TENANT_READ_ONLY"]),
      ("cmk disable acme \(cmk)", ["CMK_DISABLED"]),
      ("cmk schedule-deletion acme \(cmk) --days 7", ["CMK_PENDING_DELETION"]),
      ("set global cmk_id \(other) --tenant acme", ["CMK_NOT_PERSISTED", "FORMER_CMK_NEEDED"]),
    ]
    try await set(admin, "outage_grace", "0")
    try await set(admin, "wrapping_key_ttl", "0")
    for (command, expected) in story {
      try await ctl.succeed(command, as: Keyringctl.admin)
      _ = try await client.refusal(.fetch(.own("k")))
      let found = try await report(ctl)
      #expect(found.codes.filter { $0 != "NOT_OPENED" } == expected, "\(command)")
      try await follow(found.commands, ctl)
      // A tenant whose CMK was refused is asked for again after 30 s, or where an administrator says so.
      try await ctl.succeed("tenant reload acme", as: Keyringctl.admin)
      #expect(try await client.fetch(.own("k")) == value, "\(command)")
      #expect(try await report(ctl).codes == [], "\(command)")
    }
    await admin.close()
    await client.close()
    await ctl.server.shutdown()
  }

  // MARK: States

  @Test func aLockedTenantIsExplainedByItsCMK() async throws {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let (admin, client) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    _ = try await client.call(.generate(.own("k")))
    try await set(admin, "outage_grace", "0")
    _ = try await admin.call(.admin(.cmk(tenant: "acme", .disable, cmkID: cmk, days: 0)))
    // Confirmed a moment ago, it is used until it must be confirmed again.
    var explained = try await explain(admin)
    #expect(explained.findings.map(\.code) == [.cmkDisabled] && explained.summary.state == .ready)
    #expect(
      explained.findings[0].untilMilliseconds > explained.nowMilliseconds && explained.findings[0].count == 2
    )
    #expect(explained.cmks.map(\.state) == ["disabled"] && explained.cmks[0].createdMilliseconds > 0)
    try await set(admin, "wrapping_key_ttl", "0")
    _ = try await client.refusal(.fetch(.own("k")))
    explained = try await explain(admin)
    #expect(explained.findings.map(\.code) == [.cmkDisabled] && explained.summary.state == .locked)
    #expect(explained.findings[0].untilMilliseconds == 0 && explained.findings[0].sinceMilliseconds > 0)
    #expect(
      explained.wrappingKeys.map(\.key.state) == ["denied"]
        && explained.lastFailure?.message.contains(cmk) == true
    )
    for client in [admin, client] { await client.close() }
    await server.shutdown()
    // After a restart its file cannot be verified, and the tenant is not opened before anybody calls.
    let again = try await TestServer(pki: server.pki, data: server.data)
    let (second, back) = (try again.client(.serviceAdmin), try again.instance("acme", "db1"))
    #expect(try await codes(second) == [.cmkDisabled, .notOpened])
    _ = try await back.refusal(.fetch(.own("k")))
    #expect(try await codes(second) == [.cmkDisabled, .batchesNotVerified])
    // Of a file that is not verified, no key is said to be absent.
    let tenantAdmin = try again.client(.tenantAdmin(try TenantName("acme")))
    for (id, presence) in [("k", ExplainedKey.Presence.present), ("missing", .cannotTell)] {
      let key = ExplainCall.Key(instance: "db1", owner: [], keyID: Array(id.utf8))
      #expect(try await explain(tenantAdmin, key).key?.presence == presence, "\(id)")
    }
    await tenantAdmin.close()
    _ = try await second.call(.admin(.cmk(tenant: "acme", .enable, cmkID: cmk, days: 0)))
    _ = try await second.call(.admin(.tenantReload("acme")))
    #expect(try await back.fetch(.own("k")) != nil)
    #expect(try await codes(second) == [])
    for client in [second, back] { await client.close() }
    await again.shutdown()
  }

  @Test func aQuarantinedTenantAndOneThatDoesNotLoadAreExplained() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let (admin, client) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    _ = try await client.call(.generate(.own("k")))
    let file = server.data("tenants/acme/keyring")
    let good = try Data(contentsOf: URL(filePath: file))
    try FileManager.default.removeItem(atPath: file)
    try good.write(to: URL(filePath: file))
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: file)
    _ = try await client.refusal(.generate(.own("k2")))
    var found = try await explain(admin).findings
    #expect(found.map(\.code) == [.storageQuarantined] && !found[0].detail.isEmpty)
    _ = try await admin.call(.admin(.tenantEnable("acme")))
    #expect(try await client.fetch(.own("k")) != nil)
    #expect(try await codes(admin) == [])
    // A file that does not load is said while the tenant still runs on what was loaded.
    let yaml = try String(contentsOfFile: server.data("tenants/acme/tenant.yaml"), encoding: .utf8)
    try server.data.write("tenants/acme/tenant.yaml", yaml + "nonsense: 1\n")
    found = try await explain(admin).findings
    #expect(found.map(\.code) == [.configurationInvalid] && found[0].detail.contains("tenant.yaml:"))
    #expect(try await client.fetch(.own("k")) != nil)
    for client in [admin, client] { await client.close() }
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let name = try TenantName("acme")
    for identity in [PeerIdentity.serviceAdmin, .tenantAdmin(name)] {
      let administrator = try again.client(identity)
      let explained = try await explain(administrator)
      #expect(explained.findings.map(\.code) == [.configurationInvalid])
      #expect(explained.findings[0].detail.contains("nonsense") && explained.summary.tenant == "acme")
      await administrator.close()
    }
    // Who calls is known all the same.
    let instance = try again.instance("acme", "db1")
    guard case .whoAmI(let identity) = try await instance.call(.whoAmI) else { throw UnexpectedReply() }
    #expect(identity.instance == "db1" && identity.profile.isEmpty)
    await instance.close()
    try server.data.write("tenants/acme/tenant.yaml", yaml)
    let administrator = try again.client(.tenantAdmin(name))
    #expect(try await codes(administrator) == [.notOpened])
    await administrator.close()
    await again.shutdown()
  }

  // MARK: Keys

  @Test func aKeysDependenciesAreItsTenantsAffair() async throws {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let name = try TenantName("acme")
    let (admin, client) = (try server.client(.tenantAdmin(name)), try server.instance("acme", "db1"))
    let service = try server.client(.serviceAdmin)
    _ = try await client.call(.generate(.own("k", owner: "u@h")))
    _ = try await client.call(.generate(.shared("s")))
    let own = ExplainCall.Key(instance: "db1", owner: Array("u@h".utf8), keyID: Array("k".utf8))
    let shared = ExplainCall.Key(instance: "", owner: [], keyID: Array("s".utf8))
    let first = try #require(try await explain(admin, own).key)
    #expect(first.presence == .present && first.type == "AES" && first.latestVersion == 1)
    #expect(first.dependencies.map(\.versions) == [1] && first.dependencies[0].createdMilliseconds > 0)
    // Under another CMK a new version has another wrapping key: the key depends on both.
    let other = try await service.makeCMK("acme")
    try await set(service, "cmk_id", other)
    _ = try await client.call(.change(.rotate(.own("k", owner: "u@h"))))
    _ = try await client.call(.change(.rotate(.own("k", owner: "u@h"))))
    let explained = try await explain(admin, own)
    let both = try #require(explained.key)
    #expect(both.dependencies.map(\.versions) == [1, 2] && both.dependencies.map(\.firstVersion) == [1, 2])
    #expect(both.dependencies.map(\.lastVersion) == [1, 3])
    let cmks = both.dependencies.map { dependency in
      explained.wrappingKeys.first { $0.key.id == dependency.wrappingKeyID }?.key.cmkID
    }
    #expect(cmks == [cmk, other])
    #expect(try await explain(admin, shared).key?.presence == .present)
    for absent in [
      ExplainCall.Key(instance: "db2", owner: own.owner, keyID: own.keyID),
      .init(instance: "", owner: [], keyID: own.keyID),
    ] {
      #expect(try await explain(admin, absent).key?.presence == .absent)
    }
    let unnamed = ExplainCall.Key(instance: "", owner: [], keyID: [])
    #expect(
      try await admin.refusal(.admin(.explain(ExplainCall(tenant: "acme", key: unnamed))))?.reason
        == .nameInvalid
    )
    // The service's administrator gets the tenant, and no key of it.
    #expect(
      try await service.refusal(.admin(.explain(ExplainCall(tenant: "acme", key: shared))))?.reason
        == .forbidden
    )
    #expect(try await explain(service).key == nil)
    // What cannot be told is not said to be absent.
    _ = try await service.call(.admin(.tenantDisable("acme")))
    let disabled = try #require(try await explain(admin, own).key)
    #expect(disabled.presence == .cannotTell && disabled.why.contains("disabled"))
    for client in [admin, client, service] { await client.close() }
    await server.shutdown()
  }

  // MARK: AWS

  /// Fetches until the tenant is in a state: on a busy machine a reader is served from what is held before the KMS's answer is known.
  private func fetch(_ fixture: AWSFixture, until state: TenantState) async throws -> Explanation {
    for _ in 0..<400 {
      _ = try await fixture.client.refusal(.fetch(.own("k")))
      let explained = try await explain(fixture.admin)
      if explained.summary.state == state { return explained }
      try await Task.sleep(for: .milliseconds(50))
    }
    Issue.record("it never was \(state)")
    return try await explain(fixture.admin)
  }

  /// How the KMS refuses, with its request id, and what it takes.
  @Test func aRefusalOfKMSIsExplainedWithItsRequestID() async throws {
    try await AWSFixture.use { fixture in
      let (admin, kms) = (fixture.admin, fixture.kms)
      _ = try await fixture.client.call(.generate(.own("k")))
      #expect(try await codes(admin) == [])
      kms.behave("Decrypt", .error("AccessDeniedException", "no kms:Decrypt for you"))
      try await fixture.expire()
      var explained = try await fetch(fixture, until: .locked)
      #expect(explained.findings.map(\.code) == [.cmkRefused])
      #expect(
        explained.findings[0].detail.contains("no kms:Decrypt for you") && explained.findings[0].count == 2
      )
      #expect(explained.cmks.map(\.state) == ["enabled"])
      let failure = try #require(explained.lastFailure)
      #expect(failure.requestID.hasPrefix("scripted-") && failure.message.contains(failure.requestID))
      #expect(failure.atMilliseconds > 0 && explained.wrappingKeys.map(\.failure) == [failure])
      #expect(explained.credentials?.accessKeyID == "0001")
      // It may not be described either: that alone is no finding.
      kms.behave("Decrypt", nil)
      try await fixture.reload()
      _ = try await fixture.client.fetch(.own("k"))
      kms.behave("DescribeKey", .error("AccessDeniedException", "no kms:DescribeKey for you"))
      explained = try await explain(admin)
      #expect(explained.findings == [] && explained.cmks.map(\.state) == ["unknown"])
      #expect(explained.cmks[0].why.contains("no kms:DescribeKey for you"))
      #expect(explained.lastFailure == failure, "the last one is remembered")
      for (state, code) in [
        (ScriptedKMS.KeyState.disabled, FindingCode.cmkDisabled), (.pendingDeletion, .cmkPendingDeletion),
      ] {
        kms.behave("DescribeKey", nil)
        kms.set(fixture.cmk, state)
        #expect(try await codes(admin) == [code])
      }
      kms.set(fixture.cmk, nil)
      try await fixture.expire()
      explained = try await fetch(fixture, until: .locked)
      #expect(
        explained.findings.map(\.code) == [.cmkRefused] && explained.findings[0].detail.contains("not found")
      )
    }
  }

  @Test func whenTheCMKWasMadeIsTold() async throws {
    try await AWSFixture.use { fixture in
      fixture.kms.behave(
        "DescribeKey",
        .changed { reply in
          var metadata = reply["KeyMetadata"] as? [String: Any] ?? [:]
          metadata["CreationDate"] = 1_700_000_000.25
          reply["KeyMetadata"] = metadata
        }
      )
      let cmks = try await explain(fixture.admin).cmks
      #expect(cmks.map(\.createdMilliseconds) == [1_700_000_000_250])
    }
  }

  /// Bridged, then not: with how long it is, and what was said.
  @Test func aSilentKMSIsExplained() async throws {
    try await AWSFixture.use { fixture in
      let (admin, kms) = (fixture.admin, fixture.kms)
      _ = try await fixture.client.call(.generate(.own("k")))
      kms.behave(.hangUp)
      try await fixture.expire()
      var explained = try await fetch(fixture, until: .degraded)
      #expect(explained.findings.map(\.code) == [.kmsSilentInGrace])
      let day: UInt64 = 86_400_000
      let left = explained.findings[0].untilMilliseconds - explained.nowMilliseconds
      #expect(left > day && left <= day + 300_000, "5 minutes of time to live and a day of grace")
      #expect(explained.findings[0].sinceMilliseconds > 0 && explained.cmks.map(\.state) == ["unknown"])
      try await fixture.set("outage_grace", "0")
      try await fixture.set("wrapping_key_ttl", "0")
      _ = try await fixture.client.refusal(.fetch(.own("k")))
      explained = try await explain(admin)
      #expect(explained.findings.map(\.code) == [.kmsSilent] && explained.findings[0].untilMilliseconds == 0)
      #expect(explained.lastFailure != nil)
      kms.behave(.normal)
      try await fixture.reload()
      try await fixture.eventually(.fetch(.own("k")))
      #expect(try await codes(admin) == [])
    }
  }
}
