internal import Cryptography
internal import KeyringCore

/// Where a chain of lines ends: the serial of its last line, and that line's SHA-256.
struct ChainEnd: Equatable, Sendable {
  var serial: UInt64
  var hash: Digest

  /// Before the first line.
  static let none = ChainEnd(serial: 0, hash: .zero)
}

/// What every line begins with, in this order: `type`, `log`, `serial`, `time`, `prev`.
struct LineHeader: Equatable, Sendable {
  /// What a line is.
  enum Kind: String, CaseIterable, Sendable {
    /// The first line of a log.
    case begin
    /// The first line of a file that goes on with the chain of the one before.
    case continued
    /// The server found the log otherwise than it left it.
    case recovered
    /// A signature over all lines before.
    case checkpoint
    /// Lines that could not be written.
    case gap
    /// A call.
    case call
    /// Something that happened to the service.
    case event
  }

  var kind: Kind
  var log: String
  var serial: UInt64
  /// RFC 3339, 24 bytes.
  var time: String
  /// SHA-256 of the line before.
  var previous: Digest
}

/// A line, taken apart as far as the chain needs it.
struct ParsedLine: Equatable, Sendable {
  /// What follows `prev`, by kind.
  enum Content: Equatable, Sendable {
    case begin(file: UInt64, key: String)
    case continued(file: UInt64, key: String)
    case recovered(Recovery)
    case checkpoint(key: String, signature: [UInt8])
    case gap(missing: UInt64)
    case other
  }

  let header: LineHeader
  let content: Content

  /// The number of the file that this line is the first of; nil for a line that may stand anywhere.
  var startsFile: UInt64? {
    switch content {
    case .begin(let file, _), .continued(let file, _): file
    case .recovered(let recovery): recovery.file
    case .checkpoint, .gap, .other: nil
    }
  }
}

/// What a `recovered` line says.
struct Recovery: Equatable, Sendable {
  /// What the server found.
  enum Why: String, CaseIterable, Sendable {
    /// The last line was not whole, as a crash leaves it: it was cut off.
    case torn
    /// The log ended before what its head says.
    case behind
    /// The log was not there, and its head was.
    case missing
    /// A line in it was not the one that follows, or another one than its head says.
    case broken
  }

  var file: UInt64
  var key: String
  var why: Why
  /// Bytes that were cut off.
  var cutBytes: UInt64 = 0
  /// The first of them.
  var cut: [UInt8] = []

  /// Bytes that were cut off and are kept in the line.
  static let cutBytesMax = 2048
}

/// Lines as bytes, without the newline.
enum AuditLine {
  /// The longest line that is read, in bytes.
  static let bytesMax = 1 << 20
  /// The highest number that is read, of lines and files among others: no log comes to it, and there is room behind it to count on.
  static let numberMax: UInt64 = 1 << 62
  /// Lines between two checkpoints, at most.
  static let checkpointLinesMax: UInt64 = 1024

  static func hash(_ line: [UInt8]) throws(CryptographyError) -> Digest { try hash(line[...]) }

  static func hash(_ line: ArraySlice<UInt8>) throws(CryptographyError) -> Digest {
    let hash = try SHA256()
    // SAFETY: the slice lives for the call.
    try unsafe line.span.withUnsafeBytes { bytes throws(CryptographyError) in try unsafe hash.update(bytes) }
    guard let digest = Digest(bytes: try hash.finish().bytes) else {
      preconditionFailure("a SHA-256 has 32 bytes")
    }
    return digest
  }

  static func start(_ header: LineHeader) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(640)
    bytes += "{\"type\":\"".utf8
    bytes += header.kind.rawValue.utf8
    bytes += "\",\"log\":\"".utf8
    bytes += header.log.utf8
    bytes += "\",\"serial\":".utf8
    AuditText.append(header.serial, to: &bytes)
    bytes += ",\"time\":\"".utf8
    bytes += header.time.utf8
    bytes += "\",\"prev\":\"".utf8
    AuditText.append(hexadecimal: header.previous.bytes, to: &bytes)
    bytes.append(UInt8(ascii: "\""))
    return bytes
  }

  /// The one encoding of a line of the chain's own.
  static func encode(_ header: LineHeader, _ content: ParsedLine.Content) -> [UInt8] {
    var bytes = start(header)
    switch content {
    case .begin(let file, let key), .continued(let file, let key):
      AuditRecord.append("file", file, to: &bytes)
      AuditRecord.append("signing_key", key, to: &bytes)
      if header.kind == .continued {
        AuditRecord.append("former_file", file - 1, to: &bytes)
        AuditRecord.append("former_serial", header.serial - 1, to: &bytes)
      }
    case .recovered(let recovery):
      AuditRecord.append("file", recovery.file, to: &bytes)
      AuditRecord.append("signing_key", recovery.key, to: &bytes)
      AuditRecord.append("why", recovery.why.rawValue, to: &bytes)
      AuditRecord.append("cut_bytes", recovery.cutBytes, to: &bytes)
      AuditRecord.append("cut", hexadecimal(recovery.cut), to: &bytes)
    case .checkpoint(let key, let signature):
      AuditRecord.append("signing_key", key, to: &bytes)
      AuditRecord.append("signature", hexadecimal(signature), to: &bytes)
    case .gap(let missing): AuditRecord.append("missing", missing, to: &bytes)
    case .other: break
    }
    bytes.append(UInt8(ascii: "}"))
    return bytes
  }

  /// What a checkpoint signs: the log, where in it, when, and through the hash all lines before.
  static func checkpointMessage(_ header: LineHeader) -> [UInt8] {
    Array(
      "keyring audit checkpoint v1\n\(header.log)\n\(header.serial)\n\(header.time)\n\(header.previous)\n"
        .utf8
    )
  }

  // MARK: Reading

  /// Takes a line apart; nil for bytes that no server wrote.
  static func parse(_ line: ArraySlice<UInt8>) -> ParsedLine? {
    var scanner = LineScanner(line)
    guard let header = scanner.header() else { return nil }
    let content: ParsedLine.Content
    switch header.kind {
    case .call, .event:
      guard isOneObject(line) else { return nil }
      return ParsedLine(header: header, content: .other)
    case .gap:
      guard let missing = scanner.number("missing"), missing > 0 else { return nil }
      content = .gap(missing: missing)
    case .checkpoint:
      guard let key = scanner.word("signing_key"), let signature = scanner.bytes("signature") else {
        return nil
      }
      content = .checkpoint(key: key, signature: signature)
    case .begin, .continued:
      guard let file = scanner.number("file"), file > 0, let key = scanner.word("signing_key") else {
        return nil
      }
      content = header.kind == .begin ? .begin(file: file, key: key) : .continued(file: file, key: key)
    case .recovered:
      guard let recovery = scanner.recovery() else { return nil }
      content = .recovered(recovery)
    }
    guard header.serial > 0, encode(header, content).elementsEqual(line) else { return nil }
    return ParsedLine(header: header, content: content)
  }
}

