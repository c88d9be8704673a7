import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

/// CMKs that leave in a backup, and come back.
@Suite struct LocalBackupTests {
  /// A root key of a backup; without the half second that scrypt takes.
  static func root(_ byte: UInt8 = 7) throws -> RootKey {
    RootKey(
      secret: try unsafe Secret(count: 32) { room in for index in 0..<32 { unsafe room[index] = byte } }
    )
  }

  private func wrapped(_ provider: LocalProvider, _ cmk: CMKID, _ context: EncryptionContext) async throws
    -> [UInt8]
  {
    try await provider.encrypt(try secret("a wrapping key"), cmk: cmk, context: context)
  }

  private func secret(_ text: String) throws -> Secret {
    let bytes = Array(text.utf8)
    return try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
  }

  @Test func whatIsThereIsWrittenAnewWhereThatIsAsked() async throws {
    let fixture = try LocalFixture()
    let plan = FaultPlan()
    let provider = try fixture.provider(calls: plan.calls)
    let cmk = try await provider.create().id
    let set = try await provider.export([cmk], under: try Self.root())
    plan.disarm()
    #expect(try await provider.adopt(set) == [cmk: .keep])
    #expect(!plan.log.contains(.rename))
    #expect(try await provider.adopt(set, rewriting: true) == [cmk: .keep])
    #expect(plan.log.contains(.rename))
    #expect(try await fixture.provider().describe(cmk: cmk).version == 1)
  }

