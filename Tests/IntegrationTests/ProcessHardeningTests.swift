import CMKProviders
import Cryptography
import Foundation
import Glibc
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import TLSTransport
import Testing
import WireProtocol

/// keyringd, the process: where its secrets are, and where they are not.
@Suite struct ProcessHardeningTests {
  private static func random(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8.random(in: 0...255) } }

  private static func secret(_ bytes: [UInt8]) throws -> Secret {
    try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
  }

  /// 1,000 fetches over several connections, pipelined; and everything else that has a key's material pass through the server.
  private func use(_ daemon: TestDaemon, _ canary: [UInt8], _ long: [UInt8]) async throws {
    let tenant = try TenantName("acme")
    let admin = try daemon.client(.serviceAdmin)
    _ = try await admin.call(.admin(.tenantCreate(TenantCreateCall(tenant: "acme", anyInstance: true))))
    let instance = PeerIdentity.instance(tenant, try InstanceName("db1"))
    let writer = try daemon.client(instance)
    func store(_ id: String, _ value: [UInt8]) throws -> Change {
      .store(.shared(id), type: "SECRET", value: try Self.secret(value))
    }
    _ = try await writer.call(.change(store("canary", canary)))
    _ = try await writer.call(.change(store("long", long)))
    _ = try await writer.call(.transact([store("again", canary), store("longer", long)]))
    #expect(try await writer.refusal(.change(store("canary", canary)))?.reason == .keyExists)
    try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<4 {
        let reader = try daemon.client(instance)
        group.addTask {
          try await withThrowingTaskGroup(of: Bool.self) { calls in
            for number in 0..<250 {
              let (id, expected) = number % 5 == 0 ? ("long", long) : ("canary", canary)
              calls.addTask { try await reader.fetch(.shared(id)) == hexadecimal(expected) }
            }
            let right = try await calls.reduce(0) { $0 + ($1 ? 1 : 0) }
            await reader.close()
            return right
          }
        }
      }
      #expect(try await group.reduce(0, +) == 1000)
    }
    await writer.close()
    await admin.close()
  }

  private func rotate(_ daemon: TestDaemon, _ canary: [UInt8]) async throws {
    let admin = try daemon.client(.serviceAdmin)
    _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: true)))
    let reader = try daemon.instance("acme", "db1")
    #expect(try await reader.fetch(.shared("canary")) == hexadecimal(canary))
    await reader.close()
    await admin.close()
  }

  /// The wrapping keys of a tenant and what is derived from them, by the same steps as the server takes, on a copy of its files.
  private func wrappingKeys(_ daemon: TestDaemon) async throws -> [(name: String, key: [UInt8])] {
    let copy = try TestDirectory()
    for name in ["tenants", "anchors", "cmks"] {
      try FileManager.default.copyItem(atPath: daemon.data(name), toPath: copy(name))
    }
    let tenant = try TenantName("acme")
    let cmks = try DirectoryDescriptor(path: copy("cmks"))
    let provider = LocalProvider(
      tenant: tenant,
      directory: cmks,
      root: try RootKey.load(.file(daemon.data("root.key")), directory: cmks),
      nowMilliseconds: { UInt64(time(nil)) * 1000 }
    )
    let store = FileKeyringStore(
      directory: try DirectoryDescriptor(path: copy("tenants/acme")),
      name: "keyring",
      tenant: tenant,
      anchors: try DirectoryDescriptor(path: copy("anchors")),
      policy: .strict,
      anchorWriter: AnchorWriter(delayMilliseconds: 60_000),
      notice: { _ in }
    )
    let keyring = try #require(try store.load()).state
    var found: [(name: String, key: [UInt8])] = []
    for key in keyring.wrappingKeys.values {
      let context = EncryptionContext(tenant: tenant, keyring: keyring.id)
      let plaintext = try await provider.decrypt(key.wrapped, cmk: key.cmkID, context: context)
      found.append(("wrapping key", unsafe plaintext.withUnsafeBytes { unsafe Array($0) }))
      for purpose in ["record", "commit"] {
        var info: [UInt8] = []
        for part in [Array(purpose.utf8), Array(tenant.text.utf8), keyring.id.bytes] {
          appendBigEndian(UInt32(part.count), to: &info)
          info += part
        }
        let derived = try HKDFSHA256.derive(
          from: plaintext,
          salt: Array("keyring/1".utf8),
          info: info,
          count: 32
        )
        found.append(("\(purpose) key", unsafe derived.withUnsafeBytes { unsafe Array($0) }))
      }
    }
    try store.close()
    return found
  }

  @Test func secretsAreInLockedMemoryAndNowhereElse() async throws {
    let (canary, long, root) = (Self.random(32), Self.random(4096), Self.random(32))
    let daemon = try await TestDaemon(
      configuration: ["log_level: debug", "event_loops: 2"],
      rootKey: hexadecimal(root)
    )
    try await use(daemon, canary, long)
    var derived = try await wrappingKeys(daemon)
    try await rotate(daemon, canary)
    derived += try await wrappingKeys(daemon)
    #expect(derived.count == 6)  // of the first wrapping key, and of the one that rotate-keys made

    let memory = ProcessMemory(id: daemon.process.id)
    var needles = ProcessMemory.Needle.of("canary", canary) + ProcessMemory.Needle.of("root key", root)
    needles += [0, 1024, 2048, 4064].flatMap {
      ProcessMemory.Needle.of("long key at \($0)", Array(long[$0..<$0 + 32]))
    }
    needles += derived.flatMap { ProcessMemory.Needle.of($0.name, $0.key) }
    let scan = try memory.scan(needles)
    #expect(scan.outsideLockedMemory.isEmpty, "\(scan.outsideLockedMemory)")
    #expect(scan.bytesRead > 16 << 20)

    // The scan does see: the root key lies in locked memory, in one piece and once, and no key's material does.
    let locked = scan.mappings.filter { $0.isLocked }
    #expect(locked.count == 1 && locked.allSatisfy { $0.isNotDumped })
    let names = scan.hits.map(\.needle)
    #expect(
      names.filter { $0.hasPrefix("root key") }.sorted() == ["root key, first half", "root key, last half"]
    )
    #expect(
      !names.contains { $0.hasPrefix("canary") || $0.hasPrefix("long key") || $0.hasPrefix("wrapping key") }
    )

    // And it can fail: this process holds the canary in an array, and is found out.
    let own = try ProcessMemory(id: getpid()).scan(ProcessMemory.Needle.of("canary", canary))
    #expect(own.outsideLockedMemory.contains { $0.needle == "canary, first half" })

    let log = try daemon.log
    #expect(log.contains("connected"))  // the debug level is on
    for needle in needles {
      #expect(Data(log.utf8).range(of: Data(needle.bytes)) == nil, "\(needle.name) is in the log")
    }
    await daemon.shutdown()
    #expect(daemon.process.status == 0 && !daemon.process.isSignal)
  }
}
