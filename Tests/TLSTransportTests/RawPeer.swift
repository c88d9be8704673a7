import COpenSSL
import Glibc
import KeyringTestSupport
import NIOCore
import SecureMemory
import TLSTransport

/// A peer made straight of libssl, with none of TLSTransport's rules: an old, odd or hostile one.
@safe
final class RawPeer {
  struct Settings {
    var isServer = false
    var version = TLS1_3_VERSION
    /// Names to offer; nil: no ALPN at all.
    var protocols: [String]? = ["keyring/1"]
    /// Sent after the leaf.
    var chain: [OddCertificate] = []
    /// Offers an external pre-shared key, early data allowed under it.
    var offersEarlyData = false
  }

  private let context: OpaquePointer
  let ssl: OpaquePointer
  private let incoming: OpaquePointer
  private let outgoing: OpaquePointer
  private let tickets = Tickets()
  private var isServer: Bool
  private(set) var isConnected = false
  /// The alert that the other side sent, when it ended the connection with one.
  private(set) var alert: Int?
  private(set) var received: [UInt8] = []

  /// How many NewSessionTicket messages came.
  final class Tickets {
    var count = 0
  }
  var ticketCount: Int { tickets.count }

  init(_ certificate: OddCertificate?, _ settings: Settings = Settings()) throws {
    isServer = settings.isServer
    // SAFETY: everything made here is owned by this object; the SSL owns its BIOs.
    guard let context = unsafe SSL_CTX_new(settings.isServer ? TLS_server_method() : TLS_client_method())
    else {
      throw OddCertificate.OpenSSLFailure()
    }
    unsafe self.context = context
    unsafe keyring_SSL_CTX_set_min_proto_version(context, settings.version)
    unsafe keyring_SSL_CTX_set_max_proto_version(context, settings.version)
    unsafe SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nil)
    if let certificate {
      unsafe SSL_CTX_use_certificate(context, certificate.certificate)
      unsafe SSL_CTX_use_PrivateKey(context, certificate.key)
      for above in settings.chain {
        unsafe X509_up_ref(above.certificate)
        unsafe keyring_SSL_CTX_add0_chain_cert(context, above.certificate)
      }
    }
    guard let ssl = unsafe SSL_new(context), let incoming = unsafe BIO_new(BIO_s_mem()),
      let outgoing = unsafe BIO_new(BIO_s_mem())
    else { throw OddCertificate.OpenSSLFailure() }
    unsafe self.ssl = ssl
    unsafe self.incoming = incoming
    unsafe self.outgoing = outgoing
    unsafe keyring_BIO_set_mem_eof_return(incoming, -1)
    unsafe SSL_set_bio(ssl, incoming, outgoing)
    configure(settings)
  }

  deinit {
    unsafe SSL_free(ssl)
    unsafe SSL_CTX_free(context)
  }

  private func configure(_ settings: Settings) {
    unsafe settings.isServer ? SSL_set_accept_state(ssl) : SSL_set_connect_state(ssl)
    if let protocols = settings.protocols {
      let names = protocols.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
      if settings.isServer {
        let first = unsafe Unmanaged.passRetained(Name(protocols[0])).toOpaque()  // lives as long as the test
        unsafe SSL_CTX_set_alpn_select_cb(
          context,
          { _, out, outCount, _, _, argument in
            guard let argument = unsafe argument else { return SSL_TLSEXT_ERR_ALERT_FATAL }
            let name = unsafe Unmanaged<Name>.fromOpaque(argument).takeUnretainedValue()
            unsafe out?.pointee = UnsafePointer(name.bytes.baseAddress)
            unsafe outCount?.pointee = UInt8(name.bytes.count)
            return SSL_TLSEXT_ERR_OK
          },
          first
        )
      } else {
        unsafe SSL_set_alpn_protos(ssl, names, UInt32(names.count))
      }
    }
    // SAFETY: the counter lives as long as the SSL.
    unsafe SSL_set_msg_callback(ssl) { isWritten, _, contentType, bytes, count, _, counter in
      guard let counter = unsafe counter, isWritten == 0, contentType == SSL3_RT_HANDSHAKE, count > 0,
        unsafe bytes?.load(as: UInt8.self) == UInt8(SSL3_MT_NEWSESSION_TICKET)
      else { return }
      unsafe Unmanaged<Tickets>.fromOpaque(counter).takeUnretainedValue().count += 1
    }
    unsafe SSL_ctrl(ssl, SSL_CTRL_SET_MSG_CALLBACK_ARG, 0, Unmanaged.passUnretained(tickets).toOpaque())
    if settings.offersEarlyData { offerEarlyData() }
  }

  /// Bytes that outlive callbacks.
  @safe
  private final class Name {
    let bytes: UnsafeMutableBufferPointer<UInt8>
    init(_ text: String) {
      unsafe bytes = .allocate(capacity: text.utf8.count)
      _ = unsafe bytes.initialize(from: text.utf8)
    }
  }

  private func offerEarlyData() {
    unsafe SSL_set_psk_use_session_callback(ssl) { ssl, _, identity, identityCount, session in
      let cipher: [UInt8] = [0x13, 0x01]  // TLS_AES_128_GCM_SHA256
      let secret = [UInt8](repeating: 0x42, count: 32)
      let names = Array("keyring/1".utf8)
      guard let made = unsafe SSL_SESSION_new() else { return 0 }
      unsafe SSL_SESSION_set1_master_key(made, secret, secret.count)
      unsafe SSL_SESSION_set_cipher(made, SSL_CIPHER_find(ssl, cipher))
      unsafe SSL_SESSION_set_protocol_version(made, TLS1_3_VERSION)
      unsafe SSL_SESSION_set_max_early_data(made, 16_384)
      unsafe SSL_SESSION_set1_alpn_selected(made, names, names.count)
      // lives as long as the test
      let name = unsafe Unmanaged.passRetained(Name("anybody")).takeUnretainedValue()
      unsafe identity?.pointee = UnsafePointer(name.bytes.baseAddress)
      unsafe identityCount?.pointee = name.bytes.count
      unsafe session?.pointee = made
      return 1
    }
  }

  /// Sends plaintext before the handshake is done.
  func sendEarly(_ text: String) -> Bool {
    var written = 0
    let bytes = Array(text.utf8)
    ERR_clear_error()
    return unsafe SSL_write_early_data(ssl, bytes, bytes.count, &written) == 1
  }

  func send(_ text: String) -> Bool {
    let bytes = Array(text.utf8)
    ERR_clear_error()
    return unsafe SSL_write(ssl, bytes, Int32(bytes.count)) == Int32(bytes.count)
  }

  func close() { _ = unsafe SSL_shutdown(ssl) }

  /// Takes ciphertext; goes on with the handshake, then reads.
  func step(_ ciphertext: [UInt8]) {
    if !ciphertext.isEmpty { _ = unsafe BIO_write(incoming, ciphertext, Int32(ciphertext.count)) }
    guard alert == nil else { return }
    ERR_clear_error()
    if !isConnected {
      let result = unsafe SSL_do_handshake(ssl)
      if result == 1 { isConnected = true } else { return note(result) }
    }
    var room = [UInt8](repeating: 0, count: 4096)
    while true {
      ERR_clear_error()
      let count = unsafe SSL_read(ssl, &room, Int32(room.count))
      guard count > 0 else { return note(count) }
      received += room[..<Int(count)]
    }
  }

  private func note(_ result: Int32) {
    guard unsafe SSL_get_error(ssl, result) == SSL_ERROR_SSL else { return }
    let reason = Int(ERR_GET_REASON(ERR_peek_last_error()))
    ERR_clear_error()
    // SSL_AD_REASON_OFFSET: an alert that was received is reason 1000 and its number; 0 for an error of one's own.
    alert = reason > 1000 && reason < 1256 ? reason - 1000 : 0
  }

  func takeCiphertext() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(unsafe BIO_ctrl_pending(outgoing)))
    if !bytes.isEmpty { _ = unsafe BIO_read(outgoing, &bytes, Int32(bytes.count)) }
    return bytes
  }
}

