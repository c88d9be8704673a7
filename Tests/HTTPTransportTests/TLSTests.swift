import Cryptography
import Foundation
import KeyringTestSupport
import Testing

@testable import HTTPTransport

/// Whom requests are sent to.
@Suite struct TLSTests {
  private let clock = TestClock()
  private let loop: HTTPLoop
  private let pki: TestPKI

  init() throws {
    loop = try HTTPLoop(lookUp: NameResolver.system) { [clock] in clock.now }
    pki = try TestPKI()
  }

  private func connections(_ caFile: String?) -> HTTPConnections {
    var options = HTTPConnections.Options()
    options.caFile = caFile
    return loop.connections(options)
  }

  @Test func aServerIsBelievedForItsNameUnderItsCA() async throws {
    let server = try await TestHTTPServer.secure(pki)
    let good = connections(pki.directory("ca.crt"))
    for host in ["localhost", "127.0.0.1"] {
      let echo = try Echo(await good.send(server.request("/echo", isSecure: true, host: host)))
      #expect(echo.values("host") == ["\(host):\(server.port)"])
    }
    let request = server.request("/echo", isSecure: true)
    let stranger = try TestPKI()
    for file in [stranger.directory("ca.crt"), nil] {
      let error = await failure(connections(file), request)
      #expect(error?.kind == "unreachable", "under another CA: \(file ?? "the system's")")
      #expect(error?.description.hasPrefix("127.0.0.1: SSL certificate problem") == true, "\(error as Any)")
    }
    #expect(try Echo(await good.send(request)).requests == 3, "the others never got so far")
  }

