import COpenSSL
import KeyringTestSupport
import TLSTransport

/// A certificate of any oddity, made with libcrypto: what `CertificateAuthority` rightly does not issue.
@safe
final class OddCertificate {
  /// What is odd about it.
  struct Shape {
    var commonName = "client"
    /// Seconds from now.
    var notBefore = -300
    /// Seconds from now.
    var notAfter = 3600
    var extensions: [(nid: Int32, value: String)] = []

    /// A client's certificate with these SANs, as X509V3_EXT_conf_nid reads them; none without.
    static func client(_ names: String?) -> Shape {
      Shape(
        extensions: [(NID_basic_constraints, "critical,CA:FALSE"), (NID_ext_key_usage, "clientAuth")]
          + (names.map { [(NID_subject_alt_name, $0)] } ?? [])
      )
    }

    static let authority = Shape(
      commonName: "CA",
      extensions: [
        (NID_basic_constraints, "critical,CA:TRUE"), (NID_key_usage, "critical,keyCertSign,cRLSign"),
      ]
    )
  }

  struct OpenSSLFailure: Error {}

  let certificate: OpaquePointer
  let key: OpaquePointer

  /// Makes one with a new key, signed by `issuer`, or by itself.
  init(_ shape: Shape, issuer: OddCertificate? = nil) throws {
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
  func write(_ name: String, _ directory: TestDirectory) throws {
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

/// A CA, and a server and a client in good order under it.
struct OddPKI {
  let directory: TestDirectory
  let authority: OddCertificate
  let server: TLSContext
  static let trustDomain = "test.example"

  init() throws {
    directory = try TestDirectory()
    authority = try OddCertificate(.authority)
    try authority.write("ca", directory)
    server = try OddPKI.makeServer(directory, authority, Self.serverShape())
    try OddCertificate(.client("URI:spiffe://test.example/admin"), issuer: authority).write(
      "client",
      directory
    )
  }

  static func serverShape(_ names: String = "DNS:localhost,IP:127.0.0.1") -> OddCertificate.Shape {
    OddCertificate.Shape(
      commonName: "localhost",
      extensions: [
        (NID_basic_constraints, "critical,CA:FALSE"), (NID_ext_key_usage, "serverAuth"),
        (NID_subject_alt_name, names),
      ]
    )
  }

  private static func makeServer(
    _ directory: TestDirectory,
    _ authority: OddCertificate,
    _ shape: OddCertificate.Shape
  ) throws -> TLSContext {
    try OddCertificate(shape, issuer: authority).write("server", directory)
    return try TLSContext(files("server", directory), role: .server(trustDomain: trustDomain))
  }

  static func files(_ name: String, _ directory: TestDirectory) -> TLSConfiguration {
    TLSConfiguration(
      certificateFile: directory("\(name).crt"),
      privateKeyFile: directory("\(name).key"),
      authorityFile: directory("ca.crt")
    )
  }

  /// Our client, with the good certificate.
  func client() throws -> TLSContext { try TLSContext(Self.files("client", directory), role: .client) }

  func issue(_ shape: OddCertificate.Shape) throws -> OddCertificate {
    try OddCertificate(shape, issuer: authority)
  }

  /// A good client's certificate.
  func good() throws -> OddCertificate {
    try issue(.client("URI:spiffe://test.example/tenant/acme/instance/db1"))
  }
}
