/// Why a configuration cannot be used: one line that says where and what.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// `tenants/acme/tenant.yaml:3:7: unknown key 'cmkid'`
  public let description: String
  /// True if the disk did not hand a file out: what is in it is not known, and may be right.
  public let isUnread: Bool

  /// The longest description, in characters.
  static let charactersMax = 1000

  /// - Parameter description: made one line: it may quote a file, whose line ends and control characters would write lines of their own into
  ///   a log or act on a terminal.
  /// - Parameter isUnread: the disk did not hand the file out.
  public init(_ description: String, isUnread: Bool = false) {
    self.isUnread = isUnread
    let line = description.unicodeScalars.reduce(into: "") { line, scalar in
      switch scalar.properties.generalCategory {
      case .control, .lineSeparator, .paragraphSeparator, .format:
        line += "\\u{\(String(scalar.value, radix: 16))}"
      default: line.unicodeScalars.append(scalar)
      }
    }
    self.description =
      line.count <= Self.charactersMax ? line : line.prefix(Self.charactersMax - 3) + "..."
  }
}
