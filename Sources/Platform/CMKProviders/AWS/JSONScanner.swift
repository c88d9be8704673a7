internal import SecureMemory

/// A value of a JSON document: where it lies, not what it says.
enum JSONValue: Sendable {
  /// From behind the quotation mark; its length once escapes are resolved, in bytes.
  case string(start: Int, count: Int)
  /// From its sign or first digit to behind its last character.
  case number(Range<Int>)
  case flag(Bool)
  case null
  case array([JSONValue])
  case object(JSONObject)
}

/// Reads a JSON document (RFC 8259) byte by byte where it lies: grammar, UTF-8 and nesting are checked, and positions kept.
struct JSONScanner {
  private static let levelsMax = 16

  private let document: Secret
  private var position: Int

  init(_ document: Secret, position: Int = 0) {
    self.document = document
    self.position = position
  }

  /// The one object that a document is, and nothing behind it.
  mutating func wholeDocument() throws(JSONObject.Malformed) -> JSONObject {
    skipWhitespace()
    let object = try object(level: 1)
    skipWhitespace()
    guard peek == nil else { throw malformed("nothing more") }
    return object
  }

  // MARK: Bytes

  private var peek: UInt8? {
    // SAFETY: the position is compared with the count first, and nothing leaves but one byte.
    unsafe document.withUnsafeBytes { unsafe position < $0.count ? $0[position] : nil }
  }

  /// Says where, and what should have been there; never what is.
  private func malformed(_ expected: String) -> JSONObject.Malformed {
    JSONObject.Malformed(description: "not JSON at byte \(position): \(expected) expected")
  }

  private mutating func take(_ expected: String, _ isRight: (UInt8) -> Bool) throws(JSONObject.Malformed)
    -> UInt8
  {
    guard let byte = peek, isRight(byte) else { throw malformed(expected) }
    position += 1
    return byte
  }

  private mutating func take(_ character: Unicode.Scalar) throws(JSONObject.Malformed) {
    _ = try take("'\(character)'") { $0 == UInt8(ascii: character) }
  }

  /// True, and past it, where `character` is next.
  private mutating func skip(_ character: Unicode.Scalar) -> Bool {
    guard peek == UInt8(ascii: character) else { return false }
    position += 1
    return true
  }

  private mutating func skipWhitespace() {
    while true {
      switch peek {
      case 0x20, 0x09, 0x0a, 0x0d: position += 1
      default: return
      }
    }
  }

  // MARK: Values

