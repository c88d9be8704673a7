internal import COpenSSL
internal import Glibc
public import NIOCore
public import SecureMemory

/// One TLS connection without a socket: bytes in, bytes out. "Not yet" is no error. One thread at a time.
@safe
public final class TLSEngine {
  /// Where a connection is in its life.
  public enum State: Sendable, Equatable {
    case handshaking
    case open
    /// The peer said that it sends no more.
    case closedByPeer
    case failed
  }

  /// Where it is.
  public private(set) var state = State.handshaking
  /// Of the certificate that the handshake verified; a server's connections only.
  var verifiedIdentity: PeerIdentity?
  /// Why the handshake refused the peer's certificate, for the log.
  var refusal: String?
  private let context: TLSContext
  private let ssl: OpaquePointer
  private let incoming: OpaquePointer
  private let outgoing: OpaquePointer

  /// Begins a connection.
  ///
  /// - Parameter serverName: the host name or IP address that a client checks the server's certificate for; empty on a server.
  public init(_ context: TLSContext, serverName: String = "") throws(TLSError) {
    self.context = context
    ERR_clear_error()
    // SAFETY: the SSL owns both BIOs once they are set, and is freed in deinit.
    guard let ssl = unsafe SSL_new(context.context), let incoming = unsafe BIO_new(BIO_s_mem()),
      let outgoing = unsafe BIO_new(BIO_s_mem())
    else { throw .connection("no TLS connection: \(TLSError.drain())") }
    unsafe self.ssl = ssl
    unsafe self.incoming = incoming
    unsafe self.outgoing = outgoing
    unsafe keyring_BIO_set_mem_eof_return(incoming, -1)
    unsafe SSL_set_bio(ssl, incoming, outgoing)
    switch context.role {
    case .server:
      unsafe SSL_set_accept_state(ssl)
      unsafe keyring_SSL_set_app_data(ssl, Unmanaged.passUnretained(self).toOpaque())
    case .client:
      unsafe SSL_set_connect_state(ssl)
      try expect(serverName)
    }
  }

  deinit { unsafe SSL_free(ssl) }

  private func expect(_ name: String) throws(TLSError) {
    // An empty name would turn the check off (SSL_set1_host(3)), and a C string ends at a NUL.
    guard !name.isEmpty, !name.utf8.contains(0) else {
      throw .configuration("a client has to say which server it expects: '\(name)' is not a host name")
    }
    let isAddress = unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1
    ERR_clear_error()
    if isAddress { return }
    guard unsafe SSL_set1_host(ssl, name) == 1, unsafe keyring_SSL_set_tlsext_host_name(ssl, name) == 1 else {
      throw .configuration("'\(name)' is not a host name")
    }
  }

  // MARK: Ciphertext

  /// Takes ciphertext from the network.
  public func receive(_ ciphertext: UnsafeRawBufferPointer) {
    guard ciphertext.count > 0 else { return }
    // SAFETY: a memory BIO copies what it is given; it fails when out of memory alone.
    let taken = unsafe BIO_write(incoming, ciphertext.baseAddress, Int32(ciphertext.count))
    precondition(taken == Int32(ciphertext.count), "out of memory")
  }

  /// Moves all ciphertext for the network to the end of `buffer`.
  public func takeCiphertext(into buffer: inout ByteBuffer) {
    let count = unsafe BIO_ctrl_pending(outgoing)
    guard count > 0 else { return }
    unsafe buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { room in
      // SAFETY: `room` has at least `count` bytes.
      unsafe Int(BIO_read(outgoing, room.baseAddress, Int32(count)))
    }
  }

  /// Why another context would refuse the peer's certificate now, dates left aside; nil where it would not.
  public func refusal(by other: TLSContext) -> String? {
    guard other !== context else { return nil }  // it let it in
    // SAFETY: both belong to the SSL, which is live.
    guard let certificate = unsafe SSL_get0_peer_certificate(ssl) else { return "there is no certificate" }
    return unsafe other.refusal(of: certificate, SSL_get_peer_cert_chain(ssl))
  }

  // MARK: Plaintext

