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

  private func start(_ mode: String) async throws -> (process: TestProcess, port: String) {
    let program = try await CProgram.built("hostile-server", folder)
    let process = try program.start(
      [pki.directory("server.crt"), pki.directory("server.key"), mode],
      environment: [:],
      output: folder("port"),
      error: folder("server.log")
    )
    var port = ""
    _ = try await eventually {
      port = try String(contentsOfFile: folder("port"), encoding: .utf8)
      return port.hasSuffix("\n") || !process.isRunning
    }
    return (process, port.trimmingCharacters(in: .newlines))
  }

  private func run(_ mode: String, _ arguments: [String]) async throws -> TestProgram.Outcome {
    let server = try await start(mode)
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let outcome = try await CProgram.built("hostile-client", folder, .address).run(
      arguments,
      environment: CProgram.environment(files, "localhost:\(server.port)")
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
    ("shutdown-of-connection", "SHUTTING_DOWN"), ("half", "UNREACHABLE"), ("close", "UNREACHABLE"),
    ("silent", "UNREACHABLE"), ("dribble", "UNREACHABLE"), ("key-updates", "UNREACHABLE"),
  ])
  func noAnswerIsNotAbsence(_ mode: String, _ status: String) async throws {
    let outcome = try await run(mode, ["each"])
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
    let reads = ["who", "fetch", "fetch_into", "describe", "list"].map { "\($0) \(status)\n" }
    let changes = ["store", "generate", "rotate", "remove"].map { "\($0) OUTCOME_UNKNOWN\n" }
    #expect(outcome.text == (reads + changes).joined())
  }

  /// A status is told as it is, its text without what a terminal would obey.
  @Test func aStatusIsTold() async throws {
    let outcome = try await run("locked", ["each"])
    let lines = outcome.text.split(separator: "\n")
    #expect(lines.count == 9 && lines.allSatisfy { $0.hasSuffix(" TENANT_LOCKED") }, "\(outcome.text)")
  }

  /// 3,000 replies of which a few bits or bytes are others, the same ones each time, under ASan.
  @Test func mutatedReplies() async throws {
    let outcome = try await run("mutate", ["many", "3000"])
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
    let good = Int(outcome.text.trimmingCharacters(in: .newlines)) ?? -1
    #expect(good > 0 && good < 2_900, "they are to be of both kinds: \(good)")
  }
}
