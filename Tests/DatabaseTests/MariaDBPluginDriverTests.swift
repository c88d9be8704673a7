import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// keyring_key_management.so in a process that plays mariadbd's part: Programs/plugin-driver.c. With mariadbd: MariaDBPluginTests.
@Suite(.timeLimit(.minutes(5))) struct MariaDBPluginDriverTests {
  private let folder: TestDirectory

  init() throws { folder = try TestDirectory() }

  private func driver(_ sanitizer: CClients.Sanitizer? = nil) async throws -> DriverProcess {
    let build = try await CClients.built(sanitizer)
    let outcome = try await TestProgram(path: "/usr/bin/flock").run([
      "\(CClients.top)/.build/c.lock", "make", "-s", "-C", "\(CClients.top)/Sources/Clients",
      "SANITIZE=\(sanitizer?.rawValue ?? "")", "mariadb-plugin-driver",
    ])
    guard outcome.status == 0 else { throw NotBuilt(description: outcome.error) }
    return DriverProcess(
      program: "\(build)/plugin-driver",
      library: "\(build)/keyring_key_management.so",
      folder: folder
    )
  }

  /// What is left of a plugin that was deinitialised; TSan has a thread of its own.
  private static func nothing(_ sanitizer: CClients.Sanitizer?) -> String {
    "sockets 0 threads \(sanitizer == .thread ? 2 : 1)"
  }

  /// The program does not build.
  private struct NotBuilt: Error, CustomStringConvertible { let description: String }

  private func acme(_ keys: [UInt32] = [1]) async throws -> (TestServer, TestClient) {
    let server = try await TestServer()
    try await server.makeTenant("acme", profile: "any")
    let client = try server.instance("acme", "db1")
    for id in keys { _ = try await client.call(.generate(Self.key(id))) }
    return (server, client)
  }

  private static func key(_ id: UInt32) -> KeyName { .own("mariadb/\(id)") }

  /// `set` commands, before `init`.
  private func settings(_ pki: TestPKI, _ port: Int, _ more: String...) throws -> [String] {
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    return [
      "set servers localhost:\(port)", "set certificate \(files.certificateFile)",
      "set key \(files.privateKeyFile)", "set ca \(files.authorityFile)", "set wait 0", "set refresh 1",
    ] + more
  }

  // MARK: The two questions

  /// Every answer that there is; deinitialised, nothing is left, and it can be initialised again.
  @Test(arguments: [nil, .address, .undefined] as [CClients.Sanitizer?])
  func everyQuestion(_ sanitizer: CClients.Sanitizer?) async throws {
    let (server, client) = try await acme()
    for (id, length) in [(5, 16), (6, 33)] as [(UInt32, UInt32)] {
      _ = try await client.call(.generate(Self.key(id), "AES", length))
    }
    _ = try await client.call(.change(.rotate(Self.key(5))))
    let before = try settings(server.pki, server.port)
    let questions: [(String, String)] = [
      ("init", "ok"), ("latest 1", "version 1"), ("exists 1 1", "yes"), ("exists 1 2", "no"),
      ("key 1 1 32", "key \(try await client.fetch(Self.key(1)) ?? "")"), ("key 1 1 31", "needs 32"),
      ("key 1 1 0", "needs 32"), ("key 1 0 32", "none"), ("key 1 4294967295 32", "none"),
      ("key 5 1 32", "key \(try await client.fetch(Self.key(5), version: 1) ?? "")"),
      ("key 5 2 16", "key \(try await client.fetch(Self.key(5), version: 2) ?? "")"),
      ("latest 5", "version 2"),
      ("latest 2", "none"), ("latest 6", "none"), ("key 6 1 32", "none"), ("latest 7", "none"),
      ("latest 4294967295", "none"), ("state OK", "state OK"), ("deinit", "ok"),
      ("traces", Self.nothing(sanitizer)),
      ("init", "ok"), ("latest 5", "version 2"), ("deinit", "ok"), ("deinit", "ok"),
      ("traces", Self.nothing(sanitizer)),
    ]
    let run = try await driver(sanitizer).run(before + questions.map(\.0))
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    for (asked, answer) in zip(questions, run.first.dropFirst(before.count)) {
      #expect(answer == asked.1, "\(asked.0)")
    }
    let names = "keyring localhost:\(server.port), tenant acme, instance db1"
    #expect(run.log.contains { $0.hasPrefix("warning \(names): LENGTH_INVALID: key mariadb/6 ") })
    #expect(
      run.log.contains {
        $0.hasPrefix("warning \(names): KEY_ABSENT: key mariadb/7 ")
          && $0.hasSuffix("keyringctl key generate mariadb/7 --type AES --length 32")
      }
    )
    // mariadbd's question whether temporary files have a key of their own is no failure.
    #expect(!run.log.contains { $0.contains("mariadb/2 ") })
    let said = run.log.joined() + run.outcome.error
    for (_, answer) in questions where answer.hasPrefix("key ") {
      #expect(!said.contains(answer.dropFirst(4)))
    }
    await client.close()
    await server.shutdown()
  }

  /// Many threads ask while versions are added and keyringd is away: no question fails that was answered before, no version goes back.
  @Test(arguments: [.address, .thread] as [CClients.Sanitizer])
  func noQuestionFailsThatWasAnswered(_ sanitizer: CClients.Sanitizer) async throws {
    var (server, client) = try await acme()
    let rotation = { _ = try await client.call(.change(.rotate(Self.key(1)))) }
    let before = try settings(server.pki, server.port, "init", "latest 1", "begin 6 1")
    let run = try await driver(sanitizer).run([
      .give(before), .pause(rotation), .give(["until 1 2"]), .pause(rotation), .give(["until 1 3"]),
      .pause {
        await client.close()
        await server.shutdown()
      },
      .give(["state UNREACHABLE", "latest 1", "latest 9"]),
      .pause {
        server = try await TestServer(pki: server.pki, data: server.data, port: server.port)
        client = try server.instance("acme", "db1")
        _ = try await client.call(.change(.rotate(Self.key(1))))
      },
      .give(["until 1 4", "state OK", "end", "key 1 1 32", "deinit", "traces"]),
    ])
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    let answers = run.first.filter { $0 != "ok" }
    #expect(
      answers.dropLast(2) == [
        "version 1", "version 2", "version 3", "state UNREACHABLE", "version 3", "none", "version 4",
        "state OK",
        "asked some, failed 0, went back 0, changed 0",
      ]
    )
    #expect(answers.dropLast().last == "key \(try await client.fetch(Self.key(1), version: 1) ?? "")")
    #expect(answers.last == Self.nothing(sanitizer))
    let named = run.log.filter {
      $0.hasPrefix("error keyring localhost:\(server.port), tenant acme, instance db1: ")
    }
    #expect(
      named.count == 1 && run.log.filter { $0.contains("answers again, after") }.count == 1,
      "\(run.log)"
    )
    #expect(run.log.filter { $0.contains("key mariadb/1 has version 4 now") }.count == 1)
    await client.close()
    await server.shutdown()
  }

  /// Keys that many threads learn at a time are each learnt once.
  @Test(arguments: [.address, .thread] as [CClients.Sanitizer])
  func manyThreadsLearnManyKeys(_ sanitizer: CClients.Sanitizer) async throws {
    let ids = Array(UInt32(300)..<360)
    let (server, client) = try await acme([1] + ids)
    let before = try settings(server.pki, server.port, "set refresh 3600", "set preload OFF", "init")
    let run = try await driver(sanitizer).run(
      before + ["learn 16 300 60", "learn 4 300 60", "status", "deinit"]
    )
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    #expect(run.first.filter { $0.hasPrefix("failed") } == ["failed 0", "failed 0"])
    let rows = run.answers.first { $0.count > 3 } ?? []
    for row in ["keys 61", "versions 61", "tenant acme", "instance db1", "failures 0"] {
      #expect(rows.contains("row Keyring_key_management_\(row)"), "\(rows)")
    }
    await client.close()
    await server.shutdown()
  }

  /// A key that is not there is asked for once in a second, by one of the threads that want it, and said once.
  @Test func whatIsNotThereIsNoLoad() async throws {
    let (server, client) = try await acme()
    let admin = try server.client(.serviceAdmin)
    func calls() async throws -> UInt64 {
      guard case .service(let status) = try await admin.call(.admin(.status(""))) else {
        throw UnexpectedReply()
      }
      return status.calls
    }
    var before: UInt64 = 0
    var after: UInt64 = 0
    let run = try await driver().run([
      .give(try settings(server.pki, server.port, "set refresh 3600", "init")),
      .pause { before = try await calls() },
      .give(["begin 8 77"]),
      .pause { try await Task.sleep(for: .milliseconds(1500)) },
      .give(["end"]),
      .pause { after = try await calls() },
      .give(["deinit"]),
    ])
    // Two or three, one of the refresher, and `calls` itself.
    #expect((1...8).contains(after - before), "\(after - before)")
    #expect(run.log.filter { $0.contains("KEY_ABSENT") }.count == 1, "\(run.log)")
    await client.close()
    await admin.close()
    await server.shutdown()
  }

  // MARK: Before it is asked for

  /// Every version of every key is in memory when keyringd goes away; what is added later follows.
  @Test(arguments: [.address, .thread] as [CClients.Sanitizer])
  func keysAreThereBeforeTheyAreAskedFor(_ sanitizer: CClients.Sanitizer) async throws {
    let (server, client) = try await acme([1, 5])
    let rotation = { (id: UInt32) in _ = try await client.call(.change(.rotate(Self.key(id)))) }
    for id in [5, 5, 1] as [UInt32] { try await rotation(id) }
    _ = try await client.call(.generate(Self.key(6), "AES", 33))
    for name in ["mariadb/07", "mariadb/x", "mariadb/", "maria", "mariadb/4294967296", "mariadb/0"] {
      _ = try await client.call(.generate(.own(name)))
    }
    let before = try settings(server.pki, server.port, "init")
    let run = try await driver(sanitizer).run([
      .give(before + ["status", "state OK"]),
      .pause {
        // Two at a time: the first of them is nobody's newest one.
        for _ in 0..<2 { try await rotation(1) }
      },
      .give(["until 1 4", "state OK"]),
      .pause { try await Task.sleep(for: .milliseconds(2500)) },
      .pause {
        await client.close()
        await server.shutdown()
      },
      .give(["state UNREACHABLE"]),
      .give((1...4).map { "exists 1 \($0)" } + (1...3).map { "exists 5 \($0)" }),
      .give(["latest 5", "latest 6", "exists 5 4", "deinit", "traces"]),
    ])
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    let rows = run.answers[before.count]
    for row in ["keys 2", "versions 5"] {
      #expect(rows.contains("row Keyring_key_management_\(row)"), "\(rows)")
    }
    #expect(
      run.first.dropFirst(before.count + 1).filter { $0 != "ok" } == ["state OK", "version 4", "state OK"]
        + ["state UNREACHABLE"] + Array(repeating: "yes", count: 7)
        + ["version 3", "none", "no", Self.nothing(sanitizer)],
      "\(run.log)"
    )
  }

  /// Half of the memory that may be locked stays free for calls, and the newest versions come first.
  @Test func memoryIsLeftToCalls() async throws {
    let (server, client) = try await acme([1, 5, 6])
    for _ in 1..<40 {
      for id in [5, 6] as [UInt32] { _ = try await client.call(.change(.rotate(Self.key(id)))) }
    }
    await client.close()
    let before = try settings(server.pki, server.port, "init")
    var process = try await driver()
    process.lockedBytes = 65_536
    let run = try await process.run(before + ["status", "exists 6 40", "exists 6 1", "deinit"])
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    // Of 512 bytes each, and the system key.
    #expect(run.answers[before.count].contains("row Keyring_key_management_versions 65"), "\(run.answers)")
    #expect(run.log.contains { $0.contains("no room in locked memory") }, "\(run.log)")
    #expect(run.first.suffix(3) == ["yes", "yes", "ok"])
    await server.shutdown()
  }

  // MARK: keyringd refuses

  /// Locked, replaced, removed, revoked while it runs: what was learnt stays, what was not is refused, and each is said once.
  @Test func whatWasLearntStays() async throws {
    let (server, client) = try await acme([1, 5, 6])
    let admin = try server.client(.serviceAdmin)
    let call = { (call: Call) in { _ = try await admin.call(call) } }
    let before = try settings(server.pki, server.port, "set preload OFF", "init", "latest 5")
    let run = try await driver().run([
      .give(before), .pause(call(.admin(.tenantLock("acme")))),
      .give(["state TENANT_LOCKED", "latest 1", "latest 6", "exists 5 1"]),
      .pause(call(.admin(.tenantUnlock("acme")))),
      .give(["state OK"]),
      .pause {
        _ = try await client.call(.remove(Self.key(5)))
        _ = try await client.call(.generate(Self.key(5)))
        _ = try await client.call(.change(.rotate(Self.key(5))))
      },
      .give(["state KEY_ABSENT", "latest 5", "latest 6"]),
      .pause { _ = try await client.call(.remove(Self.key(5))) },
      .give(["latest 5", "exists 5 1"]),
      .pause(call(.admin(.instanceRevoke(tenant: "acme", instance: "db1")))),
      .give(["state FORBIDDEN", "latest 1", "exists 1 1", "deinit", "init"]),
    ])
    #expect(
      run.first.dropFirst(before.count - 1).filter { $0 != "ok" } == [
        "version 1", "state TENANT_LOCKED", "version 1", "none", "yes", "state OK",
        // The new key's second version is not used: pages under two keys could not be told apart.
        "state KEY_ABSENT", "version 1", "version 1", "version 1", "yes",
        "state FORBIDDEN", "version 1", "yes", "failed",
      ]
    )
    let names = "keyring localhost:\(server.port), tenant acme, instance db1"
    for said in [
      "TENANT_LOCKED", "KEY_ABSENT: key mariadb/5 version 1 was removed and made anew", "FORBIDDEN",
    ] {
      let lines = run.log.filter {
        $0.hasPrefix("error \(names): \(said)") && $0.contains("goes on with the keys")
      }
      #expect(lines.count == 1, "\(said): \(run.log)")
    }
    #expect(run.log.last?.contains("There are no keys") == true)
    await client.close()
    await admin.close()
    await server.shutdown()
  }

  // MARK: Starts

  /// A start waits for keyringd as long as it is told to, and not when the server is told to end.
  @Test func aStartWaits() async throws {
    let (first, client) = try await acme()
    await client.close()
    await first.shutdown()
    let port = first.port
    let away = try settings(first.pki, port, "init", "deinit", "set wait 3600", "term", "init")
    let run = try await driver().run(away)
    #expect(run.first.filter { $0 == "failed" }.count == 2)
    let names = "error keyring localhost:\(port), tenant acme, instance db1: UNREACHABLE"
    #expect(
      run.log.filter { $0.hasPrefix(names) && $0.contains("There are no keys") }.count == 2,
      "\(run.log)"
    )
    #expect(run.log.contains { $0.contains("told to end") })
    let waiting = try await driver()
    let commands = try settings(first.pki, port, "set wait 60", "init", "latest 1", "deinit")
    async let answers = waiting.run(commands)
    try await Task.sleep(for: .milliseconds(700))
    let second = try await TestServer(pki: first.pki, data: first.data, port: port)
    #expect(try await answers.first.suffix(3) == ["ok", "version 1", "ok"])
    await second.shutdown()
  }

  /// Keys are made only where that is wanted.
  @Test func aKeyIsMadeWhereThatIsWanted() async throws {
    let (server, client) = try await acme([])
    let run = try await driver().run(
      try settings(server.pki, server.port, "init", "set create ON", "init", "latest 1", "latest 3", "deinit")
    )
    #expect(run.first.suffix(6) == ["failed", "ok", "ok", "version 1", "version 1", "ok"])
    #expect(run.log.filter { $0.contains("made key mariadb/") }.count == 2)
    #expect(run.log.contains { $0.contains("keyringctl key generate mariadb/1") })
    #expect(try await client.fetch(Self.key(3))?.count == 64)
    await client.close()
    await server.shutdown()
  }

  /// What is wrong is named, and nothing is left of the attempt.
  @Test(arguments: [
    ("servers =", "keyring_key_management_servers is not set"),
    ("servers localhost", "keyring_key_management_servers: "), ("certificate =", "certificate is not set"),
    ("certificate /none.crt", "/none.crt"), ("key /none.key", "/none.key"), ("ca /none.ca", "/none.ca"),
    ("key_prefix =", "keyring_key_management_key_prefix"),
    ("key_prefix \(String(repeating: "p", count: 201))", "keyring_key_management_key_prefix"),
  ]) func whatIsWrongIsNamed(_ setting: String, _ reason: String) async throws {
    let pki = try TestPKI()
    let run = try await driver(.address).run(
      try settings(pki, 1, "set \(setting)", "init", "deinit", "traces")
    )
    #expect(run.outcome.status == 0, "\(run.outcome.error)")
    #expect(run.first.suffix(3) == ["failed", "ok", "sockets 0 threads 1"])
    #expect(
      run.log.count == 1 && run.log.allSatisfy { $0.hasPrefix("error ") && $0.contains(reason) },
      "\(run.log)"
    )
  }

  // MARK: The shared object

  /// What mariadbd looks for and nothing else; and nothing in but what mariadbd has.
  @Test func itExportsWhatMariaDBLooksFor() async throws {
    let plugin = try await driver().library
    let symbols = try await TestProgram(path: "/usr/bin/nm").run(["-D", "--defined-only", plugin]).text
    #expect(
      symbols.split(separator: "\n").compactMap { $0.split(separator: " ").last }.sorted() == [
        "_maria_plugin_declarations_", "_maria_plugin_interface_version_", "_maria_sizeof_struct_st_plugin_",
        "my_print_error_service",
      ]
    )
    let dynamic = try await TestProgram(path: "/usr/bin/readelf").run(["-d", plugin]).text
    let needed = dynamic.matches(of: /NEEDED.*\[(.*)\]/).map { String($0.1) }
    #expect(Set(needed) == ["libssl.so.3", "libcrypto.so.3", "libc.so.6"])
    #expect(!dynamic.contains("TEXTREL"))
  }
}
