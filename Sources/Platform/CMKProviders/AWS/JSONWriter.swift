internal import SecureMemory

/// Writes a JSON object (RFC 8259) that may hold key material, in memory that is wiped.
struct JSONWriter: ~Copyable {
  private var buffer = WipedBuffer(capacity: 512)
  private var isEmpty = true

  init() { buffer.append([UInt8(ascii: "{")]) }

  /// Adds a string that is no secret.
  mutating func text(_ member: String, _ value: String) {
    name(member)
    string(value)
  }

  /// Adds a number.
  mutating func integer(_ member: String, _ value: Int) {
    name(member)
    buffer.append(Array("\(value)".utf8))
  }

  /// Adds an object whose values are strings.
  mutating func texts(_ member: String, _ pairs: [(name: String, value: String)]) {
    name(member)
    buffer.append([UInt8(ascii: "{")])
    isEmpty = true
    for pair in pairs { text(pair.name, pair.value) }
    buffer.append([UInt8(ascii: "}")])
    isEmpty = false
  }

  /// Adds bytes that are no secret, in base64.
  mutating func base64(_ member: String, _ bytes: [UInt8]) {
    name(member)
    buffer.append([UInt8(ascii: "\"")])
    // SAFETY: the bytes are read during the call only.
    unsafe bytes.withUnsafeBytes { unsafe Base64.encode($0, into: &buffer) }
    buffer.append([UInt8(ascii: "\"")])
  }

  /// Adds a secret's bytes, in base64.
  mutating func base64(_ member: String, _ secret: Secret) {
    name(member)
    buffer.append([UInt8(ascii: "\"")])
    // SECRET: into the buffer, which wipes what it held.
    // SAFETY: the bytes are read during the call only.
    unsafe secret.withUnsafeBytes { unsafe Base64.encode($0, into: &buffer) }
    buffer.append([UInt8(ascii: "\"")])
  }

  /// The document.
  ///
  /// - Throws: `SecureMemoryError.exhausted`.
  consuming func finished() throws(SecureMemoryError) -> Secret {
    buffer.append([UInt8(ascii: "}")])
    return try unsafe buffer.withUnsafeBytes { bytes throws(SecureMemoryError) in
      try unsafe Secret(copying: bytes)
    }
  }

  private mutating func name(_ member: String) {
    if !isEmpty { buffer.append([UInt8(ascii: ",")]) }
    isEmpty = false
    string(member)
    buffer.append([UInt8(ascii: ":")])
  }

  /// Escapes what must be: quotation mark, backslash, control characters (RFC 8259, section 7).
  private mutating func string(_ text: String) {
    var bytes: [UInt8] = [UInt8(ascii: "\"")]
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
      case 0..<0x20: bytes += Array("\\u00\(byte < 16 ? "0" : "")\(String(byte, radix: 16))".utf8)
      default: bytes.append(byte)
      }
    }
    buffer.append(bytes + [UInt8(ascii: "\"")])
  }
}
