internal import COpenSSL
public import SecureMemory

/// HKDF with SHA-256 (RFC 5869).
public enum HKDFSHA256 {
  /// Derives `count` bytes (1 to 8,160) from a secret.
  public static func derive(
    from secret: Secret, salt: [UInt8], info: [UInt8], count: Int
  ) throws(CryptographyError) -> Secret {
    guard (1...255 * 32).contains(count) else { throw .invalidLength("HKDF gives 1 to 8,160 bytes") }
    // SAFETY: every buffer lives for the call.
    return try unsafe secret.withUnsafeBytes { secret throws(CryptographyError) in
      try unsafe salt.span.withUnsafeBytes { salt throws(CryptographyError) in
        try unsafe info.span.withUnsafeBytes { info throws(CryptographyError) in
          try unsafe deriveSecret(
            Algorithms.shared.hkdf, "HKDF", count,
            [
              .text(OSSL_KDF_PARAM_DIGEST, "SHA256"), .bytes(OSSL_KDF_PARAM_KEY, secret),
              .bytes(OSSL_KDF_PARAM_SALT, salt), .bytes(OSSL_KDF_PARAM_INFO, info),
            ])
        }
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
    from passphrase: Secret, salt: [UInt8], n: UInt64 = defaultN, r: UInt64 = 8, p: UInt64 = 1, count: Int
  ) throws(CryptographyError) -> Secret {
    guard count >= 1, n > 1, n & (n - 1) == 0, n <= 1 << 22, (1...32).contains(r), (1...16).contains(p) else {
      throw .invalidLength("scrypt parameters")
    }
    // SAFETY: every buffer lives for the call.
    return try unsafe passphrase.withUnsafeBytes { passphrase throws(CryptographyError) in
      try unsafe salt.span.withUnsafeBytes { salt throws(CryptographyError) in
        try unsafe deriveSecret(
          Algorithms.shared.scrypt, "scrypt", count,
          [
            .bytes(OSSL_KDF_PARAM_PASSWORD, passphrase), .bytes(OSSL_KDF_PARAM_SALT, salt),
            .number(OSSL_KDF_PARAM_SCRYPT_N, n), .number(OSSL_KDF_PARAM_SCRYPT_R, r),
            .number(OSSL_KDF_PARAM_SCRYPT_P, p), .number(OSSL_KDF_PARAM_SCRYPT_MAXMEM, 256 * n * r),
          ])
      }
    }
  }
}

private func deriveSecret(
  _ algorithm: OpaquePointer, _ name: String, _ count: Int, _ list: [Parameter]
) throws(CryptographyError) -> Secret {
  ERR_clear_error()
  // SAFETY: the context is freed (and cleansed) here; libcrypto writes `count` bytes into locked memory.
  guard let context = unsafe EVP_KDF_CTX_new(algorithm) else { throw .drained(name) }
  defer { unsafe EVP_KDF_CTX_free(context) }
  var ok: Int32 = 0
  let secret: Secret
  do {
    secret = try unsafe Secret(count: count) { room in
      ok = unsafe withParameters(list) { parameters in
        unsafe EVP_KDF_derive(context, room.bindMemory(to: UInt8.self).baseAddress, room.count, parameters)
      }
    }
  } catch {
    throw .memory(error)
  }
  guard ok == 1 else { throw .drained(name) }
  return secret
}