  private mutating func value(level: Int) throws(JSONObject.Malformed) -> JSONValue {
    switch peek {
    case UInt8(ascii: "{"): return .object(try object(level: level))
    case UInt8(ascii: "["): return try array(level: level)
    case UInt8(ascii: "\""): return try string()
    case UInt8(ascii: "t"): return try literal("true", .flag(true))
    case UInt8(ascii: "f"): return try literal("false", .flag(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    default: return try number()
    }
  }

  private mutating func object(level: Int) throws(JSONObject.Malformed) -> JSONObject {
    guard level <= Self.levelsMax else { throw malformed("no more than \(Self.levelsMax) levels") }
    try take("{")
    var members: [[UInt8]: JSONValue] = [:]
    skipWhitespace()
    if !skip("}") {
      repeat {
        skipWhitespace()
        try take("\"")
        var name: [UInt8] = []
        try content { name.append($0) }
        guard members[name] == nil else { throw malformed("a member that is not there yet") }
        skipWhitespace()
        try take(":")
        skipWhitespace()
        members[name] = try value(level: level + 1)
        skipWhitespace()
      } while skip(",")
      try take("}")
    }
    return JSONObject(document: document, members: members)
  }

  private mutating func array(level: Int) throws(JSONObject.Malformed) -> JSONValue {
    guard level <= Self.levelsMax else { throw malformed("no more than \(Self.levelsMax) levels") }
    try take("[")
    var elements: [JSONValue] = []
    skipWhitespace()
    if !skip("]") {
      repeat {
        skipWhitespace()
        elements.append(try value(level: level + 1))
        skipWhitespace()
      } while skip(",")
      try take("]")
    }
    return .array(elements)
  }

  private mutating func literal(_ word: String, _ value: JSONValue) throws(JSONObject.Malformed) -> JSONValue
  {
    for character in word.unicodeScalars { try take(character) }
    return value
  }

  private mutating func number() throws(JSONObject.Malformed) -> JSONValue {
    let start = position
    _ = skip("-")
    if !skip("0") { try digits() }
    if skip(".") { try digits() }
    if skip("e") || skip("E") {
      _ = skip("+") || skip("-")
      try digits()
    }
    return .number(start..<position)
  }

  private mutating func digits() throws(JSONObject.Malformed) {
    func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    _ = try take("a value", isDigit)
    while let byte = peek, isDigit(byte) { position += 1 }
  }

  // MARK: Strings

  private mutating func string() throws(JSONObject.Malformed) -> JSONValue {
    try take("\"")
    let start = position
    var count = 0
    try content { _ in count += 1 }
    return .string(start: start, count: count)
  }

  /// What is left of a string, and the quotation mark behind it; `emit` is given its bytes with escapes resolved.
  mutating func content(_ emit: (UInt8) -> Void) throws(JSONObject.Malformed) {
    while !skip("\"") {
      if skip("\\") {
        try escape(emit)
      } else {
        try character(emit)
      }
    }
  }

  private mutating func escape(_ emit: (UInt8) -> Void) throws(JSONObject.Malformed) {
    let letter = try take("an escape") { Self.short($0) != nil || $0 == UInt8(ascii: "u") }
    if let byte = Self.short(letter) { return emit(byte) }
    var code = try fourDigits()
    if (0xd800..<0xdc00).contains(code) {
      try take("\\")
      try take("u")
      let low = try fourDigits()
      guard (0xdc00..<0xe000).contains(low) else { throw malformed("the other half of a character") }
      code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
    }
    guard let scalar = Unicode.Scalar(code), let bytes = UTF8.encode(scalar) else {
      throw malformed("a character")
    }
    for byte in bytes { emit(byte) }
  }

  /// What a backslash and this letter stand for; nil: no byte.
  private static func short(_ letter: UInt8) -> UInt8? {
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): letter
    case UInt8(ascii: "b"): 0x08
    case UInt8(ascii: "f"): 0x0c
    case UInt8(ascii: "n"): 0x0a
    case UInt8(ascii: "r"): 0x0d
    case UInt8(ascii: "t"): 0x09
    default: nil
    }
  }

  private mutating func fourDigits() throws(JSONObject.Malformed) -> UInt32 {
    var code: UInt32 = 0
    for _ in 0..<4 {
      let digit = try take("a hexadecimal digit") { Unicode.Scalar($0).properties.isASCIIHexDigit }
      let letters = UInt32(digit | 0x20)  // lower case; digits have this bit already
      code = code << 4 | (letters >= 0x61 ? letters - 0x61 + 10 : letters - 0x30)
    }
    return code
  }

  /// One character as it stands: printable ASCII, or UTF-8 in its shortest form and no surrogate (RFC 3629, section 4).
  private mutating func character(_ emit: (UInt8) -> Void) throws(JSONObject.Malformed) {
    let lead = try take("a character") { (0x20...0x7f).contains($0) || (0xc2...0xf4).contains($0) }
    emit(lead)
    guard lead >= 0xc2 else { return }
    let second: ClosedRange<UInt8> =
      switch lead {
      case 0xe0: 0xa0...0xbf
      case 0xed: 0x80...0x9f
      case 0xf0: 0x90...0xbf
      case 0xf4: 0x80...0x8f
      default: 0x80...0xbf
      }
    emit(try take("UTF-8") { second.contains($0) })
    let others = lead < 0xe0 ? 0 : lead < 0xf0 ? 1 : 2
    for _ in 0..<others { emit(try take("UTF-8") { (0x80...0xbf).contains($0) }) }
  }
}
