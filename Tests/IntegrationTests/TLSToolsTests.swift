import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// What tools that know nothing of this project say of a server's TLS.
@Suite struct TLSToolsTests {
  private static let openssl = TestProgram(path: "/usr/bin/openssl")

  private static func installSslyze() async throws -> TestProgram {
    let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    let outcome = try await TestProgram(path: tests.appending(path: "install-sslyze").path).run([])
    try #require(outcome.status == 0, "\(outcome.error)")
    return TestProgram(path: String(try #require(outcome.text.split(separator: "\n").last)))
  }

  @Test func sslyzeFindsItCompliantWithMozillasModernProfile() async throws {
    let sslyze = try await Self.installSslyze()
    let server = try await TestServer()
    let files = try server.pki.client(.serviceAdmin)
    let outcome = try await sslyze.run([
      "--mozilla_config=modern", "--cert", files.certificateFile, "--key", files.privateKeyFile,
      "--certinfo_ca_file", files.authorityFile, "localhost:\(server.port)",
    ])
    #expect(
      outcome.text.contains("localhost:\(server.port): OK - Compliant."),
      "\(outcome.text)\(outcome.error)"
    )
    #expect(outcome.status == 0)
    await server.shutdown()
  }

  /// Runs `openssl s_client` until the server ends the connection, which it does at the first frame: it says that it is compressed.
  private func visit(_ server: TestServer, _ arguments: [String]) async throws -> String {
    let outcome = try await Self.openssl.run(
      [
        "s_client", "-connect", "localhost:\(server.port)", "-CAfile", server.pki.directory("ca.crt"),
        "-verify_return_error", "-servername", "localhost", "-alpn", "keyring/1", "-ign_eof",
      ] + arguments,
      input: Data([1, 0, 0, 0, 0])
    )
    return outcome.text + outcome.error
  }

  private func certificate(_ server: TestServer) throws -> [String] {
    let files = try server.pki.client(.serviceAdmin)
    return ["-cert", files.certificateFile, "-key", files.privateKeyFile]
  }

  @Test func openSSLIsRefusedWithTheRightAlert() async throws {
    let server = try await TestServer()
    let withoutOne = try await visit(server, [])
    #expect(withoutOne.contains("SSL alert number 116"), "\(withoutOne)")  // certificate_required
    let certificate = try certificate(server)
    let older = try await visit(server, certificate + ["-tls1_2"])
    #expect(older.contains("SSL alert number 70"), "\(older)")  // protocol_version
    let other = try await visit(server, certificate + ["-alpn", "h2"])
    #expect(other.contains("SSL alert number 120"), "\(other)")  // no_application_protocol
    let group = try await visit(server, certificate + ["-groups", "X448"])
    #expect(group.contains("SSL alert number 40"), "\(group)")  // handshake_failure
    let good = try await visit(server, certificate)
    #expect(good.contains("ALPN protocol: keyring/1") && good.contains("Verify return code: 0 (ok)"))
    #expect(!good.contains("SSL alert"))
    await server.shutdown()
  }

  @Test func openSSLGetsNoSessionToResume() async throws {
    let server = try await TestServer()
    let folder = try TestDirectory()
    let certificate = try certificate(server)
    let first = try await visit(server, certificate + ["-sess_out", folder("session")])
    #expect(first.contains("New, TLSv1.3") && !first.contains("Post-Handshake New Session Ticket"))
    #expect(!FileManager.default.fileExists(atPath: folder("session")))

    // One from elsewhere, under the same certificate, is of no use.
    let elsewhere = try TestProgram(path: "/usr/bin/openssl").start(
      [
        "s_server", "-accept", "127.0.0.1:0", "-cert", server.pki.directory("server.crt"), "-key",
        server.pki.directory("server.key"), "-alpn", "keyring/1", "-naccept", "1", "-rev",
      ],
      environment: [:],
      output: folder("out"),
      error: folder("err")
    )
    var port: Substring?
    while port == nil, elsewhere.isRunning {
      let said = try String(contentsOfFile: folder("out"), encoding: .utf8)
      port = said.firstMatch(of: /ACCEPT 127\.0\.0\.1:(\d+)/)?.1
      try await Task.sleep(for: .milliseconds(20))
    }
    _ = try await Self.openssl.run(
      [
        "s_client", "-connect", "127.0.0.1:\(port ?? "")", "-alpn", "keyring/1", "-sess_out", folder("other"),
        "-ign_eof",
      ],
      input: Data("CLOSE\n".utf8)
    )
    elsewhere.signal(9)
    try #require(FileManager.default.fileExists(atPath: folder("other")))
    let second = try await visit(server, certificate + ["-sess_in", folder("other")])
    #expect(second.contains("New, TLSv1.3") && !second.contains("Reused, "), "\(second)")
    let thief = try await visit(server, ["-sess_in", folder("other")])
    #expect(thief.contains("SSL alert number 116"), "\(thief)")
    await server.shutdown()
  }
}
