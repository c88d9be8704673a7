internal import COpenSSL
public import SecureMemory

/// A key that signs: Ed25519 (RFC 8032).
@safe
public final class SigningKey: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because an EVP_PKEY does not change once it is made; each signature has a context of its own.
  private let key: OpaquePointer
  /// What checks its signatures.
  public let verifier: VerifyingKey

  private init(_ key: OpaquePointer) throws(CryptographyError) {
    unsafe self.key = key
    do throws(CryptographyError) {
      verifier = try VerifyingKey(pem: unsafe Self.publicPEM(key))
    } catch {
      // deinit does not run where an initializer fails before all members are set.
      unsafe EVP_PKEY_free(key)
      throw error
    }
  }

  deinit { unsafe EVP_PKEY_free(key) }

  /// Makes a new key.
  ///
  /// - Returns: the key, and its private part as PKCS #8 in PEM.
  public static func generate() throws(CryptographyError) -> (key: SigningKey, privatePEM: Secret) {
    ERR_clear_error()
    // SAFETY: the context is freed here; the key belongs to what is returned.
    guard let context = unsafe EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, nil) else {
      throw .drained("key generation")
    }
    defer { unsafe EVP_PKEY_CTX_free(context) }
    var key: OpaquePointer?
    guard unsafe EVP_PKEY_keygen_init(context) == 1, unsafe EVP_PKEY_keygen(context, &key) == 1,
      let key = unsafe key
    else { throw .drained("key generation") }
    let pem: Secret
    do throws(CryptographyError) {
      pem = try unsafe CertificateAuthority.pem(privateKey: key)
    } catch {
      unsafe EVP_PKEY_free(key)
      throw error
    }
    return (try unsafe SigningKey(key), pem)
  }

  /// Reads a private key.
  ///
  /// - Parameter privatePEM: PKCS #8.
  /// - Throws: `CryptographyError.malformed` where it is no Ed25519 key.
  public convenience init(privatePEM: Secret) throws(CryptographyError) {
    ERR_clear_error()
    // SAFETY: the BIO reads from memory that outlives it; the key belongs to this object, or is freed.
    let key = unsafe privatePEM.withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
    }
    ERR_clear_error()
    guard let key = unsafe key else { throw .malformed("private key: no PEM") }
    guard unsafe EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 else {
      unsafe EVP_PKEY_free(key)
      throw .malformed("private key: not Ed25519")
    }
    try unsafe self.init(key)
  }

  /// Signs; 64 bytes.
  public func sign(_ message: [UInt8]) throws(CryptographyError) -> [UInt8] {
    ERR_clear_error()
    // SAFETY: the context is freed here; message and signature live for the calls.
    guard let context = unsafe EVP_MD_CTX_new() else { throw .drained("signature") }
    defer { unsafe EVP_MD_CTX_free(context) }
    var signature = [UInt8](repeating: 0, count: 64)
    var count = signature.count
    guard unsafe EVP_DigestSignInit(context, nil, nil, nil, key) == 1,
      unsafe EVP_DigestSign(context, &signature, &count, message, message.count) == 1, count == 64
    else { throw .drained("signature") }
    return signature
  }

  private static func publicPEM(_ key: OpaquePointer) throws(CryptographyError) -> String {
    // SAFETY: the BIO's memory is copied before it is freed.
    guard let bio = unsafe BIO_new(BIO_s_mem()) else { throw .drained("PEM") }
    defer { unsafe BIO_free(bio) }
    guard unsafe PEM_write_bio_PUBKEY(bio, key) == 1 else { throw .drained("PEM") }
    var data: UnsafeMutablePointer<CChar>?
    let count = unsafe keyring_BIO_get_mem_data(bio, &data)
    return unsafe String(decoding: UnsafeRawBufferPointer(start: data, count: count), as: UTF8.self)
  }
}

/// The public part of a key that signs: Ed25519 (RFC 8032).
@safe
public final class VerifyingKey: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because an EVP_PKEY does not change once it is made; each check has a context of its own.
  private let key: OpaquePointer
  /// SubjectPublicKeyInfo (RFC 8410), as it was read.
  public let pem: String
  /// The SHA-256 of its 32 bytes.
  public let fingerprint: SHA256Digest

  /// Reads a public key.
  ///
  /// - Parameter pem: SubjectPublicKeyInfo.
  /// - Throws: `CryptographyError.malformed` where it is no Ed25519 key.
  public init(pem: String) throws(CryptographyError) {
    ERR_clear_error()
    // SAFETY: the BIO reads from memory that outlives it; the key belongs to this object, or is freed.
    let key = unsafe Array(pem.utf8).withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_PUBKEY(bio, nil, nil, nil)
    }
    ERR_clear_error()
    guard let key = unsafe key else { throw .malformed("public key: no PEM") }
    var bytes = [UInt8](repeating: 0, count: 32)
    var count = bytes.count
    guard unsafe EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519,
      unsafe EVP_PKEY_get_raw_public_key(key, &bytes, &count) == 1, count == 32
    else {
      unsafe EVP_PKEY_free(key)
      throw .malformed("public key: not Ed25519")
    }
    let digest: SHA256Digest
    do throws(CryptographyError) {
      digest = try SHA256.hash(bytes)
    } catch {
      unsafe EVP_PKEY_free(key)
      throw error
    }
    unsafe self.key = key
    self.pem = pem
    fingerprint = digest
  }

  deinit { unsafe EVP_PKEY_free(key) }

  /// True where `signature` is the key's, of `message`.
  public func isValid(_ signature: [UInt8], of message: [UInt8]) throws(CryptographyError) -> Bool {
    ERR_clear_error()
    // SAFETY: the context is freed here; message and signature live for the calls.
    guard let context = unsafe EVP_MD_CTX_new() else { throw .drained("signature") }
    defer { unsafe EVP_MD_CTX_free(context) }
    guard unsafe EVP_DigestVerifyInit(context, nil, nil, nil, key) == 1 else { throw .drained("signature") }
    let answer = unsafe EVP_DigestVerify(context, signature, signature.count, message, message.count)
    ERR_clear_error()
    return answer == 1
  }
}
