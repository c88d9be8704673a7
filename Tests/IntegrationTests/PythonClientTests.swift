import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// docs/WIRE_PROTOCOL.md suffices to write a client: the one in Tests/PythonClient shares no code with ours.
@Suite struct PythonClientTests {
  private static let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  private func run(_ path: String, _ arguments: [String]) async throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = Self.top.appending(path: path)
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    let status = try await withCheckedThrowingContinuation { continuation in
      process.terminationHandler = { continuation.resume(returning: $0.terminationStatus) }
      do {
        try process.run()
      } catch {
        continuation.resume(throwing: error)
      }
    }
    // What it prints fits the pipe, so that reading may wait for its end.
    let data = try output.fileHandleForReading.readToEnd() ?? Data()
    return (status, String(decoding: data, as: UTF8.self))
  }

  @Test func everyCallOfAnInstance() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let (status, output) = try await run(
      "Tests/PythonClient/run",
      [
        "localhost", "\(server.port)", files.certificateFile, files.privateKeyFile, files.authorityFile,
      ]
    )
    #expect(status == 0)
    #expect(
      output.split(separator: "\n") == [
        "WhoAmI tenant=acme instance=db1",
        "Fetch answer=absent",
        "Store version=1",
        "Fetch answer=present type=SECRET bytes=14",
        "Fetch answer=error code=FAILED_PRECONDITION reason=STALE",
        "Store code=ALREADY_EXISTS reason=KEY_EXISTS",
        "Generate version=1",
        "Rotate version=2",
        "Describe type=AES length=32 version=1 latest=2",
        "Describe answer=absent",
        "Generate repeated=same-answer",
        "Remove code=INVALID_ARGUMENT reason=IDEMPOTENCY_MISMATCH",
        "Remove answer=removed",
        "Remove code=NOT_FOUND reason=KEY_ABSENT",
        "Transact versions=[1, 2, 1, 0]",
        "Transact code=NOT_FOUND reason=KEY_ABSENT",
        "Transact changes=40",
        "List keys=42 pages=5",
        "List owner=u@h keys=['a', 'b']",
        "List code=FAILED_PRECONDITION reason=LIST_EXPIRED",
        "Pipelined replies=240",
        "TenantList code=PERMISSION_DENIED reason=FORBIDDEN",
        "Nothing code=INVALID_ARGUMENT reason=REQUEST_MALFORMED",
        "Fetch code=INVALID_ARGUMENT reason=NAME_INVALID",
        "Handshake with_all=answered",
        "Handshake without_alpn=refused",
        "Handshake other_alpn=refused",
        "Handshake without_certificate=refused",
        "Handshake older_tls=refused",
      ]
    )
    await server.shutdown()
  }

  @Test func theDocumentShowsTheClientAsItIs() throws {
    let document = try String(contentsOf: Self.top.appending(path: "docs/WIRE_PROTOCOL.md"), encoding: .utf8)
    let client = try String(
      contentsOf: Self.top.appending(path: "Tests/PythonClient/client.py"),
      encoding: .utf8
    )
    #expect(document.contains("```python\n\(client)```"))
  }
}
