internal import COpenSSL
internal import Glibc
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory

/// Where certificates and keys are.
public struct TLSConfiguration: Sendable {
  /// PEM: the certificate, then those between it and the CA.
  public let certificateFile: String
  /// PEM, mode 0600.
  public let privateKeyFile: String
  /// PEM: the CAs that the peer's certificate may come from.
  public let authorityFile: String

  /// Puts the paths together.
  public init(certificateFile: String, privateKeyFile: String, authorityFile: String) {
    self.certificateFile = certificateFile
    self.privateKeyFile = privateKeyFile
    self.authorityFile = authorityFile
  }
}

/// Settings shared by connections: one SSL_CTX. TLS 1.3 only, a certificate on both sides, ALPN `keyring/1`, no tickets, no resumption, no
/// early data. SSLKEYLOGFILE has no effect: no key log callback is ever set.
@safe
public final class TLSContext: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because an SSL_CTX may be shared by threads once it is set up (ssl(7)), and is not changed after init.

  /// The ALPN protocol.
  public static let protocolName = "keyring/1"

  /// Which side.
  public enum Role: Sendable, Equatable {
    /// Refuses clients without a certificate that names somebody in this trust domain.
    case server(trustDomain: String)
    case client
  }

  let role: Role
  let context: OpaquePointer

  /// Loads certificate, key and CA, and checks that they go together and are valid now.
  ///
  /// - Throws: `TLSError.configuration`, naming the file.
  public init(_ configuration: TLSConfiguration, role: Role) throws(TLSError) {
    self.role = role
    ERR_clear_error()
    let method = unsafe role == .client ? TLS_client_method() : TLS_server_method()
    guard let context = unsafe SSL_CTX_new(method) else {
      throw .configuration("no TLS: \(TLSError.drain())")
    }
    unsafe self.context = context
    try restrict()
    try load(configuration)
    switch role {
    case .server: installServerCallbacks()
    case .client:
      unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
      let names = Self.alpnNames
      guard unsafe SSL_CTX_set_alpn_protos(context, names, UInt32(names.count)) == 0 else {
        throw .configuration("ALPN: \(TLSError.drain())")
      }
    }
  }

  deinit { unsafe SSL_CTX_free(context) }

  private static let alpnNames: [UInt8] = [UInt8(protocolName.utf8.count)] + Array(protocolName.utf8)

  // MARK: Settings

  private func restrict() throws(TLSError) {
    // SAFETY: the context is live; strings live for the calls.
    unsafe keyring_SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION)
    unsafe keyring_SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION)
    let suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    guard unsafe SSL_CTX_set_ciphersuites(context, suites) == 1,
      unsafe keyring_SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") == 1,
      unsafe SSL_CTX_set_num_tickets(context, 0) == 1, unsafe SSL_CTX_set_max_early_data(context, 0) == 1
    else { throw .configuration("TLS settings: \(TLSError.drain())") }
    unsafe keyring_SSL_CTX_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
    let options =
      keyring_SSL_OP_NO_TICKET() | keyring_SSL_OP_NO_RENEGOTIATION() | keyring_SSL_OP_NO_COMPRESSION()
    unsafe SSL_CTX_set_options(context, options)
    // Record buffers are given back, and the wiping allocator cleanses them: on a client after each use, since every answer may be a secret;
    // on a server by TLSEngine.releaseBuffers, after what may hold one and when idle.
    if role == .client { unsafe keyring_SSL_CTX_set_mode(context, Int(SSL_MODE_RELEASE_BUFFERS)) }
    unsafe SSL_CTX_set_verify_depth(context, 2)
  }

  private func load(_ files: TLSConfiguration) throws(TLSError) {
    let chain = unsafe try certificates(files.certificateFile)
    defer { unsafe chain.forEach { unsafe X509_free($0) } }
    guard let leaf = unsafe chain.first, unsafe SSL_CTX_use_certificate(context, leaf) == 1 else {
      throw .configuration("\(files.certificateFile): \(TLSError.drain())")
    }
    try unsafe checkDates(leaf, files.certificateFile)
    for index in unsafe chain.indices.dropFirst() {
      let certificate = unsafe chain[index]
      unsafe X509_up_ref(certificate)
      unsafe keyring_SSL_CTX_add0_chain_cert(context, certificate)
    }
    try loadKey(files)
    let authorities = unsafe try certificates(files.authorityFile)
    let store = unsafe SSL_CTX_get_cert_store(context)
    for index in unsafe authorities.indices {
      let certificate = unsafe authorities[index]
      guard unsafe X509_STORE_add_cert(store, certificate) == 1,
        unsafe SSL_CTX_add_client_CA(context, certificate) == 1
      else { throw .configuration("\(files.authorityFile): \(TLSError.drain())") }
      unsafe X509_free(certificate)
    }
  }

  private func certificates(_ path: String) throws(TLSError) -> [OpaquePointer] {
    ERR_clear_error()
    guard let bio = unsafe BIO_new_file(path, "r") else {
      throw .configuration("cannot open \(path): \(TLSError.drain())")
    }
    defer { unsafe BIO_free(bio) }
    var found: [OpaquePointer] = unsafe []
    while let certificate = unsafe PEM_read_bio_X509(bio, nil, nil, nil) { unsafe found.append(certificate) }
    ERR_clear_error()  // the end of the file is an error to PEM_read_bio
    guard unsafe !found.isEmpty else { throw .configuration("\(path) holds no PEM certificate") }
    return unsafe found
  }

  private func checkDates(_ certificate: OpaquePointer, _ path: String) throws(TLSError) {
    // SAFETY: the certificate is live; a nil time means now.
    guard unsafe X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0 else {
      throw .configuration("\(path): the certificate is not valid yet")
    }
    guard unsafe X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0 else {
      throw .configuration("\(path): the certificate has expired")
    }
  }

  private func loadKey(_ files: TLSConfiguration) throws(TLSError) {
    let pem: Secret
    do {
      pem = try SecretFile.read(files.privateKeyFile)
    } catch {
      throw .configuration("private key: \(error)")
    }
    ERR_clear_error()
    // SAFETY: the BIO reads from the secret's memory, which outlives it; a password callback that gives none stops prompts.
    let isUsable = unsafe pem.withUnsafeBytes { bytes -> Bool in
      guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress, Int32(bytes.count)) else { return false }
      defer { unsafe BIO_free(bio) }
      guard let key = unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, _ in -1 }, nil) else {
        return false
      }
      defer { unsafe EVP_PKEY_free(key) }
      return unsafe SSL_CTX_use_PrivateKey(context, key) == 1
    }
    guard isUsable, unsafe SSL_CTX_check_private_key(context) == 1 else {
      throw .configuration(
        "\(files.privateKeyFile) is not the private key of \(files.certificateFile): \(TLSError.drain())"
      )
    }
  }

  // MARK: Callbacks

  private func installServerCallbacks() {
    // SAFETY: `self` outlives the context's use: every connection holds it. The callbacks do not keep what they are given.
    let me = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
    unsafe SSL_CTX_set_cert_verify_callback(
      context,
      { store, me in
        guard let store = unsafe store, let me = unsafe me else { return 0 }
        return unsafe Unmanaged<TLSContext>.fromOpaque(me).takeUnretainedValue().verify(store)
      },
      me
    )
    unsafe SSL_CTX_set_alpn_select_cb(
      context,
      { _, selected, selectedCount, offered, offeredCount, _ in
        unsafe TLSContext.selectProtocol(selected, selectedCount, offered, offeredCount)
      },
      nil
    )
  }

  /// Chain and purpose by OpenSSL, then the identity: a certificate that names nobody is refused in the handshake, with an alert.
  private func verify(_ store: OpaquePointer) -> Int32 {
    // SAFETY: `store` is live during the callback.
    guard unsafe X509_verify_cert(store) == 1 else { return 0 }
    guard case .server(let trustDomain) = role, let leaf = unsafe X509_STORE_CTX_get0_cert(store) else {
      return 0
    }
    do throws(PeerIdentity.Refusal) {
      guard unsafe X509_check_ca(leaf) == 0 else {
        throw PeerIdentity.Refusal("a CA's certificate is nobody's identity")
      }
      let identity = try PeerIdentity.parse(uriSANs: unsafe Self.uriSANs(of: leaf), trustDomain: trustDomain)
      guard let engine = unsafe keyring_X509_STORE_CTX_app_data(store) else { return 0 }
      // SAFETY: the engine put itself there, and owns the SSL that calls.
      unsafe Unmanaged<TLSEngine>.fromOpaque(engine).takeUnretainedValue().verifiedIdentity = identity
      return 1
    } catch {
      unsafe X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION)
      return 0
    }
  }

  private static func selectProtocol(
    _ selected: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
    _ selectedCount: UnsafeMutablePointer<UInt8>?,
    _ offered: UnsafePointer<UInt8>?,
    _ offeredCount: UInt32
  ) -> Int32 {
    // SAFETY: what is selected points into what was offered, which OpenSSL keeps (SSL_CTX_set_alpn_select_cb(3)).
    guard let offered = unsafe offered else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    let names = alpnNames
    var index = 0
    while index < Int(offeredCount) {
      let count = unsafe Int(offered[index])
      guard index + 1 + count <= Int(offeredCount) else { break }
      let name = unsafe UnsafeBufferPointer(start: offered + index + 1, count: count)
      if unsafe name.elementsEqual(names.dropFirst()) {
        unsafe selected?.pointee = offered + index + 1
        unsafe selectedCount?.pointee = UInt8(count)
        return SSL_TLSEXT_ERR_OK
      }
      index += 1 + count
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL
  }

  // MARK: Certificates

  /// The URI SANs of a certificate, as the bytes that stand there.
  static func uriSANs(of certificate: OpaquePointer) -> [[UInt8]] {
    // SAFETY: the names are copied before they are freed.
    guard let names = unsafe X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else { return [] }
    defer { unsafe keyring_GENERAL_NAMES_free(names) }
    var found: [[UInt8]] = []
    for index in 0..<(unsafe keyring_GENERAL_NAMES_count(names)) {
      var count: Int32 = 0
      guard let bytes = unsafe keyring_GENERAL_NAMES_uri(names, index, &count) else { continue }
      unsafe found.append(Array(UnsafeBufferPointer(start: bytes, count: Int(count))))
    }
    return found
  }

  /// A certificate's time as Unix seconds.
  static func unixSeconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64 {
    var parts = unsafe tm()
    // SAFETY: the time belongs to a live certificate.
    guard unsafe ASN1_TIME_to_tm(time, &parts) == 1 else { return 0 }
    return unsafe Int64(timegm(&parts))
  }

  static func fingerprint(of certificate: OpaquePointer) -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    var count: UInt32 = 0
    // SAFETY: SHA-256 writes 32 bytes.
    guard unsafe X509_digest(certificate, EVP_sha256(), &digest, &count) == 1 else { return "" }
    return hexadecimal(digest)
  }
}
