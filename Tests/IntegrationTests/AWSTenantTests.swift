import Foundation
import KeyringClient
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// A server with a tenant of a scripted KMS.
struct AWSFixture {
  let kms: ScriptedKMS
  let cmk: String
  let tenant: AWSTenant
  let server: TestServer
  let client: TestClient
  let admin: TestClient

  /// - Parameters:
  ///   - lines: of the tenant's file.
  ///   - audit: of the server.
  init(_ lines: [String] = [], audit: [String]? = nil) async throws {
    kms = try await ScriptedKMS()
    cmk = kms.makeKey()
    server = try await TestServer(audit: audit)
    tenant = AWSTenant(cmkID: cmk, endpoint: kms.endpoint, lines: lines)
    try tenant.put(in: server.data("tenants"))
    client = try server.instance("acme", "db1")
    admin = try server.client(.serviceAdmin)
  }

  /// Runs a test on one, and ends it.
  static func use(_ lines: [String] = [], _ body: (AWSFixture) async throws -> Void) async throws {
    let fixture = try await AWSFixture(lines)
    try await body(fixture)
    await fixture.client.close()
    await fixture.admin.close()
    await fixture.server.shutdown()
    try await fixture.kms.shutdown()
  }

  func set(_ name: String, _ value: String, _ persistence: Persistence = .global) async throws {
    _ = try await admin.call(.admin(.variablesSet(tenant: "acme", name: name, value: value, persistence)))
  }

  /// Has every wrapping key confirmed before its next use.
  func expire() async throws { try await set("wrapping_key_ttl", "5m") }

  func status() async throws -> TenantStatus {
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return status
  }

  /// Reloads the tenant, after a KMS came back: the circuit breaker looks now and then only.
  func reload() async throws {
    for _ in 0..<400 {
      guard let refusal = try await admin.refusal(.admin(.tenantReload("acme"))) else { return }
      #expect(refusal.reason == .kmsUnreachable, "\(refusal)")
      try await Task.sleep(for: .milliseconds(50))
    }
    Issue.record("it was never reloaded")
  }

  /// Calls until it is answered, after a KMS came back: the circuit breaker looks now and then only.
  func eventually(_ call: Call) async throws {
    for _ in 0..<400 {
      guard let refusal = try await client.refusal(call) else { return }
      #expect([.kmsUnreachable, .throttled, .tenantLocked].contains(refusal.reason), "\(refusal)")
      try await Task.sleep(for: .milliseconds(50))
    }
    Issue.record("it was never answered: \(try await status().reason)")
  }
}

/// A tenant whose CMK is in AWS KMS, and what becomes of it when the KMS misbehaves.
@Suite struct AWSTenantTests {
  @Test func itsKeysAreMadeKeptAndThereAfterARestart() async throws {
    let fixture = try await AWSFixture()
    let (kms, client) = (fixture.kms, fixture.client)
    _ = try await client.call(.generate(.own("k")))
    _ = try await client.call(.store(.shared("s"), "stored"))
    _ = try await client.call(.change(.rotate(.own("k"))))
    let values = [try await client.fetch(.own("k")), try await client.fetch(.own("k"), version: 1)]
    #expect(values[0] != nil && values[1] != nil && values[0] != values[1])
    // Which CMK, and for whom: on every call that has a key.
    let wrapping = kms.calls.filter { ["GenerateDataKey", "Decrypt"].contains($0.operation) }
    #expect(wrapping.count >= 2)
    for call in wrapping {
      #expect(call.keyID == fixture.cmk)
      #expect(call.context.count == 3 && call.context.contains("keyring:tenant=acme"), "\(call.context)")
      #expect(call.region == "eu-central-1" && call.accessKeyID == fixture.tenant.accessKeyID)
    }
    #expect(kms.calls.count { $0.operation == "GenerateRandom" } == 2)
    for each in [client, fixture.admin] { await each.close() }
    await fixture.server.shutdown()
    kms.forgetCalls()
    let again = try await TestServer(pki: fixture.server.pki, data: fixture.server.data)
    let reader = try again.instance("acme", "db1")
    #expect(try await reader.fetch(.own("k")) == values[0])
    #expect(try await reader.fetch(.own("k"), version: 1) == values[1])
    #expect(kms.calls.map(\.operation) == ["Decrypt"])
    await reader.close()
    await again.shutdown()
    try await kms.shutdown()
  }

  // MARK: Unreachable is not denied

