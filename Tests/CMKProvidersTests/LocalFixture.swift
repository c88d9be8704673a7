import CMKProviders
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization

/// A CMK directory with a root key, and providers on it.
final class LocalFixture: Sendable {
  let folder: TestDirectory
  let now = Mutex<UInt64>(1_700_000_000_000)

  init() throws {
    folder = try TestDirectory()
    try folder.write("root.key", String(repeating: "5a", count: 32) + "\n")
    try FileManager.default.createDirectory(atPath: folder("cmks"), withIntermediateDirectories: false)
    try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder("cmks"))
  }

  func directory(_ calls: SystemCalls = SystemCalls()) throws -> DirectoryDescriptor {
    try DirectoryDescriptor(path: folder("cmks"), calls: calls)
  }

  func provider(_ tenant: String = "acme", calls: SystemCalls = SystemCalls()) throws -> LocalProvider {
    LocalProvider(
      tenant: try TenantName(tenant),
      directory: try directory(calls),
      root: try RootKey.load(.file(folder("root.key")), directory: try directory()),
      nowMilliseconds: { self.now.withLock { $0 } }
    )
  }

  var subject: CMKConformance.Subject {
    get throws {
      let (provider, another) = (try self.provider(), try self.provider("globex"))
      return CMKConformance.Subject(
        provider: provider,
        ofAnotherTenant: another,
        again: try self.provider(),
        steward: CMKConformance.Steward(provider),
        ofAnotherTenantsSteward: CMKConformance.Steward(another),
        absent: try CMKID("local-" + String(repeating: "0", count: 32)),
        hostile: try ["local-../../etc/passwd", "..", "/etc/passwd", "local-"].map { try CMKID($0) }
      )
    }
  }

  func context(_ tenant: String = "acme") throws -> EncryptionContext {
    EncryptionContext(tenant: try TenantName(tenant), keyring: KeyringID(value: 1))
  }
}
