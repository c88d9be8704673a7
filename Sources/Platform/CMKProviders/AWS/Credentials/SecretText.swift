internal import KeyringCore
internal import SecureMemory

/// Text in locked memory, read where it lies: its parts are ranges of bytes, and only what is no secret becomes a `String`.
struct SecretText: Sendable {
  let secret: Secret

  init(_ secret: Secret) { self.secret = secret }

  /// All of it.
  var all: Range<Int> { 0..<secret.count }

  subscript(_ index: Int) -> UInt8 {
    precondition(all.contains(index), "a part lies within its text")
    // SAFETY: the index is within the bytes, checked above.
    return unsafe secret.withUnsafeBytes { unsafe $0[index] }
  }

  /// Where a byte stands first in a part.
  func first(_ byte: UInt8, in part: Range<Int>) -> Int? { part.first { self[$0] == byte } }

  /// True where all bytes of a part are as wanted.
  func isAll(_ part: Range<Int>, _ wanted: (UInt8) -> Bool) -> Bool { part.allSatisfy { wanted(self[$0]) } }

  /// True where a part is this ASCII text, whatever the case of its letters.
  func equals(_ part: Range<Int>, ignoringCase text: StaticString) -> Bool {
    guard part.count == text.utf8CodeUnitCount else { return false }
    // SAFETY: a static string lives as long as the program, and has as many bytes as `part`, checked above.
    return part.indices.allSatisfy {
      unsafe lowercased(self[$0]) == lowercased(text.utf8Start[$0 - part.lowerBound])
    }
  }

  /// True where all bytes of another secret stand in it, one after the other.
  func contains(_ other: Secret) -> Bool {
    guard other.count > 0, other.count <= secret.count else { return false }
    let other = SecretText(other)
    return (0...secret.count - other.secret.count).contains { start in
      other.all.allSatisfy { self[start + $0] == other[$0] }
    }
  }

  /// A part without the spaces and tabs at its ends.
  func trimmed(_ part: Range<Int>) -> Range<Int> {
    guard let start = part.first(where: { !isBlank(self[$0]) }),
      let last = part.last(where: { !isBlank(self[$0]) })
    else { return part.lowerBound..<part.lowerBound }
    return start..<last + 1
  }

  /// The lines, each without its `\n` or `\r\n`; after a last newline there is none.
  var lines: [Range<Int>] {
    var lines: [Range<Int>] = []
    var start = 0
    while start < secret.count {
      let end = first(UInt8(ascii: "\n"), in: start..<secret.count) ?? secret.count
      let isReturned = end > start && end < secret.count && self[end - 1] == UInt8(ascii: "\r")
      lines.append(start..<(isReturned ? end - 1 : end))
      start = end + 1
    }
    return lines
  }

  /// A part that is no secret.
  func publicText(_ part: Range<Int>) -> String {
    unsafe secret.withUnsafeBytes { unsafe String(decoding: $0[part], as: UTF8.self) }
  }

  /// A part as a secret of its own.
  ///
  /// - Throws: `CMKError.unreachable` where locked memory is full.
  func copy(_ part: Range<Int>) throws(CMKError) -> Secret {
    try locked { () throws(SecureMemoryError) in
      try unsafe secret.withUnsafeBytes { bytes throws(SecureMemoryError) in
        try unsafe Secret(copying: UnsafeRawBufferPointer(rebasing: bytes[part]))
      }
    }
  }
}

/// Space or tab.
func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }

/// ASCII that can be seen, without the space.
func isVisible(_ byte: UInt8) -> Bool { (0x21...0x7e).contains(byte) }

/// A letter or a digit of ASCII.
func isAlphanumeric(_ byte: UInt8) -> Bool {
  switch byte {
  case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
    UInt8(ascii: "a")...UInt8(ascii: "z"):
    true
  default: false
  }
}

private func lowercased(_ byte: UInt8) -> UInt8 {
  (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte + 32 : byte
}

/// Does what takes locked memory.
///
/// - Throws: `CMKError.unreachable` where it is full: that passes.
func locked<Value>(_ body: () throws(SecureMemoryError) -> Value) throws(CMKError) -> Value {
  do {
    return try body()
  } catch {
    throw .unreachable("\(error)")
  }
}
