import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

@Suite struct LocalProviderTests {
  @Test(arguments: CMKConformance.allCases)
  func conforms(_ check: CMKConformance) async throws {
    let fixture = try LocalFixture()
    try await check.run(try fixture.subject)
  }

  @Test func aCMKIsDestroyedWhenItsTimeComesAndNotBefore() async throws {
    let fixture = try LocalFixture()
    let provider = try fixture.provider()
    let cmk = try await provider.create().id
    let wrapped = try await provider.generateDataKey(cmk: cmk, context: fixture.context()).wrapped
    _ = try await provider.scheduleDeletion(cmk: cmk, days: 7)
    fixture.now.withLock { $0 += 7 * 86_400_000 - 1 }
    #expect(try await provider.describe(cmk: cmk).state == .pendingDeletion)
    fixture.now.withLock { $0 += 1 }
    for call in [provider.describe, provider.cancelDeletion, provider.enable] {
      await #expect(throws: CMKError.denied("CMK \(cmk) is not there")) { try await call(cmk) }
    }
    let text = try String(contentsOfFile: fixture.folder("cmks/acme/\(cmk)"), encoding: .utf8)
    #expect(text.contains("state destroyed\n") && !text.contains("version"), "no key is left in the file")
    fixture.now.withLock { $0 -= 86_400_000 }
    await #expect(throws: CMKError.self) {
      try await provider.decrypt(wrapped, cmk: cmk, context: fixture.context())
    }
  }

  @Test func aFlippedByteOfItsFileIsRefused() async throws {
    let fixture = try LocalFixture()
    let cmk = try await fixture.provider().create().id
    let path = fixture.folder("cmks/acme/\(cmk)")
    let good = try Data(contentsOf: URL(filePath: path))
    for index in good.indices {
      var bad = good
      bad[index] ^= 1
      try bad.write(to: URL(filePath: path))
      let provider = try fixture.provider()
      await #expect(throws: CMKError.self, "byte \(index)") { try await provider.describe(cmk: cmk) }
    }
    try good.write(to: URL(filePath: path))
    #expect(try await fixture.provider().describe(cmk: cmk).state == .enabled)
  }

  @Test func anothersFileInItsPlaceIsRefused() async throws {
    let fixture = try LocalFixture()
    let (acme, globex) = (try fixture.provider(), try fixture.provider("globex"))
    let (mine, theirs) = (try await acme.create().id, try await globex.create().id)
    let manager = FileManager.default
    try manager.copyItem(
      atPath: fixture.folder("cmks/globex/\(theirs)"),
      toPath: fixture.folder("cmks/acme/\(theirs)")
    )
    try manager.removeItem(atPath: fixture.folder("cmks/acme/\(mine)"))
    try manager.copyItem(
      atPath: fixture.folder("cmks/globex/\(theirs)"),
      toPath: fixture.folder("cmks/acme/\(mine)")
    )
    for id in [mine, theirs] {
      await #expect(throws: CMKError.self) { try await fixture.provider().describe(cmk: id) }
    }
  }

  /// The rename is made and the directory's sync fails: the page cache has the new file, the disk perhaps the old one.
  @Test func afterAnUnknownOutcomeTheFileIsWrittenAnewBeforeAnyUse() async throws {
    let fixture = try LocalFixture()
    let cmk = try await fixture.provider().create().id
    let plan = Mutex<(fail: [SystemCall: Int], log: [SystemCall])>(([:], []))
    let provider = try fixture.provider(
      calls: SystemCalls { made in
        plan.withLock { plan in
          plan.log.append(made)
          guard let left = plan.fail[made] else { return .proceed }
          plan.fail[made] = left == 1 ? nil : left - 1
          return left == 1 ? .fail(EIO) : .proceed
        }
      }
    )
    #expect(try await provider.describe(cmk: cmk).version == 1)
    plan.withLock { $0.fail = [.fsync: 2] }
    do throws(CMKError) {
      _ = try await provider.rotate(cmk: cmk)
      Issue.record("it was acknowledged")
    } catch {
      guard case .outcomeUnknown = error else {
        Issue.record("it is said that nothing happened: \(error)")
        return
      }
    }
    // While it cannot be written anew it is not used.
    for call in [SystemCall.write, .fsync, .rename] {
      plan.withLock { $0.fail = [call: 1] }
      await #expect(throws: CMKError.self, "\(call)") {
        try await provider.generateDataKey(cmk: cmk, context: fixture.context())
      }
    }
    plan.withLock { $0 = ([:], []) }
    let made = try await provider.generateDataKey(cmk: cmk, context: fixture.context())
    #expect(
      plan.withLock { $0.log.filter { [.write, .fsync, .rename].contains($0) } }
        == [.write, .fsync, .rename, .fsync]
    )
    plan.withLock { $0 = ([:], []) }
    let again = try await fixture.provider().decrypt(made.wrapped, cmk: cmk, context: fixture.context())
    #expect(again.isEqual(to: made.plaintext))
    #expect(try await provider.describe(cmk: cmk).version == 2)
    #expect(plan.withLock { $0.log.isEmpty }, "once is enough")
  }

  @Test func filesArePrivateAndHoldNoKeyInClear() async throws {
    let fixture = try LocalFixture()
    let cmk = try await fixture.provider().create().id
    for (name, mode) in [("cmks/acme", 0o700), ("cmks/acme/\(cmk)", 0o600), ("cmks/root-check", 0o600)] {
      let attributes = try FileManager.default.attributesOfItem(atPath: fixture.folder(name))
      #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == mode, "\(name)")
    }
    let check = try String(contentsOfFile: fixture.folder("cmks/root-check"), encoding: .utf8)
    #expect(!check.contains("5a5a5a"))
  }

  // MARK: The golden file

  /// The CMK of docs/FILE_FORMAT.md, made of fixed bytes; read.py, which knows the document alone, agrees.
  @Test func theGoldenFileIsReadAndWrittenToTheByte() throws {
    let fixture = try LocalFixture()
    let root = try RootKey.load(.file(fixture.folder("root.key")), directory: try fixture.directory())
    let id = try CMKID("local-0123456789abcdef0123456789abcdef")
    var cmk = LocalCMK(
      tenant: "acme",
      id: id,
      createdMilliseconds: 1_700_000_000_000,
      state: .pendingDeletion(at: 1_700_604_800_000),
      versions: []
    )
    for number in 1...2 {
      cmk.versions.append(
        LocalCMK.Version(
          createdMilliseconds: 1_700_000_000_000 + UInt64(number),
          nonce: [UInt8](repeating: UInt8(number), count: 12),
          sealed: [UInt8](repeating: UInt8(number + 0x10), count: 48)
        )
      )
    }
    let file = Self.golden.appending(path: id.text)
    if ProcessInfo.processInfo.environment["KEYRING_GOLDEN"] == "write" {
      try Data(try cmk.encode(root)).write(to: file)
    }
    let bytes = Array(try Data(contentsOf: file))
    #expect(try cmk.encode(root) == bytes)
    #expect(try LocalCMK.decode(bytes, tenant: try TenantName("acme"), id: id, root: root) == cmk)
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [
      "python3", "-B", Self.golden.appending(path: "read.py").path, "cmk", file.path, "--root-key",
      String(repeating: "5a", count: 32),
    ]
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = try output.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    #expect(
      String(decoding: data, as: UTF8.self)
        == "cmk \(id) tenant acme state pending-deletion 1700604800000 versions 2\n"
    )
  }

  private static let golden = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "KeyringStorageTests/Golden")
}

extension Result where Failure == any Error {
  /// What an asynchronous body answers, or throws.
  init(_ body: () async throws -> Success) async {
    do {
      self = .success(try await body())
    } catch {
      self = .failure(error)
    }
  }
}
