internal import Foundation

/// A folder of a test's own, mode 0700, removed when the test lets go of it.
public final class TestDirectory: Sendable {
  /// Where it is.
  public let path: String

  /// Makes it.
  public init() throws {
    var template = Array((NSTemporaryDirectory() + "/keyring-test-XXXXXX").utf8CString)
    // SAFETY: the template is a C string of this function's own.
    guard unsafe mkdtemp(&template) != nil else { throw CocoaError(.fileWriteUnknown) }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    do {
      try FileManager.default.removeItem(atPath: path)
    } catch {
      return  // a leftover folder fails no test
    }
  }

  /// The path of something in it.
  public func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }

  /// Writes a file of mode 0600.
  public func write(_ name: String, _ text: String) throws {
    try text.write(toFile: self(name), atomically: false, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: self(name))
  }
}
