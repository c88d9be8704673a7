/// What a key is said to be: `AES`, `SECRET`, `RSA`, `DSA`, or whatever the profile allows; 1 to 127 bytes, kept as it came.
public struct KeyType: Hashable, Sendable, CustomStringConvertible {
  /// The longest type, in bytes (MySQL refuses 128).
  public static let bytesMax = 127

  /// The type, case-sensitive.
  public let text: String

  /// Checks the length alone; which types a tenant may use, its profile says.
  ///
  /// - Throws: `KeyringError.typeInvalid`.
  public init(_ text: String) throws(KeyringError) {
    guard (1...Self.bytesMax).contains(text.utf8.count) else {
      throw .typeInvalid("a key type has 1 to 127 bytes")
    }
    self.text = text
  }

  /// The type.
  public var description: String { text }
}

/// Which types and lengths of keys a tenant may have.
///
/// The limits of `keyringAWS` are those of MySQL's keyring_aws (manual, "Supported Keyring Key Types and Lengths").
public enum Profile: String, Sendable, CaseIterable {
  /// AES of 16, 24 or 32 bytes and SECRET; at most 1,024 bytes generated, 4,096 stored.
  case keyringAWS = "keyring_aws"
  /// AES, SECRET, RSA and DSA of up to 16,384 bytes.
  case general
  /// Any type, up to 16,384 bytes.
  case any

  /// The longest key that any profile stores, in bytes.
  public static let valueBytesMax = 16_384

  /// Where key material comes from; the limits differ.
  public enum Source: Sendable {
    /// The provider generates it.
    case generated
    /// The caller brings it.
    case stored
  }

  /// Checks a type and a length in bytes.
  ///
  /// - Throws: `KeyringError.typeInvalid`, or `.lengthInvalid`, in this order.
  public func check(type: KeyType, length: Int, source: Source) throws(KeyringError) {
    guard allows(type) else {
      throw .typeInvalid("key type must be one of \(typeNames) under the profile '\(rawValue)'")
    }
    guard length >= 1 else { throw .lengthInvalid("a key has at least 1 byte") }
    if self == .keyringAWS, type.text == "AES", ![16, 24, 32].contains(length) {
      throw .lengthInvalid("an AES key has 16, 24 or 32 bytes under the profile '\(rawValue)', not \(length)")
    }
    let most = bytesMax(source)
    guard length <= most else {
      throw .lengthInvalid(
        "a key has at most \(most) bytes here under the profile '\(rawValue)', not \(length)"
      )
    }
  }

  private func allows(_ type: KeyType) -> Bool {
    switch self {
    case .keyringAWS: ["AES", "SECRET"].contains(type.text)
    case .general: ["AES", "SECRET", "RSA", "DSA"].contains(type.text)
    case .any: true
    }
  }

  private var typeNames: String {
    switch self {
    case .keyringAWS: "AES, SECRET"
    case .general: "AES, SECRET, RSA, DSA"
    case .any: "any"
    }
  }

  private func bytesMax(_ source: Source) -> Int {
    switch (self, source) {
    case (.keyringAWS, .generated): 1024
    case (.keyringAWS, .stored): 4096
    case (.general, _), (.any, _): Self.valueBytesMax
    }
  }
}
