internal import COpenSSL
public import SecureMemory

/// A certificate and its private key, as PEM.
public struct IssuedCertificate: Sendable {
  /// The certificate; public.
  public let certificatePEM: String
  /// The PKCS #8 private key.
  public let privateKeyPEM: Secret
}

/// What a certificate is for.
public enum CertificatePurpose: Sendable, Equatable {
  /// A client: one URI SAN, which is its identity (X509-SVID).
  case client(uri: String)
  /// A server: host names and IP addresses as SANs.
  case server(hosts: [String])
}

/// Issues X.509 certificates (RFC 5280) with keys on P-256: for those who have no CA of their own.
@safe
public final class CertificateAuthority {
  let certificate: OpaquePointer
  let key: OpaquePointer

  private init(_ certificate: OpaquePointer, _ key: OpaquePointer) {
    unsafe self.certificate = certificate
    unsafe self.key = key
  }

  deinit {
    unsafe X509_free(certificate)
    unsafe EVP_PKEY_free(key)
  }

  /// Makes a CA that signs leaf certificates only (path length 0).
  ///
  /// - Parameters:
  ///   - name: its common name.
  ///   - days: of validity.
  public static func create(name: String, days: Int) throws(CryptographyError) -> IssuedCertificate {
    let key = unsafe try makeKey()
    defer { unsafe EVP_PKEY_free(key) }
    let certificate = unsafe try newCertificate(subject: name, days: days, key: key)
    defer { unsafe X509_free(certificate) }
    unsafe X509_set_issuer_name(certificate, X509_get_subject_name(certificate))
    try unsafe addExtensions(
      to: certificate,
      issuer: certificate,
      [
        (NID_basic_constraints, "critical,CA:TRUE,pathlen:0"),
        (NID_key_usage, "critical,keyCertSign,cRLSign"),
        (NID_subject_key_identifier, "hash"),
      ]
    )
    try unsafe sign(certificate, key)
    return IssuedCertificate(
      certificatePEM: try unsafe pem(certificate),
      privateKeyPEM: try unsafe pem(privateKey: key)
    )
  }

  /// Loads a CA.
  ///
  /// - Throws: `CryptographyError.malformed` where certificate and key are not PEM, or not of each other.
  public static func load(certificatePEM: String, privateKeyPEM: Secret) throws(CryptographyError)
    -> CertificateAuthority
  {
    ERR_clear_error()
    let certificate = unsafe readCertificate(certificatePEM)
    let key = unsafe readPrivateKey(privateKeyPEM)
    ERR_clear_error()
    guard let certificate = unsafe certificate, let key = unsafe key,
      unsafe X509_check_private_key(certificate, key) == 1
    else {
      unsafe X509_free(certificate)
      unsafe EVP_PKEY_free(key)
      throw .malformed("CA: not a certificate and its private key in PEM")
    }
    return unsafe CertificateAuthority(certificate, key)
  }

  /// Issues a certificate for a new key. A server's is valid five minutes before now, for clients whose clock is behind. A client's is not: where
  /// its name was revoked before, the start of its validity has to show that it was issued since.
  ///
  /// - Parameter days: of validity.
  public func issue(_ purpose: CertificatePurpose, days: Int) throws(CryptographyError) -> IssuedCertificate {
    let leafKey = unsafe try Self.makeKey()
    defer { unsafe EVP_PKEY_free(leafKey) }
    // An X.509 name is informative here: identity is the SAN, and nothing else.
    let certificate = try unsafe Self.newCertificate(
      subject: purpose.subject,
      days: days,
      key: leafKey,
      backdatedSeconds: purpose.backdatedSeconds
    )
    defer { unsafe X509_free(certificate) }
    unsafe X509_set_issuer_name(certificate, X509_get_subject_name(self.certificate))
    try unsafe Self.addExtensions(
      to: certificate,
      issuer: self.certificate,
      [
        (NID_basic_constraints, "critical,CA:FALSE"), (NID_key_usage, "critical,digitalSignature"),
        (NID_ext_key_usage, purpose.extendedKeyUsage), (NID_subject_alt_name, purpose.subjectAlternativeName),
        (NID_subject_key_identifier, "hash"), (NID_authority_key_identifier, "keyid:always"),
      ]
    )
    try unsafe Self.sign(certificate, key)
    return IssuedCertificate(
      certificatePEM: try unsafe Self.pem(certificate),
      privateKeyPEM: try unsafe Self.pem(privateKey: leafKey)
    )
  }

  // MARK: Parts

  private static func makeKey() throws(CryptographyError) -> OpaquePointer {
    ERR_clear_error()
    guard let key = unsafe keyring_EVP_EC_gen("P-256") else { throw .drained("key generation") }
    return unsafe key
  }

