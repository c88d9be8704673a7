import Foundation
import KeyringClient
import KeyringCore
import KeyringTestSupport
import SecureMemory
import TLSTransport
import Testing
import WireProtocol

/// Keys of other keyrings come in as they are: all of them or none, once.
@Suite struct ImportTests {
  private static func value(_ number: Int) -> [UInt8] {
    (0..<32).map { UInt8(truncatingIfNeeded: $0 * 3 + number * 41 + 1) }
  }
  private static let keys = MySQLKeyFiles.keysOfAServer(value)

  private static func secret(_ bytes: [UInt8]) throws -> Secret {
    try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
  }

  private static func imported(_ id: String, _ bytes: [UInt8], type: String = "AES") throws -> ImportedKey {
    ImportedKey(name: .own(id), type: type, value: try secret(bytes))
  }

  private func json(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  /// Where the keyring stands; it is opened for that.
  private func sequence(_ ctl: Keyringctl) async throws -> Int {
    let client = try ctl.server.instance("acme", "looks")
    _ = try await client.call(.fetch(.own("anything")))
    await client.close()
    let text = try await ctl.succeed("status acme --output json", as: Keyringctl.admin)
    return try #require(try json(text)["sequence"] as? Int)
  }

  private func write(_ ctl: Keyringctl, _ name: String, _ bytes: [UInt8]) throws {
    try Data(bytes).write(to: URL(filePath: ctl.folder(name)))
  }

  private func refuse(
    _ ctl: Keyringctl,
    _ command: String,
    _ words: String...,
    location: SourceLocation = #_sourceLocation
  ) async throws {
    let outcome = try await ctl.run(
      command.split(separator: " ").map(String.init),
      as: Keyringctl.instance("db1")
    )
    #expect(outcome.status == 1 && outcome.errorLines.count == 1, "\(outcome)", sourceLocation: location)
    for word in words {
      #expect(outcome.error.contains(word), "\(command): \(outcome.error)", sourceLocation: location)
    }
    expectNoMaterial(outcome.text + outcome.error, location)
  }

  private func expectNoMaterial(_ text: String, _ location: SourceLocation) {
    for key in Self.keys {
      #expect(!text.lowercased().contains(hexadecimal(key.value[..<8])), sourceLocation: location)
    }
  }

  private func expectThere(_ server: TestServer, _ keys: [MySQLKeyFiles.Key], shared: Bool = false)
    async throws
  {
    let client = try server.instance("acme", "db1")
    for key in keys {
      let name = shared ? KeyName.shared(key.id, owner: key.owner) : KeyName.own(key.id, owner: key.owner)
      guard case .fetch(let found) = try await client.call(.fetch(name, version: 0)) else {
        throw UnexpectedReply()
      }
      #expect(found?.type == key.type && found?.version == 1, "\(key.id)")
      #expect(
        found.map { found in unsafe found.value.withUnsafeBytes { unsafe Array($0) } } == key.value,
        "\(key.id)"
      )
    }
    await client.close()
  }

  // MARK: keyringctl

