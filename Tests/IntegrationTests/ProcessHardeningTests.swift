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

  /// A busy connection keeps its TLS buffers, but not what held a secret: it is gone when the reply is there, the connection still open.
  @Test func nothingOfAStoredKeyStaysInAnOpenConnection() async throws {
    let daemon = try await TestDaemon()
    let admin = try daemon.client(.serviceAdmin)
    _ = try await admin.call(.admin(.tenantCreate(TenantCreateCall(tenant: "acme", anyInstance: true))))
    let writer = try daemon.instance("acme", "db1")
    let memory = ProcessMemory(id: daemon.process.id)
    for turn in 0..<5 {
      let canary = Self.random(4096)
      _ = try await writer.call(
        .change(.store(.shared("k\(turn)"), type: "SECRET", value: try Self.secret(canary)))
      )
      let needles = [0, 2048, 4064].flatMap { start in
        ProcessMemory.Needle.of("stored key at \(start)", Array(canary[start..<start + 32]))
      }
      let outside = try memory.scan(needles).outsideLockedMemory
      #expect(outside.isEmpty, "turn \(turn): \(outside)")
    }
    await writer.close()
    await admin.close()
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

    try await expectWipedKeys(daemon, needles)

    let log = try daemon.log
    #expect(log.contains("connected"))  // the debug level is on
    for needle in needles {
      #expect(Data(log.utf8).range(of: Data(needle.bytes)) == nil, "\(needle.name) is in the log")
    }
    await daemon.shutdown()
    #expect(daemon.process.status == 0 && !daemon.process.isSignal)
  }

  /// The keys of a tenant that is locked, vanished, disabled or deleted are wiped, out of locked memory, too.
  private func expectWipedKeys(_ daemon: TestDaemon, _ needles: [ProcessMemory.Needle]) async throws {
    let memory = ProcessMemory(id: daemon.process.id)
    let admin = try daemon.client(.serviceAdmin)
    let reader = try daemon.instance("acme", "db1")
    let (place, away) = (daemon.data("tenants/acme"), daemon.data("away"))
    let cases: [(String, () async throws -> Void, () async throws -> Void)] = [
      (
        "locked", { _ = try await admin.call(.admin(.tenantLock("acme"))) },
        { _ = try await admin.call(.admin(.tenantUnlock("acme"))) }
      ),
      (
        "vanished",
        {
          try FileManager.default.moveItem(atPath: place, toPath: away)
          _ = try await admin.call(.admin(.serviceReload))
        },
        {
          try FileManager.default.moveItem(atPath: away, toPath: place)
          _ = try await admin.call(.admin(.serviceReload))
        }
      ),
      (
        "disabled", { _ = try await admin.call(.admin(.tenantDisable("acme"))) },
        { _ = try await admin.call(.admin(.tenantEnable("acme"))) }
      ),
      (
        "deleted",
        {
          _ = try await admin.call(.admin(.tenantDelete(TenantDeleteCall(tenant: "acme", afterSeconds: 0))))
        }, {}
      ),
    ]
    for (what, shut, open) in cases {
      _ = try await reader.refusal(.fetch(.own("any")))
      let names = try memory.scan(needles).hits.map(\.needle)
      #expect(
        names.contains { $0.hasPrefix("record key") } && names.contains { $0.hasPrefix("commit key") },
        "\(what)"
      )
      try await shut()
      // A vanished tenant closes in the background, so that its disk holds up no other.
      let isWiped = try await eventually {
        try memory.scan(needles).hits.map(\.needle).sorted() == [
          "root key, first half", "root key, last half",
        ]
      }
      #expect(isWiped, "\(what)")
      try await open()
    }
    for client in [admin, reader] { await client.close() }
  }

  // MARK: Crashes

  /// Drops, where the tests have them, the privileges that would hide what is tested.
  private static let unprivileged =
    geteuid() == 0 ? ["/usr/bin/setpriv", "--bounding-set=-sys_ptrace,-ipc_lock"] : []

  private func coreFiles(_ directory: TestDirectory) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory.path).filter { $0.hasPrefix("core") }
  }

  @Test(arguments: [SIGABRT, SIGSEGV]) func aCrashTellsNothing(signal: Int32) async throws {
    let canary = Self.random(32)
    let elsewhere = try TestDirectory()
    let daemon = try await TestDaemon(
      configuration: ["log_level: debug"],
      environment: ["SWIFT_BACKTRACE": "enable=yes,output-to=stderr", "SSLKEYLOGFILE": elsewhere("keys")],
      wrapper: ["/bin/bash", "-c", "ulimit -c unlimited; exec \"$@\"", "bash"]
    )
    let admin = try daemon.client(.serviceAdmin)
    _ = try await admin.call(.admin(.tenantCreate(TenantCreateCall(tenant: "acme", anyInstance: true))))
    let client = try daemon.instance("acme", "db1")
    let value = try Self.secret(canary)
    _ = try await client.call(.change(.store(.own("canary"), type: "SECRET", value: value)))
    #expect(try await client.fetch(.own("canary")) == hexadecimal(canary))

    let limits = try ProcessMemory.text("/proc/\(daemon.process.id)/limits")
    #expect(limits.firstMatch(of: /Max core file size\s+0\s+0\b/) != nil)
    daemon.process.signal(signal)
    // With a backtracer it would tell, and live on.
    while try daemon.process.isRunning && !daemon.log.contains("Registers") {
      try await Task.sleep(for: .milliseconds(20))
    }
    daemon.process.signal(SIGKILL)
    await daemon.process.ended()
    #expect(daemon.process.isSignal && daemon.process.status == signal)
    #expect(try coreFiles(daemon.data).isEmpty)
    #expect(!FileManager.default.fileExists(atPath: elsewhere("keys")))
    let log = try daemon.log
    for word in [
      "Thread", "Backtrace", "backtrace", "Registers", "rsi", "Crash", "crash", hexadecimal(canary.prefix(8)),
    ] {
      #expect(!log.contains(word), "\(word)")
    }
    await client.close()
    await admin.close()
  }

  /// What the test above looks for is there to be seen in a process that is not hardened.
  @Test func aCrashElsewhereDoesTell() async throws {
    let folder = try TestDirectory()
    let pattern = try ProcessMemory.text("/proc/sys/kernel/core_pattern")
    if pattern.hasPrefix("core") {
      let shell = TestProgram(path: "/bin/bash")
      let process = try shell.start(
        ["-c", "ulimit -c unlimited && kill -ABRT $$"],
        environment: [:],
        directory: folder.path,
        error: folder("err")
      )
      await process.ended()
      let said = try String(contentsOfFile: folder("err"), encoding: .utf8)
      #expect(process.isSignal, "\(said)")
      #expect(try !coreFiles(folder).isEmpty)
    }
    // A program that does not harden itself, with the backtracer on.
    let pki = try TestPKI()
    let arguments = [
      "floor", "--cert", pki.directory("server.crt"), "--key", pki.directory("server.key"), "--ca",
      pki.directory("ca.crt"),
    ]
    let process = try TestProgram(product: "keyringbench").start(
      arguments,
      environment: Self.backtracer,
      directory: folder.path,
      output: folder("out"),
      error: folder("err2")
    )
    while try String(contentsOfFile: folder("out"), encoding: .utf8).isEmpty, process.isRunning {
      try await Task.sleep(for: .milliseconds(10))
    }
    // The backtracer's handler returns to the instruction that failed, and none did: the process lives on.
    process.signal(SIGSEGV)
    var told = ""
    while told.firstMatch(of: /Registers|rsi/) == nil, process.isRunning {
      try await Task.sleep(for: .milliseconds(20))
      told = try String(contentsOfFile: folder("err2"), encoding: .utf8)
    }
    process.signal(SIGKILL)
    await process.ended()
    #expect(told.firstMatch(of: /Registers|rsi/) != nil)
  }

  private static let backtracer = ["SWIFT_BACKTRACE": "enable=yes,output-to=stderr"]

  /// keyringctl waits for key material from a pipe, and crashes there: it says nothing, whatever the environment asks for.
  @Test(arguments: [SIGSEGV, SIGABRT, SIGTRAP, SIGILL, SIGBUS, SIGFPE])
  func aCrashOfKeyringctlTellsNothing(_ signal: Int32) async throws {
    let folder = try TestDirectory()
    #expect(unsafe mkfifo(folder("pipe"), 0o600) == 0)
    let process = try TestProgram(product: "keyringctl").start(
      ["key", "store", "k", "--from", folder("pipe")],
      environment: Self.backtracer,
      directory: folder.path,
      error: folder("err")
    )
    var writer: Int32 = -1
    while writer < 0, process.isRunning {
      // fails until there is a reader
      writer = unsafe open(folder("pipe"), O_WRONLY | O_NONBLOCK | O_CLOEXEC)
      try await Task.sleep(for: .milliseconds(10))
    }
    process.signal(signal)
    await process.ended()
    close(writer)
    #expect(process.isSignal && process.status == signal)
    #expect(try String(contentsOfFile: folder("err"), encoding: .utf8).isEmpty)
    #expect(try coreFiles(folder).isEmpty)
  }

  @Test func nobodyOfTheSameUserAttaches() async throws {
    let daemon = try await TestDaemon(
      configuration: ["allow_unlocked_memory: true"],
      wrapper: Self.unprivileged
    )
    let folder = try TestDirectory()
    let shell = Self.unprivileged + ["/bin/bash", "-c"]
    func canOpenMemory(_ process: Int32) async throws -> Bool {
      let outcome = try await TestProgram(path: shell[0]).run(shell.dropFirst() + [": </proc/\(process)/mem"])
      #expect(outcome.status == 0 || outcome.error.contains("Permission denied"))
      return outcome.status == 0
    }
    let sleep = Self.unprivileged + ["/bin/sleep", "600"]
    let other = try TestProgram(path: sleep[0]).start(
      Array(sleep.dropFirst()),
      environment: [:],
      error: folder("err")
    )
    // Before it is `sleep` it is root's.
    while try String(contentsOfFile: "/proc/\(other.id)/comm", encoding: .utf8) != "sleep\n" {
      try await Task.sleep(for: .milliseconds(10))
    }
    #expect(try await canOpenMemory(other.id))
    #expect(try await !canOpenMemory(daemon.process.id))
    other.signal(SIGKILL)
    await daemon.shutdown()
  }

  // MARK: Locked memory

  @Test func withoutLockedMemoryItDoesNotStartUnlessToldTo() async throws {
    let wrapper = Self.unprivileged + ["/usr/bin/prlimit", "--memlock=65536:65536"]
    do {
      let daemon = try await TestDaemon(wrapper: wrapper)
      await daemon.shutdown()
      Issue.record("it started")
    } catch let error as TestDaemon.NotReady {
      #expect(error.description.contains("cannot be locked: raise RLIMIT_MEMLOCK"))
      #expect(error.description.split(separator: "\n").count == 1)
    }
    let daemon = try await TestDaemon(configuration: ["allow_unlocked_memory: true"], wrapper: wrapper)
    #expect(try daemon.log.contains("memory is not locked"))
    let admin = try daemon.client(.serviceAdmin)
    guard case .service(let status) = try await admin.call(.admin(.status(""))) else {
      throw UnexpectedReply()
    }
    #expect(!status.isMemoryLocked)
    await admin.close()
    await daemon.shutdown()
  }
}
