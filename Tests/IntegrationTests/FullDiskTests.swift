import Foundation
import Glibc
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// keyringd itself where there is no room, no descriptor, no right to write: readers of every tenant go on, changes are refused for certain, the
/// process lives, and the same tenant writes again when the shortage is over, without restart or operator.
@Suite(.serialized) struct FullDiskTests {
  /// Where a test may mount: as root, with the capability.
  static let canMount =
    geteuid() == 0 && system(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]) && system(["umount", "/mnt"])

  private static func system(_ command: [String]) -> Bool {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = command
    process.standardError = FileHandle.nullDevice
    do {
      try process.run()
    } catch {
      return false
    }
    process.waitUntilExit()
    return process.terminationStatus == 0
  }

  private static func run(_ command: String...) async throws {
    let outcome = try await TestProgram(path: "/usr/bin/env").run(command)
    try #require(outcome.status == 0, "\(command): \(outcome.error)")
  }

  // MARK: No room

  @Test(.enabled(if: canMount)) func aFullTmpfs() async throws {
    let folder = try TestDirectory()
    try await Self.run("mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", folder.path)
    try await onAFullDisk(folder)
  }

  @Test(.enabled(if: canMount)) func aFullExt4() async throws {
    let (folder, image) = (try TestDirectory(), try TestDirectory())
    try await Self.run("truncate", "-s", "16M", image("disk"))
    try await Self.run("mkfs.ext4", "-q", "-F", "-m", "0", image("disk"))
    try await Self.run("mount", "-o", "loop", image("disk"), folder.path)
    try await Self.run("chmod", "0700", folder.path)
    try await onAFullDisk(folder)
  }

  /// Tenants, anchors, CMKs and the log are all on the disk that is full.
  private func onAFullDisk(_ folder: TestDirectory) async throws {
    do {
      try await shortage(try await TestDaemon(data: folder)) { _ in
        let filler = folder("filler")
        try #require(FileManager.default.createFile(atPath: filler, contents: nil))
        let descriptor = unsafe open(filler, O_WRONLY)
        for size in [65_536, 4096, 1] {
          while unsafe write(descriptor, [UInt8](repeating: 1, count: size), size) > 0 {}
        }
        fsync(descriptor)
        close(descriptor)
      } end: { _ in
        try FileManager.default.removeItem(atPath: folder("filler"))
      }
    } catch {
      try await Self.run("umount", "-l", folder.path)
      throw error
    }
    try await Self.run("umount", "-l", folder.path)
  }

  /// SIGXFSZ would end the process where it is neither ignored nor blocked in the thread that writes.
  @Test func aFileSizeLimit() async throws {
    let daemon = try await TestDaemon()
    let status = try String(contentsOfFile: "/proc/\(daemon.process.id)/status", encoding: .utf8)
    let ignored = try #require(
      status.firstMatch(of: /SigIgn:\s*([0-9a-f]+)/).flatMap { UInt64($0.1, radix: 16) }
    )
    for signal in [SIGPIPE, SIGXFSZ] { #expect(ignored & 1 << UInt64(signal - 1) != 0, "\(signal)") }
    try await shortage(daemon) { daemon in
      let path = daemon.data("tenants/acme/keyring")
      let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
      let most = try #require(size) + 1500
      try await Self.run("prlimit", "--pid", "\(daemon.process.id)", "--fsize=\(most):")
    } end: { daemon in
      try await Self.run("prlimit", "--pid", "\(daemon.process.id)", "--fsize=unlimited:")
    }
  }

  /// A tenant is used; the shortage comes, is felt, goes.
  private func shortage(
    _ daemon: TestDaemon,
    begin: (TestDaemon) async throws -> Void,
    end: (TestDaemon) async throws -> Void
  ) async throws {
    for tenant in ["acme", "globex"] { try await daemon.makeTenant(tenant) }
    let (client, other) = (try daemon.instance("acme", "db1"), try daemon.instance("globex", "db1"))
    let admin = try daemon.client(.serviceAdmin)
    var acknowledged = ["first"]
    for client in [client, other] { _ = try await client.call(.store(.own("first"), "first")) }
    try await begin(daemon)
    // What fits is acknowledged; then nothing more fits, and every refusal is a definite one.
    var refused: [String] = []
    for index in 0..<40 {
      let name = "k\(index)"
      let refusal = try await client.refusal(.store(.own(name), name + String(repeating: "x", count: 900)))
      guard let refusal else {
        acknowledged.append(name)
        continue
      }
      refused.append(name)
      #expect(refusal.reason == .storageUnavailable, "\(refusal)")
      #expect(try await client.fetch(.own(name)) == nil)
      for reader in [client, other] { #expect(try await reader.fetch(.own("first")) == Self.value("first")) }
    }
    #expect(refused.count >= 10, "the shortage was felt")
    // A whole new file does not fit either.
    let rotation = try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false)))
    #expect([nil, .storageUnavailable].contains(rotation?.reason), "\(String(describing: rotation))")
    for name in acknowledged { #expect(try await client.fetch(.own(name)) == Self.value(name), "\(name)") }
    #expect(daemon.process.isRunning)
    try await end(daemon)
    // The same tenant, the same process, nobody's help.
    #expect(try await client.refusal(.store(.own("after"), "after")) == nil)
    acknowledged.append("after")
    #expect(try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false))) == nil)
    try await expect(acknowledged, refused, client)
    for client in [client, other, admin] { await client.close() }
    await daemon.shutdown()
    let again = try await TestDaemon(pki: daemon.pki, data: daemon.data)
    let back = try again.instance("acme", "db1")
    try await expect(acknowledged, refused, back)
    let names = try FileManager.default.contentsOfDirectory(atPath: again.data("tenants/acme")).sorted()
    #expect(names == ["keyring", "keyring.lock", "tenant.yaml"])
    await back.close()
    await again.shutdown()
  }

  /// Until a tenant that could not be opened is: that is tried with growing pauses.
  private static func opened(_ client: TestClient) async throws {
    for _ in 0..<1000 {
      guard let refusal = try await client.refusal(.fetch(.own("never"))) else { return }
      try #require(refusal.reason == .storageUnavailable, "\(refusal)")
      try await Task.sleep(for: .milliseconds(20))
    }
    Issue.record("the tenant does not open")
  }

  private static func value(_ name: String) -> String {
    hexadecimal((name.hasPrefix("k") ? name + String(repeating: "x", count: 900) : name).utf8)
  }

  private func expect(_ acknowledged: [String], _ refused: [String], _ client: TestClient) async throws {
    for name in acknowledged { #expect(try await client.fetch(.own(name)) == Self.value(name), "\(name)") }
    for name in refused { #expect(try await client.fetch(.own(name)) == nil, "\(name)") }
  }

  // MARK: No descriptor

  @Test func noDescriptorIsLeft() async throws {
    let first = try await TestDaemon()
    for tenant in ["acme", "globex"] { try await first.makeTenant(tenant) }
    let before = try first.instance("globex", "db1")
    _ = try await before.call(.store(.own("first"), "first"))
    await before.close()
    await first.shutdown()
    let daemon = try await TestDaemon(pki: first.pki, data: first.data)
    let client = try daemon.instance("acme", "db1")
    let (cold, admin) = (try daemon.instance("globex", "db1"), try daemon.client(.serviceAdmin))
    _ = try await client.call(.store(.own("first"), "first"))
    for connected in [cold, admin] { _ = try await connected.call(.whoAmI) }
    let used = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(daemon.process.id)/fd")
    let most = (used.compactMap { Int($0) }.max() ?? 0) + 1
    try await Self.run("prlimit", "--pid", "\(daemon.process.id)", "--nofile=\(most):")
    // Numbers below the highest may be free: they are taken by connections first, until one is not answered.
    var others: [TestClient] = []
    var isFull = false
    while !isFull, others.count < most {
      let other = try daemon.client(.instance(TenantName("acme"), InstanceName("db2")), timeout: .seconds(2))
      others.append(other)
      do {
        _ = try await other.call(.whoAmI)
      } catch {
        isFull = true
      }
    }
    #expect(isFull)
    // An open tenant needs none: it is read and written. What needs one is refused.
    _ = try await client.call(.store(.own("second"), "second"))
    #expect(try await client.fetch(.own("first")) == Self.value("first"))
    let refusals = [
      try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false))),
      try await admin.refusal(
        .admin(.variablesSet(tenant: "acme", name: "profile", value: "any", .persist))
      ), try await cold.refusal(.fetch(.own("first"))),
    ]
    #expect(refusals.allSatisfy { $0?.reason == .storageUnavailable }, "\(refusals)")
    #expect(daemon.process.isRunning)
    try await Self.run("prlimit", "--pid", "\(daemon.process.id)", "--nofile=1024:")
    try await Self.opened(cold)
    #expect(try await cold.fetch(.own("first")) == Self.value("first"))
    _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
    _ = try await admin.call(.admin(.variablesSet(tenant: "acme", name: "profile", value: "any", .persist)))
    let late = try daemon.instance("acme", "db3")
    _ = try await late.call(.whoAmI)
    try await expect(["first", "second"], [], client)
    for client in others + [client, cold, admin, late] { await client.close() }
    await daemon.shutdown()
  }

  // MARK: No right to write

  /// The anchors' file system becomes read-only, as one does after an error: commits go on, and the anchor follows when it can.
  @Test(.enabled(if: canMount)) func aReadOnlyAnchorDirectory() async throws {
    let folder = try TestDirectory()
    try FileManager.default.createDirectory(
      atPath: folder("anchors"),
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
    try await Self.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", folder("anchors"))
    let daemon = try await TestDaemon(data: folder)
    try await daemon.makeTenant("acme")
    let (client, admin) = (try daemon.instance("acme", "db1"), try daemon.client(.serviceAdmin))
    _ = try await client.call(.store(.own("first"), "first"))
    // An anchor that is being written at this moment keeps the file system busy.
    while try await TestProgram(path: "/usr/bin/env").run(
      ["mount", "-o", "remount,ro", folder("anchors")]
    ).status != 0 { try await Task.sleep(for: .milliseconds(20)) }
    let before = try Data(contentsOf: URL(filePath: folder("anchors/acme.anchor")))
    _ = try await client.call(.store(.own("second"), "second"))
    let rotation = try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false)))
    #expect(
      rotation?.reason == .storageUnavailable,
      "a replacement needs its anchor first: \(String(describing: rotation))"
    )
    try await expect(["first", "second"], [], client)
    #expect(try Data(contentsOf: URL(filePath: folder("anchors/acme.anchor"))) == before)
    try await Self.run("mount", "-o", "remount,rw", folder("anchors"))
    while try Data(contentsOf: URL(filePath: folder("anchors/acme.anchor"))) == before {
      try await Task.sleep(for: .milliseconds(20))
    }
    #expect(try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false))) == nil)
    try await expect(["first", "second"], [], client)
    for client in [client, admin] { await client.close() }
    await daemon.shutdown()
    try await Self.run("umount", "-l", folder("anchors"))
  }

  /// Nobody has the file open: the tenant cannot be opened while its file system is read-only, is not said to be empty, and opens after.
  @Test(.enabled(if: canMount)) func aReadOnlyTenantsDirectory() async throws {
    let folder = try TestDirectory()
    try FileManager.default.createDirectory(
      atPath: folder("tenants"),
      withIntermediateDirectories: false,
      attributes: [.posixPermissions: 0o700]
    )
    try await Self.run("mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", folder("tenants"))
    let first = try await TestDaemon(data: folder)
    try await first.makeTenant("acme")
    let writer = try first.instance("acme", "db1")
    _ = try await writer.call(.store(.own("first"), "first"))
    await writer.close()
    await first.shutdown()
    try await Self.run("mount", "-o", "remount,ro", folder("tenants"))
    let daemon = try await TestDaemon(pki: first.pki, data: folder)
    let client = try daemon.instance("acme", "db1")
    #expect(try await client.refusal(.fetch(.own("first")))?.reason == .storageUnavailable)
    // Under an idempotency id: it might have been sent before, and nobody can look it up.
    #expect(try await client.refusal(.store(.own("second"), "second"))?.reason == .outcomeUnknown)
    try await Self.run("mount", "-o", "remount,rw", folder("tenants"))
    try await Self.opened(client)
    #expect(try await client.fetch(.own("second")) == nil)
    _ = try await client.call(.store(.own("second"), "second"))
    try await expect(["first", "second"], [], client)
    await client.close()
    await daemon.shutdown()
    try await Self.run("umount", "-l", folder("tenants"))
  }
}
