/// A tenant's name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, safe as one path component, checked once here.
public struct TenantName: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// The name.
  public let text: String

  /// Checks `text`.
  ///
  /// - Throws: `KeyringError.nameInvalid`.
  public init(_ text: String) throws(KeyringError) {
    guard isLabel(text.utf8) else {
      throw .nameInvalid("a tenant's name is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")
    }
    self.text = text
  }

  /// The name.
  public var description: String { text }
  /// By bytes.
  public static func < (left: Self, right: Self) -> Bool {
    left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
  }
}

/// The name of one database server of a tenant; the same characters as a tenant's name.
public struct InstanceName: Hashable, Sendable, Comparable, CustomStringConvertible {
  /// The name.
  public let text: String

  /// Checks `text`.
  ///
  /// - Throws: `KeyringError.nameInvalid`.
  public init(_ text: String) throws(KeyringError) {
    guard isLabel(text.utf8) else {
      throw .nameInvalid("an instance's name is 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")
    }
    guard text != "any" else {
      throw .nameInvalid("'any' is no instance's name: it stands for all of them in a tenant's configuration")
    }
    self.text = text
  }

  /// The name.
  public var description: String { text }
  /// By bytes.
  public static func < (left: Self, right: Self) -> Bool {
    left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
  }
}

/// Text from outside as a log or a terminal may have it: control and format characters and separators of lines, which could forge lines or steer
/// the terminal, are shown as `\u{1b}`.
public func printable(_ text: String) -> String {
  text.unicodeScalars.reduce(into: "") { shown, scalar in
    let isControl = [.control, .format, .lineSeparator, .paragraphSeparator].contains(
      scalar.properties.generalCategory
    )
    shown += isControl ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
  }
}

private func isLabel(_ bytes: some BidirectionalCollection<UInt8>) -> Bool {
  func isAlphanumeric(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
      || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }
  guard let first = bytes.first, let last = bytes.last, bytes.count <= 63 else { return false }
  return isAlphanumeric(first) && isAlphanumeric(last)
    && bytes.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
}

/// Names a CMK as its provider knows it: a key id, an ARN or an alias; 1 to 2,048 printable ASCII bytes.
public struct CMKID: Hashable, Sendable, CustomStringConvertible {
  /// The id.
  public let text: String

  /// Checks `text`; whether such a CMK exists, only its provider can tell.
  ///
  /// - Throws: `KeyringError.nameInvalid`.
  public init(_ text: String) throws(KeyringError) {
    guard (1...2048).contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      throw .nameInvalid("a cmk_id is 1 to 2,048 printable ASCII characters without spaces")
    }
    self.text = text
  }

  /// The id.
  public var description: String { text }
}

/// Who holds CMKs.
public enum ProviderKind: String, Sendable, CaseIterable {
  /// CMKs in files of this service, under its root key.
  case local
  /// AWS KMS.
  case aws
}
