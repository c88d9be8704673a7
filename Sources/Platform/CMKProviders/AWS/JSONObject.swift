package import SecureMemory

/// A JSON object (RFC 8259) read where it lies in locked memory: no member that may be secret becomes a `String`.
package struct JSONObject: Sendable {
  /// It is none, or a member is not what was expected. Says where, never what.
  package struct Malformed: Error, CustomStringConvertible {
    /// In words.
    package let description: String
  }

  private let document: Secret
  /// By the bytes of the name: `String` takes the Kelvin sign for a K.
  private let members: [[UInt8]: JSONValue]

  /// Reads a whole document, strictly: one object, no member twice, at most 16 levels.
  package init(_ document: Secret) throws(Malformed) {
    var scanner = JSONScanner(document)
    self = try scanner.wholeDocument()
  }

  /// Puts together what a scanner found.
  init(document: Secret, members: [[UInt8]: JSONValue]) {
    self.document = document
    self.members = members
  }

  private func wrong(_ member: String, _ expected: String) -> Malformed {
    Malformed(description: "member '\(member)' is not \(expected)")
  }

  private func value(_ member: String) -> JSONValue? {
    if case .null? = members[Array(member.utf8)] { return nil }
    return members[Array(member.utf8)]
  }

  private func decode(from start: Int, _ emit: (UInt8) -> Void) {
    var scanner = JSONScanner(document, position: start)
    do throws(Malformed) {
      try scanner.content(emit)
    } catch {
      preconditionFailure("a string that was read once is malformed the second time")
    }
  }

  /// A string that is no secret; nil where it is absent or null.
  package func text(_ member: String) throws(Malformed) -> String? {
    guard let value = value(member) else { return nil }
    guard case .string(let start, let count) = value else { throw wrong(member, "a string") }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    decode(from: start) { bytes.append($0) }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// A string that is secret, as UTF-8; nil where it is absent or null.
  package func secret(_ member: String) throws(Malformed) -> Secret? {
    guard let value = value(member) else { return nil }
    guard case .string(let start, let count) = value else { throw wrong(member, "a string") }
    do {
      return try unsafe Secret(count: count) { room in
        var written = 0
        decode(from: start) { byte in
          // SAFETY: the same string gave `count` bytes when it was scanned; the subscript stays below.
          precondition(written < count, "a string became longer")
          unsafe room[written] = byte
          written += 1
        }
      }
    } catch {
      throw Malformed(description: "member '\(member)' cannot be read: \(error)")
    }
  }

  /// The bytes of a string in base64 (RFC 4648, section 4, padded); nil where it is absent or null.
  package func base64(_ member: String) throws(Malformed) -> Secret? {
    guard let coded = try secret(member) else { return nil }
    let bytes: Secret?
    do {
      bytes = try Base64.decode(coded)
    } catch {
      throw Malformed(description: "member '\(member)' cannot be read: \(error)")
    }
    guard let bytes else { throw wrong(member, "base64") }
    return bytes
  }

  /// A number without fraction; nil where it is absent or null.
  package func integer(_ member: String) throws(Malformed) -> Int? {
    guard let value = value(member) else { return nil }
    guard case .number(let range) = value else { throw wrong(member, "a number") }
    // SAFETY: the scanner found the number at this range of the same document.
    let digits = unsafe document.withUnsafeBytes { unsafe String(decoding: $0[range], as: UTF8.self) }
    guard let number = Int(digits) else { throw wrong(member, "a number without fraction that fits 64 bits") }
    return number
  }

  /// A number, as AWS writes times: `1.7E9`, `1700000000.123`; nil where it is absent or null.
  package func seconds(_ member: String) throws(Malformed) -> Double? {
    guard let value = value(member) else { return nil }
    guard case .number(let range) = value else { throw wrong(member, "a number") }
    // SAFETY: the scanner found the number at this range of the same document.
    let digits = unsafe document.withUnsafeBytes { unsafe String(decoding: $0[range], as: UTF8.self) }
    guard let number = Double(digits), number.isFinite else { throw wrong(member, "a finite number") }
    return number
  }

  /// The objects of an array, which has nothing else; nil where it is absent or null.
  package func objects(_ member: String) throws(Malformed) -> [JSONObject]? {
    guard let value = value(member) else { return nil }
    guard case .array(let elements) = value else { throw wrong(member, "an array") }
    var objects: [JSONObject] = []
    objects.reserveCapacity(elements.count)
    for element in elements {
      guard case .object(let object) = element else { throw wrong(member, "an array of objects") }
      objects.append(object)
    }
    return objects
  }

  /// How many elements an array has; nil where it is absent or null.
  package func count(_ member: String) throws(Malformed) -> Int? {
    guard let value = value(member) else { return nil }
    guard case .array(let elements) = value else { throw wrong(member, "an array") }
    return elements.count
  }

  /// The members' names, sorted.
  package var names: [String] { members.keys.map { String(decoding: $0, as: UTF8.self) }.sorted() }

  /// nil where it is absent or null.
  package func flag(_ member: String) throws(Malformed) -> Bool? {
    guard let value = value(member) else { return nil }
    guard case .flag(let flag) = value else { throw wrong(member, "true or false") }
    return flag
  }

  /// An object; nil where it is absent or null.
  package func object(_ member: String) throws(Malformed) -> JSONObject? {
    guard let value = value(member) else { return nil }
    guard case .object(let object) = value else { throw wrong(member, "an object") }
    return object
  }
}