/// How the bytes of a flight come.
enum Pace: CaseIterable, Sendable {
  case atOnce
  case byteByByte
}

extension Array<UInt8> {
  func pieces(_ pace: Pace) -> [[UInt8]] {
    switch pace {
    case .atOnce: isEmpty ? [] : [self]
    case .byteByByte: map { [$0] }
    }
  }
}

/// A TLSEngine in a test's hands.
final class EnginePeer {
  let engine: TLSEngine
  private(set) var error: TLSError?
  private(set) var peer: TLSPeer?
  private var plaintext = WipedBuffer()

  init(_ context: TLSContext, serverName: String = "") throws {
    engine = try TLSEngine(context, serverName: serverName)
  }

  var received: [UInt8] { unsafe plaintext.withUnsafeBytes { unsafe Array($0) } }

  /// Takes ciphertext; goes on with the handshake, then reads: what TLSConnection does in a round.
  func step(_ ciphertext: [UInt8]) {
    unsafe ciphertext.withUnsafeBytes { unsafe engine.receive($0) }
    guard error == nil else { return }
    do throws(TLSError) {
      if engine.state == .handshaking {
        guard try engine.handshake() else { return }
        peer = try engine.peer()
      }
      try engine.decrypt(into: &plaintext)
    } catch {
      self.error = error
    }
  }

  func send(_ text: String) throws {
    var buffer = WipedBuffer()
    buffer.append(Array(text.utf8))
    try engine.encrypt(buffer)
  }

  func takeCiphertext() -> [UInt8] {
    var buffer = ByteBufferAllocator().buffer(capacity: 0)
    engine.takeCiphertext(into: &buffer)
    return Array(buffer.readableBytesView)
  }
}

/// Carries ciphertext between two peers until neither has any.
func converse(
  _ pace: Pace,
  _ one: (step: ([UInt8]) -> Void, take: () -> [UInt8]),
  _ two: (step: ([UInt8]) -> Void, take: () -> [UInt8])
) {
  one.step([])
  while true {
    let (forth, back) = (one.take(), two.take())
    if forth.isEmpty, back.isEmpty { return }
    for piece in forth.pieces(pace) { two.step(piece) }
    for piece in back.pieces(pace) { one.step(piece) }
  }
}

extension RawPeer {
  var wire: (step: ([UInt8]) -> Void, take: () -> [UInt8]) { ({ self.step($0) }, { self.takeCiphertext() }) }
}

extension EnginePeer {
  var wire: (step: ([UInt8]) -> Void, take: () -> [UInt8]) { ({ self.step($0) }, { self.takeCiphertext() }) }
}
