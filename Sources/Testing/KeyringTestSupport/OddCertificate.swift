internal import COpenSSL

/// A certificate of any oddity, made with libcrypto: what `CertificateAuthority` rightly does not issue.
@safe
public final class OddCertificate {
  /// What is odd about it.
  public struct Shape {
    /// Of the subject.
    public var commonName = "client"
    /// Seconds from now.
    public var notBefore = -300
    /// Seconds from now.
    public var notAfter = 3600
    /// As X509V3_EXT_conf_nid reads them.
    public var extensions: [(nid: Int32, value: String)] = []

    /// Puts the parts together.
    public init(commonName: String = "client", extensions: [(nid: Int32, value: String)] = []) {
      self.commonName = commonName
      self.extensions = extensions
    }

    /// A client's certificate with these SANs, as X509V3_EXT_conf_nid reads them; none without.
    public static func client(_ names: String?) -> Shape {
      Shape(
        extensions: [(NID_basic_constraints, "critical,CA:FALSE"), (NID_ext_key_usage, "clientAuth")]
          + (names.map { [(NID_subject_alt_name, $0)] } ?? [])
      )
    }

    /// A CA's.
    public static var authority: Shape {
      Shape(
        commonName: "CA",
        extensions: [
          (NID_basic_constraints, "critical,CA:TRUE"), (NID_key_usage, "critical,keyCertSign,cRLSign"),
        ]
      )
    }
  }

  /// libcrypto refused.
  public struct OpenSSLFailure: Error {
    /// Nothing to add.
    public init() {}
  }

  /// X509.
  public let certificate: OpaquePointer
  /// EVP_PKEY.
  public let key: OpaquePointer

  /// Makes one with a new key, signed by `issuer`, or by itself.
  public init(_ shape: Shape, issuer: OddCertificate? = nil) throws {
    guard let key = unsafe keyring_EVP_EC_gen("P-256"), let certificate = unsafe X509_new() else {
      throw OpenSSLFailure()
    }
    unsafe self.key = key
    unsafe self.certificate = certificate
    var serial = UInt64.random(in: 1...UInt64.max >> 1).bigEndian
    // SAFETY: everything set is copied, and lives for the calls.
    let isMade = unsafe withUnsafeBytes(of: &serial) { bytes in
      let number = unsafe BN_bin2bn(bytes.bindMemory(to: UInt8.self).baseAddress, 8, nil)
      defer { unsafe BN_free(number) }
      return unsafe BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nil
        && X509_set_version(certificate, 2) == 1
        && X509_gmtime_adj(X509_getm_notBefore(certificate), shape.notBefore) != nil
        && X509_gmtime_adj(X509_getm_notAfter(certificate), shape.notAfter) != nil
        && X509_NAME_add_entry_by_NID(
          X509_get_subject_name(certificate),
          NID_commonName,
          MBSTRING_UTF8,
          shape.commonName,
          -1,
          -1,
          0
        ) == 1
        && X509_set_pubkey(certificate, key) == 1
    }
    guard isMade else { throw OpenSSLFailure() }
    let signer = unsafe issuer?.certificate ?? certificate
    unsafe X509_set_issuer_name(certificate, X509_get_subject_name(signer))
    for item in shape.extensions { try unsafe add(item.nid, item.value, signer) }
    guard unsafe X509_sign(certificate, issuer?.key ?? key, EVP_sha256()) > 0 else { throw OpenSSLFailure() }
  }

  /// The CA of files that are there already.
  public init(readingFrom directory: TestDirectory, _ name: String) throws {
    // SAFETY: the BIOs are freed when what is in them is read.
    func read(_ path: String, _ next: (OpaquePointer) -> OpaquePointer?) throws -> OpaquePointer {
      guard let bio = unsafe BIO_new_file(path, "r") else { throw OpenSSLFailure() }
      defer { unsafe BIO_free(bio) }
      guard let item = unsafe next(bio) else { throw OpenSSLFailure() }
      return unsafe item
    }
    unsafe certificate = try read(directory("\(name).crt")) { unsafe PEM_read_bio_X509($0, nil, nil, nil) }
    unsafe key = try read(directory("\(name).key")) {
      unsafe PEM_read_bio_PrivateKey($0, nil, nil, nil)
    }
  }

  deinit {
    unsafe X509_free(certificate)
    unsafe EVP_PKEY_free(key)
  }

  private func add(_ nid: Int32, _ value: String, _ signer: OpaquePointer) throws {
    var context = unsafe X509V3_CTX()
    // SAFETY: the context refers to live certificates; the extension is copied, then freed.
    unsafe keyring_X509V3_set_ctx_nodb(&context)
    unsafe X509V3_set_ctx(&context, signer, certificate, nil, nil, 0)
    guard let made = unsafe X509V3_EXT_conf_nid(nil, &context, nid, value) else { throw OpenSSLFailure() }
    defer { unsafe X509_EXTENSION_free(made) }
    guard unsafe X509_add_ext(certificate, made, -1) == 1 else { throw OpenSSLFailure() }
  }

  /// Writes NAME.crt and NAME.key.
  public func write(_ name: String, _ directory: TestDirectory) throws {
    try directory.write(
      "\(name).crt",
      try unsafe text { bio in unsafe PEM_write_bio_X509(bio, certificate) }
    )
    try directory.write(
      "\(name).key",
      try unsafe text { bio in unsafe PEM_write_bio_PrivateKey(bio, key, nil, nil, 0, nil, nil) }
    )
  }

  private func text(_ write: (OpaquePointer) -> Int32) throws -> String {
    guard let bio = unsafe BIO_new(BIO_s_mem()) else { throw OpenSSLFailure() }
    defer { unsafe BIO_free(bio) }
    guard unsafe write(bio) == 1 else { throw OpenSSLFailure() }
    var data: UnsafeMutablePointer<CChar>?
    let count = unsafe keyring_BIO_get_mem_data(bio, &data)
    return unsafe String(decoding: UnsafeRawBufferPointer(start: data, count: count), as: UTF8.self)
  }
}
