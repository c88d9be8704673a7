internal import COpenSSL
internal import Glibc
internal import KeyringStorage
internal import SecureMemory

// What a TLSContext is made of, each part read from its files by itself: where one cannot be used, the others still can.
// SAFETY (all of this file): what was loaded is not changed any more, and libcrypto counts references to it atomically; each class owns what
// it points at until its deinit.

/// A certificate, those between it and the CA, and its private key.
@safe
public final class CertifiedKey: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because what it points at is not changed after init, and reference counts are atomic.
  let chain: [OpaquePointer]
  let key: OpaquePointer
  /// End of the certificate's validity, Unix seconds.
  public let notAfter: Int64

  /// Loads both, and checks that they go together and that the certificate is valid now.
  ///
  /// - Throws: `TLSError.configuration`, naming the file.
  public init(certificateFile: String, privateKeyFile: String) throws(TLSError) {
    let chain = unsafe try PEMFile.certificates(certificateFile)
    do throws(TLSError) {
      try unsafe Self.checkDates(chain[0], certificateFile)
      let key = unsafe try Self.key(privateKeyFile)
      guard unsafe X509_check_private_key(chain[0], key) == 1 else {
        unsafe EVP_PKEY_free(key)
        throw .configuration(
          "\(privateKeyFile) is not the private key of \(certificateFile): \(TLSError.drain())"
        )
      }
      unsafe self.key = key
    } catch {
      unsafe chain.forEach { unsafe X509_free($0) }
      throw error
    }
    unsafe self.chain = chain
    notAfter = unsafe TLSContext.unixSeconds(X509_get0_notAfter(chain[0]))
  }

  deinit {
    unsafe chain.forEach { unsafe X509_free($0) }
    unsafe EVP_PKEY_free(key)
  }

  private static func checkDates(_ certificate: OpaquePointer, _ path: String) throws(TLSError) {
    // SAFETY: the certificate is live; a nil time means now.
    guard unsafe X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0 else {
      throw .configuration("\(path): the certificate is not valid yet")
    }
    guard unsafe X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0 else {
      throw .configuration("\(path): the certificate has expired")
    }
  }

  private static func key(_ path: String) throws(TLSError) -> OpaquePointer {
    let pem: Secret
    do {
      pem = try SecretFile.read(path)
    } catch {
      throw .configuration("private key: \(error)")
    }
    ERR_clear_error()
    // SAFETY: the BIO reads from the secret's memory, which outlives it; a password callback that gives none stops prompts.
    let read = unsafe pem.withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
    }
    guard let key = unsafe read else {
      throw .configuration("\(path) holds no private key: \(TLSError.drain())")
    }
    return unsafe key
  }
}

/// The CAs that the peer's certificate may come from.
@safe
public final class TrustedAuthorities: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because what it points at is not changed after init, and reference counts are atomic.
  let certificates: [OpaquePointer]

  /// Loads them.
  ///
  /// - Throws: `TLSError.configuration`, naming the file.
  public init(file: String) throws(TLSError) { unsafe certificates = try PEMFile.certificates(file) }

  deinit { unsafe certificates.forEach { unsafe X509_free($0) } }
}

/// Which certificates their CAs revoked (RFC 5280 section 5).
@safe
public final class RevocationLists: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because what it points at is not changed after init, and reference counts are atomic.
  let lists: [OpaquePointer]
  /// The first nextUpdate, Unix seconds: from then on certificates that a list is about are refused. 0: none has one.
  public let nextUpdate: Int64

  /// Loads one or more lists, each signed by one of `authorities` and valid now, or no more: such a one refuses everybody, rather than let in
  /// whom its successor refuses.
  ///
  /// - Throws: `TLSError.configuration`, naming the file.
  public init(file: String, authorities: TrustedAuthorities) throws(TLSError) {
    let lists = unsafe try PEMFile.lists(file)
    do throws(TLSError) {
      var first: Int64 = 0
      for index in unsafe lists.indices {
        let list = unsafe lists[index]
        try unsafe Self.check(list, file, authorities)
        guard let end = unsafe X509_CRL_get0_nextUpdate(list) else { continue }
        let second = unsafe TLSContext.unixSeconds(end)
        first = first == 0 ? second : min(first, second)
      }
      nextUpdate = first
    } catch {
      unsafe lists.forEach { unsafe X509_CRL_free($0) }
      throw error
    }
    unsafe self.lists = lists
  }

  deinit { unsafe lists.forEach { unsafe X509_CRL_free($0) } }

  private static func check(
    _ list: OpaquePointer,
    _ file: String,
    _ authorities: TrustedAuthorities
  ) throws(TLSError) {
    let isSigned = unsafe authorities.certificates.contains { authority in
      unsafe X509_NAME_cmp(X509_get_subject_name(authority), X509_CRL_get_issuer(list)) == 0
        && X509_CRL_verify(list, X509_get0_pubkey(authority)) == 1
    }
    ERR_clear_error()
    guard isSigned else {
      throw .configuration("\(file): a revocation list is not signed by any of the client CAs")
    }
    guard unsafe X509_cmp_current_time(X509_CRL_get0_lastUpdate(list)) < 0 else {
      throw .configuration("\(file): a revocation list is not valid yet")
    }
  }
}

/// PEM files, all of whose content has to be understood: what is cut off in the middle is none.
private enum PEMFile {
  static func certificates(_ path: String) throws(TLSError) -> [OpaquePointer] {
    try unsafe read(
      path,
      "certificate",
      { unsafe PEM_read_bio_X509($0, nil, nil, nil) },
      { unsafe X509_free($0) }
    )
  }

  static func lists(_ path: String) throws(TLSError) -> [OpaquePointer] {
    try unsafe read(
      path,
      "revocation list",
      { unsafe PEM_read_bio_X509_CRL($0, nil, nil, nil) },
      { unsafe X509_CRL_free($0) }
    )
  }

  private static func read(
    _ path: String,
    _ what: String,
    _ next: (OpaquePointer) -> OpaquePointer?,
    _ free: (OpaquePointer) -> Void
  ) throws(TLSError) -> [OpaquePointer] {
    ERR_clear_error()
    guard let bio = unsafe BIO_new_file(path, "r") else {
      throw .configuration("cannot open \(path): \(TLSError.drain())")
    }
    defer { unsafe BIO_free(bio) }
    var found: [OpaquePointer] = unsafe []
    while let item = unsafe next(bio) { unsafe found.append(item) }
    // The end of the file is an error to PEM_read_bio, and the only one that is none.
    let isAtEnd = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE
    let why = TLSError.drain()
    guard isAtEnd else {
      unsafe found.forEach { unsafe free($0) }
      throw .configuration("\(path): a PEM block cannot be read: \(why)")
    }
    guard unsafe !found.isEmpty else { throw .configuration("\(path) holds no PEM \(what)") }
    return unsafe found
  }
}
