internal import COpenSSL
internal import Glibc
internal import KeyringCore

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
  public convenience init(_ configuration: TLSConfiguration, role: Role) throws(TLSError) {
    try self.init(
      CertifiedKey(
        certificateFile: configuration.certificateFile,
        privateKeyFile: configuration.privateKeyFile
      ),
      TrustedAuthorities(file: configuration.authorityFile),
      role: role
    )
  }

  /// Puts together what was loaded.
  ///
  /// - Parameter revoked: nil: nothing is. With it, a CA whose list is not among them certifies nobody.
  /// - Throws: `TLSError.configuration`.
  public init(
    _ key: CertifiedKey,
    _ authorities: TrustedAuthorities,
    revoked: RevocationLists? = nil,
    role: Role
  ) throws(TLSError) {
    self.role = role
    ERR_clear_error()
    let method = unsafe role == .client ? TLS_client_method() : TLS_server_method()
    guard let context = unsafe SSL_CTX_new(method) else {
      throw .configuration("no TLS: \(TLSError.drain())")
    }
    unsafe self.context = context
    try restrict()
    try use(key)
    try trust(authorities, revoked)
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

  private func use(_ key: CertifiedKey) throws(TLSError) {
    // SAFETY: the context takes references of its own.
    guard unsafe SSL_CTX_use_certificate(context, key.chain[0]) == 1,
      unsafe SSL_CTX_use_PrivateKey(context, key.key) == 1, unsafe SSL_CTX_check_private_key(context) == 1
    else { throw .configuration("the certificate: \(TLSError.drain())") }
    for index in unsafe key.chain.indices.dropFirst() {
      let certificate = unsafe key.chain[index]
      unsafe X509_up_ref(certificate)
      unsafe keyring_SSL_CTX_add0_chain_cert(context, certificate)
    }
  }

  private func trust(_ authorities: TrustedAuthorities, _ revoked: RevocationLists?) throws(TLSError) {
    // SAFETY: the store takes references of its own.
    let store = unsafe SSL_CTX_get_cert_store(context)
    for index in unsafe authorities.certificates.indices {
      let certificate = unsafe authorities.certificates[index]
      guard unsafe X509_STORE_add_cert(store, certificate) == 1,
        unsafe SSL_CTX_add_client_CA(context, certificate) == 1
      else { throw .configuration("a CA: \(TLSError.drain())") }
    }
    guard let revoked else { return }
    for index in unsafe revoked.lists.indices {
      guard unsafe X509_STORE_add_crl(store, revoked.lists[index]) == 1 else {
        throw .configuration("a revocation list: \(TLSError.drain())")
      }
    }
    guard unsafe keyring_X509_STORE_check_revocation(store) == 1 else {
      throw .configuration("revocation lists: \(TLSError.drain())")
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

  /// Chain, purpose and revocation by OpenSSL, then the identity: a certificate that names nobody is refused in the handshake. Whatever is wrong
  /// with a certificate, its holder is told the same; the log says what it was.
  private func verify(_ store: OpaquePointer) -> Int32 {
    // SAFETY: `store` is live during the callback.
    guard case .server(let trustDomain) = role, let leaf = unsafe X509_STORE_CTX_get0_cert(store),
      let engine = unsafe keyring_X509_STORE_CTX_app_data(store)
    else { return 0 }
    // SAFETY: the engine put itself there, and owns the SSL that calls.
    let me = unsafe Unmanaged<TLSEngine>.fromOpaque(engine).takeUnretainedValue()
    let names = unsafe Self.uriSANs(of: leaf)
    do throws(PeerIdentity.Refusal) {
      if unsafe X509_verify_cert(store) != 1 { throw unsafe Self.refusal(store) }
      guard unsafe X509_check_ca(leaf) == 0 else {
        throw PeerIdentity.Refusal("a CA's certificate is nobody's identity")
      }
      me.verifiedIdentity = try PeerIdentity.parse(uriSANs: names, trustDomain: trustDomain)
      return 1
    } catch {
      let claimed = names.prefix(2).map { Self.printable($0) }.joined(separator: ", ")
      me.refusal =
        "\(error); the certificate says \(claimed.isEmpty ? "nobody" : claimed), SHA-256 \(unsafe Self.fingerprint(of: leaf))"
      unsafe X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION)
      return 0
    }
  }

  private static func refusal(_ store: OpaquePointer) -> PeerIdentity.Refusal {
    // SAFETY: the text is a constant of libcrypto.
    let why = unsafe String(cString: X509_verify_cert_error_string(Int(X509_STORE_CTX_get_error(store))))
    let depth = unsafe X509_STORE_CTX_get_error_depth(store)
    return PeerIdentity.Refusal(depth > 0 ? "\(why) (of an issuer)" : why)
  }

  private static func printable(_ name: [UInt8]) -> String {
    name.prefix(200).reduce(into: "") { text, byte in
      text += (0x21...0x7e).contains(byte) ? String(UnicodeScalar(byte)) : "?"
    }
  }

  /// Why a certificate that was good would be refused by this context; nil where it would not. Dates are left aside: they are looked after
  /// otherwise, and a list that is past its time ends no connection that it let in.
  ///
  /// - Parameter chain: STACK_OF(X509) of those between it and its CA.
  func refusal(of certificate: OpaquePointer, _ chain: OpaquePointer?) -> String? {
    ERR_clear_error()
    defer { ERR_clear_error() }
    // SAFETY: all are live for the call; a store is locked by libcrypto where it has to be.
    guard let store = unsafe X509_STORE_CTX_new() else { return "out of memory" }
    defer { unsafe X509_STORE_CTX_free(store) }
    guard
      unsafe X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(context), certificate, chain) == 1,
      unsafe X509_STORE_CTX_set_default(store, "ssl_client") == 1
    else { return "out of memory" }
    unsafe X509_STORE_CTX_set_depth(store, 2)
    unsafe X509_STORE_CTX_set_flags(store, UInt(keyring_X509_V_FLAG_NO_CHECK_TIME()))
    return unsafe X509_verify_cert(store) == 1 ? nil : Self.refusal(store).description
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