extension AuditLine {
  /// True where the first brace is closed by the last byte, so that nothing that was cut off passes for a line.
  private static func isOneObject(_ line: ArraySlice<UInt8>) -> Bool {
    var depth = 0
    var (isText, isEscaped) = (false, false)
    for (index, byte) in zip(line.indices, line) {
      guard (0x20...0x7e).contains(byte) else { return false }
      if isText {
        if isEscaped {
          isEscaped = false
        } else if byte == UInt8(ascii: "\\") {
          isEscaped = true
        } else if byte == UInt8(ascii: "\"") {
          isText = false
        }
        continue
      }
      if byte == UInt8(ascii: "\"") { isText = true }
      if byte == UInt8(ascii: "{") { depth += 1 }
      if byte == UInt8(ascii: "}") { depth -= 1 }
      if depth == 0 { return index == line.endIndex - 1 }
    }
    return false
  }
}

/// Reads the members that the chain needs, in their one order.
private struct LineScanner {
  private let bytes: ArraySlice<UInt8>
  private var index: Int

  init(_ bytes: ArraySlice<UInt8>) {
    self.bytes = bytes
    index = bytes.startIndex
  }

  private mutating func skip(_ text: String) -> Bool {
    let expected = text.utf8
    guard bytes.endIndex - index >= expected.count,
      bytes[index..<index + expected.count].elementsEqual(expected)
    else { return false }
    index += expected.count
    return true
  }

  private mutating func untilQuote() -> String? {
    guard let end = bytes[index...].firstIndex(of: UInt8(ascii: "\"")) else { return nil }
    defer { index = end + 1 }
    let isPlain = bytes[index..<end].allSatisfy { (0x20...0x7e).contains($0) && $0 != UInt8(ascii: "\\") }
    return isPlain ? String(decoding: bytes[index..<end], as: UTF8.self) : nil
  }

  private mutating func decimal() -> UInt64? {
    let digits = bytes[index...].prefix(21).prefix { (0x30...0x39).contains($0) }
    guard !digits.isEmpty, digits.count == 1 || digits.first != 0x30 else { return nil }
    index += digits.count
    return UInt64(String(decoding: digits, as: UTF8.self)).flatMap { $0 <= AuditLine.numberMax ? $0 : nil }
  }

  mutating func header() -> LineHeader? {
    guard skip("{\"type\":\""), let kind = untilQuote().flatMap(LineHeader.Kind.init), skip(",\"log\":\""),
      let log = untilQuote(), skip(",\"serial\":"), let serial = decimal(), skip(",\"time\":\""),
      let time = untilQuote(), time.utf8.count == 24, skip(",\"prev\":\""), let hash = untilQuote(),
      let previous = hexadecimalBytes(hash).flatMap({ Digest(bytes: $0) })
    else { return nil }
    return LineHeader(kind: kind, log: log, serial: serial, time: time, previous: previous)
  }

  mutating func number(_ name: String) -> UInt64? { skip(",\"\(name)\":") ? decimal() : nil }

  mutating func word(_ name: String) -> String? { skip(",\"\(name)\":\"") ? untilQuote() : nil }

  mutating func bytes(_ name: String) -> [UInt8]? { word(name).flatMap(hexadecimalBytes) }

  mutating func recovery() -> Recovery? {
    guard let file = number("file"), file > 0, let key = word("signing_key"),
      let why = word("why").flatMap(Recovery.Why.init), let cutBytes = number("cut_bytes"),
      let cut = bytes("cut")
    else { return nil }
    return Recovery(file: file, key: key, why: why, cutBytes: cutBytes, cut: cut)
  }
}

/// What lower-case hexadecimal digits stand for; nil for anything else.
func hexadecimalBytes(_ text: String) -> [UInt8]? {
  let digits = text.utf8.map { byte -> UInt8? in
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x61 + 10
    default: nil  // no digit
    }
  }
  guard digits.count.isMultiple(of: 2), !digits.contains(nil) else { return nil }
  return stride(from: 0, to: digits.count, by: 2).map { (digits[$0] ?? 0) << 4 | (digits[$0 + 1] ?? 0) }
}