  /// By owner, id, type and bytes, as MySQL asks for them; and run again, nothing happens.
  @Test(arguments: ["component", "plugin"])
  func aMySQLKeyringMovesHere(_ format: String) async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    try write(
      ctl,
      "keyring",
      format == "plugin" ? try MySQLKeyFiles.plugin(Self.keys) : MySQLKeyFiles.component(Self.keys)
    )
    let db1 = try Keyringctl.instance("db1")
    let before = try await sequence(ctl)
    let plan = try await ctl.succeed("import #/keyring --dry-run", as: db1)
    #expect(
      plan.contains("6 keys") && plan.contains("root@localhost") && plan.hasSuffix("nothing was changed\n")
    )
    expectNoMaterial(plan, #_sourceLocation)
    #expect(try await sequence(ctl) == before)
    let done = try await ctl.succeed("import #/keyring", as: db1)
    #expect(done.contains("6 keys were stored in one transaction"))
    expectNoMaterial(done, #_sourceLocation)
    #expect(try await sequence(ctl) == before + 1)
    try await expectThere(ctl.server, Self.keys)
    let again = try json(try await ctl.succeed("import #/keyring --output json", as: db1))
    #expect(again["stored"] as? Int == 0 && again["left"] as? Int == 6)
    #expect(try await sequence(ctl) == before + 1)
    // Another instance's own keys are its own, and shared ones are the tenant's.
    try await ctl.succeed("import #/keyring --shared", as: try Keyringctl.instance("db2"))
    try await expectThere(ctl.server, Self.keys, shared: true)
    #expect(try await sequence(ctl) == before + 2)
    await ctl.server.shutdown()
    let restarted = try await TestServer(pki: ctl.server.pki, data: ctl.server.data)
    try await expectThere(restarted, Self.keys)
    await restarted.shutdown()
  }

  /// What MySQL 9.7.4 wrote; an RSA key among it wants the profile `general`.
  @Test func aFileThatMySQLWroteComesIn() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    let file = tests.appending(path: "ImportFormatsTests/Files/component_keyring_file-9.7.4").path
    try await refuse(ctl, "import \(file)", "set persist profile general --tenant acme")
    try await ctl.succeed("set persist profile general --tenant acme", as: Keyringctl.admin)
    let db1 = try Keyringctl.instance("db1")
    #expect(try await ctl.succeed("import \(file)", as: db1).contains("4 keys were stored"))
    let fetched = try await ctl.succeed("key fetch MyAES --owner root@localhost", as: db1)
    #expect(fetched == "5329cf32cc9b1241e035507e5173bab725291f32d8a7af46aad8f4bdb79d7cac\n")
    let master = "INNODBKey-cc91721c-e876-11f1-be6f-02fc00000001-1"
    #expect(
      try await ctl.succeed("key describe \(master) --output json", as: db1).contains(
        #""owner":"","scope":"instance","type":"AES""#
      )
    )
    await ctl.server.shutdown()
  }

  @Test func aDirectoryComesInWithOwnerAndType() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    try FileManager.default.createDirectory(atPath: ctl.folder("raw"), withIntermediateDirectories: false)
    try write(ctl, "raw/one", Self.value(1))
    try write(ctl, "raw/two", Self.value(2))
    let db1 = try Keyringctl.instance("db1")
    try await ctl.succeed("import #/raw --type AES --owner u@h", as: db1)
    try await ctl.succeed("import #/raw", as: db1)
    for (owner, type) in [("u@h", "AES"), ("", "SECRET")] {
      try await expectThere(
        ctl.server,
        [("one", 1), ("two", 2)].map {
          MySQLKeyFiles.Key($0, owner: owner, type: type, value: Self.value($1))
        }
      )
    }
    try write(ctl, "keyring", MySQLKeyFiles.component(Self.keys))
    try await refuse(ctl, "import #/keyring --type AES", "for a directory")
    try await refuse(ctl, "import #/absent", "is not there")
    await ctl.server.shutdown()
  }

  /// A key that is there already with other material stops everything; and with the same, nothing.
  @Test func nothingThatIsThereIsReplaced() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let db1 = try Keyringctl.instance("db1")
    try write(ctl, "first", MySQLKeyFiles.component([Self.keys[4]]))
    try await ctl.succeed("import #/first", as: db1)
    var changed = Self.keys
    changed[4].value[31] ^= 1
    try write(ctl, "keyring", MySQLKeyFiles.component(changed))
    let before = try await sequence(ctl)
    try await refuse(ctl, "import #/keyring", "1 keys are there already", "--skip-existing")
    #expect(try await sequence(ctl) == before)
    let report = try json(try await ctl.succeed("import #/keyring --skip-existing --output json", as: db1))
    #expect(report["stored"] as? Int == 5 && report["left"] as? Int == 1)
    try await expectThere(ctl.server, Self.keys)
    // The same material under another type is another key.
    changed = [Self.keys[0]]
    changed[0].type = "SECRET"
    try write(ctl, "keyring", MySQLKeyFiles.component(changed))
    try await refuse(ctl, "import #/keyring", "already with another type")
    await ctl.server.shutdown()
  }

  /// What the tenant's profile forbids is said before anything is sent, with what to set; and that lets it in.
  @Test func thePlanNamesTheProfileThatWouldDo() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let db1 = try Keyringctl.instance("db1")
    let before = try await sequence(ctl)
    let cases = [
      (MySQLKeyFiles.Key("r", type: "RSA", value: Self.value(7)), "general", "key type must be one of"),
      (.init("s", type: "SECRET", value: [UInt8](repeating: 5, count: 5000)), "general", "at most 4096"),
      (.init("a", type: "AES", value: [1, 2, 3]), "general", "16, 24 or 32 bytes"),
      (.init("x", type: "ARIA", value: Self.value(8)), "any", "key type must be one of"),
    ]
    for (key, profile, why) in cases {
      try write(ctl, "keyring", MySQLKeyFiles.component(Self.keys + [key]))
      try await refuse(
        ctl,
        "import #/keyring",
        why,
        "set persist profile \(profile) --tenant acme",
        "'\(key.id)'"
      )
    }
    try write(
      ctl,
      "keyring",
      MySQLKeyFiles.component([.init("l", type: "SECRET", value: [UInt8](repeating: 5, count: 16_385))])
    )
    try await refuse(ctl, "import #/keyring", "no profile allows that")
    #expect(try await sequence(ctl) == before)
    try write(ctl, "keyring", MySQLKeyFiles.component(Self.keys + cases.map(\.0)))
    try await refuse(ctl, "import #/keyring", "set persist profile any")
    try await ctl.succeed("set persist profile any --tenant acme", as: Keyringctl.admin)
    try await ctl.succeed("set global read_only true --tenant acme", as: Keyringctl.admin)
    try await refuse(ctl, "import #/keyring", "read-only", "set global read_only false --tenant acme")
    try await ctl.succeed("set global read_only false --tenant acme", as: Keyringctl.admin)
    try await ctl.succeed("import #/keyring", as: db1)
    try await expectThere(ctl.server, Self.keys + cases.map(\.0))
    await ctl.server.shutdown()
  }

  @Test func onlyAnInstanceImports() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    try write(ctl, "keyring", MySQLKeyFiles.component(Self.keys))
    for identity in [Keyringctl.admin, .tenantAdmin(try TenantName("acme"))] {
      let outcome = try await ctl.run(["import", "#/keyring"], as: identity)
      #expect(
        outcome.status == 1 && outcome.error.contains("with an instance's certificate"),
        "\(outcome.error)"
      )
    }
    await ctl.server.shutdown()
  }

  @Test func twoThousandKeysAreOneCommit() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let keys = (0..<2000).map {
      MySQLKeyFiles.Key("key-\($0)", owner: $0 % 3 == 0 ? "u@h" : "", value: Self.value($0))
    }
    try write(ctl, "keyring", try MySQLKeyFiles.plugin(keys))
    let before = try await sequence(ctl)
    let report = try json(
      try await ctl.succeed("import #/keyring --output json", as: try Keyringctl.instance("db1"))
    )
    #expect(report["stored"] as? Int == 2000 && report["compared"] as? Int == 2000)
    #expect(try await sequence(ctl) == before + 1)
    await ctl.server.shutdown()
    let restarted = try await TestServer(pki: ctl.server.pki, data: ctl.server.data)
    try await expectThere(restarted, keys)
    await restarted.shutdown()
  }

  // MARK: The call

  @Test func anImportIsAllOrNothing() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    _ = try await client.call(try .store(.own("there"), "already"))
    let good = try (0..<200).map { try Self.imported("k\($0)", Self.value($0)) }
    let bad: [(ImportedKey, Reason)] = [
      (try Self.imported("there", Self.value(1)), .keyExists),
      (try Self.imported("k7", Self.value(1)), .keyExists),
      (try Self.imported("rsa", Self.value(1), type: "RSA"), .typeInvalid),
      (try Self.imported("short", [1]), .lengthInvalid),
      (try Self.imported("", Self.value(1)), .nameInvalid),
    ]
    for (key, reason) in bad {
      for keys in [good + [key], [key] + good] {
        #expect(try await client.refusal(.importKeys(keys))?.reason == reason)
      }
    }
    guard case .list(let listed, _) = try await client.call(.list(ListCall(scope: .instance))) else {
      throw UnexpectedReply()
    }
    #expect(listed.map { String(decoding: $0.name.keyID, as: UTF8.self) } == ["there"])
    let sequence = try await client.client.importKeys(good)
    #expect(try await client.client.compare(good, minSequence: sequence).allSatisfy { $0 == .same })
    let other = try Self.imported("k0", Self.value(77))
    #expect(try await client.client.compare([other, try Self.imported("none", [1])]) == [.differs, .absent])
    await client.close()
    await server.shutdown()
  }

  /// The most that one import may bring is one commit, which a restart reads again; a key more is refused before anything is sent.
  @Test func tenThousandKeysAreTheMost() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    let keys = try (0..<ImportLimits.keysMax).map { try Self.imported("key-\($0)", Self.value($0)) }
    do {
      _ = try await client.client.importKeys(keys + [try Self.imported("one more", Self.value(1))])
      Issue.record("10,001 keys were imported")
    } catch KeyringClientError.refused(let status) {
      #expect(
        status.reason == .messageTooLarge && status.message.contains("up to 10000 keys, and these are 10001")
      )
    }
    let sequence = try await client.client.importKeys(keys, timeout: .seconds(120))
    await client.close()
    await server.shutdown()
    let restarted = try await TestServer(pki: server.pki, data: server.data)
    let back = try restarted.instance("acme", "db1")
    for key in [keys[0], keys[4711], keys[9999]] {
      #expect(try await back.client.compare([key], minSequence: sequence) == [.same])
    }
    await back.close()
    await restarted.shutdown()
  }

  /// What the client refuses, the server refuses too, whoever sends it.
  @Test func theServerHoldsTheLimitsItself() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    let many = try (0...ImportLimits.keysMax).map { try Self.imported("k\($0)", [1]) }
    let long = try (0..<129).map {
      try Self.imported("k\($0)", [UInt8](repeating: 1, count: 16_384), type: "SECRET")
    }
    for (keys, words) in [
      (many, "1 to 10000 keys"), (long, "2097152 bytes of locked memory"), ([], "1 to 10000 keys"),
    ] {
      let refusal = try await client.refusal(.importKeys(keys))
      #expect(
        refusal?.reason == .requestMalformed && refusal?.message.contains(words) == true,
        "\(String(describing: refusal))"
      )
    }
    #expect(throws: ImportLimits.Exceeded.self) { try ImportLimits.check(long) }
    let names = try (0..<9000).map { try Self.imported(String(repeating: "n", count: 250) + "\($0)", [1]) }
    _ = try ImportLimits.check(names)
    let owned = names.map {
      ImportedKey(name: .own("k", owner: String(repeating: "o", count: 512)), type: $0.type, value: $0.value)
    }
    #expect(throws: ImportLimits.Exceeded.self) { try ImportLimits.check(owned) }
    #expect(try await client.fetch(.own("k0")) == nil)
    await client.close()
    await server.shutdown()
  }

  /// Sent again under its id, an import is answered as the first time; as a transaction of the same stores it is another request.
  @Test func anImportHappensOnce() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let raw = try #require(await RawClient.connected(server, "acme"))
    let keys = try (0..<3).map { try Self.imported("k\($0)", Self.value($0)) }
    let milliseconds = UInt64(Date().timeIntervalSince1970 * 1000)
    let id = IdempotencyID(value: UInt128(milliseconds) << 80 | 7 << 76 | 2 << 62 | 5)
    func send(_ number: UInt64, _ call: Call) async throws -> Reply {
      try await raw.send(Request(id: number, idempotencyID: id, call: call).frame)
      return try #require(await raw.reply())
    }
    let first = try await send(1, .importKeys(keys))
    let second = try await send(2, .importKeys(keys))
    for reply in [first, second] {
      guard case .success(.importKeys(stored: 3)) = reply.outcome else {
        Issue.record("\(reply)")
        return
      }
    }
    #expect(first.sequence == second.sequence)
    let stores = keys.map { Change.store($0.name, type: $0.type, value: $0.value) }
    guard case .failure(let status) = try await send(3, .transact(stores)).outcome else {
      throw UnexpectedReply()
    }
    #expect(status.reason == .idempotencyMismatch)
    await raw.close()
    await server.shutdown()
  }

  // MARK: Secrecy

  /// While keyringctl waits for the server, the file and the keys in it are in the arena and nowhere else, and nothing shows in its arguments.
  @Test(arguments: ["component", "plugin", "raw"])
  func keyringctlHasTheKeysInItsArenaOnly(_ format: String) async throws {
    let (pki, folder) = (try TestPKI(), try TestDirectory())
    let files = try pki.client(try Keyringctl.instance("db1"))
    var generator = SystemRandomNumberGenerator()
    let canary = (0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) }
    let key = MySQLKeyFiles.Key("canary", value: canary)
    let bytes = format == "plugin" ? try MySQLKeyFiles.plugin([key]) : MySQLKeyFiles.component([key])
    let path = folder(format == "raw" ? "raw" : "keyring")
    if format == "raw" {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
      try Data(canary).write(to: URL(filePath: path + "/canary"))
    } else {
      try Data(bytes).write(to: URL(filePath: path))
    }
    let silent = try await SilentServer()
    let process = try TestProgram(product: "keyringctl").start(
      [
        "import", path, "--server", "127.0.0.1:\(silent.port)", "--cert", files.certificateFile, "--key",
        files.privateKeyFile, "--ca", files.authorityFile, "--timeout", "120",
      ],
      environment: [:],
      error: folder("err")
    )
    await silent.accepted()
    let memory = ProcessMemory(id: process.id)
    let obfuscated = zip(canary, Array("*305=Ljt0*!@$Hnm(*-9-w;:*305=Ljt".utf8)).map { $0 ^ $1 }
    let needles =
      ProcessMemory.Needle.of("canary", canary)
      + ProcessMemory.Needle.of("as MySQL's plugin has it", obfuscated)
    let scan = try memory.scan(needles)
    let hits = scan.hits.map(\.needle)
    #expect(hits.contains("canary, first half"), "the keys are there: the scan would see them")
    #expect(scan.hits.allSatisfy { $0.mapping.isNotDumped }, "\(scan.hits)")
    let arguments = try ProcessMemory.text("/proc/\(process.id)/cmdline")
    #expect(arguments.contains("import") && !arguments.contains(hexadecimal(canary[..<8])))
    process.signal(SIGTERM)
    await process.ended()
    try await silent.close()
  }
}
