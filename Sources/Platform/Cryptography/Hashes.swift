internal import COpenSSL
public import SecureMemory

/// 32 bytes that came out of SHA-256 or HMAC-SHA-256; not secret.
public struct SHA256Digest: Hashable, Sendable {
  /// The bytes.
  public let bytes: [UInt8]
}

/// libcrypto objects that are fetched once a process: a fetch costs more than a short operation (EVP_MD_fetch(3)).
@safe
struct Algorithms: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because fetched algorithms are immutable and reference-counted atomically (ossl-guide).
  let sha256: OpaquePointer
  let aes256GCM: OpaquePointer
  let hmac: OpaquePointer
  let hkdf: OpaquePointer
  let scrypt: OpaquePointer

  static let shared: Algorithms = {
    // SAFETY: each fetch answers NULL or an object that lives as long as the process.
    guard let sha256 = unsafe EVP_MD_fetch(nil, "SHA256", nil),
      let aes256GCM = unsafe EVP_CIPHER_fetch(nil, "AES-256-GCM", nil),
      let hmac = unsafe EVP_MAC_fetch(nil, "HMAC", nil),
      let hkdf = unsafe EVP_KDF_fetch(nil, "HKDF", nil),
      let scrypt = unsafe EVP_KDF_fetch(nil, "SCRYPT", nil)
    else { preconditionFailure("libcrypto has no SHA-256, AES-256-GCM, HMAC, HKDF or scrypt") }
    return unsafe Algorithms(
      sha256: sha256,
      aes256GCM: aes256GCM,
      hmac: hmac,
      hkdf: hkdf,
      scrypt: scrypt
    )
  }()
}

/// SHA-256 (FIPS 180-4), incremental.
@safe
public final class SHA256 {
  private let context: OpaquePointer

  /// Begins a hash.
  ///
  /// - Throws: `CryptographyError.library` when out of memory.
  public init() throws(CryptographyError) {
    ERR_clear_error()
    // SAFETY: the context is owned by this object and freed in deinit.
    guard let context = unsafe EVP_MD_CTX_new(),
      unsafe EVP_DigestInit_ex2(context, Algorithms.shared.sha256, nil) == 1
    else { throw .drained("SHA-256") }
    unsafe self.context = context
  }

  deinit { unsafe EVP_MD_CTX_free(context) }

  /// Adds bytes.
  public func update(_ bytes: UnsafeRawBufferPointer) throws(CryptographyError) {
    ERR_clear_error()
    // SAFETY: `bytes` lives for the call.
    guard unsafe EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1 else {
      throw .drained("SHA-256")
    }
  }

  /// Adds bytes.
  public func update(_ bytes: [UInt8]) throws(CryptographyError) {
    try unsafe bytes.span.withUnsafeBytes { bytes throws(CryptographyError) in try unsafe update(bytes) }
  }

  /// Ends the hash; use the object no more.
  public func finish() throws(CryptographyError) -> SHA256Digest {
    ERR_clear_error()
    var digest = [UInt8](repeating: 0, count: 32)
    // SAFETY: SHA-256 writes 32 bytes.
    guard unsafe EVP_DigestFinal_ex(context, &digest, nil) == 1 else { throw .drained("SHA-256") }
    return SHA256Digest(bytes: digest)
  }

  /// The hash of all `parts`, one after the other.
  public static func hash(_ parts: [UInt8]...) throws(CryptographyError) -> SHA256Digest {
    let hash = try SHA256()
    for part in parts { try hash.update(part) }
    return try hash.finish()
  }
}

/// HMAC-SHA-256 (RFC 2104).
public enum HMACSHA256 {
  /// An HMAC that is computed in parts.
  @safe
  public final class Context {
    private let context: OpaquePointer

    /// Begins an HMAC under `key`, which libcrypto copies and cleanses when this object goes.
    public init(key: Secret) throws(CryptographyError) {
      ERR_clear_error()
      // SAFETY: the context is owned by this object; parameters and key live for the call.
      guard let context = unsafe EVP_MAC_CTX_new(Algorithms.shared.hmac) else { throw .drained("HMAC") }
      unsafe self.context = context
      let ok = unsafe key.withUnsafeBytes { key in
        unsafe keyring_HMAC_init_sha256(context, key.bindMemory(to: UInt8.self).baseAddress, key.count)
      }
      guard ok == 1 else { throw .drained("HMAC") }
    }

    deinit { unsafe EVP_MAC_CTX_free(context) }

    /// Adds bytes.
    public func update(_ bytes: [UInt8]) throws(CryptographyError) {
      ERR_clear_error()
      // SAFETY: `bytes` lives for the call.
      guard unsafe EVP_MAC_update(context, bytes, bytes.count) == 1 else { throw .drained("HMAC") }
    }

    /// Adds secret bytes.
    public func update(_ secret: Secret) throws(CryptographyError) {
      ERR_clear_error()
      // SAFETY: `secret` lives for the call.
      let ok = unsafe secret.withUnsafeBytes { bytes in
        unsafe EVP_MAC_update(context, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count)
      }
      guard ok == 1 else { throw .drained("HMAC") }
    }

    /// Ends the HMAC; use the object no more. For an HMAC that is a key itself: it stays in locked memory.
    public func finishSecret() throws(CryptographyError) -> Secret {
      ERR_clear_error()
      var count = 0
      var ok: Int32 = 0
      let mac: Secret
      do {
        // SAFETY: HMAC-SHA-256 writes 32 bytes.
        mac = try unsafe Secret(count: 32) { room in
          ok = unsafe EVP_MAC_final(context, room.bindMemory(to: UInt8.self).baseAddress, &count, 32)
        }
      } catch {
        throw .memory(error)
      }
      guard ok == 1, count == 32 else { throw .drained("HMAC") }
      return mac
    }

    /// Ends the HMAC; use the object no more.
    public func finish() throws(CryptographyError) -> SHA256Digest {
      ERR_clear_error()
      var mac = [UInt8](repeating: 0, count: 32)
      var count = 0
      // SAFETY: HMAC-SHA-256 writes 32 bytes.
      guard unsafe EVP_MAC_final(context, &mac, &count, 32) == 1, count == 32 else { throw .drained("HMAC") }
      return SHA256Digest(bytes: mac)
    }
  }

  /// The HMAC of `message` under `key`.
  public static func authenticate(_ message: [UInt8], key: Secret) throws(CryptographyError) -> SHA256Digest {
    let context = try Context(key: key)
    try context.update(message)
    return try context.finish()
  }

  /// True where `mac` is the HMAC of `message`; takes the same time whatever differs.
  public static func isValid(
    _ mac: [UInt8],
    for message: [UInt8],
    key: Secret
  ) throws(CryptographyError) -> Bool {
    let right = try authenticate(message, key: key).bytes
    guard mac.count == right.count else { return false }
    // SAFETY: both have the 32 bytes that are compared.
    return unsafe CRYPTO_memcmp(mac, right, right.count) == 0
  }
}