  @Test func aCertificateOfAnotherNameIsRefused() async throws {
    try pki.issue("other", .server(hosts: ["kms.example", "10.0.0.1"]))
    let server = try await TestHTTPServer.secure(pki, "other")
    let good = connections(pki.directory("ca.crt"))
    for host in ["localhost", "127.0.0.1"] {
      let error = await failure(good, server.request("/echo", isSecure: true, host: host))
      #expect(
        error?.kind == "unreachable" && error?.description.contains("matches target host name") == true,
        "\(error as Any)"
      )
    }
  }

  @Test func anExpiredCertificateIsRefused() async throws {
    let made = try await TestProgram(path: "\(TestHTTPServer.scripts)/make-expired").run([pki.directory.path])
    try #require(made.status == 0, "\(made.error)")
    let server = try await TestHTTPServer.secure(pki, "expired")
    let error = await failure(
      connections(pki.directory("expired.crt")),
      server.request("/echo", isSecure: true)
    )
    #expect(error?.kind == "unreachable" && error?.description.contains("expired") == true, "\(error as Any)")
  }

  @Test func theCAFileIsReadWhenItChanges() async throws {
    let server = try await TestHTTPServer.secure(pki)
    let file = pki.directory("chosen.crt")
    let request = server.request("/echo", isSecure: true)
    let first = await failure(connections(file), request)
    #expect(first == .configuration("the CA file \(file) cannot be read"))
    try pki.directory.write("chosen.crt", "no certificate")
    let second = await failure(connections(file), request)
    #expect(second?.kind == "configuration" && second?.description.contains(file) == true)
    try FileManager.default.removeItem(atPath: file)
    try FileManager.default.copyItem(atPath: pki.directory("ca.crt"), toPath: file)
    #expect(try await connections(file).send(request).status == 200)
    let stranger = try TestPKI()
    try FileManager.default.removeItem(atPath: file)
    try FileManager.default.copyItem(atPath: stranger.directory("ca.crt"), toPath: file)
    #expect(try await connections(file).send(request).status == 200, "it is looked at once a second")
    clock.advance(milliseconds: 1000)
    #expect(await failure(connections(file), request)?.kind == "unreachable")
  }

  @Test func aCAFileThatCannotBeReadLeavesTheLastOneInForce() async throws {
    let server = try await TestHTTPServer.secure(pki)
    let file = pki.directory("chosen.crt")
    let request = server.request("/echo", isSecure: true)
    try FileManager.default.copyItem(atPath: pki.directory("ca.crt"), toPath: file)
    #expect(try await connections(file).send(request).status == 200)
    try pki.directory.write("chosen.crt", "half writ")
    clock.advance(milliseconds: 1000)
    #expect(try await connections(file).send(request).status == 200)
    try FileManager.default.removeItem(atPath: file)
    clock.advance(milliseconds: 1000)
    #expect(try await connections(file).send(request).status == 200)
    let stranger = try TestPKI()
    try FileManager.default.copyItem(atPath: stranger.directory("ca.crt"), toPath: file)
    clock.advance(milliseconds: 1000)
    #expect(await failure(connections(file), request)?.kind == "unreachable")
  }

  /// TLS begins once the proxy has answered; by then the file, and with it what was read of it, is another one.
  @Test func aTransferKeepsTheCAItBeganWith() async throws {
    let server = try await TestHTTPServer.secure(pki)
    let gate = pki.directory("gate")
    let proxy = try await TestHTTPServer("proxy.py", [gate])
    let file = pki.directory("chosen.crt")
    try FileManager.default.copyItem(atPath: pki.directory("ca.crt"), toPath: file)
    var options = HTTPConnections.Options()
    options.caFile = file
    options.proxy = "http://127.0.0.1:\(proxy.port)"
    let connections = loop.connections(options)
    let request = server.request("/echo", isSecure: true)
    let early = Task { try await connections.send(request).status }
    while try proxy.said.isEmpty { try await Task.sleep(for: .milliseconds(10)) }
    let stranger = try TestPKI()
    try FileManager.default.removeItem(atPath: file)
    try FileManager.default.copyItem(atPath: stranger.directory("ca.crt"), toPath: file)
    clock.advance(milliseconds: 1000)
    for _ in 0..<8 {
      #expect(await failure(self.connections(file), request)?.kind == "unreachable")
    }
    try pki.directory.write("gate", "open")
    #expect(try await early.value == 200)
  }

  @Test func whatSpeaksNoTLSIsRefused() async throws {
    let plain = try await TestHTTPServer()
    let error = await failure(connections(nil), plain.request("/echo", isSecure: true))
    #expect(error?.kind == "unreachable")
  }

  @Test func httpsGoesThroughTheProxyThatIsConfiguredWhichSeesNothing() async throws {
    let server = try await TestHTTPServer.secure(pki)
    let plain = try await TestHTTPServer()
    let proxy = try await TestHTTPServer("proxy.py")
    var options = HTTPConnections.Options()
    options.caFile = pki.directory("ca.crt")
    options.proxy = "http://127.0.0.1:\(proxy.port)"
    let connections = loop.connections(options)
    var request = server.request("/echo", .post, isSecure: true, host: "localhost")
    request.headers = [("X-Amz-Target", "TrentService.Encrypt")]
    request.secretHeaders = [("Authorization", try .init("sesame"))]
    let response = try await connections.send(request)
    #expect(try Echo(response).values("authorization") == ["sesame"])
    #expect(response.headers["x-amzn-requestid"] == nil, "the proxy's own headers are none of the response")
    #expect(try await connections.send(plain.request("/echo")).status == 200)
    let said = try proxy.said
    #expect(said.count == 1, "plain HTTP takes no proxy")
    #expect(said[0].contains("\"CONNECT localhost:\(server.port)\""))
    #expect(!said[0].contains("sesame") && !said[0].contains("Trent"))
    for bad in [
      "https://127.0.0.1:\(proxy.port)", "127.0.0.1:1", "http://user@127.0.0.1:1", "socks5://127.0.0.1:1",
    ] {
      options.proxy = bad
      #expect(await failure(loop.connections(options), request)?.kind == "configuration", "\(bad)")
    }
  }
}
