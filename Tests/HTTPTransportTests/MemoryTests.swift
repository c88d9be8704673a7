import Foundation
import HTTPTransport
import KeyringTestSupport
import SecureMemory
import Testing

/// What was secret in a request or its response is nowhere once its owners let go, though the connection is still open.
@Suite(.timeLimit(.minutes(2))) struct MemoryTests {
  @Test func nothingSecretIsLeftOfARequest() async {
    await #expect(processExitsWith: .success) {
      guard SecureHeap.installWipingAllocator(), SecureHeap.initialize(bytes: 1 << 20) == .locked else {
        finish(["no locked memory"])
      }
      let pki = try TestPKI()
      let secure = try await TestHTTPServer.secure(pki)
      let plain = try await TestHTTPServer()
      var options = HTTPConnections.Options()
      options.caFile = pki.directory("ca.crt")
      let connections = try HTTPLoop().connections(options)
      var failures: [String] = []
      for (server, isSecure) in [(secure, true), (plain, false)] {
        // What is done for the first time leaves its own traces, of the dynamic linker among others: here, of something else.
        _ = try await connections.send(server.request("/echo", .post, isSecure: isSecure))
        for path in ["/marked/100", "/marked-chunks/100"] {
          failures += try await exchange(connections, server.request(path, .post, isSecure: isSecure))
          // Once this one is answered the loop has let go of what was before it.
          _ = try await connections.send(server.request("/echo", .post, isSecure: isSecure))
          for (what, mark) in Mark.all {
            let count = MemoryScan.count(mark)
            if count != 0 { failures.append("\(path), TLS \(isSecure): \(count) copies of the \(what)") }
          }
        }
      }
      finish(failures)
    }
  }
}

private enum Mark {
  static func response(_ index: Int) -> UInt8 { marked(index) }
  static func body(_ index: Int) -> UInt8 { marked(index + 32) }
  /// Of a header: printable.
  static func header(_ index: Int) -> UInt8 { 0x21 + marked(index + 64) % 94 }
  static func token(_ index: Int) -> UInt8 { 0x21 + marked(index + 96) % 94 }
  static func key(_ index: Int) -> UInt8 { 0x21 + marked(index + 128) % 94 }

  static let all: [(String, @Sendable (Int) -> UInt8)] = [
    ("response", response), ("body", body), ("header", header), ("session token", token),
    ("secret access key", key),
  ]

  static func secret(_ mark: (Int) -> UInt8, times: Int) throws -> Secret {
    try unsafe Secret(count: 32 * times) { room in
      for index in 0..<room.count { unsafe room[index] = mark(index % 32) }
    }
  }
}

/// Sends a request with secrets in every place, and checks the response, which is as secret.
private func exchange(_ connections: HTTPConnections, _ plain: HTTPRequest) async throws -> [String] {
  var failures: [String] = []
  var request = plain
  request.body = try Mark.secret(Mark.body, times: 100)
  request.secretHeaders = [("X-Secret", try Mark.secret(Mark.header, times: 64))]
  request.signing = RequestSigning(
    region: "eu-central-1",
    service: "kms",
    accessKeyID: "AKID",
    secretAccessKey: try Mark.secret(Mark.key, times: 1),
    sessionToken: try Mark.secret(Mark.token, times: 32)
  )
  let response = try await connections.send(request)
  let expected = try Mark.secret(Mark.response, times: 100)
  if response.body?.isEqual(to: expected) != true { failures.append("not the response") }
  for (what, mark) in Mark.all where MemoryScan.count(mark) == 0 {
    failures.append("the scan does not find the \(what), which is there")
  }
  return failures
}
