internal import COpenSSL
public import SecureMemory
internal import Synchronization

/// AES-256-GCM (NIST SP 800-38D) under one key, whose schedule is computed once: nonces of 12 bytes, tags of 16.
///
/// Safe to use from any thread. The caller never uses a nonce twice.
@safe
public final class RecordCipher: Sendable {
  /// Bytes of a nonce.
  public static let nonceBytes = 12
  /// Bytes of a tag.
  public static let tagBytes = 16

  @safe
  private struct Contexts {
    // EVP_CIPHER_CTX with the key schedule set, in locked memory; nil once wiped. Freed contexts are cleansed by libcrypto.
    var opening: OpaquePointer?
    var sealing: OpaquePointer?
  }

  @safe
  private struct Box: @unchecked Sendable {
    // SAFETY: @unchecked Sendable because the contexts are used under the mutex alone.
    var contexts: Contexts
  }

  private let box: Mutex<Box>

  /// Sets the key schedule up; the key itself may be let go after.
  ///
  /// - Throws: `CryptographyError.invalidLength` unless `key` has 32 bytes.
  public init(key: Secret) throws(CryptographyError) {
    guard key.count == 32 else { throw .invalidLength("an AES-256 key has 32 bytes") }
    ERR_clear_error()
    // SAFETY: contexts are owned by this object until `wipe` or deinit.
    guard let opening = unsafe EVP_CIPHER_CTX_new(), let sealing = unsafe EVP_CIPHER_CTX_new() else {
      throw .drained("AES-256-GCM")
    }
    let ok = unsafe key.withUnsafeBytes { key in
      let bytes = unsafe key.bindMemory(to: UInt8.self).baseAddress
      return unsafe keyring_EVP_CipherInit_locked(opening, Algorithms.shared.aes256GCM, bytes, 0) == 1
        && keyring_EVP_CipherInit_locked(sealing, Algorithms.shared.aes256GCM, bytes, 1) == 1
    }
    unsafe box = Mutex(Box(contexts: Contexts(opening: opening, sealing: sealing)))
    guard ok else { throw .drained("AES-256-GCM") }
  }

  deinit { wipe() }

  /// Cleanses the key schedules; every later call throws `.wiped`.
  public func wipe() {
    box.withLock { box in
      // SAFETY: each context is freed once; both are nil after.
      unsafe EVP_CIPHER_CTX_free(box.contexts.opening)
      unsafe EVP_CIPHER_CTX_free(box.contexts.sealing)
      unsafe box.contexts = Contexts(opening: nil, sealing: nil)
    }
  }

  /// Decrypts into `output`, which has exactly `ciphertextAndTag.count - 16` bytes; it is wiped where authentication fails.
  ///
  /// - Throws: `CryptographyError.authenticationFailed`, `.invalidLength`, `.wiped`.
  public func open(
    ciphertextAndTag: [UInt8],
    nonce: [UInt8],
    authenticatedData: [UInt8],
    into output: UnsafeMutableRawBufferPointer
  ) throws(CryptographyError) {
    let count = ciphertextAndTag.count - Self.tagBytes
    guard count >= 0, output.count == count, nonce.count == Self.nonceBytes else {
      throw .invalidLength("a record's parts")
    }
    let opened = box.withLock { box -> Bool? in
      guard let context = unsafe box.contexts.opening else { return nil }
      return unsafe Self.open(context, ciphertextAndTag, nonce, authenticatedData, output)
    }
    guard let opened else { throw .wiped }
    guard opened else {
      // SAFETY: `output` lives for the call.
      if let base = output.baseAddress { unsafe OPENSSL_cleanse(base, output.count) }
      ERR_clear_error()
      throw .authenticationFailed
    }
  }

  // SAFETY: lengths were checked by the caller; the tag is where the ciphertext ends. The final call is what authenticates, for
  // an empty ciphertext too.
  private static func open(
    _ context: OpaquePointer,
    _ input: [UInt8],
    _ nonce: [UInt8],
    _ data: [UInt8],
    _ output: UnsafeMutableRawBufferPointer
  ) -> Bool {
    var written: Int32 = 0
    guard unsafe EVP_DecryptInit_ex2(context, nil, nil, nonce, nil) == 1,
      unsafe EVP_DecryptUpdate(context, nil, &written, data, Int32(data.count)) == 1
    else { return false }
    return unsafe input.withUnsafeBufferPointer { input in
      guard let bytes = input.baseAddress else { return false }
      let count = input.count - tagBytes
      let tag = unsafe UnsafeMutableRawPointer(mutating: bytes + count)
      let out = unsafe output.bindMemory(to: UInt8.self).baseAddress
      guard unsafe EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, tag) == 1 else { return false }
      if count > 0 {
        guard unsafe EVP_DecryptUpdate(context, out, &written, bytes, Int32(count)) == 1 else { return false }
      }
      var scratch: UInt8 = 0
      return unsafe EVP_DecryptFinal_ex(context, &scratch, &written) == 1
    }
  }

  /// Encrypts; the result is the ciphertext, then the tag.
  ///
  /// - Throws: `CryptographyError.wiped`, `.invalidLength`, `.library`.
  public func seal(
    _ plaintext: Secret,
    nonce: [UInt8],
    authenticatedData: [UInt8]
  ) throws(CryptographyError) -> [UInt8] {
    guard nonce.count == Self.nonceBytes else { throw .invalidLength("a nonce has 12 bytes") }
    var output = [UInt8](repeating: 0, count: plaintext.count + Self.tagBytes)
    ERR_clear_error()
    let sealed = unsafe plaintext.withUnsafeBytes { plaintext in
      unsafe output.withUnsafeMutableBytes { output in
        box.withLock { box -> Bool? in
          guard let context = unsafe box.contexts.sealing else { return nil }
          return unsafe Self.seal(context, plaintext, nonce, authenticatedData, output)
        }
      }
    }
    guard let sealed else { throw .wiped }
    guard sealed else { throw .drained("AES-256-GCM") }
    return output
  }

  // SAFETY: `output` has 16 bytes more than `plaintext`; the tag goes there.
  private static func seal(
    _ context: OpaquePointer,
    _ plaintext: UnsafeRawBufferPointer,
    _ nonce: [UInt8],
    _ data: [UInt8],
    _ output: UnsafeMutableRawBufferPointer
  ) -> Bool {
    var written: Int32 = 0
    let bytes = unsafe output.bindMemory(to: UInt8.self).baseAddress
    guard unsafe EVP_EncryptInit_ex2(context, nil, nil, nonce, nil) == 1,
      unsafe EVP_EncryptUpdate(context, nil, &written, data, Int32(data.count)) == 1
    else { return false }
    if plaintext.count > 0 {
      guard
        unsafe EVP_EncryptUpdate(
          context,
          bytes,
          &written,
          plaintext.bindMemory(to: UInt8.self).baseAddress,
          Int32(plaintext.count)
        ) == 1
      else { return false }
    }
    guard unsafe EVP_EncryptFinal_ex(context, bytes, &written) == 1 || plaintext.isEmpty else { return false }
    let tag = unsafe output.baseAddress.unsafelyUnwrapped + plaintext.count
    return unsafe EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1
  }
}
