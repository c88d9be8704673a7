internal import SecureMemory

/// A JSON object (RFC 8259) read where it lies in locked memory: no member that may be secret becomes a `String`.
struct JSONObject: Sendable {
  /// It is none, or a member is not what was expected. Says where, never what.
  struct Malformed: Error, CustomStringConvertible { let description: String }

  /// Reads a whole document, strictly: one object, no member twice, at most 16 levels.
  init(_ document: Secret) throws(Malformed) { throw Malformed(description: "not implemented") }

  /// A string that is no secret; nil where it is absent or null.
  func text(_ member: String) throws(Malformed) -> String? { nil }
  /// A string that is secret, as UTF-8; nil where it is absent or null.
  func secret(_ member: String) throws(Malformed) -> Secret? { nil }
  /// The bytes of a string in base64 (RFC 4648, section 4, padded); nil where it is absent or null.
  func base64(_ member: String) throws(Malformed) -> Secret? { nil }
  /// A number without fraction; nil where it is absent or null.
  func integer(_ member: String) throws(Malformed) -> Int? { nil }
  /// nil where it is absent or null.
  func flag(_ member: String) throws(Malformed) -> Bool? { nil }
  /// An object; nil where it is absent or null.
  func object(_ member: String) throws(Malformed) -> JSONObject? { nil }
}
