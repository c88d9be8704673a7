internal import KeyringCore
internal import SecureMemory

/// The body of a form (application/x-www-form-urlencoded), which may hold a secret: written in wiped memory, ended in locked memory.
struct FormBody: ~Copyable {
  private var buffer = WipedBuffer(capacity: 4096)

  /// Adds a field that is no secret.
  mutating func add(_ name: StaticString, _ value: String) {
    begin(name)
    for byte in value.utf8 { encode(byte) }
  }

  /// Adds a field that is one.
  mutating func add(_ name: StaticString, _ value: Secret) {
    begin(name)
    // SECRET: into the buffer, which wipes what it held.
    // SAFETY: the indices are the buffer's own.
    unsafe value.withUnsafeBytes { bytes in
      for index in bytes.indices { unsafe encode(bytes[index]) }
    }
  }

  /// The whole body.
  ///
  /// - Throws: `CMKError.unreachable` where locked memory is full.
  consuming func secret() throws(CMKError) -> Secret {
    try locked { () throws(SecureMemoryError) in
      try unsafe buffer.withUnsafeBytes { bytes throws(SecureMemoryError) in try unsafe Secret(copying: bytes)
      }
    }
  }

  private mutating func begin(_ name: StaticString) {
    if !buffer.isEmpty { buffer.append(byte: UInt8(ascii: "&")) }
    // SAFETY: a static string lives as long as the program.
    unsafe buffer.append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
    buffer.append(byte: UInt8(ascii: "="))
  }

  /// A byte as it is where RFC 3986 calls it unreserved, else as `%XX`.
  private mutating func encode(_ byte: UInt8) {
    if isAlphanumeric(byte) || "-._~".utf8.contains(byte) { return buffer.append(byte: byte) }
    buffer.append(byte: UInt8(ascii: "%"))
    for half in [byte >> 4, byte & 15] { buffer.append(byte: half < 10 ? half + 0x30 : half - 10 + 0x41) }
  }
}
