internal import ConfigurationFiles
/// Whether a tenant's calls are written to its audit log, and what happens where they cannot be.
public enum AuditMode: String, Sendable, CaseIterable {
  /// Nothing is written.
  case off
  /// Entries that cannot be written are dropped and counted; calls go on.
  case lenient
  /// A call whose entry cannot be written is refused.
  case strict

  static func parse(_ text: String) throws(ConfigurationError) -> AuditMode {
    guard let mode = AuditMode(rawValue: text) else {
      throw ConfigurationError("off, lenient or strict is expected, not '\(text)'")
    }
    return mode
  }
}

/// `audit` of the service's configuration.
public struct AuditSettings: Sendable, Equatable {
  /// Where lines go besides the files.
  public enum Syslog: Sendable, Equatable {
    /// A Unix datagram socket.
    case unix(String)
    /// An IP address in digits, and a port.
    case udp(host: String, port: UInt16)
  }

  /// Where the logs are; mandatory.
  public let directory: String
  /// Bytes after which a log goes on in a new file; default: 64 MiB.
  public let fileBytesMax: Int
  /// Nil: nowhere.
  public let syslog: Syslog?
  /// Of the service's own log; default: lenient.
  public let service: AuditMode

  static let keys = ["directory", "file_bytes_max", "syslog", "service"]

  init(_ yaml: StrictYAML, _ path: (String) -> String) throws(ConfigurationError) {
    var yaml = yaml
    guard let directory = try yaml.text("directory") else {
      throw yaml.error("'audit.directory' has to be set")
    }
    self.directory = path(directory)
    fileBytesMax = try yaml.number("file_bytes_max", 4096...1 << 40) ?? 64 << 20
    syslog = try yaml.take("syslog", Self.syslog)
    service = try yaml.take("service", AuditMode.parse) ?? .lenient
    try yaml.finish(known: Self.keys)
  }

  private static func syslog(_ text: String) throws(ConfigurationError) -> Syslog {
    if text.hasPrefix("/"), text.utf8.count < 108 { return .unix(text) }
    let rest = text.hasPrefix("udp://") ? text.dropFirst(6) : ""
    if let colon = rest.lastIndex(of: ":"), let port = UInt16(rest[rest.index(after: colon)...]), port > 0 {
      let host = rest[..<colon].drop { $0 == "[" }.prefix { $0 != "]" }
      let isAddress = host.utf8.allSatisfy { byte in
        (0x30...0x3a).contains(byte) || (0x61...0x66).contains(byte) || byte == UInt8(ascii: ".")
      }
      if !host.isEmpty, isAddress { return .udp(host: String(host), port: port) }
    }
    throw ConfigurationError(
      "the path of a socket such as /dev/log, or udp://ADDRESS:PORT with an IP address, is expected, not '\(text)'"
    )
  }
}
