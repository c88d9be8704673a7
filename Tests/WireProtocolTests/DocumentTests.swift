import Foundation
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing
import WireProtocol

/// docs/WIRE_PROTOCOL.md says what is so.
@Suite struct DocumentTests {
  private static func document() throws -> String {
    let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    return try String(contentsOf: top.appending(path: "docs/WIRE_PROTOCOL.md"), encoding: .utf8)
  }

  private func isShown(_ frame: [UInt8], in document: String) -> Bool {
    let bytes = frame.map { hexadecimal([$0]) }.joined(separator: " ")
    return document.contains("\n\(bytes)\n")
  }

  @Test func theExampleIsWhatTheEncodersWrite() throws {
    let document = try Self.document()
    let request = Request(id: 1, call: .fetch(.own("MyKey"), version: 0))
    #expect(isShown(request.frame, in: document))
    let value = [UInt8](0...15)
    var present = WipedBuffer()
    unsafe ReplyEncoder.appendFetch(
      id: 1,
      sequence: 7,
      type: "AES",
      version: 1,
      latestVersion: 1,
      valueBytes: 16,
      to: &present
    ) { room in unsafe room.copyBytes(from: value) }
    #expect(isShown(present.copied(), in: document))
    let absent = ReplyEncoder.bytes(id: 1, sequence: 7, .fetch(nil))
    #expect(isShown(Frame.prefix(count: absent.count) + absent, in: document))
    let status = Status(.tenantLocked, "locked", retryAfterMilliseconds: 30_000)
    let error = ReplyEncoder.bytes(id: 1, sequence: 0, status)
    #expect(isShown(Frame.prefix(count: error.count) + error, in: document))
  }

  @Test func everyReasonIsDescribedWithItsCode() throws {
    let document = try Self.document()
    for reason in Reason.allCases where reason != .unspecified {
      let code = "\(reason.code)" == "internalError" ? "INTERNAL" : upperSnake("\(reason.code)")
      let row = "\n| \(reason.name) | \(reason.rawValue) | \(code) | \(reason.code.rawValue) | "
      #expect(document.contains(row), "\(row)")
    }
  }

  private func upperSnake(_ text: String) -> String {
    text.reduce(into: "") { text, letter in
      if letter.isUppercase { text += "_" }
      text += letter.uppercased()
    }
  }
}
