internal import COpenSSL
public import SecureMemory

/// Why a cryptographic operation failed. No case has key bytes; a failed authentication says no more than that.
public enum CryptographyError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A tag, signature or commitment does not match.
  case authenticationFailed
  /// The cipher was wiped.
  case wiped
  /// An argument has a length that the algorithm does not take.
  case invalidLength(String)
  /// No locked memory is left.
  case memory(SecureMemoryError)
  /// What was parsed is not what it should be.
  case malformed(String)
  /// libcrypto failed; its own reason.
  case library(String)

  /// Safe for a client.
  public var description: String {
    switch self {
    case .authenticationFailed: "authentication failed"
    case .wiped: "the key was wiped"
    case .invalidLength(let what): "invalid length: \(what)"
    case .memory(let error): error.description
    case .malformed(let what): "malformed \(what)"
    case .library(let reason): "libcrypto: \(reason)"
    }
  }

  /// Drains this thread's OpenSSL error queue into an error that names `operation`.
  static func drained(_ operation: String) -> CryptographyError {
    // SAFETY: ERR_reason_error_string answers NULL or a static string.
    let reason = unsafe ERR_reason_error_string(ERR_peek_last_error()).map { unsafe String(cString: $0) }
    ERR_clear_error()
    return .library("\(operation): \(reason ?? "no reason given")")
  }
}
