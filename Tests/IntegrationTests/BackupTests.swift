import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// Backups, and what a restore makes of them.
///
/// One at a time: each stretches a passphrase several times, with 128 MiB and a core.
@Suite(.serialized) struct BackupTests {
  static let passphrase = "correct horse battery staple"
  static let otherRootKey = String(repeating: "c3", count: 32)

  static func server(
    data: TestDirectory? = nil,
    pki: TestPKI? = nil,
    passphrase: String? = Self.passphrase,
    rootKey: String = String(repeating: "5a", count: 32)
  ) async throws -> TestServer {
    try await TestServer(pki: pki, data: data, backupPassphrase: passphrase, rootKey: rootKey)
  }

  /// A server with a tenant and some keys in it; shared/k0... with their own names as values.
  static func filled(_ keys: Int = 3) async throws -> (TestServer, TestClient, TestClient) {
    let server = try await Self.server()
    try await server.makeTenant("acme")
    let (admin, instance) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    for index in 0..<keys { _ = try await instance.call(try .store(.shared("k\(index)"), "of k\(index)")) }
    return (server, admin, instance)
  }

  static func fetch(_ instance: TestClient, _ index: Int) async throws -> Bool {
    try await instance.fetch(.shared("k\(index)")) == hexadecimal("of k\(index)".utf8)
  }

  /// What writers of a test share.
  final class Shared: Sendable {
    let acknowledged = Mutex<[Int]>([])
    let isStopped = Mutex(false)
  }

  // MARK: To another machine

