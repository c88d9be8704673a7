internal import COpenSSL
public import SecureMemory

extension CertificateAuthority {
  /// What a certificate with its private key is to a CA.
  public enum Standing: Sendable, Equatable {
    /// Issued by it for this URI, in force, and of this private key.
    case good
    /// Issued by it for this URI, and over, or not of this private key.
    case over
    /// Anything else.
    case foreign
  }

  /// Looks at a client's certificate and private key.
  ///
  /// - Parameter uri: the one URI SAN that it is to have.
  public func standing(certificatePEM: String, privateKeyPEM: Secret, uri: String) -> Standing {
    defer { ERR_clear_error() }
    guard let leaf = unsafe Self.readCertificate(certificatePEM) else { return .foreign }
    defer { unsafe X509_free(leaf) }
    guard unsafe X509_verify(leaf, key) == 1, unsafe Self.uris(of: leaf) == [Array(uri.utf8)] else {
      return .foreign
    }
    guard let leafKey = unsafe Self.readPrivateKey(privateKeyPEM) else { return .over }
    defer { unsafe EVP_PKEY_free(leafKey) }
    // X509_cmp_current_time(3): negative for a time that is past, 0 for one that is none.
    let isInForce =
      unsafe X509_cmp_current_time(X509_get0_notBefore(leaf)) < 0
      && X509_cmp_current_time(X509_get0_notAfter(leaf)) > 0
    return unsafe isInForce && X509_check_private_key(leaf, leafKey) == 1 ? .good : .over
  }

  private static func uris(of certificate: OpaquePointer) -> [[UInt8]] {
    guard let names = unsafe X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else { return [] }
    defer { unsafe keyring_GENERAL_NAMES_free(names) }
    var uris: [[UInt8]] = []
    for index in 0..<(unsafe keyring_GENERAL_NAMES_count(names)) {
      var count: Int32 = 0
      // SAFETY: the bytes are the name's own and are copied at once; nil where it is no URI.
      guard let bytes = unsafe keyring_GENERAL_NAMES_uri(names, index, &count) else { continue }
      uris.append(unsafe Array(UnsafeBufferPointer(start: bytes, count: Int(count))))
    }
    return uris
  }

  // MARK: PEM

  // SAFETY (both): the BIOs read from memory that outlives them; what is answered is the caller's to free.
  static func readCertificate(_ pem: String) -> OpaquePointer? {
    unsafe Array(pem.utf8).withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_X509(bio, nil, nil, nil)
    }
  }

  static func readPrivateKey(_ pem: Secret) -> OpaquePointer? {
    unsafe pem.withUnsafeBytes { bytes -> OpaquePointer? in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return nil }
      defer { unsafe BIO_free(bio) }
      return unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil)
    }
  }
}
