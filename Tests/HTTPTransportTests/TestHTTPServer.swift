import Foundation
import KeyringTestSupport
import SecureMemory
import Synchronization

@testable import HTTPTransport

/// A server of Scripts/, as a process of its own that ends with this object.
final class TestHTTPServer: Sendable {
  let process: TestProcess
  let port: Int
  private let folder: TestDirectory

  struct NotReady: Error, CustomStringConvertible { let description: String }

  static let scripts = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Scripts").path

  /// Starts a script, and waits until it says its port.
  init(
    _ script: String = "server.py",
    _ arguments: [String] = [],
    python: String = "/usr/bin/python3",
    environment: [String: String] = [:]
  ) async throws {
    folder = try TestDirectory()
    process = try TestProgram(path: python).start(
      ["-u", "\(Self.scripts)/\(script)"] + arguments,
      environment: environment.merging(["PYTHONDONTWRITEBYTECODE": "1"]) { $1 },
      output: folder("out"),
      error: folder("err")
    )
    while true {
      let isRunning = process.isRunning  // before the output is read: what it said last is in it
      let text = try String(contentsOfFile: folder("out"), encoding: .utf8)
      if let line = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().first,
        let port = Int(line)
      {
        self.port = port
        return
      }
      guard isRunning else {
        throw NotReady(description: try String(contentsOfFile: folder("err"), encoding: .utf8))
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  deinit { process.signal(9) }

  /// A server with the certificate of `pki` for localhost and 127.0.0.1.
  static func secure(_ pki: TestPKI, _ name: String = "server", _ more: [String] = []) async throws
    -> TestHTTPServer
  {
    let certificate = pki.directory("\(name).crt")
    return try await TestHTTPServer(
      "server.py",
      ["--certificate", certificate, "--key", pki.directory("\(name).key")] + more
    )
  }

  /// What it said after its port, in lines.
  var said: [Substring] {
    get throws {
      try String(contentsOfFile: folder("out"), encoding: .utf8).split(separator: "\n").dropFirst().map { $0 }
    }
  }

  /// A request to this path of it, with time enough on any machine.
  func request(
    _ path: String,
    _ method: HTTPRequest.Method = .get,
    isSecure: Bool = false,
    host: String = "127.0.0.1"
  ) -> HTTPRequest {
    let url = "\(isSecure ? "https" : "http")://\(host):\(port)\(path)"
    var request = HTTPRequest(method, url, scheme: isSecure ? .secure : .plainToLoopback)
    request.timeoutMilliseconds = 50_000
    request.connectTimeoutMilliseconds = 50_000
    return request
  }
}

/// What /echo says of a request.
struct Echo: Decodable {
  let peer: Int
  let method: String
  let target: String
  let headers: [[String]]
  let body: String
  /// All so far, this one among them.
  let requests: Int
  /// Connections, this one among them.
  let open: Int

  init(_ response: HTTPResponse) throws { self = try JSONDecoder().decode(Echo.self, from: response.data) }

  /// Values of the headers of this name, in lower case.
  func values(_ name: String) -> [String] { headers.filter { $0[0].lowercased() == name }.map { $0[1] } }
}

extension HTTPResponse {
  var data: Data { body.map { body in unsafe body.withUnsafeBytes { unsafe Data($0) } } ?? Data() }
  var text: String { String(decoding: data, as: UTF8.self) }
}

extension Secret {
  convenience init(_ bytes: some Collection<UInt8>) throws {
    let bytes = Array(bytes)
    try unsafe self.init(count: bytes.count) { unsafe $0.copyBytes(from: bytes) }
  }

  convenience init(_ text: String) throws { try self.init(text.utf8) }
}

/// What `send` threw; nil where it answered.
func failure(_ connections: HTTPConnections, _ request: HTTPRequest) async -> HTTPError? {
  do throws(HTTPError) {
    _ = try await connections.send(request)
    return nil
  } catch {
    return error
  }
}

extension HTTPError {
  /// Its case, without the text.
  var kind: String {
    switch self {
    case .unreachable: "unreachable"
    case .local: "local"
    case .malformed: "malformed"
    case .configuration: "configuration"
    }
  }
}

/// A clock that moves when it is told to.
final class TestClock: Sendable {
  private let nanoseconds = Atomic<UInt64>(1_000_000_000_000)
  var now: MonotonicTime { MonotonicTime(nanoseconds: nanoseconds.load(ordering: .acquiring)) }

  func advance(milliseconds: UInt64) {
    nanoseconds.add(milliseconds * 1_000_000, ordering: .acquiringAndReleasing)
  }
}
