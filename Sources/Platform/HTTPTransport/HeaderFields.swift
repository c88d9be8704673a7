internal import SecureMemory

/// The headers of one request, checked: what libcurl sends of them is what was signed.
struct HeaderFields: Sendable {
  enum Value: Sendable {
    case text(String)
    case secret(Secret)
  }

  struct Field: Sendable {
    /// As it is sent.
    let name: String
    let value: Value

    var lowerName: String { name.lowercased() }
  }

  /// In the order in which they are sent.
  private(set) var fields: [Field] = []

  /// What this module, or libcurl, writes itself.
  private static let own = [
    "host", "connection", "content-length", "transfer-encoding", "expect", "te", "upgrade", "x-amz-date",
  ]

  /// Takes a request's own.
  ///
  /// - Throws: `HTTPError.configuration` where a name or value cannot be sent, or a name is there twice.
  init(_ request: HTTPRequest) throws(HTTPError) {
    for (name, value) in request.headers { try add(name, .text(value)) }
    for (name, value) in request.secretHeaders { try add(name, .secret(value)) }
    for field in fields where Self.own.contains(field.lowerName) || field.lowerName.hasPrefix("proxy-") {
      throw .configuration("the header \(field.name) is not a caller's to set")
    }
  }

  /// Adds one.
  ///
  /// - Throws: `HTTPError.configuration` where it cannot be sent.
  mutating func add(_ name: String, _ value: Value) throws(HTTPError) {
    guard !name.isEmpty, name.utf8.allSatisfy(Self.isTokenByte) else {
      throw .configuration("not the name of a header")
    }
    guard !fields.contains(where: { $0.lowerName == name.lowercased() }) else {
      throw .configuration("the header \(name) is there twice")
    }
    guard value.canBeSent else {
      throw .configuration("the header \(name) is empty, or has bytes that a header cannot have")
    }
    fields.append(Field(name: name, value: value))
  }

  /// True where a header of this name, in lower case, is there.
  func contains(_ lowerName: String) -> Bool { fields.contains { $0.lowerName == lowerName } }

  /// RFC 9110, section 5.6.2.
  private static func isTokenByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
  }
}

extension HeaderFields.Value {
  /// Printable ASCII; in a text also blanks, but for its ends. An empty one would make libcurl leave its own header of that name out.
  fileprivate var canBeSent: Bool {
    switch self {
    case .text(let text):
      guard let first = text.utf8.first, let last = text.utf8.last else { return false }
      return first > 0x20 && last > 0x20
        && text.utf8.allSatisfy { (0x20...0x7e).contains($0) || $0 == UInt8(ascii: "\t") }
    case .secret(let secret):
      return unsafe secret.withUnsafeBytes { bytes in
        unsafe !bytes.isEmpty && bytes.allSatisfy { (0x21...0x7e).contains($0) }
      }
    }
  }
}
