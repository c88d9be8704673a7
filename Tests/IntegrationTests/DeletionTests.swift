import Cryptography
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// The end of a tenant.
@Suite(.timeLimit(.minutes(3))) struct DeletionTests {
  private func delete(_ tenant: String = "acme", after seconds: UInt64 = 0, days: UInt32 = 0) -> Call {
    .admin(.tenantDelete(TenantDeleteCall(tenant: tenant, afterSeconds: seconds, cmkDays: days)))
  }

  /// A key of the tenant, and another tenant with one.
  private func fill(_ server: TestServer) async throws {
    for tenant in ["acme", "globex"] {
      try await server.makeTenant(tenant)
      let client = try server.instance(tenant, "db1")
      _ = try await client.call(try .store(.own("canary"), "a secret of \(tenant), 32 bytes"))
      await client.close()
    }
  }

  /// Every file of the server, by its path in the server's folder.
  private func files(_ server: TestServer) throws -> [String: Data] {
    let root = server.data.path
    let all = try #require(FileManager.default.enumerator(atPath: root))
    var found: [String: Data] = [:]
    for case let path as String in all {
      guard let data = FileManager.default.contents(atPath: "\(root)/\(path)") else { continue }
      found[path] = data
    }
    return found
  }

  /// What there is of a tenant but the records of its deletion.
  private func remains(_ server: TestServer, _ tenant: String = "acme") throws -> [String] {
    try #require(FileManager.default.enumerator(atPath: server.data.path)).compactMap { $0 as? String }
      .filter { $0.contains(tenant) && !$0.contains(".deletions") && !$0.hasPrefix("audit") }
  }

  private func receipt(_ admin: TestClient) async throws -> (
    object: [String: Any], line: [UInt8], key: String
  ) {
    guard case .tenantReceipt(let text, let key) = try await admin.call(.admin(.tenantReceipt("acme"))) else {
      throw UnexpectedReply()
    }
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.count == 3 && lines[2].isEmpty)
    let object = try JSONSerialization.jsonObject(with: Data(lines[0].utf8)) as? [String: Any]
    let last = try JSONSerialization.jsonObject(with: Data(lines[1].utf8)) as? [String: String]
    let signature = try #require(last?["signature"]).hexadecimalBytes
    #expect(try VerifyingKey(pem: key).isValid(signature, of: Array(lines[0].utf8)))
    var changed = Array(lines[0].utf8)
    changed[changed.count / 2] ^= 1
    #expect(try !VerifyingKey(pem: key).isValid(signature, of: changed))
    return (try #require(object), Array(lines[0].utf8), key)
  }

  // MARK: At once

  @Test func nothingIsLeftOfADeletedTenant() async throws {
    let server = try await TestServer(backupPassphrase: "of a test of deletions")
    try await fill(server)
    let admin = try server.client(.serviceAdmin)
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.fetch(.own("canary")))
    guard
      case .backup(.begun(let backup, _, let digest, _)) = try await admin.call(
        .admin(.backup("acme", .begin(allowUnproved: false)))
      )
    else { throw UnexpectedReply() }
    // What the storage file and the CMK have of keys: encrypted, and in no other file.
    let before = try files(server)
    let keyring = try #require(before["tenants/acme/keyring"])
    let cmk = try #require(before.first { $0.key.hasPrefix("cmks/acme/") }?.value)
    let needles = [keyring.suffix(64), keyring.prefix(400).suffix(64), cmk.suffix(48)]
    guard case .tenantDelete(_, true) = try await admin.call(delete()) else { throw UnexpectedReply() }
    #expect(try remains(server) == [])
    // The backup that is on its way, too.
    #expect(
      try await admin.refusal(.admin(.backup("acme", .read(backup, offset: 0))))?.reason == .tenantAbsent
    )
    for (path, data) in try files(server) {
      for needle in needles { #expect(data.range(of: needle) == nil, "\(path)") }
      #expect(data.range(of: Data("a secret of".utf8)) == nil, "\(path)")
    }
    #expect(try await client.refusal(.fetch(.own("canary")))?.reason == .forbidden)
    #expect(try await admin.refusal(.admin(.status("acme")))?.reason == .tenantAbsent)
    #expect(try await admin.refusal(delete())?.reason == .tenantAbsent)
    let (receipt, _, _) = try await receipt(admin)
    #expect(receipt["tenant"] as? String == "acme" && receipt["records"] as? Int == 2)
    #expect((receipt["requested_by"] as? String)?.hasSuffix("/admin") == true)
    let cmks = try #require(receipt["cmks"] as? [[String: String]])
    #expect(cmks.count == 1 && cmks[0]["fate"] == "destroyed")
    #expect((receipt["wrapping_keys"] as? [[String: String]])?.map { $0["cmk_id"] } == [cmks[0]["id"]])
    let backups = try #require(receipt["backups"] as? [[String: Any]])
    #expect(backups.map { $0["sha256"] as? String } == ["\(digest)"])
    #expect((backups[0]["readable"] as? String)?.contains("backup passphrase") == true)
    // The other tenant is as it was.
    let other = try server.instance("globex", "db1")
    #expect(try await other.fetch(.own("canary")) == hexadecimal("a secret of globex, 32 bytes".utf8))
    for each in [client, admin, other] { await each.close() }
    await server.shutdown()
  }

  /// A name that is used again takes none of the certificates of before.
  @Test func aNameThatIsUsedAgainTakesNewCertificatesOnly() async throws {
    let server = try await TestServer()
    try await fill(server)
    let admin = try server.client(.serviceAdmin)
    let (old, oldAdmin) = (
      try server.instance("acme", "db1"), try server.client(.tenantAdmin(TenantName("acme")))
    )
    _ = try await old.call(.fetch(.own("canary")))
    _ = try await oldAdmin.call(.admin(.status("acme")))
    _ = try await admin.call(delete())
    try await server.makeTenant("acme")
    for round in 0..<2 {
      #expect(try await old.refusal(.fetch(.own("canary")))?.reason == .forbidden, "\(round)")
      #expect(try await old.refusal(.generate(.own("mine")))?.reason == .forbidden)
      #expect(try await oldAdmin.refusal(.admin(.status("acme")))?.reason == .forbidden)
      let new = try server.client(.instance(TenantName("acme"), InstanceName("new\(round)")))
      #expect(try await new.fetch(.own("canary")) == nil)
      await new.close()
      // And once more.
      if round == 0 {
        _ = try await admin.call(delete(after: 1000))
        _ = try await admin.call(.admin(.tenantUndelete("acme")))
        _ = try await admin.call(.admin(.tenantEnable("acme")))
      }
    }
    for each in [admin, old, oldAdmin] { await each.close() }
    await server.shutdown()
  }

  // MARK: The time to undo

  @Test func untilItIsDueItCanBeUndone() async throws {
    let server = try await TestServer()
    try await fill(server)
    let admin = try server.client(.serviceAdmin)
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.fetch(.own("canary")))
    guard case .tenantDelete(let due, false) = try await admin.call(delete(after: 3600)) else {
      throw UnexpectedReply()
    }
    #expect(try await client.refusal(.fetch(.own("canary")))?.reason == .tenantDisabled)
    guard case .tenantDelete(due, false) = try await admin.call(delete(after: 7200)) else {
      throw UnexpectedReply()
    }
    for call: AdminCall in [.tenantEnable("acme"), .tenantCreate(TenantCreateCall(tenant: "acme"))] {
      #expect(try await admin.refusal(.admin(call))?.reason == .deletionRefused, "\(call)")
    }
    #expect(try await admin.refusal(.admin(.tenantReceipt("acme")))?.reason == .deletionRefused)
    await server.shutdown()
    // Whatever its own file says, a restart does not forget.
    try FileManager.default.removeItem(atPath: server.data("tenants/acme/persisted.json"))
    let again = try await TestServer(pki: server.pki, data: server.data)
    let (reader, steward) = (try again.instance("acme", "db1"), try again.client(.serviceAdmin))
    #expect(try await reader.refusal(.fetch(.own("canary")))?.reason == .tenantDisabled)
    guard case .tenant(let status) = try await steward.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    #expect(status.summary.state == .disabled && status.reason.contains("undelete acme"))
    _ = try await steward.call(.admin(.tenantUndelete("acme")))
    #expect(try await steward.refusal(.admin(.tenantUndelete("acme")))?.reason == .deletionRefused)
    #expect(try await reader.refusal(.fetch(.own("canary")))?.reason == .tenantDisabled)
    _ = try await steward.call(.admin(.tenantEnable("acme")))
    #expect(try await reader.fetch(.own("canary")) == hexadecimal("a secret of acme, 32 bytes".utf8))
    for each in [client, admin, reader, steward] { await each.close() }
    await again.shutdown()
  }

  @Test func itIsCarriedOutWhenItIsDueAlsoAfterARestart() async throws {
    var server = try await TestServer()
    try await fill(server)
    for tenant in ["acme", "globex"] {
      let admin = try server.client(.serviceAdmin)
      _ = try await admin.call(delete(tenant, after: 2))
      await admin.close()
      if tenant == "acme" {
        await server.shutdown()
        server = try await TestServer(pki: server.pki, data: server.data)
      }
    }
    let running = server
    #expect(try await eventually { try remains(running, "acme") == [] && remains(running, "globex") == [] })
    let admin = try server.client(.serviceAdmin)
    var last: Status?
    let hasReceipt = try await eventually {
      last = try await admin.refusal(.admin(.tenantReceipt("acme")))
      return last == nil
    }
    #expect(hasReceipt, "\(String(describing: last))")
    _ = try await receipt(admin)
    await admin.close()
    await server.shutdown()
  }

  // MARK: Failures

  /// Whatever call to the disk fails: the same again finishes it, nothing is left then, and the other tenant notices nothing.
  @Test func whateverCallFailsTheSameAgainFinishesIt() async throws {
    let calls = Mutex<(isArmed: Bool, made: Int, failing: Int)>((false, 0, .max))
    let intercepted = SystemCalls { call in
      calls.withLock { state in
        guard state.isArmed else { return .proceed }
        state.made += 1
        return state.made == state.failing ? .fail(EIO) : .proceed
      }
    }
    let server = try await TestServer(calls: intercepted)
    let admin = try server.client(.serviceAdmin, attempts: 1)
    var (number, refused) = (1, 0)
    while true {
      try await server.makeTenant("acme")
      let client = try server.instance("acme", "i\(number)")
      _ = try await client.call(try .store(.own("canary"), "a secret"))
      await client.close()
      calls.withLock { $0 = (true, 0, number) }
      let refusal = try await admin.refusal(delete())
      let made = calls.withLock { state in
        state.isArmed = false
        return state.made
      }
      if refusal != nil {
        refused += 1
        // It waits, or was begun: nothing of the tenant is given out meanwhile.
        let reader = try server.instance("acme", "r\(number)")
        let answer = try await reader.refusal(.fetch(.own("canary")))
        let isShut = answer.map { [.tenantDisabled, .forbidden].contains($0.reason) } == true
        // Or the deletion was refused before it had a record.
        let isThere = try remains(server).contains("tenants/acme/keyring")
        #expect(isShut || isThere, "call \(number)")
        await reader.close()
        _ = try await admin.call(delete())
      }
      #expect(try remains(server) == [], "call \(number)")
      #expect(try await admin.refusal(.admin(.tenantReceipt("acme"))) == nil, "call \(number)")
      if made < number { break }
      number += number < 12 ? 1 : 5
    }
    #expect(refused > 15 && number > 60, "\(refused) of \(number)")
    await admin.close()
    await server.shutdown()
  }

  // MARK: AWS

  @Test func kmsIsToldToDeleteTheCMKOnRequestAlone() async throws {
    try await AWSFixture.use { fixture in
      let (admin, kms) = (fixture.admin, fixture.kms)
      _ = try await fixture.client.call(.generate(.own("k")))
      var other = fixture.tenant
      other.name = "globex"
      try other.put(in: fixture.server.data("tenants"))
      let shared = try await admin.refusal(delete(days: 7))
      #expect(shared?.reason == .deletionRefused && shared?.message.contains("globex") == true)
      try FileManager.default.removeItem(atPath: fixture.server.data("tenants/globex"))
      _ = try await admin.call(.admin(.serviceReload))
      // While KMS does not do it, nothing is destroyed.
      kms.behave("ScheduleKeyDeletion", .error("AccessDeniedException", "not you"))
      #expect(try await admin.refusal(delete(days: 7))?.reason == .kmsDenied)
      #expect(try remains(fixture.server).contains("tenants/acme/keyring"))
      let status = try await fixture.status()
      #expect(status.reason.contains("the last try failed") && status.summary.state == .disabled)
      kms.behave("ScheduleKeyDeletion", .normal)
      // The server tries by itself, too.
      let isDone = try await eventually {
        let refusal = try await admin.refusal(delete(days: 7))
        return refusal == nil || refusal?.reason == .tenantAbsent
      }
      #expect(isDone)
      #expect(kms.calls.contains { $0.operation == "ScheduleKeyDeletion" })
      #expect(try remains(fixture.server) == [])
      let (receipt, _, _) = try await receipt(admin)
      let cmks = try #require(receipt["cmks"] as? [[String: String]])
      #expect(cmks.map { $0["fate"] } == ["KMS deletes it 7 days after this"])
    }
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      _ = try await fixture.admin.call(delete())
      #expect(!fixture.kms.calls.contains { $0.operation == "ScheduleKeyDeletion" })
      let (receipt, _, _) = try await receipt(fixture.admin)
      #expect((receipt["cmks"] as? [[String: String]])?.map { $0["fate"] } == ["left as it is"])
      // The secret of its credentials is gone with them.
      for (path, data) in try files(fixture.server) {
        #expect(data.range(of: Data(fixture.tenant.secretAccessKey.utf8)) == nil, "\(path)")
      }
    }
  }
}

extension String {
  /// Pairs of hexadecimal digits as bytes.
  fileprivate var hexadecimalBytes: [UInt8] {
    var rest = self[...]
    var bytes: [UInt8] = []
    while let byte = UInt8(rest.prefix(2), radix: 16), rest.count > 1 {
      bytes.append(byte)
      rest = rest.dropFirst(2)
    }
    return bytes
  }
}
