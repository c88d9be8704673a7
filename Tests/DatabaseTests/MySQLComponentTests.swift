import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// The component by itself, against a real server: a program calls its services as mysqld does. With mysqld: MySQL*Tests.
@Suite(.timeLimit(.minutes(5))) struct MySQLComponentTests {
  static let bytes = "00ff0a00"

  private func acme(profile: String = "any") async throws -> TestServer {
    let server = try await TestServer()
    try await server.makeTenant("acme", profile: profile)
    return server
  }

  // MARK: What a key is

  /// Every method of every service, also with the sanitizers watching.
  @Test(arguments: [nil, .address, .undefined] as [CClients.Sanitizer?])
  func everyService(_ sanitizer: CClients.Sanitizer?) async throws {
    let server = try await acme()
    let driver = try await ComponentDriver(sanitizer)
    try driver.configure(server)
    let run = try await driver.run([
      driver.load, "status", "fetch k -", "generate k - AES 32", "generate k - AES 16", "fetch k -",
      "store k u@h SECRET \(Self.bytes)", "store k u@h SECRET 01", "fetch k u@h", "fetch k other@h",
      "fetch = -", "fetch - -",
      "remove k u@h", "remove k u@h", "fetch k u@h", "store seq = AES 00112233445566778899aabbccddeeff",
      "fetch seq -", "keys",
      "encrypt k - cbc 256 1 00112233445566778899aabbccddeeff 4142", "encrypt k - cbc 128 1 00 41",
      "encrypt k - gcm 256 1 00 41",
      "encrypt k - cbc 256 1 - 41", "encrypt none - ecb 256 1 - 41", "state 1", "metadata", "hold 0 k -",
      "release 0", "restart",
      "fetch k -", "status", driver.load, "fetch k -",
    ])
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    let key = try #require(try await server.instance("acme", "db1").fetch(.own("k")))
    let found = "found AES \(key)"
    #expect(key.count == 64)
    #expect(
      Array(run.first.prefix(18)) == [
        "ok", "yes", "absent", "ok", "failed", found, "ok", "failed", "found SECRET \(Self.bytes)", "absent",
        "absent", "absent",
        "ok", "failed", "absent", "ok", "found AES 00112233445566778899aabbccddeeff", "key k -",
      ]
    )
    #expect(run.answers[17] == ["key k -", "key seq -"])
    #expect(run.first[18].hasPrefix("ok ") && run.first[18].hasSuffix(" of 16"))
    #expect(Array(run.first[19...22]) == ["no size", "no size", "failed  of 16", "failed  of 16"])
    #expect(
      run.first[23].hasPrefix(
        "ok status=Active servers=localhost:\(server.port) tenant=acme instance=db1 scope=instance"
      )
    )
    for row in ["Component_status Active", "Tenant acme", "Instance db1", "Scope instance", "Cache_ms 10000"]
    {
      #expect(run.answers[24].contains("row \(row)"))
    }
    #expect(Array(run.first[25...]) == ["ok", "ok", "ok", "error", "no", "ok", found])
    // Nothing that was said has key material in it.
    #expect(!run.log.joined().contains(key) && !run.outcome.error.contains(key))
    await server.shutdown()
  }

  /// InnoDB, which was told that number 3 is not there, makes no number up to it, under that server's name; a key of another server, a
  /// user's and a later one are made. Found again, it is in the way of none.
  @Test func aMissingMasterKeyIsNotMade() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server, #""cache_ms": 0"#)
    let (name, other) = ("INNODBKey-11e1-a-", "INNODBKey-22e2-b-")
    let run = try await driver.run([
      driver.load, "generate \(name)2 - AES 32", "fetch \(name)3 -", "generate \(name)1 - AES 32",
      "generate \(name)3 - AES 32", "generate \(name)1 u@h AES 32", "generate \(other)1 - AES 32",
      "generate \(name)4 - AES 32", "store \(name)3 - AES \(String(repeating: "0b", count: 32))",
      "generate \(name)1 - AES 32", "fetch \(name)3 -", "generate \(name)1 - AES 32",
    ])
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    #expect(
      run.first.map { String($0.prefix(6)) } == [
        "ok", "ok", "absent", "failed", "failed", "ok", "ok", "ok", "ok", "failed", "found ", "ok",
      ]
    )
    let log = run.log.joined(separator: "\n")
    for line in ["there is no \(name)3 in scope instance", "\(name)1 is not made, since number 3"] {
      #expect(log.contains("tenant acme, instance db1: KEY_ABSENT: \(line)"), "\(log)")
    }
    await server.shutdown()
  }

  /// "Cannot tell" is an error, never "absent": InnoDB would make a second master key.
  @Test func cannotTellIsNotAbsent() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server, #""cache_ms": 0"#, #""timeout_ms": 1000"#)
    let admin = try server.client(.serviceAdmin)
    let locked = try await driver.run(
      [driver.load, "fetch absent -"],
      pause: { _ = try await admin.call(.admin(.tenantLock("acme"))) },
      ["fetch absent -", "keys", "generate new - AES 32", "remove absent -", "encrypt k - ecb 256 1 - 41"]
    )
    #expect(
      locked.first == ["ok", "absent", "ok", "ok", "error", "error", "failed", "failed", "failed  of 16"]
    )
    #expect(
      locked.log.contains {
        $0.contains("tenant acme, instance db1: TENANT_LOCKED") && $0.contains("(fetch, key absent)")
      }
    )
    _ = try await admin.call(.admin(.tenantUnlock("acme")))
    let revoked = try await driver.run(
      [driver.load, "fetch absent -"],
      pause: { _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db1"))) },
      ["fetch absent -"]
    )
    #expect(revoked.first == ["ok", "absent", "ok", "ok", "error"])
    await admin.close()
    try driver.configure(server, instance: "db2", #""cache_ms": 0"#, #""timeout_ms": 1000"#)
    let gone = try await driver.run(
      [driver.load, "fetch absent -"],
      pause: { await server.shutdown() },
      ["fetch absent -"]
    )
    #expect(gone.first == ["ok", "absent", "ok", "ok", "error"])
    #expect(gone.log.contains { $0.hasPrefix("1 ") && $0.contains("UNREACHABLE") })
  }

  /// What another instance changes is seen without RELOAD: nothing is answered from a list of the component's own.
  @Test func existenceIsTheServers() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server, #""scope": "shared""#, #""cache_ms": 0"#)
    let other = try server.instance("acme", "db2")
    let run = try await driver.run(
      [driver.load, "fetch k -"],
      pause: { _ = try await other.call(.store(.shared("k"), "AB")) },
      ["fetch k -", "keys", "store k - SECRET 00"]
    )
    #expect(run.first == ["ok", "absent", "ok", "ok", "found SECRET 4142", "key k -", "failed"])
    await other.close()
    await server.shutdown()
  }

  // MARK: AES

  /// As MySQL's own components: the key is the SHA-256 of the stored bytes, whatever their length. The vectors are openssl's.
  @Test(arguments: ["ecb", "cbc", "cfb1", "cfb8", "cfb128", "ofb"]) func aesIsThatOfMySQL(_ mode: String)
    async throws
  {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server)
    let (stored, iv) = ("a 14-byte key!", "000102030405060708090a0b0c0d0e0f")
    let plain = "forty-one bytes of a plaintext, no block."
    let hex = { (text: String) in text.utf8.map { String(format: "%02x", $0) }.joined() }
    let openssl = TestProgram(path: "/usr/bin/openssl")
    let digest = try await openssl.run(["dgst", "-sha256", "-r"], input: Data(stored.utf8)).text.prefix(64)
    let name = mode == "cfb128" ? "cfb" : mode
    let vector = mode == "ecb" ? [] : ["-iv", iv]
    let output = try await openssl.run(
      ["enc", "-aes-256-\(name)", "-K", String(digest)] + vector,
      input: Data(plain.utf8)
    ).output
    let expected = output.map { String(format: "%02x", $0) }.joined()
    let given = mode == "ecb" ? "-" : iv
    let run = try await driver.run([
      driver.load, "store k - aes \(hex(stored))", "encrypt k - \(mode) 256 1 \(given) \(hex(plain))",
      "decrypt k - \(mode.uppercased()) 256 1 \(given) \(expected)", "store s - SECRET \(hex(stored))",
      "encrypt s - \(mode) 256 1 \(given) \(hex(plain))",
    ])
    #expect(expected.count >= 82)
    #expect(run.first[2] == "ok \(expected) of \(expected.count / 2)")
    #expect(run.first[3] == "ok \(hex(plain)) of \(expected.count / 2)")
    #expect(run.first[5].hasPrefix("failed") && run.log.contains { $0.contains("not of type AES") })
    await server.shutdown()
  }

  // MARK: Configuration

  /// What is wrong is in the error log, by name.
  @Test(arguments: [
    (#"{"servers": "localhost:1", "tmeout_ms": 5}"#, #""tmeout_ms" is not a setting"#),
    (#"{"timeout_ms": "5000"}"#, #""timeout_ms" must be a whole number"#),
    (#"{"timeout_ms": 0}"#, #""timeout_ms""#),
    (#"{"allow_unlocked_memory": 1}"#, "must be true or false"),
    (#"{"servers": [1]}"#, #""servers" must be"#),
    (#"{"servers": ["localhost"]}"#, #""servers""#),
    (#"{"scope": "mine"}"#, #""scope""#),
    (#"{"load_wait_ms": -1}"#, "from 0 to 600000"),
    (#"{"cache_ms": 1, "cache_ms": 2}"#, "not JSON"),
    ("{", "not JSON"), ("[]", "not a JSON object"), ("", "not JSON"),
    (#"{"read_local_config": true, "servers": "localhost:1"}"#, "nothing may stand beside"),
    (#"{"read_local_config": true}"#, "no data directory is known"),
    (#"{"servers": "localhost:1"}"#, "certificate"),
    (
      #"{"servers": "localhost:1", "certificate": "none.crt", "key": "none.key", "ca": "none.crt"}"#, "/none."
    ),
  ]) func whatIsWrongIsNamed(_ text: String, _ reason: String) async throws {
    let driver = try await ComponentDriver()
    try driver.write(text)
    let run = try await driver.run([driver.load, "status", "fetch k -"])
    #expect(run.first == ["failed", "no", "error"])
    #expect(run.log.first?.hasPrefix("1 ") == true && run.log.first?.contains(reason) == true, "\(run.log)")
    #expect(run.outcome.status == 0)
  }

  /// Who may write it could have the keys stored where they like.
  @Test(arguments: [0o620, 0o602, 0o666]) func aFileThatOthersMayWriteIsRefused(_ mode: Int) async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server)
    let path = driver.folder("component_keyring_service.cnf")
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    let run = try await driver.run([driver.load])
    #expect(run.first == ["failed"] && run.log.contains { $0.contains("chmod go-w") })
    try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
    #expect(try await driver.run([driver.load]).first == ["ok"])
    await server.shutdown()
  }

  /// In the data directory, where the one beside the library says so; with files beside it, by relative names; without '/' at the end.
  @Test func theDataDirectorysConfiguration() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    let data = try TestDirectory()
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    for (name, file) in [
      ("a.crt", files.certificateFile), ("a.key", files.privateKeyFile), ("ca.crt", files.authorityFile),
    ] {
      try data.write(name, String(contentsOfFile: file, encoding: .utf8))
    }
    try driver.write(#"{"read_local_config": true}"#)
    let settings = #""certificate": "a.crt", "key": "a.key", "ca": "ca.crt""#
    try data.write(
      "component_keyring_service.cnf",
      #"{"servers": ["localhost:\#(server.port)"], \#(settings)}"#
    )
    let run = try await driver.run([
      "load \(driver.folder.path) \(data.path)", "load \(driver.folder.path)/ \(data.path)/", "fetch k -",
    ])
    #expect(run.first == ["ok", "ok", "absent"], "\(run.log)")
    await server.shutdown()
  }

  // MARK: load

  /// load() runs before mysqld forks and changes its user: no connection and no thread is left, and the child is served.
  @Test func loadLeavesNothingBehind() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server)
    let run = try await driver.run([
      driver.load, "traces", "fork", "generate k - AES 32", "fetch k -", "traces",
    ])
    #expect(run.outcome.status == 0)
    #expect(run.answers[1] == ["sockets 0 threads 1 services 0"])
    #expect(run.answers[2] == ["child"] && run.first[3] == "ok" && run.first[4].hasPrefix("found AES"))
    #expect(run.answers[5] == ["sockets 1 threads 1 services 0"])
    await server.shutdown()
  }

  /// A database server that starts together with keyringd waits for it.
  @Test func loadWaits() async throws {
    let first = try await acme()
    let (pki, data, port) = (first.pki, first.data, first.port)
    await first.shutdown()
    let driver = try await ComponentDriver()
    try driver.configure(pki: pki, port: port, [#""load_wait_ms": 60000"#])
    async let run = driver.run([driver.load, "fetch k -"])
    try await Task.sleep(for: .milliseconds(500))
    let second = try await TestServer(pki: pki, data: data, port: port)
    #expect(try await run.first == ["ok", "absent"])
    await second.shutdown()
  }

  /// Without RELOAD KEYRING: the configuration stays, and later calls connect.
  @Test func itRecoversByItself() async throws {
    let first = try await acme()
    let (pki, data, port) = (first.pki, first.data, first.port)
    await first.shutdown()
    let driver = try await ComponentDriver()
    try driver.configure(pki: pki, port: port, [#""load_wait_ms": 300"#, #""cache_ms": 0"#])
    var second: TestServer?
    let run = try await driver.run(
      [driver.load, "status", "fetch k -", "metadata"],
      pause: { second = try await TestServer(pki: pki, data: data, port: port) },
      ["recover k -", "status"]
    )
    #expect(run.first[0...2] == ["failed", "no", "error"])
    #expect(run.answers[3].contains { $0.hasPrefix("row Last_error 20") && $0.contains("UNREACHABLE") })
    #expect(run.first[6...7] == ["absent", "yes"], "\(run.log)")
    #expect(run.log.contains { $0.hasPrefix("0 ") && $0.contains("answers again after") })
    await second?.shutdown()
  }

  /// The first key says so, too, whatever the cache may keep: there was nothing in it.
  @Test func theFirstKeyProvesTheConfiguration() async throws {
    let first = try await acme()
    let writer = try first.instance("acme", "db1")
    _ = try await writer.call(.generate(.own("k")))
    await writer.close()
    let (pki, data, port) = (first.pki, first.data, first.port)
    await first.shutdown()
    let driver = try await ComponentDriver()
    try driver.configure(pki: pki, port: port, [#""load_wait_ms": 300"#, #""cache_ms": 600000"#])
    var second: TestServer?
    let run = try await driver.run(
      [driver.load, "status"],
      pause: { second = try await TestServer(pki: pki, data: data, port: port) },
      ["recover k -", "status"]
    )
    #expect(run.first[0...1] == ["failed", "no"])
    #expect(run.first[4...5] == ["found", "yes"], "\(run.log)")
    await second?.shutdown()
  }

  /// A new configuration that does not work leaves the old one in force.
  @Test(arguments: ["{", #""servers": "localhost:1""#, #""instance""#]) func reloadKeepsTheOld(
    _ change: String
  ) async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server)
    let run = try await driver.run(
      [driver.load, "generate k - AES 32"],
      pause: {
        switch change {
        case "{": try driver.write(change)
        case #""instance""#: try driver.configure(pki: server.pki, port: server.port, tenant: "nobody", [])
        default: try driver.configure(pki: server.pki, port: 1, [])
        }
      },
      [driver.load, "fetch k -", "status", "state 0"]
    )
    #expect(
      run.first[4] == "failed" && run.first[5].hasPrefix("found AES") && run.first[6] == "yes",
      "\(run.log)"
    )
    #expect(run.first[7].contains("servers=localhost:\(server.port) tenant=acme"))
    await server.shutdown()
  }

  /// RELOAD KEYRING while readers are at work: what they hold stays valid.
  @Test(arguments: [.address, .thread] as [CClients.Sanitizer]) func readersOutliveReload(
    _ sanitizer: CClients.Sanitizer
  ) async throws {
    let server = try await acme()
    let driver = try await ComponentDriver(sanitizer)
    try driver.configure(server)
    let run = try await driver.run([
      driver.load, "generate k - AES 32", "hold 0 k -", driver.load, "held 0", "release 0",
      "race 4 k 20 \(driver.folder.path)/ -",
    ])
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    #expect(run.first[4].hasPrefix("found AES"))
    #expect(run.first[6] == "loads failed 0, fetched some")
    await server.shutdown()
  }

  /// Loads that fail take each other's place, and tell of their own failure after that.
  @Test func loadsThatFailOutliveEachOther() async throws {
    let pki = try TestPKI()
    let driver = try await ComponentDriver(.address)
    try driver.configure(pki: pki, port: 1, [#""load_wait_ms": 0"#, #""timeout_ms": 1"#])
    let run = try await driver.run(["race 2 k 300 \(driver.folder.path)/ -"])
    #expect(
      run.outcome.status == 0 && run.first == ["loads failed 600, fetched none"],
      "\(run.outcome.error)"
    )
    withExtendedLifetime(pki) {}
  }

  // MARK: Cost and noise

  /// N tablespaces under one master key ask N times at a start: one of them is a call.
  @Test func oneRoundTripForManyFetches() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    let admin = try server.client(.serviceAdmin)
    func calls() async throws -> UInt64 {
      guard case .service(let status) = try await admin.call(.admin(.status(""))) else {
        throw UnexpectedReply()
      }
      return status.calls
    }
    try driver.configure(server, #""cache_ms": 600000"#)
    var before: UInt64 = 0
    let run = try await driver.run(
      [driver.load, "generate k - AES 32"],
      pause: { before = try await calls() },
      ["fetches 200 k -"]
    )
    #expect(run.first.last == "found 200")
    // The call that asks is counted by the next one.
    #expect(try await calls() - before - 1 == 1)
    await admin.close()
    await server.shutdown()
  }

  /// Where nobody answers, N tablespaces do not wait for N deadlines: mysqld does not hear SIGTERM meanwhile. (Each alone: 400 seconds.)
  @Test func manyFetchesWaitForOneDeadline() async throws {
    let folder = try TestDirectory()
    let listen = """
      import socket, time
      s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(512); print(s.getsockname()[1], flush=True); time.sleep(600)
      """
    let silent = try TestProgram(path: "/usr/bin/python3").start(
      ["-c", listen],
      environment: [:],
      output: folder("port"),
      error: folder("error")
    )
    defer { silent.signal(SIGKILL) }
    var port: Int?
    #expect(
      try await eventually {
        port = Int(
          try String(contentsOfFile: folder("port"), encoding: .utf8).trimmingCharacters(in: .newlines)
        )
        return port != nil
      }
    )
    let driver = try await ComponentDriver()
    let pki = try TestPKI()
    try driver.configure(pki: pki, port: port ?? 0, [#""timeout_ms": 2000"#, #""load_wait_ms": 0"#])
    let start = ContinuousClock.now
    let run = try await driver.run([driver.load, "fetches 200 k -", "state 0"])
    #expect(ContinuousClock.now - start < .seconds(100))
    #expect(run.first[1] == "found 0" && run.first[2].contains("failures=201"), "\(run.first)")
  }

  /// An outage does not flood the log, and what was left out is counted.
  @Test func theSameFailureIsLoggedOnce() async throws {
    let server = try await acme()
    let driver = try await ComponentDriver()
    try driver.configure(server, #""cache_ms": 0"#, #""timeout_ms": 300"#)
    let admin = try server.client(.serviceAdmin)
    let run = try await driver.run(
      [driver.load],
      pause: { _ = try await admin.call(.admin(.tenantLock("acme"))) },
      ["fetches 50 k -", "fetch other -", "nolog", "fetch line%sbreak -"]
    )
    #expect(
      run.first.suffix(4) == ["found 0", "error", "ok", "error"]
        || run.first.suffix(4) == ["found 0", "error", "", "error"]
    )
    #expect(run.log.filter { $0.contains("(fetch, key k)") }.count == 1, "\(run.log)")
    #expect(run.log.contains { $0.contains("(fetch, key other)") })
    // Where there is no error log: a tool's stderr.
    #expect(run.outcome.error.contains("(fetch, key line%sbreak)"))
    await admin.close()
    await server.shutdown()
  }

  // MARK: The shared object

  /// One symbol out, and nothing in but what mysqld has: it exports 80,000 symbols, which any other of ours would meet.
  @Test func itExportsOneSymbol() async throws {
    let driver = try await ComponentDriver()
    let symbols = try await TestProgram(path: "/usr/bin/nm").run(["-D", "--defined-only", driver.component])
      .text
    #expect(symbols.split(separator: "\n").map { $0.split(separator: " ").last ?? "" } == ["list_components"])
    let dynamic = try await TestProgram(path: "/usr/bin/readelf").run(["-d", driver.component]).text
    let needed = dynamic.matches(of: /NEEDED.*\[(.*)\]/).map { String($0.1) }
    #expect(Set(needed) == ["libssl.so.3", "libcrypto.so.3", "libc.so.6"])
    #expect(!dynamic.contains("TEXTREL"))
  }
}
