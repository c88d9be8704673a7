import COpenSSL
import KeyringTestSupport
import TLSTransport
import Testing

/// Nothing of one connection helps another: no tickets, no resumption, no early data; and no stale error of a thread is taken for one.
@Suite struct SessionTests {
  @Test(arguments: Pace.allCases) func noTicketIsIssuedAndNoSessionResumed(pace: Pace) throws {
    let pki = try OddPKI()
    let server = try EnginePeer(pki.server)
    let client = try RawPeer(try pki.good())
    converse(pace, client.wire, server.wire)
    #expect(client.send("hello"))
    converse(pace, client.wire, server.wire)
    #expect(server.received == Array("hello".utf8))
    #expect(client.ticketCount == 0)
    let session = unsafe SSL_get1_session(client.ssl)
    defer { unsafe SSL_SESSION_free(session) }
    #expect(unsafe SSL_SESSION_is_resumable(session) == 0)
    #expect(unsafe SSL_SESSION_get_max_early_data(session) == 0)

    // Offered all the same, it changes nothing: without a certificate nobody gets in.
    let again = try EnginePeer(pki.server)
    let thief = try RawPeer(nil)
    #expect(unsafe SSL_set_session(thief.ssl, session) == 1)
    converse(pace, thief.wire, again.wire)
    #expect(unsafe SSL_session_reused(thief.ssl) == 0)
    #expect(again.peer == nil && thief.alert == 116)
  }

  /// A server that does give tickets is seen to: the count above can fail.
  @Test func aTicketWouldBeSeen() throws {
    let pki = try OddPKI()
    var settings = RawPeer.Settings()
    settings.isServer = true
    let server = try RawPeer(try pki.issue(OddPKI.serverShape()), settings)
    let client = try RawPeer(nil)
    converse(.atOnce, client.wire, server.wire)
    #expect(client.ticketCount == 2)
  }

  @Test(arguments: Pace.allCases) func aPreSharedKeyIsIgnoredAndEarlyDataNeverRead(pace: Pace) throws {
    let pki = try OddPKI()
    var settings = RawPeer.Settings()
    settings.offersEarlyData = true
    for certificate in [try pki.good(), nil] {
      let server = try EnginePeer(pki.server)
      let client = try RawPeer(certificate, settings)
      #expect(client.sendEarly("early"))
      converse(pace, client.wire, server.wire)
      #expect(unsafe SSL_session_reused(client.ssl) == 0)
      #expect(unsafe SSL_get_early_data_status(client.ssl) == SSL_EARLY_DATA_REJECTED)
      guard certificate != nil else {
        #expect(server.peer == nil && server.received.isEmpty && client.alert == 116)
        continue
      }
      #expect(client.send("late"))
      converse(pace, client.wire, server.wire)
      #expect(server.error == nil && server.received == Array("late".utf8))
    }
  }

  // MARK: The error queue of a thread

  /// Leaves an error on this thread's OpenSSL queue, as a failed parse does.
  private func leaveAStaleError() {
    let rubbish = Array("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n".utf8)
    guard let bio = unsafe BIO_new_mem_buf(rubbish, Int32(rubbish.count)) else { return }
    defer { unsafe BIO_free(bio) }
    let parsed = unsafe PEM_read_bio_X509(bio, nil, nil, nil)
    #expect(unsafe parsed == nil && ERR_peek_error() != 0)
  }

  @Test func aStaleErrorDoesNotEndAHealthyConnection() throws {
    let pki = try OddPKI()
    let server = try EnginePeer(pki.server)
    let client = try EnginePeer(pki.client(), serverName: "localhost")
    // Half a flight at a time: each call ends in WANT_READ, which SSL_get_error tells from a failure by the queue.
    func step(_ peer: EnginePeer, _ bytes: [UInt8]) {
      for half in [bytes.prefix(bytes.count / 2), bytes.suffix(bytes.count - bytes.count / 2)] {
        leaveAStaleError()
        peer.step(Array(half))
      }
    }
    let one = (step: { step(client, $0) }, take: client.wire.take)
    let two = (step: { step(server, $0) }, take: server.wire.take)
    converse(.atOnce, one, two)
    #expect(client.error == nil && server.error == nil && server.peer != nil)
    leaveAStaleError()
    try client.send("hello")
    leaveAStaleError()
    try server.send("and back")
    converse(.atOnce, one, two)
    #expect(server.received == Array("hello".utf8) && client.received == Array("and back".utf8))
    leaveAStaleError()
    client.engine.closeNotify()
    converse(.atOnce, one, two)
    #expect(client.error == nil && server.error == nil && server.engine.state == .closedByPeer)
    ERR_clear_error()
  }

  @Test func aStaleErrorDoesNotSpoilSettingUp() throws {
    leaveAStaleError()
    let pki = try OddPKI()
    leaveAStaleError()
    _ = try pki.client()
    leaveAStaleError()
    let engine = try TLSEngine(pki.server)
    #expect(engine.state == .handshaking)
    #expect(throws: TLSError.self) {
      leaveAStaleError()
      _ = try TLSContext(OddPKI.files("nothing", pki.directory), role: .client)
    }
    ERR_clear_error()
  }
}
