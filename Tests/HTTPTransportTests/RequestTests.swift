import Foundation
import HTTPTransport
import KeyringTestSupport
import SecureMemory
import Testing

/// What is sent, and what comes back.
@Suite struct RequestTests {
  private let loop: HTTPLoop
  private let connections: HTTPConnections
  private let server: TestHTTPServer

  init() async throws {
    loop = try HTTPLoop()
    connections = loop.connections()
    server = try await TestHTTPServer()
  }

  @Test func aRequestArrivesAsItIs() async throws {
    var request = server.request("/echo?a=b&c", .post)
    request.headers = [
      ("Content-Type", "application/x-amz-json-1.1"), ("X-Amz-Target", "TrentService.Encrypt"),
    ]
    request.secretHeaders = [("X-Token", try Secret("sesame:+/=\\\"'"))]
    let bytes = (0...255).map { UInt8($0) } + Array("\r\n\0".utf8)
    request.body = try Secret(bytes)
    let response = try await connections.send(request)
    let echo = try Echo(response)
    #expect(response.status == 200)
    #expect(echo.method == "POST" && echo.target == "/echo?a=b&c")
    #expect(echo.body == bytes.map { String(format: "%02x", $0) }.joined())
    let sent = echo.headers.map { "\($0[0]): \($0[1])" }.sorted()
    #expect(
      sent == [
        "Accept: */*", "Content-Length: 259", "Content-Type: application/x-amz-json-1.1",
        "Host: 127.0.0.1:\(server.port)", "User-Agent: keyring", "X-Amz-Target: TrentService.Encrypt",
        "X-Token: sesame:+/=\\\"'",
      ]
    )
  }

  /// IMDSv2 asks for a token with PUT and no body.
  @Test(arguments: [HTTPRequest.Method.post, .put, .get]) func aRequestMayHaveNoBody(
    _ method: HTTPRequest.Method
  ) async throws {
    let echo = try Echo(await connections.send(server.request("/echo", method)))
    #expect(echo.method == method.rawValue && echo.body.isEmpty)
    #expect(echo.values("content-length") == (method == .get ? [] : ["0"]))
    #expect(echo.values("content-type").isEmpty, "libcurl's own type was not asked for")
  }

  @Test func aLargeBodyIsSentAtOnceAndAlsoByPut() async throws {
    for method in [HTTPRequest.Method.post, .put] {
      var request = server.request("/echo", method)
      request.responseBytesMax = 4 << 20
      request.body = try Secret((0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7) })
      let echo = try Echo(await connections.send(request))
      #expect(echo.method == method.rawValue && echo.body.count == 2 << 20)
      #expect(echo.values("expect").isEmpty)
    }
  }

  @Test func statusesAreAnswersAndRedirectsAreNotFollowed() async throws {
    for status in [200, 400, 401, 403, 404, 407, 429, 500, 503] {
      #expect(try await connections.send(server.request("/status/\(status)")).status == status)
    }
    let redirect = try await connections.send(server.request("/redirect"))
    #expect(redirect.status == 302 && redirect.text == "there")
    let echo = try Echo(await connections.send(server.request("/echo")))
    #expect(echo.requests == 11, "none of them made another request")
  }

  @Test func onlyTheHeadersThatCallersNeedAreKept() async throws {
    let kept = [
      "X-Amzn-RequestId", "x-amzn-errortype", "Retry-After", "x-amz-retry-after", "Date", "Content-Type",
    ]
    let response = try await connections.send(server.request("/headers/\(kept.joined(separator: "/"))"))
    var expected = Dictionary(uniqueKeysWithValues: kept.map { ($0.lowercased(), "value of \($0)") })
    expected["content-length"] = "0"
    #expect(response.headers == expected)
    #expect(response.body == nil)
    let twice = try await connections.send(server.request("/twice"))
    #expect(twice.headers["x-amzn-requestid"] == "two")
    let control = try await connections.send(server.request("/control"))
    #expect(control.headers == ["content-length": "0"], "what a log cannot print is not kept")
    let interim = try await connections.send(server.request("/interim"))
    #expect(interim.text == "late" && interim.headers == ["content-length": "4"])
  }

  @Test func aResponseEndsWithItsChunksOrItsConnection() async throws {
    #expect(try await connections.send(server.request("/chunked/65536")).data.count == 65_536)
    #expect(try await connections.send(server.request("/sized/65536")).data.count == 65_536)
    #expect(try await connections.send(server.request("/unsized")).text == "all of it")
  }

  // MARK: Requests that are not made

  @Test func headersThatWouldBeOthersAreRefused() async throws {
    let bad: [(String, String)] = [
      ("X-A", "b\r\nX-C: d"), ("X-A", "b\nc"), ("X-A", "b\0c"), ("X-A\r\nX-B", "c"), ("X A", "b"), ("", "b"),
      ("X-A:", "b"), ("X-A", ""), ("X-A", " b"), ("X-A", "caf\u{e9}"), ("Host", "other"),
      ("content-length", "1"),
      ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("Proxy-Authorization", "x"),
      ("X-Amz-Date", "1"),
    ]
    for (name, value) in bad {
      var request = server.request("/echo")
      request.headers = [(name, value)]
      let error = await failure(connections, request)
      #expect(error?.kind == "configuration", "\(name): \(value)")
      guard value.count > 3 else { continue }
      request.headers = []
      request.secretHeaders = [(name, try Secret(value))]
      let other = await failure(connections, request)
      #expect(other?.kind == "configuration" && other?.description.contains(value) == false, "\(name)")
    }
    var twice = server.request("/echo")
    twice.headers = [("X-A", "b"), ("x-a", "c")]
    #expect(await failure(connections, twice)?.kind == "configuration")
    let echo = try Echo(await connections.send(server.request("/echo")))
    #expect(echo.requests == 1, "none of them was sent")
  }

  @Test func limitsThatMakeNoSenseAreRefused() async throws {
    var requests = Array(repeating: server.request("/echo", .post), count: 5)
    requests[0].timeoutMilliseconds = 0
    requests[1].connectTimeoutMilliseconds = -1
    requests[2].responseBytesMax = 0
    requests[3].body = try Secret([UInt8](repeating: 0, count: (1 << 20) + 1))
    requests[4].method = .get
    requests[4].body = try Secret("x")
    for request in requests { #expect(await failure(connections, request)?.kind == "configuration") }
  }
}
