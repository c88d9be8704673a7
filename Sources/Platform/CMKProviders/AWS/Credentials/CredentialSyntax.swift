internal import KeyringCore
internal import SecureMemory

/// What the parts of credentials look like. Errors name the place, never the content.
enum CredentialSyntax {
  /// 16 to 128 of A-Z, a-z, 0-9 and `_` (AccessKeyId of the IAM and STS API references). Not secret, and so becomes a `String`.
  static func accessKeyID(_ value: Secret, _ place: String) throws(CMKError) -> String {
    let text = SecretText(value)
    guard (16...128).contains(value.count),
      text.isAll(text.all, { isAlphanumeric($0) || $0 == UInt8(ascii: "_") })
    else {
      throw .configuration("\(place): an access key id is 16 to 128 letters, digits and '_'")
    }
    return text.publicText(text.all)
  }

  /// 1 to 256 visible characters of ASCII.
  static func secretAccessKey(_ value: Secret, _ place: String) throws(CMKError) -> Secret {
    guard isVisibleText(value, 1...256) else {
      throw .configuration("\(place): a secret access key is 1 to 256 printable characters without a space")
    }
    return value
  }

  /// 1 to 8,192 visible characters of ASCII.
  static func sessionToken(_ value: Secret, _ place: String) throws(CMKError) -> Secret {
    guard isVisibleText(value, 1...8192) else {
      throw .configuration("\(place): a session token is 1 to 8192 printable characters without a space")
    }
    return value
  }

  /// True where it can stand in a header and in a form: visible ASCII, of such a length.
  static func isVisibleText(_ value: Secret, _ lengths: ClosedRange<Int>) -> Bool {
    let text = SecretText(value)
    return lengths.contains(value.count) && text.isAll(text.all, isVisible)
  }
}
