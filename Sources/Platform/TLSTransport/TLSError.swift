internal import COpenSSL

/// Why TLS cannot be set up, or a connection not go on.
public enum TLSError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Certificate, key or CA cannot be used.
  case configuration(String)
  /// The peer broke the protocol, or was refused.
  case handshake(String)
  /// Something was received that does not decrypt, or a record that must not come.
  case connection(String)
  /// The peer ended the connection without saying so.
  case truncated

  /// For the log and the operator.
  public var description: String {
    switch self {
    case .configuration(let what), .handshake(let what), .connection(let what): what
    case .truncated: "the connection ended without a close_notify"
    }
  }

  /// Drains this thread's OpenSSL error queue into text.
  static func drain() -> String {
    // SAFETY: ERR_reason_error_string answers NULL or a static string.
    let reason = unsafe ERR_reason_error_string(ERR_peek_last_error()).map { unsafe String(cString: $0) }
    ERR_clear_error()
    return reason ?? "no reason given"
  }
}