  @Test(arguments: [
    ScriptedKMS.Behaviour.hangUp, .half, .answer(500, ""), .answer(200, "garbage"), .answer(503, "<html>"),
    .error("UnrecognizedClientException", "The security token included in the request is invalid."),
    .error("InvalidSignatureException", "Signature expired: 20240820T230143Z is now earlier than"),
    .error("ExpiredTokenException", "expired"), .error("KMSInternalException", ""),
    .error("NewException", ""),
  ])
  func whileTheKMSCannotBeAskedReadersGoOn(_ behaviour: ScriptedKMS.Behaviour) async throws {
    try await AWSFixture.use { fixture in
      let client = fixture.client
      _ = try await client.call(.generate(.own("k")))
      let value = try await client.fetch(.own("k"))
      let file = try Data(contentsOf: URL(filePath: fixture.server.data("tenants/acme/keyring")))
      fixture.kms.behave(behaviour)
      try await fixture.expire()
      #expect(try await client.fetch(.own("k")) == value)
      #expect(try await fixture.status().summary.state == .degraded)
      let refusal = try await client.refusal(.generate(.own("new")))
      #expect(refusal?.reason == .kmsUnreachable, "\(String(describing: refusal))")
      #expect(try await client.fetch(.own("new")) == nil)
      #expect(try Data(contentsOf: URL(filePath: fixture.server.data("tenants/acme/keyring"))) == file)
      // Without grace the wrapping key goes, and is back by itself once the KMS is.
      try await fixture.set("outage_grace", "0")
      try await fixture.set("wrapping_key_ttl", "1ms")
      #expect(try await client.refusal(.fetch(.own("k")))?.reason == .kmsUnreachable)
      try await fixture.set("wrapping_key_ttl", "5m")
      fixture.kms.behave(.normal)
      try await fixture.eventually(.fetch(.own("k"), version: 0))
      #expect(try await client.fetch(.own("k")) == value)
      try await fixture.eventually(.generate(.own("new")))
      #expect(try await fixture.status().summary.state == .ready)
    }
  }

