import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// libkeyring against a server that it trusts, and that answers anything.
@Suite struct HostileServerTests {
  private let folder: TestDirectory
  private let pki: TestPKI

  init() throws { (folder, pki) = (try TestDirectory(), try TestPKI()) }

  private func start(_ mode: String, _ certificate: String = "server", port wanted: Int? = nil) async throws
    -> (process: TestProcess, port: String)
  {
    let program = try await CProgram.built("hostile-server", folder)
    let process = try program.start(
      [pki.directory("\(certificate).crt"), pki.directory("\(certificate).key"), mode]
        + (wanted.map { ["\($0)"] } ?? []),
      environment: [:],
      output: folder("port"),
      error: folder("server.log")
    )
    var port = ""
    _ = try await eventually {
      port = try String(contentsOfFile: folder("port"), encoding: .utf8)
      return port.hasSuffix("\n") || !process.isRunning
    }
    #expect(process.isRunning, "the hostile server did not start: \(process.status)")
    return (process, port.trimmingCharacters(in: .newlines))
  }

  private func run(
    _ mode: String,
    _ arguments: [String],
    _ certificate: String = "server",
    host: String = "localhost",
    sanitizer: CClients.Sanitizer = .address
  ) async throws -> TestProgram.Outcome {
    let server = try await start(mode, certificate)
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let outcome = try await CProgram.built("hostile-client", folder, sanitizer).run(
      arguments,
      environment: CProgram.environment(files, "\(host):\(server.port)")
    )
    #expect(server.process.isRunning, "the hostile server ended by itself")
    server.process.signal(SIGKILL)
    await server.process.ended()
    return outcome
  }

  /// Whatever comes, a read says that it cannot tell and a change that its outcome is unknown, by the deadline.
  @Test(arguments: [
    ("garbage", "PROTOCOL"), ("wrong-id", "PROTOCOL"), ("wrong-result", "PROTOCOL"), ("nothing", "PROTOCOL"),
    ("status-and-result", "PROTOCOL"), ("empty", "PROTOCOL"), ("huge", "PROTOCOL"),
    ("just-too-long", "PROTOCOL"), ("flags", "PROTOCOL"), ("absent-of-connection", "PROTOCOL"),
    ("shutdown-of-connection", "UNREACHABLE"), ("half", "UNREACHABLE"), ("close", "UNREACHABLE"),
    ("goodbye", "UNREACHABLE"), ("silent", "UNREACHABLE"), ("dribble", "UNREACHABLE"),
    ("key-updates", "UNREACHABLE"), ("tickets", "UNREACHABLE"),
  ])
  func noAnswerIsNotAbsence(_ mode: String, _ status: String) async throws {
    let outcome = try await run(mode, ["each"])
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
    let reads = ["who", "fetch", "fetch_into", "describe", "list"].map { "\($0) \(status)\n" }
    let changes =
      ["store", "generate", "rotate", "remove"].map { "\($0) OUTCOME_UNKNOWN\n" } + ["list_of \(status)\n"]
    // One that shuts down is asked again until the deadline, and the last time may be too short for an answer.
    let told = outcome.text.replacing("SHUTTING_DOWN", with: "UNREACHABLE")
    #expect(told == (reads + changes).joined())
  }

  /// The certificate of a server that another CA knows.
  private func makeStranger() throws {
    let strangers = try TestPKI()
    for suffix in ["crt", "key"] {
      let text = try String(contentsOfFile: strangers.directory("server.\(suffix)"), encoding: .utf8)
      try pki.directory.write("strangers.\(suffix)", text)
    }
  }

  /// No call is sent, so no change is in doubt, where the server is not the one of the configuration: its certificate is of another CA, for
  /// another host, or an instance's own, which the same CA issued.
  @Test(arguments: ["strangers", "elsewhere", "instance"])
  func aServerOfAnotherName(_ certificate: String) async throws {
    try makeStranger()
    try pki.issue("elsewhere", .server(hosts: ["elsewhere.example"]))
    try pki.issue("instance", .client(uri: "spiffe://\(pki.trustDomain)/tenant/acme/instance/db2"))
    let outcome = try await run("right", ["each"], certificate)
    let lines = outcome.text.split(separator: "\n")
    #expect(lines.count == 10 && lines.allSatisfy { $0.hasSuffix(" REFUSED") }, "\(outcome.text)")
  }

