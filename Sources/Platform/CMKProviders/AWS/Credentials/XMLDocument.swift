package import KeyringCore
package import SecureMemory

/// As much of XML 1.0 as the Security Token Service's answers need, read where they lie in locked memory: elements, attributes that are passed over,
/// text with the five entities. No DTD, no comments, no CDATA, no processing instruction behind the first line.
package struct XMLDocument: Sendable {
  /// It is none, or uses more of XML. Says where, never what.
  package struct Malformed: Error, CustomStringConvertible {
    /// In words.
    package let description: String
  }

  static let bytesMax = 65_536
  static let depthMax = 8
  static let elementsMax = 128

  private let text: SecretText
  private var position = 0
  private var elements = 0
  /// The texts of elements without elements in them, by the names from the root on, joined by `/`.
  private var leaves: [String: Range<Int>] = [:]

  /// Reads a whole document.
  package init(_ document: Secret) throws(Malformed) {
    text = SecretText(document)
    guard document.count <= Self.bytesMax else { throw malformed("too long") }
    if starts("<?xml ") {
      guard let end = (position..<text.all.upperBound).first(where: { text[$0] == UInt8(ascii: ">") }),
        text[end - 1] == UInt8(ascii: "?")
      else { throw malformed("a declaration without end") }
      position = end + 1
    }
    skipSpace()
    try element(below: "", depth: 1)
    skipSpace()
    guard position == text.all.upperBound else { throw malformed("something behind the root element") }
  }

  private func malformed(_ what: String) -> Malformed {
    Malformed(description: "no XML of AWS: \(what), at byte \(position)")
  }

  // MARK: Reading

  private var byte: UInt8? { position < text.all.upperBound ? text[position] : nil }

  private mutating func skipSpace() { while let byte, isSpace(byte) { position += 1 } }

  /// True where this is what comes next; it is then passed.
  private mutating func starts(_ expected: String) -> Bool {
    let end = position + expected.utf8.count
    guard end <= text.all.upperBound, zip(position..<end, expected.utf8).allSatisfy({ text[$0] == $1 })
    else { return false }
    position = end
    return true
  }

  private mutating func name() throws(Malformed) -> String {
    let start = position
    while let byte, isAlphanumeric(byte) || "_-.:".utf8.contains(byte) { position += 1 }
    guard (1...64).contains(position - start) else { throw malformed("a name is expected") }
    return text.publicText(start..<position)
  }

  /// One element and all in it.
  private mutating func element(below parent: String, depth: Int) throws(Malformed) {
    elements += 1
    guard depth <= Self.depthMax, elements <= Self.elementsMax else { throw malformed("too many elements") }
    guard starts("<") else { throw malformed("an element is expected") }
    let name = try name()
    let path = parent.isEmpty ? name : "\(parent)/\(name)"
    guard try !attributesAndIsEmpty() else { return try add(path, position..<position) }
    let start = position
    var hasElements = false
    while true {
      let textStart = position
      while let byte, byte != UInt8(ascii: "<") { position += 1 }
      let end = position
      let isClosing = starts("</")
      if hasElements || !isClosing {
        guard text.isAll(textStart..<end, isSpace) else { throw malformed("text between elements") }
      }
      guard !isClosing else {
        guard starts(name) else { throw malformed("another element ends than began") }
        skipSpace()
        guard starts(">") else { throw malformed("'>' is missing") }
        return hasElements ? () : try add(path, start..<end)
      }
      hasElements = true
      try element(below: path, depth: depth + 1)
    }
  }

  private mutating func add(_ path: String, _ range: Range<Int>) throws(Malformed) {
    guard leaves.updateValue(range, forKey: path) == nil else { throw malformed("an element is there twice") }
  }

  /// Passes what stands behind the name of an element, up to its `>`.
  private mutating func attributesAndIsEmpty() throws(Malformed) -> Bool {
    while true {
      let before = position
      skipSpace()
      if starts("/>") { return true }
      if starts(">") { return false }
      guard position > before else { throw malformed("a space or '>' is missing") }
      _ = try name()
      skipSpace()
      guard starts("=") else { throw malformed("'=' is missing") }
      skipSpace()
      guard let quote = byte, quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'"),
        let end = text.first(quote, in: position + 1..<text.all.upperBound),
        text.first(UInt8(ascii: "<"), in: position..<end) == nil
      else { throw malformed("an attribute's value is not quoted") }
      position = end + 1
    }
  }

  // MARK: What it says

  /// The text of the element of this path, as a secret; nil where it is not there.
  package func secret(_ path: String) throws(CMKError) -> Secret? {
    guard let range = leaves[path] else { return nil }
    var buffer = WipedBuffer(capacity: range.count)
    do throws(Malformed) {
      try decode(range, into: &buffer)
    } catch {
      throw .unreachable("\(error)")
    }
    return try locked { () throws(SecureMemoryError) in
      try unsafe buffer.withUnsafeBytes { bytes throws(SecureMemoryError) in try unsafe Secret(copying: bytes)
      }
    }
  }

  /// The text of an element that is no secret.
  func publicText(_ path: String) throws(CMKError) -> String? {
    try secret(path).map { SecretText($0).publicText(0..<$0.count) }
  }

  private static let entities: [(name: String, byte: UInt8)] = [
    ("&amp;", 0x26), ("&lt;", 0x3c), ("&gt;", 0x3e), ("&quot;", 0x22), ("&apos;", 0x27),
  ]

  private func decode(_ range: Range<Int>, into buffer: inout WipedBuffer) throws(Malformed) {
    var index = range.lowerBound
    while index < range.upperBound {
      guard text[index] == UInt8(ascii: "&") else {
        buffer.append(byte: text[index])
        index += 1
        continue
      }
      let entity = Self.entities.first { entity in
        let end = index + entity.name.utf8.count
        return end <= range.upperBound && zip(index..<end, entity.name.utf8).allSatisfy { text[$0] == $1 }
      }
      guard let entity else { throw Malformed(description: "no XML of AWS: another entity than the five") }
      buffer.append(byte: entity.byte)
      index += entity.name.utf8.count
    }
  }
}

/// White space of XML.
private func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0a, 0x0d].contains(byte) }