  /// Goes on with the handshake.
  ///
  /// - Returns: true once it is done.
  /// - Throws: `TLSError.handshake`; the alert for the peer is then among the ciphertext.
  public func handshake() throws(TLSError) -> Bool {
    ERR_clear_error()
    let result = unsafe SSL_do_handshake(ssl)
    if result == 1 {
      state = .open
      return true
    }
    let reason = unsafe SSL_get_error(ssl, result)
    if reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE { return false }
    state = .failed
    let verification = unsafe SSL_get_verify_result(ssl)
    let text = TLSError.drain()
    let certificate =
      verification == X509_V_OK
      ? "" : " (\(unsafe refusal ?? String(cString: X509_verify_cert_error_string(verification))))"
    throw .handshake("TLS handshake: \(text)\(certificate)")
  }

  /// Decrypts all that was received to the end of `plaintext`.
  ///
  /// - Throws: `TLSError.connection`.
  public func decrypt(into plaintext: inout WipedBuffer) throws(TLSError) {
    while state == .open {
      var reason = SSL_ERROR_NONE
      keyring_clear_errors()
      unsafe plaintext.append(minimum: 4096) { room in
        // SAFETY: `room` is as long as it says.
        let count = unsafe SSL_read(ssl, room.baseAddress, Int32(min(room.count, 1 << 20)))
        guard count <= 0 else { return Int(count) }
        reason = unsafe SSL_get_error(ssl, count)
        return 0
      }
      switch reason {
      case SSL_ERROR_NONE:
        // Another read would only say that there is nothing more.
        if unsafe SSL_pending(ssl) == 0 && BIO_ctrl_pending(incoming) == 0 { return }
      case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return
      case SSL_ERROR_ZERO_RETURN: state = .closedByPeer
      default:
        state = .failed
        throw .connection("TLS: \(TLSError.drain())")
      }
    }
  }

  /// Gives back, wiped, the buffers that records are decrypted and encrypted in; nothing while one is in the middle of a record.
  public func releaseBuffers() {
    _ = unsafe SSL_free_buffers(ssl)
    keyring_clear_errors()
  }

  /// Encrypts `plaintext`; the ciphertext is then to be taken.
  public func encrypt(_ plaintext: borrowing WipedBuffer) throws(TLSError) {
    keyring_clear_errors()
    let written = unsafe plaintext.withUnsafeBytes { bytes in
      // SAFETY: memory BIOs take everything, so that a write is whole or fails.
      unsafe bytes.isEmpty ? 1 : SSL_write(ssl, bytes.baseAddress, Int32(bytes.count))
    }
    guard written > 0 else {
      state = .failed
      throw .connection("TLS: \(TLSError.drain())")
    }
  }

  /// Says to the peer that nothing more is sent.
  public func closeNotify() {
    guard state == .open || state == .closedByPeer else { return }
    ERR_clear_error()
    _ = unsafe SSL_shutdown(ssl)
    ERR_clear_error()
  }

  // MARK: The peer

  /// What the certificate of the peer says, once the handshake is done.
  ///
  /// - Throws: `TLSError.handshake` where it names nobody, or ALPN was not agreed on.
  public func peer() throws(TLSError) -> TLSPeer {
    // SAFETY: name and certificate belong to the SSL and are copied from.
    var name: UnsafePointer<UInt8>?
    var count: UInt32 = 0
    unsafe SSL_get0_alpn_selected(ssl, &name, &count)
    guard
      unsafe UnsafeBufferPointer(start: name, count: Int(count)).elementsEqual(TLSContext.protocolName.utf8)
    else {
      throw .handshake("the peer does not speak \(TLSContext.protocolName)")
    }
    guard let certificate = unsafe SSL_get0_peer_certificate(ssl) else {
      throw .handshake("the peer has no certificate")
    }
    guard context.role == .client || verifiedIdentity != nil else {
      throw .handshake("the peer's certificate was not verified")
    }
    return unsafe TLSPeer(
      identity: verifiedIdentity,
      notBefore: TLSContext.unixSeconds(X509_get0_notBefore(certificate)),
      notAfter: TLSContext.unixSeconds(X509_get0_notAfter(certificate)),
      fingerprint: TLSContext.fingerprint(of: certificate)
    )
  }
}