  @Test(arguments: [
    ("AccessDeniedException", "not authorized to perform: kms:Decrypt"),
    ("DisabledException", "is disabled."),
    ("KMSInvalidStateException", "is pending deletion."), ("NotFoundException", "does not exist"),
  ])
  func aRefusalLocksAtOnceAndUnlocksWhenItIsTakenBack(_ type: String, _ message: String) async throws {
    try await AWSFixture.use { fixture in
      let client = fixture.client
      _ = try await client.call(.generate(.own("k")))
      let value = try await client.fetch(.own("k"))
      let file = try Data(contentsOf: URL(filePath: fixture.server.data("tenants/acme/keyring")))
      fixture.kms.behave(.error(type, message))
      try await fixture.expire()
      let refusal = try await client.refusal(.fetch(.own("k")))
      #expect(refusal?.reason == .tenantLocked && refusal?.message.contains(message) == true)
      #expect(refusal?.message.contains("request id scripted-") == true)
      #expect(try await client.refusal(.generate(.own("new")))?.reason == .tenantLocked)
      #expect(try await fixture.status().summary.state == .locked)
      #expect(try await fixture.status().wrappingKeys.map(\.state) == ["denied"])
      #expect(try Data(contentsOf: URL(filePath: fixture.server.data("tenants/acme/keyring"))) == file)
      // A key that is locked is asked for once in 30 s, whoever wants it.
      fixture.kms.forgetCalls()
      for _ in 0..<20 { #expect(try await client.refusal(.fetch(.own("k")))?.reason == .tenantLocked) }
      #expect(fixture.kms.calls.isEmpty)
      fixture.kms.behave(.normal)
      try await fixture.reload()
      #expect(try await client.fetch(.own("k")) == value)
      #expect(try await fixture.status().summary.state == .ready)
    }
  }

  @Test func theStateOfTheCMKCounts() async throws {
    try await AWSFixture.use(["wrapping_key_ttl: 0", "outage_grace: 0"]) { fixture in
      let client = fixture.client
      _ = try await client.call(.generate(.own("k")))
      for state in [ScriptedKMS.KeyState.disabled, .pendingDeletion] {
        fixture.kms.set(fixture.cmk, state)
        #expect(try await client.refusal(.fetch(.own("k")))?.reason == .tenantLocked)
        fixture.kms.set(fixture.cmk, .enabled)
        try await fixture.reload()
        #expect(try await client.fetch(.own("k")) != nil)
      }
    }
  }

  /// No wrapping key is held longer than allowed, though nobody asks for it any more.
  @Test func aWrappingKeyIsLetGoInTime() async throws {
    try await AWSFixture.use(["outage_grace: 0"]) { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      #expect(try await fixture.status().wrappingKeys.map(\.state) == ["held"])
      try await fixture.set("wrapping_key_ttl", "1ms")
      for _ in 0..<400 where try await fixture.status().wrappingKeys.map(\.state) != ["cold"] {
        try await Task.sleep(for: .milliseconds(20))
      }
      #expect(try await fixture.status().wrappingKeys.map(\.state) == ["cold"])
      #expect(try await fixture.client.fetch(.own("k")) != nil)
    }
  }

  @Test func withoutATimeToLiveEachOperationAsksTheKMS() async throws {
    try await AWSFixture.use(["wrapping_key_ttl: 0", "outage_grace: 0"]) { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      fixture.kms.forgetCalls()
      for number in 1...5 {
        #expect(try await fixture.client.fetch(.own("k")) != nil)
        #expect(fixture.kms.calls.map(\.operation) == Array(repeating: "Decrypt", count: number))
      }
      fixture.kms.behave(.hangUp)
      #expect(try await fixture.client.refusal(.fetch(.own("k")))?.reason == .kmsUnreachable)
    }
  }

  // MARK: Answers that cannot be

  @Test(arguments: ["GenerateDataKey", "Decrypt", "GenerateRandom"])
  func anAnswerThatCannotBeIsNotBelieved(_ operation: String) async throws {
    let changes: [(String, @Sendable (inout [String: Any]) -> Void)] = [
      ("short", { $0["Plaintext"] = Data(count: 16).base64EncodedString() }),
      ("empty", { $0["Plaintext"] = "" }),
      ("absent", { $0["Plaintext"] = nil }),
      ("zeros", { $0["Plaintext"] = Data(count: 32).base64EncodedString() }),
      ("no base64", { $0["Plaintext"] = "====" }),
      ("long", { $0["Plaintext"] = Data(repeating: 7, count: 64).base64EncodedString() }),
      ("another key", { $0["KeyId"] = "arn:aws:kms:eu-central-1:111122223333:key/another" }),
      ("another plaintext", { $0["Plaintext"] = Data(repeating: 7, count: 32).base64EncodedString() }),
    ]
    for (what, change) in changes {
      // KMS names no key beside random bytes, and may answer any of them.
      if operation == "GenerateRandom", what.hasPrefix("another") { continue }
      try await AWSFixture.use(["wrapping_key_ttl: 0", "outage_grace: 0"]) { fixture in
        _ = try await fixture.client.call(.generate(.own("k")))
        let value = try await fixture.client.fetch(.own("k"))
        let before = try await fixture.status().sequence
        let second = fixture.kms.makeKey()
        fixture.kms.behave(operation, .changed(change))
        if operation != "GenerateDataKey" {
          let refusal = try await fixture.client.refusal(.generate(.own("new")))
          #expect(refusal != nil, "\(operation), \(what)")
        }
        if operation != "GenerateRandom" {
          // A data key may be any; it is opened again, and must come out the same.
          let set = Call.admin(.variablesSet(tenant: "acme", name: "cmk_id", value: second, .global))
          #expect(try await fixture.admin.refusal(set) != nil, "\(operation), \(what)")
        }
        #expect(try await fixture.status().sequence == before, "\(operation), \(what)")
        #expect(try await fixture.status().summary.cmkID == fixture.cmk, "\(operation), \(what)")
        fixture.kms.behave(operation, nil)
        try await fixture.reload()
        #expect(try await fixture.client.fetch(.own("k")) == value, "\(operation), \(what)")
      }
    }
  }

  // MARK: Bounds

  /// A KMS that never answers: what is under way and what waits is bounded, the rest is told at once, and nobody else notices.
  @Test func aKMSThatNeverAnswersHoldsNobodyElse() async throws {
    try await AWSFixture.use { fixture in
      try await fixture.server.makeTenant("globex")
      let other = try fixture.server.instance("globex", "db1")
      _ = try await fixture.client.call(.generate(.own("k")))
      _ = try await other.call(.generate(.own("k")))
      fixture.kms.behave(.silence)
      let clients = try (0..<3).map { _ in try fixture.server.instance("acme", "db1") }
      let refusals = await withTaskGroup(of: Reason?.self) { group in
        for number in 0..<150 {
          group.addTask {
            do {
              return try await clients[number % 3].refusal(.generate(.own("n\(number)")))?.reason
            } catch {
              return nil
            }
          }
        }
        for _ in 0..<20 {
          let isThere = (try? await other.fetch(.own("k"))) != nil
          #expect(isThere)
          let isRead = (try? await fixture.client.fetch(.own("k"))) != nil
          #expect(isRead)
        }
        var reasons: [Reason: Int] = [:]
        for await reason in group { reasons[reason ?? .internalError, default: 0] += 1 }
        return reasons
      }
      #expect(refusals[.throttled] == 150 - 68, "\(refusals)")
      #expect(refusals[.kmsUnreachable, default: 0] == 68, "\(refusals)")
      for client in clients + [other] { await client.close() }
    }
  }

  /// Within the grace nobody waits until it is known that the KMS is silent; and what it says at last counts.
  @Test func readersDoNotWaitForAKMSThatIsSilent() async throws {
    try await AWSFixture.use { fixture in
      let client = fixture.client
      _ = try await client.call(.generate(.own("k")))
      let value = try await client.fetch(.own("k"))
      fixture.kms.behave(.silence)
      fixture.kms.forgetCalls()
      try await fixture.expire()
      #expect(try await client.fetch(.own("k")) == value)
      #expect(fixture.kms.calls.map(\.operation) == ["Decrypt"], "it waited for the repetitions")
      fixture.kms.behave(.error("DisabledException", "is disabled."))
      for _ in 0..<400 where try await client.refusal(.fetch(.own("k"), version: 0))?.reason != .tenantLocked
      {
        try await Task.sleep(for: .milliseconds(50))
      }
      #expect(try await client.refusal(.fetch(.own("k"), version: 0))?.reason == .tenantLocked)
    }
  }

  /// The server's word comes before the client's own time is over: it knows that nothing was changed.
  @Test func aClientHearsOfItsDeadlineFromTheServer() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      fixture.kms.behave("GenerateRandom", .silence)
      let call = Call.change(.generate(.own("new"), type: "AES", length: 32))
      await #expect {
        _ = try await fixture.client.client.call(call, timeout: .milliseconds(2600))
      } throws: { error in
        guard case KeyringClientError.refused(let status) = error else { return false }
        return status.reason == .timeout || status.reason == .kmsUnreachable
      }
    }
  }

  @Test func aCallPastItsDeadlineWasNotExecutedAndNeverIs() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      fixture.kms.behave("GenerateRandom", .silence)
      let raw = try #require(await RawClient.connected(fixture.server, "acme"))
      let call = Call.change(.generate(.own("new"), type: "AES", length: 32))
      try await raw.send([Request(id: 7, timeoutMilliseconds: 300, call: call)])
      let refusal = await raw.reply()?.refusal
      // Definite, whichever of the two saw the deadline first: asking the KMS or the connection.
      #expect(
        refusal?.reason == .timeout || refusal?.reason == .kmsUnreachable,
        "\(String(describing: refusal))"
      )
      fixture.kms.behave("GenerateRandom", nil)
      _ = try await fixture.client.call(.generate(.own("after")))
      #expect(try await fixture.client.fetch(.own("new")) == nil)
      await raw.close()
    }
  }

  // MARK: Rotation

  @Test func rotatingKeysAsksTheKMSLittle() async throws {
    try await AWSFixture.use { fixture in
      for number in 0..<200 { _ = try await fixture.client.call(.store(.own("k\(number)"), "\(number)")) }
      fixture.kms.forgetCalls()
      _ = try await fixture.admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
      #expect(fixture.kms.calls.count <= 4, "\(fixture.kms.calls.map(\.operation))")
      #expect(try await fixture.client.fetch(.own("k7")) == hexadecimal("7"))
    }
  }

  @Test func rotatingTheCMKIsTheKMSsAffair() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      fixture.kms.forgetCalls()
      guard case .rotateCMK(let id, _) = try await fixture.admin.call(.admin(.rotateCMK("acme"))) else {
        throw UnexpectedReply()
      }
      #expect(id == fixture.cmk)
      #expect(fixture.kms.calls.map(\.operation).contains("RotateKeyOnDemand"))
      let limit = "The on-demand rotations limit has been reached for the given keyId."
      fixture.kms.behave("RotateKeyOnDemand", .error("LimitExceededException", limit))
      let refusal = try await fixture.admin.refusal(.admin(.rotateCMK("acme")))
      #expect(refusal?.reason == .providerRefused && refusal?.message.contains(limit) == true)
      // Each one counts: one whose answer is lost is not sent again.
      fixture.kms.behave("RotateKeyOnDemand", .hangUp)
      fixture.kms.forgetCalls()
      #expect(try await fixture.admin.refusal(.admin(.rotateCMK("acme")))?.reason == .outcomeUnknown)
      #expect(fixture.kms.calls.map(\.operation) == ["RotateKeyOnDemand"])
    }
  }

  private func hexadecimal(_ text: String) -> String { text.utf8.map { String($0, radix: 16) }.joined() }
}