  /// Nor where it is older than TLS 1.3, or speaks something else.
  @Test(arguments: ["tls-1.2", "no-protocol"]) func aServerOfAnotherProtocol(_ mode: String) async throws {
    let outcome = try await run(mode, ["each"])
    let lines = outcome.text.split(separator: "\n")
    #expect(lines.count == 10 && lines.allSatisfy { $0.hasSuffix(" PROTOCOL") }, "\(outcome.text)")
  }

  /// Before the handshake, too, nothing that a peer sends or does not send keeps a call past its deadline: here faster than it can be read.
  @Test(arguments: ["hello-requests", "mute"]) func noHandshakeForEver(_ mode: String) async throws {
    let outcome = try await run(mode, ["each"])
    let lines = outcome.text.split(separator: "\n")
    #expect(
      lines.count == 10 && lines.allSatisfy { $0.hasSuffix(" UNREACHABLE") },
      "\(outcome.text) \(outcome.error)"
    )
  }

  /// Nor on a connection that waits in the pool.
  @Test func noMessagesForEverBetweenTwoCalls() async throws {
    let outcome = try await run("updates-after", ["twice"])
    #expect(outcome.text == "OK\nUNREACHABLE nothing\n", "\(outcome.error)")
  }

  /// What is known of another key, a list of others' keys, or a rotation to a version that was there before, is no answer.
  @Test(arguments: [
    ("right", []), ("slowly", []), ("other-key", ["describe PROTOCOL", "rotate OUTCOME_UNKNOWN"]),
    ("other-scope", ["describe PROTOCOL", "list PROTOCOL", "list_of PROTOCOL"]),
    ("other-owner", ["describe PROTOCOL", "list_of PROTOCOL"]),
  ])
  func whatWasAskedForIsTheAnswer(_ mode: String, _ refused: [String]) async throws {
    let outcome = try await run(mode, ["each"])
    // Of the answers that this server has whole.
    let told = outcome.text.split(separator: "\n").map(String.init)
    for call in ["fetch", "describe", "list", "rotate", "list_of"] {
      let expected = refused.first { $0.hasPrefix("\(call) ") } ?? "\(call) OK"
      #expect(told.contains(expected), "\(outcome.text) \(outcome.error)")
    }
  }

  /// An IPv6 address with a zone: the certificate is for the address alone.
  @Test func anAddressWithAZone() async throws {
    try pki.issue("six", .server(hosts: ["::1"]))
    let right = try await run("right-6", ["each"], "six", host: "[::1%1]")
    #expect(right.text.contains("fetch OK\n"), "\(right.text) \(right.error)")
    let wrong = try await run("right-6", ["each"], host: "[::1%1]")
    #expect(wrong.text.contains("fetch REFUSED\n"), "\(wrong.text) \(wrong.error)")
    let none = try await run("right", ["each"], host: "[::1%]")
    #expect(none.status == 1 && none.error.contains("is not host:port or [address]:port"), "\(none.error)")
  }

  /// A server that falls silent is an outage; also for a call that waits all its time for a connection that another one has.
  @Test func silenceIsAnOutage() async throws {
    let outcome = try await run("then-silent", ["busy"])
    #expect(outcome.text == "OK\nOK stale\nOK stale\n", "\(outcome.error)")
  }

  /// A server that answers anything is none: what it says is told, and the cache is no way around it.
  @Test(arguments: [
    ("then-locked", "TENANT_LOCKED"), ("then-internal", "INTERNAL_ERROR"), ("then-garbage", "PROTOCOL"),
  ])
  func anAnswerIsNoOutage(_ mode: String, _ status: String) async throws {
    let outcome = try await run(mode, ["busy"])
    #expect(outcome.text == "OK\n\(status) nothing\n\(status) nothing\n", "\(outcome.error)")
  }

  /// An answer from before the cache was wiped does not get into it after.
  @Test func whatWasForgottenStaysForgotten() async throws {
    let outcome = try await run("late-then-locked", ["forgotten"])
    #expect(outcome.text == "OK\nTENANT_LOCKED nothing\n", "\(outcome.error)")
  }

  /// A reply that unpacks to a hundred times its size takes no more locked memory than the largest good one.
  @Test func aReplyTakesNoMoreThanItMay() async throws {
    let server = try await start("bomb")
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let outcome = try await CProgram.built("life", folder).run(
      ["small"],
      environment: CProgram.environment(files, "localhost:\(server.port)")
    )
    server.process.signal(SIGKILL)
    await server.process.ended()
    #expect(outcome.text == "PROTOCOL\n", "\(outcome.error)")
  }

  /// A stranger in the server's place does not empty the cache; the server that refuses our certificate does.
  @Test(arguments: [true, false]) func aStrangerDoesNotEmptyTheCache(_ isStranger: Bool) async throws {
    try makeStranger()
    let good = try await TestServer(pki: pki)
    try await good.makeTenant("acme")
    let writer = try good.instance("acme", "db1")
    _ = try await writer.call(.generate(.own("k")))
    await writer.close()
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let program = try await PolledProgram(folder, files, good.port)
    #expect(try await program.ask("x") == "OK")
    await good.shutdown()
    let mode = isStranger ? "right" : "no-client"
    let bad = try await start(mode, isStranger ? "strangers" : "server", port: good.port)
    #expect(try await program.ask("d") == "REFUSED absent")
    bad.process.signal(SIGKILL)
    await bad.process.ended()
    #expect(try await program.ask("x") == (isStranger ? "OK stale" : "UNREACHABLE absent"))
    try await program.end()
  }

  /// A server that has said no, and is gone when it is asked again as it wished, was there all the same: the cache bridges nothing.
  @Test func aRefusalBeforeTheEndIsBelieved() async throws {
    let server = try await start("kms-away-then-gone")
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let program = try await PolledProgram(folder, files, try #require(Int(server.port)))
    #expect(try await program.ask("x") == "OK")
    #expect(try await program.ask("x") == "UNREACHABLE absent")
    try await program.end()
    server.process.signal(SIGKILL)
    await server.process.ended()
  }

  /// What another call has fetched while one had no answer is not stale.
  @Test func whatWasRefreshedIsNotStale() async throws {
    let outcome = try await run("second-silent", ["refreshed"])
    #expect(outcome.text == "OK\nOK\nOK\n", "\(outcome.error)")
  }

  /// A status is told as it is, its text without what a terminal would obey, and cut between two characters.
  @Test func aStatusIsTold() async throws {
    let outcome = try await run("locked", ["each"])
    let lines = outcome.text.split(separator: "\n")
    #expect(lines.count == 10 && lines.allSatisfy { $0.hasSuffix(" TENANT_LOCKED") }, "\(outcome.text)")
  }

  /// A list's first server is silent, or nobody is there: the second one answers, in the time of one call.
  @Test(arguments: ["silent", "garbage", "nobody"]) func theOtherServerAnswers(_ mode: String) async throws {
    let good = try await TestServer(pki: pki)
    try await good.makeTenant("acme")
    let bad = try await start(mode)
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    if mode == "nobody" { bad.process.signal(SIGKILL) }
    try folder.write("orders", "x\nx\nx\nq\n")
    let outcome = try await CProgram.built("life", folder, .address).run(
      ["poll", folder("orders")],
      environment: CProgram.environment(files, "localhost:\(bad.port),localhost:\(good.port)")
    )
    bad.process.signal(SIGKILL)
    await bad.process.ended()
    await good.shutdown()
    // One that speaks nonsense is not asked twice in a call, since it may have done what it was told; but the next call asks the other.
    let first = mode == "garbage" ? "PROTOCOL absent\n" : "OK absent\n"
    #expect(outcome.text == first + "OK absent\nOK absent\n", "\(outcome.error)")
  }

  /// 3,000 replies of which a few bits or bytes are others, the same ones each time.
  @Test(arguments: [.address, .undefined] as [CClients.Sanitizer])
  func mutatedReplies(_ sanitizer: CClients.Sanitizer) async throws {
    let outcome = try await run("mutate", ["many", "3000"], sanitizer: sanitizer)
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
    let good = Int(outcome.text.trimmingCharacters(in: .newlines)) ?? -1
    #expect(good > 0 && good < 2_900, "they are to be of both kinds: \(good)")
  }
}
