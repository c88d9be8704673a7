internal import COpenSSL

/// The process's locked memory: OpenSSL's secure heap, in which every `SecretBytes` lives.
public enum SecureHeap {
  /// What came of asking for locked memory.
  public enum Outcome: Sendable, Equatable {
    /// The arena exists and is locked: its pages are never swapped and never dumped.
    case locked
    /// The arena exists, but mlock(2) was refused (RLIMIT_MEMLOCK): its pages may be swapped.
    case unlocked
    /// There is no arena; secrets would live on the ordinary heap (wiped when freed, but swappable).
    case unavailable
  }

  /// Sets up the locked arena, once a process and before any other use of OpenSSL.
  ///
  /// - Parameters:
  ///   - bytes: size of the arena; a power of two.
  ///   - minimumAllocationBytes: smallest block; a power of two, at least 16.
  /// - Returns: `.locked` when pages are locked. A server must not start on anything else unless told to.
  ///   Source: OPENSSL_secure_malloc(3), whose init answers 1, 2 and 0 for these three.
  public static func initialize(bytes: Int, minimumAllocationBytes: Int = 32) -> Outcome {
    switch CRYPTO_secure_malloc_init(bytes, minimumAllocationBytes) {
    case 1: .locked
    case 2: .unlocked
    default: .unavailable
    }
  }

  /// Makes OpenSSL wipe all memory that it frees; call before any other use of OpenSSL.
  ///
  /// - Returns: false where OpenSSL had allocated memory before, and so refused.
  public static func installWipingAllocator() -> Bool {
    keyring_openssl_install_wiping_allocator() == 1
  }

  /// Bytes of the arena in use; 0 without one, where OpenSSL would take a lock that it never made.
  public static var bytesInUse: Int { isInitialized ? Int(CRYPTO_secure_used()) : 0 }

  /// True once `initialize` has made an arena.
  public static var isInitialized: Bool { CRYPTO_secure_malloc_initialized() == 1 }
}

/// Why secret memory could not be had.
public enum SecureMemoryError: Error, Equatable, CustomStringConvertible {
  /// The locked arena has no room for this many bytes.
  case exhausted(bytes: Int)

  /// Safe for a client.
  public var description: String {
    switch self {
    case .exhausted: "no locked memory left for secrets"
    }
  }
}
