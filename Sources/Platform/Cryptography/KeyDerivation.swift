internal import COpenSSL
public import SecureMemory

/// HKDF with SHA-256 (RFC 5869).
public enum HKDFSHA256 {
  /// Derives `count` bytes (1 to 8,160) from a secret.
  public static func derive(
    from secret: Secret,
    salt: [UInt8],
    info: [UInt8],
    count: Int
  ) throws(CryptographyError) -> Secret {
    guard (1...255 * 32).contains(count) else { throw .invalidLength("HKDF gives 1 to 8,160 bytes") }
    return try unsafe deriveSecret("HKDF", count: count) { room in
      unsafe secret.withUnsafeBytes { secret in
        unsafe keyring_HKDF_sha256(
          Algorithms.shared.hkdf,
          secret.baseAddress,
          secret.count,
          salt,
          salt.count,
          info,
          info.count,
          room.bindMemory(to: UInt8.self).baseAddress,
          room.count
        )
      }
    }
  }
}

/// scrypt (RFC 7914).
public enum Scrypt {
  /// CPU and memory cost that new passphrases are stretched with: 128 MiB.
  public static let defaultN: UInt64 = 1 << 17

  /// Derives `count` bytes from a passphrase; takes `128 * n * r` bytes of memory.
  public static func derive(
    from passphrase: Secret,
    salt: [UInt8],
    n: UInt64 = defaultN,
    r: UInt64 = 8,
    p: UInt64 = 1,
    count: Int
  ) throws(CryptographyError) -> Secret {
    guard count >= 1, n > 1, n & (n - 1) == 0, n <= 1 << 22, (1...32).contains(r), (1...16).contains(p) else {
      throw .invalidLength("scrypt parameters")
    }
    return try unsafe deriveSecret("scrypt", count: count) { room in
      unsafe passphrase.withUnsafeBytes { passphrase in
        unsafe keyring_scrypt(
          Algorithms.shared.scrypt,
          passphrase.baseAddress,
          passphrase.count,
          salt,
          salt.count,
          n,
          r,
          p,
          room.bindMemory(to: UInt8.self).baseAddress,
          room.count
        )
      }
    }
  }
}

/// Runs a derivation straight into locked memory.
private func deriveSecret(
  _ name: String,
  count: Int,
  _ derive: (UnsafeMutableRawBufferPointer) -> Int32
) throws(CryptographyError) -> Secret {
  ERR_clear_error()
  var ok: Int32 = 0
  let secret: Secret
  do {
    // SAFETY: `derive` writes `count` bytes into a buffer of as many.
    secret = try unsafe Secret(count: count) { room in ok = unsafe derive(room) }
  } catch {
    throw .memory(error)
  }
  guard ok == 1 else { throw .drained(name) }
  return secret
}