  @Test func aTenantMovesToAnEmptyMachineWithAnotherRootKey() async throws {
    let (server, admin, instance) = try await Self.filled()
    _ = try await admin.call(
      .admin(.variablesSet(tenant: "acme", name: "wrapping_key_ttl", value: "7m", .persist))
    )
    _ = try await admin.call(.admin(.rotateCMK("acme")))
    _ = try await instance.call(.change(.rotate(.shared("k0"))))
    let (bytes, summary) = try await admin.backup("acme")
    #expect(summary.keys == 3 && summary.cmksIncluded.count == 1 && summary.cmksNeeded.isEmpty)
    #expect(summary.unprovedWrappingKeys.isEmpty)
    let k0 = try await instance.fetch(.shared("k0"))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()

    let other = try await Self.server(pki: server.pki, rootKey: Self.otherRootKey)
    let (newAdmin, newInstance) = (try other.client(.serviceAdmin), try other.instance("acme", "db1"))
    #expect(try await newInstance.refusal(.fetch(.shared("k0")))?.reason == .forbidden)
    let report = try await newAdmin.restore("acme", bytes)
    #expect(report.summary == summary && report.cmksMade == summary.cmksIncluded)
    #expect(report.replacedSequence == 0 && report.notices.isEmpty && !report.isDryRun)
    #expect(try await newInstance.fetch(.shared("k0")) == k0)
    for index in 1..<3 { #expect(try await Self.fetch(newInstance, index)) }
    // It goes on as a tenant does: configuration, changes, a restart.
    guard case .variablesList(let variables) = try await newAdmin.call(.admin(.variablesList("acme"))) else {
      throw UnexpectedReply()
    }
    #expect(variables.first { $0.name == "wrapping_key_ttl" }?.source == "persisted")
    _ = try await newInstance.call(try .store(.shared("k3"), "of k3"))
    for client in [newAdmin, newInstance] { await client.close() }
    await other.shutdown()
    let again = try await Self.server(data: other.data, pki: other.pki)
    let last = try again.instance("acme", "db1")
    for index in 1..<4 { #expect(try await Self.fetch(last, index)) }
    await last.close()
    await again.shutdown()
  }

  @Test func aBackupWhileWritersWriteAndFilesAreReplacedHasAllThatWasAcknowledgedBefore() async throws {
    let (server, admin, _) = try await Self.filled(0)
    let shared = Shared()
    let writers = try (0..<3).map { writer in
      let client = try server.instance("acme", "db\(writer)")
      return Task {
        var index = writer
        while !shared.isStopped.withLock({ $0 }) {
          let text = "of k\(index)" + String(repeating: ".", count: 2000)
          _ = try await client.call(try .store(.shared("k\(index)"), text))
          shared.acknowledged.withLock { $0.append(index) }
          // Garbage, so that compaction has something to do.
          _ = try await client.call(try .store(.own("g\(index)"), text))
          _ = try await client.call(.remove(.own("g\(index)")))
          index += 3
          try await Task.sleep(for: .milliseconds(5))  // other tests want the machine, too
        }
        await client.close()
      }
    }
    let rotator = Task {
      let client = try server.client(.tenantAdmin(TenantName("acme")))
      while !shared.isStopped.withLock({ $0 }) {
        _ = try await client.call(.admin(.rotateKeys("acme", allowTransient: false)))
        try await Task.sleep(for: .milliseconds(50))
      }
      await client.close()
    }
    var taken: [(bytes: [UInt8], before: [Int])] = []
    while taken.count < 3 {
      let before = shared.acknowledged.withLock { $0 }
      taken.append((try await admin.backup("acme").bytes, before))
    }
    shared.isStopped.withLock { $0 = true }
    for writer in writers { try await writer.value }
    try await rotator.value
    await admin.close()
    await server.shutdown()
    for (bytes, before) in taken {
      let other = try await Self.server(pki: server.pki, rootKey: Self.otherRootKey)
      let (newAdmin, instance) = (try other.client(.serviceAdmin), try other.instance("acme", "db9"))
      _ = try await newAdmin.restore("acme", bytes)
      for index in before {
        let text = "of k\(index)" + String(repeating: ".", count: 2000)
        #expect(try await instance.fetch(.shared("k\(index)")) == hexadecimal(text.utf8), "k\(index)")
      }
      for client in [newAdmin, instance] { await client.close() }
      await other.shutdown()
    }
    #expect(try #require(taken.last).before.count > 0)
  }

  // MARK: Over what is there

  @Test func aRollbackIsRefusedUnlessItIsAccepted() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let (bytes, summary) = try await admin.backup("acme")
    _ = try await instance.call(try .store(.shared("k1"), "of k1"))
    let refusal = try #require(try await admin.restoreRefusal("acme", bytes))
    #expect(refusal.reason == .restoreRefused && refusal.message.contains("--accept-rollback"))
    #expect(try await Self.fetch(instance, 1), "a refusal changes nothing")
    var dry = TestClient.Restoring.acceptingRollback
    dry.isDryRun = true
    #expect(try await admin.restore("acme", bytes, dry).isDryRun)
    #expect(try await Self.fetch(instance, 1), "a dry run changes nothing")

    let report = try await admin.restore("acme", bytes, .acceptingRollback)
    #expect(report.replacedSequence == summary.sequence + 1 && report.cmksMade.isEmpty)
    #expect(report.notices.count == 1)
    #expect(try await instance.fetch(.shared("k1")) == nil)
    #expect(try await Self.fetch(instance, 0))
    _ = try await instance.call(try .store(.shared("k2"), "of k2"))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    let again = try await Self.server(data: server.data, pki: server.pki)
    let last = try again.instance("acme", "db1")
    #expect(try await Self.fetch(last, 2), "the anchor took the file")
    await last.close()
    await again.shutdown()
  }

  @Test func theSameBackupIsRestoredTwiceAndOverAnOlderState() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let old = try await admin.backup("acme").bytes
    _ = try await instance.call(try .store(.shared("k1"), "of k1"))
    let new = try await admin.backup("acme").bytes
    _ = try await admin.restore("acme", new)
    _ = try await admin.restore("acme", old, .acceptingRollback)
    let report = try await admin.restore("acme", new)  // forward: nothing is given up
    #expect(report.notices.isEmpty)
    #expect(try await Self.fetch(instance, 1))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func anotherKeyringIsGivenUpOnlyWhereThatIsAccepted() async throws {
    let (server, admin, instance) = try await Self.filled(2)
    let bytes = try await admin.backup("acme").bytes
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    let other = try await Self.server(pki: server.pki, rootKey: Self.otherRootKey)
    try await other.makeTenant("acme")
    let (newAdmin, newInstance) = (try other.client(.serviceAdmin), try other.instance("acme", "db1"))
    _ = try await newInstance.call(try .store(.shared("mine"), "of another keyring"))
    let refusal = try #require(try await newAdmin.restoreRefusal("acme", bytes))
    #expect(refusal.reason == .restoreRefused && refusal.message.contains("another keyring"))
    #expect(try await newInstance.fetch(.shared("mine")) != nil)
    _ = try await newAdmin.restore("acme", bytes, .acceptingRollback)
    #expect(try await newInstance.fetch(.shared("mine")) == nil)
    for index in 0..<2 { #expect(try await Self.fetch(newInstance, index)) }
    for client in [newAdmin, newInstance] { await client.close() }
    await other.shutdown()
  }

  @Test func aLostOrDamagedStorageFileIsPutBack() async throws {
    let (server, admin, instance) = try await Self.filled(2)
    let bytes = try await admin.backup("acme").bytes
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    let file = server.data("tenants/acme/keyring")
    // Emptied: the anchor is at the backup's position, so nothing is given up.
    try FileManager.default.removeItem(atPath: file)
    let second = try await Self.server(data: server.data, pki: server.pki)
    let (one, two) = (try second.client(.serviceAdmin), try second.instance("acme", "db1"))
    #expect(try await two.refusal(.fetch(.shared("k0")))?.reason == .tenantQuarantined)
    _ = try await one.restore("acme", bytes)
    for index in 0..<2 { #expect(try await Self.fetch(two, index)) }
    for client in [one, two] { await client.close() }
    await second.shutdown()
    // Damaged: how new it was cannot be told.
    var damaged = try Data(contentsOf: URL(filePath: file))
    damaged[damaged.count / 2] ^= 1
    try damaged.write(to: URL(filePath: file))
    let third = try await Self.server(data: server.data, pki: server.pki)
    let (three, four) = (try third.client(.serviceAdmin), try third.instance("acme", "db1"))
    #expect(try await four.refusal(.fetch(.shared("k0")))?.reason == .tenantQuarantined)
    let refusal = try await three.restoreRefusal("acme", bytes)
    #expect(refusal?.reason == .restoreRefused)
    _ = try await three.restore("acme", bytes, .acceptingRollback)
    for index in 0..<2 { #expect(try await Self.fetch(four, index)) }
    for client in [three, four] { await client.close() }
    await third.shutdown()
  }

  @Test func aRestoreEnablesNobody() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let bytes = try await admin.backup("acme").bytes
    _ = try await admin.call(.admin(.tenantDisable("acme")))
    #expect(
      try await admin.refusal(.admin(.backup("acme", .begin(allowUnproved: false))))?.reason
        == .tenantDisabled
    )
    _ = try await admin.restore("acme", bytes)
    #expect(try await instance.refusal(.fetch(.shared("k0")))?.reason == .tenantDisabled)
    _ = try await admin.call(.admin(.tenantEnable("acme")))
    #expect(try await Self.fetch(instance, 0))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  // MARK: What is refused

  @Test func wrongPassphrasesNoPassphraseAndOtherTenantsAreRefused() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let bytes = try await admin.backup("acme").bytes
    let other = try #require(try await admin.restoreRefusal("globex", bytes))
    #expect(other.reason == .backupInvalid && other.message.contains("of the tenant 'acme'"))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    for passphrase in [nil, "another passphrase"] {
      let server = try await Self.server(passphrase: passphrase, rootKey: Self.otherRootKey)
      let admin = try server.client(.serviceAdmin)
      let refusal = try #require(try await admin.restoreRefusal("acme", bytes))
      #expect(refusal.reason == .configurationInvalid, "\(refusal)")
      #expect(refusal.message.contains("passphrase"))
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: server.data("tenants")).sorted()
          == [".onboarding", ".transfers"]
      )
      #expect(!FileManager.default.fileExists(atPath: server.data("cmks/acme")))
      if passphrase == nil {
        try await server.makeTenant("initech")
        let refusal = try await admin.refusal(.admin(.backup("initech", .begin(allowUnproved: false))))
        #expect(
          refusal?.reason == .configurationInvalid && refusal?.message.contains("passphrase_file") == true
        )
      }
      await admin.close()
      await server.shutdown()
    }
  }

  @Test func aBackupThatSomebodyChangedIsRefused() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let bytes = try await admin.backup("acme").bytes
    let backup = try Backup(bytes)
    // All digests made anew, as anybody can: what is left is the HMAC.
    func forged(_ change: (inout [BackupPart]) -> Void, keepsHMAC: Bool = true) throws -> [UInt8] {
      var parts = backup.parts
      change(&parts)
      struct Replay: BatchAuthenticator {
        let wrappingKeyID: WrappingKeyID
        let mac: Digest
        func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest { mac }
      }
      let replay = backup.authentication.map { Replay(wrappingKeyID: $0.wrappingKeyID, mac: $0.mac) }
      var made: [UInt8] = []
      _ = try BackupWriter.write(backup.manifest, parts: parts, authenticator: keepsHMAC ? replay : nil) {
        made += $0
      }
      return made
    }
    #expect(try forged { _ in } == bytes)
    let yaml = Array("cmk_id: local-0\ninstances: any\n".utf8)
    let changed = try forged { $0[1] = BackupPart(name: $0[1].name, bytes: yaml) }
    let refusal = try #require(try await admin.restoreRefusal("acme", changed))
    #expect(refusal.reason == .backupInvalid && refusal.message.contains("HMAC"), "\(refusal)")
    let stripped = try forged({ $0[1] = BackupPart(name: $0[1].name, bytes: yaml) }, keepsHMAC: false)
    #expect(try await admin.restoreRefusal("acme", stripped)?.reason == .restoreRefused)
    #expect(try await Self.fetch(instance, 0))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func aLockedCMKIsBackedUpOnlyUnproved() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    let cmk = status.summary.cmkID
    _ = try await admin.call(.admin(.cmk(tenant: "acme", .disable, cmkID: cmk, days: 0)))
    let refusal = try await admin.refusal(.admin(.backup("acme", .begin(allowUnproved: false))))
    #expect(refusal?.reason == .tenantLocked && refusal?.message.contains("--unproved") == true)
    let (bytes, summary) = try await admin.backup("acme", allowUnproved: true)
    #expect(summary.unprovedWrappingKeys.count == 1 && summary.cmksIncluded == [cmk])
    for client in [admin, instance] { await client.close() }
    await server.shutdown()

    let other = try await Self.server(pki: server.pki, rootKey: Self.otherRootKey)
    let (newAdmin, newInstance) = (try other.client(.serviceAdmin), try other.instance("acme", "db1"))
    #expect(try await newAdmin.restoreRefusal("acme", bytes)?.reason == .restoreRefused)
    var how = TestClient.Restoring()
    how.acceptUnproved = true
    #expect(try await newAdmin.restore("acme", bytes, how).notices.count == 2)
    #expect(try await newInstance.refusal(.fetch(.shared("k0")))?.reason == .tenantLocked)
    _ = try await newAdmin.call(.admin(.cmk(tenant: "acme", .enable, cmkID: cmk, days: 0)))
    // A refusal of the KMS is believed for 30 s; a tenant that is opened anew asks at once.
    _ = try await newAdmin.call(.admin(.tenantDisable("acme")))
    _ = try await newAdmin.call(.admin(.tenantEnable("acme")))
    #expect(try await Self.fetch(newInstance, 0))
    for client in [newAdmin, newInstance] { await client.close() }
    await other.shutdown()
  }

  @Test func aCMKOfOtherContentAndADestroyedOneAreNotReplaced() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let bytes = try await admin.backup("acme").bytes
    let cmk = try #require(Backup(bytes).manifest.cmks.first).id
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    // Another server makes a CMK of its own; its file gets the other's name and so other content: its HMAC does not fit, it is damaged.
    let other = try await Self.server(pki: server.pki, rootKey: Self.otherRootKey)
    let (newAdmin, _) = (try other.client(.serviceAdmin), 0)
    _ = try await newAdmin.restore("acme", bytes)
    let file = other.data("cmks/acme/\(cmk)")
    let good = try Data(contentsOf: URL(filePath: file))
    await newAdmin.close()
    await other.shutdown()
    try FileManager.default.removeItem(atPath: other.data("tenants/acme/keyring"))
    var bad = good
    bad[40] ^= 1
    try bad.write(to: URL(filePath: file))
    let again = try await Self.server(data: other.data, pki: other.pki)
    let last = try again.client(.serviceAdmin)
    #expect(try await last.restoreRefusal("acme", bytes)?.reason == .restoreRefused)
    #expect(try Data(contentsOf: URL(filePath: file)) == bad, "what is there is left as it is")
    #expect(!FileManager.default.fileExists(atPath: again.data("tenants/acme/keyring")))
    try good.write(to: URL(filePath: file))
    _ = try await last.restore("acme", bytes)
    await last.close()
    await again.shutdown()
  }

  // MARK: Transfers

  @Test func transfersAreBoundedAndEndWithTheirConnection() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    let begin = Call.admin(.backup("acme", .begin(allowUnproved: false)))
    guard case .backup(.begun(let id, let size, _, _)) = try await admin.call(begin) else {
      throw UnexpectedReply()
    }
    let other = try server.client(.tenantAdmin(TenantName("acme")))
    #expect(try await other.refusal(begin)?.reason == .throttled)
    let read = Call.admin(.backup("acme", .read(id, offset: 0)))
    #expect(try await other.refusal(read)?.reason == .transferExpired, "another connection's")
    #expect(
      try await admin.refusal(.admin(.backup("acme", .read(id, offset: size))))?.reason == .requestMalformed
    )
    let asRestore = Call.admin(.restore("acme", .end(id)))
    #expect(try await admin.refusal(asRestore)?.reason == .transferExpired)
    await admin.close()
    while try await other.refusal(begin) != nil { await Task.yield() }  // until the server has seen the end
    let none = try FileManager.default.contentsOfDirectory(atPath: server.data("tenants/.transfers"))
    #expect(none.isEmpty, "a file on its way has no name")
    for client in [other, instance] { await client.close() }
    await server.shutdown()
  }

  @Test func noSecretIsInABackup() async throws {
    let (server, admin, instance) = try await Self.filled(1)
    try server.data.write("tenants/acme/credentials", "AKIAEXAMPLE\nnever to be seen\n")
    let bytes = try await admin.backup("acme").bytes
    let secrets = [
      "never to be seen", "AKIAEXAMPLE", "of k0", Self.passphrase, String(repeating: "5a", count: 32),
      String(repeating: "Z", count: 32),
    ]
    for secret in secrets {
      let secret = Array(secret.utf8)
      let isThere = bytes.indices.dropLast(secret.count).contains { bytes[$0...].starts(with: secret) }
      #expect(!isThere)
    }
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }
}