  private static func newCertificate(
    subject: String,
    days: Int,
    key: OpaquePointer,
    backdatedSeconds: Int = 300
  ) throws(CryptographyError) -> OpaquePointer {
    guard (1...36_500).contains(days) else {
      throw .invalidLength("a certificate is valid for 1 to 36,500 days")
    }
    ERR_clear_error()
    // SAFETY: the certificate is owned by the caller; what is set is copied.
    guard let certificate = unsafe X509_new() else { throw .drained("certificate") }
    var serial = try SystemRandom.bytes(count: 20)
    serial[0] = serial[0] & 0x7f | 0x40  // 159 bits, positive (RFC 5280 section 4.1.2.2)
    let number = unsafe BN_bin2bn(serial, Int32(serial.count), nil)
    defer { unsafe BN_free(number) }
    let name = unsafe X509_get_subject_name(certificate)
    let isMade =
      unsafe X509_set_version(certificate, 2) == 1
      && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nil
      && X509_gmtime_adj(X509_getm_notBefore(certificate), -backdatedSeconds) != nil
      && X509_time_adj_ex(X509_getm_notAfter(certificate), Int32(days), 0, nil) != nil
      && X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8, subject, -1, -1, 0) == 1
      && X509_set_pubkey(certificate, key) == 1
    guard isMade else {
      unsafe X509_free(certificate)
      throw .drained("certificate")
    }
    return unsafe certificate
  }

  private static func addExtensions(
    to certificate: OpaquePointer,
    issuer: OpaquePointer,
    _ list: [(nid: Int32, value: String)]
  ) throws(CryptographyError) {
    // SAFETY: the context refers to live certificates for the length of the calls; extensions are copied, then freed.
    var context = unsafe X509V3_CTX()
    unsafe keyring_X509V3_set_ctx_nodb(&context)
    unsafe X509V3_set_ctx(&context, issuer, certificate, nil, nil, 0)
    for item in list {
      ERR_clear_error()
      guard let made = unsafe X509V3_EXT_conf_nid(nil, &context, item.nid, item.value) else {
        throw .drained("certificate extension")
      }
      defer { unsafe X509_EXTENSION_free(made) }
      guard unsafe X509_add_ext(certificate, made, -1) == 1 else { throw .drained("certificate extension") }
    }
  }

  private static func sign(_ certificate: OpaquePointer, _ key: OpaquePointer) throws(CryptographyError) {
    ERR_clear_error()
    guard unsafe X509_sign(certificate, key, EVP_sha256()) > 0 else { throw .drained("signature") }
  }

  private static func pem(_ certificate: OpaquePointer) throws(CryptographyError) -> String {
    // SAFETY: the BIO's memory is copied before it is freed.
    guard let bio = unsafe BIO_new(BIO_s_mem()) else { throw .drained("PEM") }
    defer { unsafe BIO_free(bio) }
    guard unsafe PEM_write_bio_X509(bio, certificate) == 1 else { throw .drained("PEM") }
    var data: UnsafeMutablePointer<CChar>?
    let count = unsafe keyring_BIO_get_mem_data(bio, &data)
    return unsafe String(decoding: UnsafeRawBufferPointer(start: data, count: count), as: UTF8.self)
  }

  static func pem(privateKey key: OpaquePointer) throws(CryptographyError) -> Secret {
    // SAFETY: a BIO of the secure heap; its memory is copied into a Secret before it is freed, and cleansed by that.
    guard let bio = unsafe BIO_new(BIO_s_secmem()) else { throw .drained("PEM") }
    defer { unsafe BIO_free(bio) }
    guard unsafe PEM_write_bio_PKCS8PrivateKey(bio, key, nil, nil, 0, nil, nil) == 1 else {
      throw .drained("PEM")
    }
    var data: UnsafeMutablePointer<CChar>?
    let count = unsafe keyring_BIO_get_mem_data(bio, &data)
    do {
      return try unsafe Secret(copying: UnsafeRawBufferPointer(start: data, count: count))
    } catch {
      throw .memory(error)
    }
  }
}

extension CertificatePurpose {
  fileprivate var subject: String {
    switch self {
    case .client: "keyring client"
    case .server(let hosts): String((hosts.first ?? "keyringd").prefix(64))
    }
  }

  fileprivate var backdatedSeconds: Int {
    switch self {
    case .client: 0
    case .server: 300
    }
  }

  fileprivate var extendedKeyUsage: String {
    switch self {
    case .client: "clientAuth"
    case .server: "serverAuth"
    }
  }

  /// Names were checked by the caller: no comma can add one here.
  fileprivate var subjectAlternativeName: String {
    switch self {
    case .client(let uri): return "URI:\(uri)"
    case .server(let hosts):
      return hosts.map { host in
        let isAddress = host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." }
        return isAddress ? "IP:\(host)" : "DNS:\(host)"
      }.joined(separator: ",")
    }
  }
}