  @Test func everyVersionOpensUnderTheBackupsRootKeyAndAfterItIsAdopted() async throws {
    let (here, there) = (try LocalFixture(), try LocalFixture())
    try there.folder.write("root.key", String(repeating: "c3", count: 32) + "\n")
    let (from, to, context) = (try here.provider(), try there.provider(), try here.context())
    let cmk = try await from.create().id
    let first = try await wrapped(from, cmk, context)
    _ = try await from.rotate(cmk: cmk)
    let second = try await wrapped(from, cmk, context)
    let set = try await from.export([cmk], under: try Self.root())
    let files = try set.files()
    let again = try LocalCMKSet(tenant: set.tenant, root: try Self.root(), files: files)
    for blob in [first, second] {
      let plain = try await again.decrypt(blob, cmk: cmk, context: context)
      #expect(plain.isEqual(to: try secret("a wrapping key")))
    }
    #expect(throws: CMKError.self) {
      try LocalCMKSet(tenant: set.tenant, root: try Self.root(8), files: files)
    }
    #expect(throws: CMKError.self) {
      try LocalCMKSet(tenant: TenantName("globex"), root: try Self.root(), files: files)
    }
    #expect(try await to.adoption(of: again) == [cmk: .make])
    #expect(try await to.adopt(again) == [cmk: .make])
    for blob in [first, second] {
      let plain = try await to.decrypt(blob, cmk: cmk, context: context)
      #expect(plain.isEqual(to: try secret("a wrapping key")))
    }
    // Durable: another provider reads the same.
    #expect(try await there.provider().describe(cmk: cmk).version == 2)
    #expect(try await to.adopt(again) == [cmk: .keep])
  }

  @Test func anOlderOneIsExtendedAndANewerOneKept() async throws {
    let (here, there) = (try LocalFixture(), try LocalFixture())
    let (from, to) = (try here.provider(), try there.provider())
    let cmk = try await from.create().id
    let old = try await from.export([cmk], under: try Self.root())
    _ = try await from.rotate(cmk: cmk)
    let new = try await from.export([cmk], under: try Self.root())
    #expect(try await to.adopt(old) == [cmk: .make])
    #expect(try await to.adopt(new) == [cmk: .extend])
    #expect(try await to.describe(cmk: cmk).version == 2)
    #expect(try await to.adopt(old) == [cmk: .keep])
    #expect(try await to.describe(cmk: cmk).version == 2, "no version is lost")
  }

  @Test func otherContentADestroyedOneAndAnotherTenantsAreRefused() async throws {
    let (here, there) = (try LocalFixture(), try LocalFixture())
    let (from, to) = (try here.provider(), try there.provider())
    let cmk = try await from.create().id
    let set = try await from.export([cmk], under: try Self.root())
    _ = try await to.adopt(set)
    // Both rotated apart: two second versions.
    _ = try await from.rotate(cmk: cmk)
    _ = try await to.rotate(cmk: cmk)
    let apart = try await from.export([cmk], under: try Self.root())
    let file = there.folder("cmks/acme/\(cmk)")
    let before = try Data(contentsOf: URL(filePath: file))
    await #expect(throws: CMKError.self) { try await to.adopt(apart) }
    #expect(try Data(contentsOf: URL(filePath: file)) == before)
    await #expect(throws: CMKError.self) { try await there.provider("globex").adopt(set) }

    _ = try await to.scheduleDeletion(cmk: cmk, days: 7)
    there.now.withLock { $0 += 8 * 86_400_000 }
    await #expect(throws: CMKError.self) { try await to.describe(cmk: cmk) }
    await #expect(throws: CMKError.self) { try await to.adopt(set) }
    await #expect(throws: CMKError.self) { try await to.export([cmk], under: try Self.root()) }
  }

  @Test func nothingIsMadeWhereOneIsRefused() async throws {
    let (here, there) = (try LocalFixture(), try LocalFixture())
    let (from, to) = (try here.provider(), try there.provider())
    let (one, two) = (try await from.create().id, try await from.create().id)
    _ = try await to.adopt(try await from.export([two], under: try Self.root()))
    for provider in [from, to] { _ = try await provider.rotate(cmk: two) }
    let both = try await from.export([one, two], under: try Self.root())
    await #expect(throws: CMKError.self) { try await to.adopt(both) }
    await #expect(throws: CMKError.self) { try await to.describe(cmk: one) }
  }

  @Test func aDisabledOneIsCopiedAsItIsAndNotUsed() async throws {
    let (here, there) = (try LocalFixture(), try LocalFixture())
    let (from, to, context) = (try here.provider(), try there.provider(), try here.context())
    let cmk = try await from.create().id
    let blob = try await wrapped(from, cmk, context)
    _ = try await from.disable(cmk: cmk)
    let set = try await from.export([cmk], under: try Self.root())
    await #expect(throws: CMKError.self) { try await set.decrypt(blob, cmk: cmk, context: context) }
    _ = try await to.adopt(set)
    #expect(try await to.describe(cmk: cmk).state == .disabled)
  }

  @Test func namesThatAreNoIDsOfLocalCMKsAreRefused() async throws {
    let fixture = try LocalFixture()
    let (provider, root) = (try fixture.provider(), try Self.root())
    for name in ["root-check", "..", "local-1", "../globex/local-" + String(repeating: "0", count: 32)] {
      let cmk = LocalCMK(
        tenant: "acme",
        id: try CMKID(name),
        createdMilliseconds: 1,
        state: .enabled,
        versions: []
      )
      let set = LocalCMKSet(tenant: try TenantName("acme"), root: root, cmks: [cmk])
      await #expect(throws: CMKError.self, "\(name)") { try await provider.adopt(set) }
    }
  }

  @Test func aBackupPassphraseGivesTheSameRootKeyForTheSameSalt() throws {
    let folder = try TestDirectory()
    try folder.write("passphrase", "correct horse battery staple\n")
    let passphrase = try BackupPassphrase(file: folder("passphrase"))
    let salted = BackupManifest.Stretching(salt: [UInt8](repeating: 1, count: 16), cost: 1 << 17)
    let other = BackupManifest.Stretching(salt: [UInt8](repeating: 2, count: 16), cost: 1 << 17)
    let root = try passphrase.rootKey(salted)
    #expect(try passphrase.rootKey(salted).secret.isEqual(to: root.secret))
    #expect(try !passphrase.rootKey(other).secret.isEqual(to: root.secret))
    for cost in [0, 2, 1 << 16, 1 << 22, UInt64.max] {
      let hostile = BackupManifest.Stretching(salt: salted.salt, cost: cost)
      #expect(throws: CMKError.self) { try passphrase.rootKey(hostile) }
    }
    try folder.write("short", "elevenbytes\n")
    #expect(throws: CMKError.self) { try BackupPassphrase(file: folder("short")) }
    try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: folder("passphrase"))
    #expect(throws: CMKError.self) { try BackupPassphrase(file: folder("passphrase")) }
  }
}
