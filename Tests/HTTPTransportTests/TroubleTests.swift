import Foundation
import HTTPTransport
import KeyringTestSupport
import Testing

/// Whatever a server does, there is one error of a known kind, in time, and it says nothing of what was sent.
@Suite(.timeLimit(.minutes(1))) struct TroubleTests {
  private let connections: HTTPConnections
  private let server: TestHTTPServer

  init() async throws {
    connections = try HTTPLoop().connections()
    server = try await TestHTTPServer()
  }

  private func trouble(
    _ path: String,
    _ method: HTTPRequest.Method = .get,
    _ change: (inout HTTPRequest) -> Void = { _ in }
  ) async -> HTTPError? {
    var request = server.request("\(path)?token=hidden", method)
    request.headers = [("X-Hidden", "hidden")]
    change(&request)
    return await failure(connections, request)
  }

  @Test(
    arguments: [
      ("/half", "unreachable", "partial file"),
      ("/half-chunk", "unreachable", "partial file"),
      ("/half-head", "unreachable", "ended within"), ("/bad-chunk", "unreachable", "chunked-encoding"),
      ("/garbage", "malformed", "Unsupported protocol"), ("/bad-length", "malformed", "Weird server reply"),
      ("/bad-status", "malformed", "Unsupported protocol"), ("/nothing", "unreachable", "returned nothing"),
    ]
  ) func aBrokenReplyIsAnError(_ path: String, _ kind: String, _ words: String) async {
    let error = await trouble(path)
    #expect(error?.kind == kind, "\(error as Any)")
    let text = error?.description ?? ""
    #expect(text.hasPrefix("127.0.0.1: ") && text.contains(words), "\(text)")
    for hidden in ["hidden", "half of", "secret-looking", "token"] { #expect(!text.contains(hidden)) }
  }

  @Test func aResponseThatIsTooLargeIsRefused() async throws {
    let tooLarge = "127.0.0.1: Maximum file size exceeded"
    // By its announced length, before a byte of it comes: this server never sends any.
    #expect(await trouble("/claimed/65537") == .malformed(tooLarge))
    #expect(await trouble("/claimed/99999999999999999999") == .malformed(tooLarge))
    let streamed = await trouble("/chunked/65537")
    #expect(streamed == .malformed("127.0.0.1: the response is larger than allowed"))
    #expect(await trouble("/unsized") { $0.responseBytesMax = 8 } == streamed)
    #expect(await trouble("/unsized") { $0.responseBytesMax = 9 } == nil)
    let head = await trouble("/large-head/40")
    #expect(head == .malformed("127.0.0.1: the response's headers are too large"))
    #expect(await trouble("/large-head/20") == nil)
  }

  @Test(arguments: ["/silence", "/drip", "/drip-body", "/claimed/10"])
  func theTotalTimeHolds(_ path: String) async {
    let error = await trouble(path) { $0.timeoutMilliseconds = 300 }
    #expect(error == .unreachable("127.0.0.1: no response within 300 ms"))
  }

  @Test func theTimeToConnectHoldsForTheHandshakeToo() async throws {
    let mute = try await TestHTTPServer("server.py", ["--mute"])
    var request = mute.request("/echo", isSecure: true)
    request.connectTimeoutMilliseconds = 300
    let error = await failure(connections, request)
    #expect(error?.kind == "unreachable" && error?.description.contains("imeout") == true, "\(error as Any)")
  }

  @Test func nobodyThereIsAnErrorAtOnce() async throws {
    let gone = try await TestHTTPServer()
    let request = gone.request("/echo")
    #expect(try await connections.send(request).status == 200)
    gone.process.signal(9)
    await gone.process.ended()
    let error = await failure(connections, request)
    #expect(
      error?.kind == "unreachable" && error?.description.contains("Failed to connect") == true,
      "\(error as Any)"
    )
  }

  @Test func aKeptConnectionThatTheServerClosedIsNoError() async throws {
    for round in 1...5 {
      var request = server.request("/echo-and-close", .post)
      request.body = try .init("body \(round)")
      let echo = try Echo(await connections.send(request))
      #expect(echo.body == Data("body \(round)".utf8).map { String(format: "%02x", $0) }.joined())
    }
  }

  /// The server reads the request whole, and closes: the body is sent once more, from its beginning.
  @Test func aRequestThatAKeptConnectionLostIsSentOnAnother() async throws {
    _ = try await connections.send(server.request("/echo"))
    var request = server.request("/fresh", .post)
    request.body = try .init((0..<50_000).map { UInt8(truncatingIfNeeded: $0) })
    request.responseBytesMax = 200_000
    let echo = try Echo(await connections.send(request))
    #expect(echo.requests == 3 && echo.body.count == 100_000)
    #expect(echo.body.hasPrefix("000102") && echo.body.hasSuffix("4d4e4f"))
  }

  @Test func aNameThatIsNotThereIsAnError() async throws {
    let error = await failure(connections, HTTPRequest(.get, "https://nowhere.invalid/?token=hidden"))
    #expect(error?.kind == "unreachable" && error?.description.hasPrefix("nowhere.invalid: ") == true)
    #expect(error?.description.contains("hidden") == false)
  }
}
