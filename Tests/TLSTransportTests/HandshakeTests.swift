import COpenSSL
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// Who gets in, engine to engine over memory; every flight at once, and byte by byte.
@Suite struct HandshakeTests {
  static let identity = "URI:spiffe://test.example/tenant/acme/instance/db1"

  /// What the server said to a client.
  struct Verdict {
    let peer: TLSPeer?
    let error: TLSError?
    let alert: Int?
    let received: [UInt8]
  }

  /// A raw client shows a certificate and says something.
  static func knock(
    _ pki: OddPKI,
    _ certificate: OddCertificate?,
    _ settings: RawPeer.Settings = RawPeer.Settings(),
    _ pace: Pace = .atOnce
  ) throws -> Verdict {
    let server = try EnginePeer(pki.server)
    let client = try RawPeer(certificate, settings)
    converse(pace, client.wire, server.wire)
    if client.isConnected, client.alert == nil, client.send("hello") {
      converse(pace, client.wire, server.wire)
    }
    return Verdict(
      peer: server.peer,
      error: server.error,
      alert: client.alert,
      received: server.received
    )
  }

  /// Refused, with this alert, at either pace; nothing that the client said was read.
  static func expectRefusal(
    _ pki: OddPKI,
    _ certificate: OddCertificate?,
    _ settings: RawPeer.Settings = RawPeer.Settings(),
    alert: Int = 40,  // handshake_failure, whatever is wrong with a certificate
    saying words: String = "",
    _ location: SourceLocation = #_sourceLocation
  ) throws {
    for pace in Pace.allCases {
      let verdict = try knock(pki, certificate, settings, pace)
      #expect(verdict.peer == nil, sourceLocation: location)
      #expect(verdict.received.isEmpty, sourceLocation: location)
      #expect(verdict.alert == alert, sourceLocation: location)
      guard case .handshake(let text) = verdict.error, words.isEmpty || text.contains(words) else {
        Issue.record("\(String(describing: verdict.error))", sourceLocation: location)
        continue
      }
    }
  }

  @Test(arguments: Pace.allCases) func aGoodClientGetsInAndBothSidesAreHeard(pace: Pace) throws {
    let pki = try OddPKI()
    let server = try EnginePeer(pki.server)
    let client = try EnginePeer(pki.client(), serverName: "localhost")
    converse(pace, client.wire, server.wire)
    #expect(server.error == nil && client.error == nil)
    #expect(server.peer?.identity == .serviceAdmin)
    #expect(client.peer?.identity == nil && client.peer?.fingerprint.count == 64)
    try client.send("from the client")
    try server.send("from the server")
    converse(pace, client.wire, server.wire)
    #expect(server.received == Array("from the client".utf8))
    #expect(client.received == Array("from the server".utf8))
    client.engine.closeNotify()
    converse(pace, client.wire, server.wire)
    #expect(server.engine.state == .closedByPeer && server.error == nil)
  }

  @Test func eachFormOfIdentityGetsIn() throws {
    let pki = try OddPKI()
    let expected: [(String, PeerIdentity)] = [
      ("URI:spiffe://test.example/admin", .serviceAdmin),
      ("URI:spiffe://test.example/tenant/acme/admin", .tenantAdmin(try TenantName("acme"))),
      (Self.identity, .instance(try TenantName("acme"), try InstanceName("db1"))),
      // A host name beside it says nothing and does no harm (X509-SVID section 2).
      ("\(Self.identity),DNS:db1.example", .instance(try TenantName("acme"), try InstanceName("db1"))),
    ]
    for (names, identity) in expected {
      for pace in Pace.allCases {
        let verdict = try Self.knock(pki, try pki.issue(.client(names)), RawPeer.Settings(), pace)
        #expect(verdict.peer?.identity == identity)
        #expect(verdict.received == Array("hello".utf8) && verdict.alert == nil && verdict.error == nil)
      }
    }
  }

  // MARK: Certificates

  @Test func withoutACertificateNobodyGetsIn() throws {
    try Self.expectRefusal(try OddPKI(), nil, alert: 116)  // certificate_required
  }

  @Test func anotherAuthoritysCertificatesAreRefused() throws {
    let pki = try OddPKI()
    try Self.expectRefusal(pki, try OddCertificate(.client(Self.identity)), saying: "self-signed")
    // One that has our CA's name does not pass its signature.
    for (name, words) in [("foreign", "issuer"), ("CA", "signature failure")] {
      var shape = OddCertificate.Shape.authority
      shape.commonName = name
      let foreign = try OddCertificate(shape)
      let certificate = try OddCertificate(.client(Self.identity), issuer: foreign)
      try Self.expectRefusal(pki, certificate, saying: words)
      var settings = RawPeer.Settings()
      settings.chain = [foreign]
      try Self.expectRefusal(pki, certificate, settings, saying: name == "CA" ? words : "")
    }
  }

  @Test func onlyAuthoritiesIssue() throws {
    let pki = try OddPKI()
    let leaf = try pki.good()
    var settings = RawPeer.Settings()
    settings.chain = [leaf]
    let forged = try OddCertificate(.client("URI:spiffe://test.example/admin"), issuer: leaf)
    try Self.expectRefusal(pki, forged, settings)
  }

  @Test func anAuthoritysOwnCertificateIsNobodysIdentity() throws {
    let pki = try OddPKI()
    var shape = OddCertificate.Shape.authority
    shape.commonName = "CA below"
    shape.extensions += [(NID_subject_alt_name, Self.identity), (NID_ext_key_usage, "clientAuth")]
    shape.extensions[1] = (NID_key_usage, "critical,digitalSignature,keyCertSign")
    try Self.expectRefusal(pki, try pki.issue(shape))
  }

  @Test func expiredAndNotYetValidAreRefused() throws {
    let pki = try OddPKI()
    var shape = OddCertificate.Shape.client(Self.identity)
    (shape.notBefore, shape.notAfter) = (-7200, -3600)
    try Self.expectRefusal(pki, try pki.issue(shape), saying: "certificate has expired")
    (shape.notBefore, shape.notAfter) = (3600, 7200)
    try Self.expectRefusal(pki, try pki.issue(shape), saying: "not yet valid")
  }

  @Test func aServersCertificateIsNoClients() throws {
    let pki = try OddPKI()
    try Self.expectRefusal(pki, try pki.issue(OddPKI.serverShape(Self.identity)), saying: "purpose")
    let email = OddCertificate.Shape(extensions: [
      (NID_ext_key_usage, "emailProtection"), (NID_subject_alt_name, Self.identity),
    ])
    try Self.expectRefusal(pki, try pki.issue(email), saying: "purpose")
  }

  @Test(arguments: [
    // None, or none of a URI: a host's, an address's, a mailbox's name is no identity, nor is the CN.
    nil, "DNS:test.example", "DNS:spiffe.test.example,IP:127.0.0.1", "email:admin@test.example",
    // Two.
    "URI:spiffe://test.example/admin,URI:spiffe://test.example/tenant/acme/admin",
    "URI:spiffe://test.example/admin,URI:https://test.example/",
    "URI:spiffe://test.example/admin,DNS:test.example,URI:spiffe://test.example/admin",
    // Not ours.
    "URI:spiffe://evil.example/admin", "URI:https://test.example/admin", "URI:spiffe://test.example/ADMIN",
    "URI:spiffe://test.example/tenant/acme/instance/db1/", "URI:spiffe://test.example:443/admin",
    "DNS:spiffe://test.example/admin", "email:spiffe://test.example/admin",
    "RID:1.2.3.4", "otherName:1.2.3.4;UTF8:spiffe://test.example/admin",
    // spiffe://test.example/admin and a NUL, then .evil: a C string would end there.
    "DER:30:23:86:21:73:70:69:66:66:65:3a:2f:2f:74:65:73:74:2e:65:78:61:6d:70:6c:65:2f:61:64:6d:69:6e:00:2e:65:76:69:6c",
  ])
  func aCertificateThatNamesNobodyIsRefused(names: String?) throws {
    let pki = try OddPKI()
    var shape = OddCertificate.Shape.client(names)
    shape.commonName = "spiffe://test.example/admin"
    try Self.expectRefusal(pki, try pki.issue(shape))
  }

  @Test(arguments: ["DER:04:02:86:00", "DER:30:05:86:7f:73:70:69", "DER:30:80"])
  func aSANThatDoesNotParseIsRefused(names: String) throws {
    let pki = try OddPKI()
    try Self.expectRefusal(pki, try pki.issue(.client(names)))
  }

  @Test func twoSANExtensionsNameNobody() throws {
    let pki = try OddPKI()
    var shape = OddCertificate.Shape.client("URI:spiffe://test.example/admin")
    shape.extensions.append((NID_subject_alt_name, "URI:spiffe://test.example/tenant/acme/admin"))
    let verdict = try Self.knock(pki, try pki.issue(shape))
    #expect(verdict.peer == nil && verdict.received.isEmpty && verdict.alert != nil)
  }

  // MARK: Protocol

  @Test func olderProtocolsAreRefused() throws {
    let pki = try OddPKI()
    var settings = RawPeer.Settings()
    settings.version = TLS1_2_VERSION
    try Self.expectRefusal(pki, try pki.good(), settings, alert: 70)  // protocol_version
  }

  @Test func otherProtocolsInsideAreRefused() throws {
    let pki = try OddPKI()
    var settings = RawPeer.Settings()
    for names in [["h2"], ["http/1.1", "h2"], ["keyring/2"], ["keyring/1x"], ["keyring/"], ["KEYRING/1"]] {
      settings.protocols = names
      try Self.expectRefusal(pki, try pki.good(), settings, alert: 120)  // no_application_protocol
    }
    settings.protocols = ["h2", "keyring/1"]
    #expect(try Self.knock(pki, try pki.good(), settings).received == Array("hello".utf8))
  }

  @Test func withoutALPNNobodyIsHeard() throws {
    let pki = try OddPKI()
    var settings = RawPeer.Settings()
    settings.protocols = nil
    for pace in Pace.allCases {
      let verdict = try Self.knock(pki, try pki.good(), settings, pace)
      #expect(verdict.error == .handshake("the peer does not speak keyring/1"))
      #expect(verdict.peer == nil && verdict.received.isEmpty)
    }
  }

  @Test func rubbishIsRefused() throws {
    let pki = try OddPKI()
    for text in ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", String(repeating: "\0", count: 600)] {
      for pace in Pace.allCases {
        let server = try EnginePeer(pki.server)
        for piece in Array(text.utf8).pieces(pace) { server.step(piece) }
        #expect(server.peer == nil && server.received.isEmpty)
        #expect((server.error != nil) == (text.utf8.count > 5))  // three bytes may still become a handshake
      }
    }
  }

  @Test func aFlippedBitEndsTheConnection() throws {
    let pki = try OddPKI()
    let server = try EnginePeer(pki.server)
    let client = try EnginePeer(pki.client(), serverName: "localhost")
    converse(.atOnce, client.wire, server.wire)
    try client.send("hello")
    var record = client.takeCiphertext()
    record[record.count - 1] ^= 1
    server.step(record)
    #expect(server.received.isEmpty && server.engine.state == .failed)
    guard case .connection = server.error else {
      Issue.record("\(String(describing: server.error))")
      return
    }
  }

  // MARK: The client's side

  /// Our client meets a raw server that shows `certificate`.
  func visit(
    _ pki: OddPKI,
    _ certificate: OddCertificate,
    name: String = "localhost",
    _ change: (inout RawPeer.Settings) -> Void = { _ in }
  ) throws -> (error: TLSError?, peer: TLSPeer?, alert: Int?) {
    var settings = RawPeer.Settings()
    settings.isServer = true
    change(&settings)
    let client = try EnginePeer(pki.client(), serverName: name)
    let server = try RawPeer(certificate, settings)
    converse(.atOnce, client.wire, server.wire)
    return (client.error, client.peer, server.alert)
  }

  @Test func theClientTakesTheServerThatItAskedForOnly() throws {
    let pki = try OddPKI()
    let good = try pki.issue(OddPKI.serverShape())
    for name in ["localhost", "127.0.0.1"] {
      let (error, peer, _) = try visit(pki, good, name: name)
      #expect(error == nil && peer != nil)
    }
    for name in ["localhos", "localhost.evil.example", "example.org", "127.0.0.2", "::1"] {
      let (error, peer, alert) = try visit(pki, good, name: name)
      #expect(error != nil && peer == nil && alert == 42, "\(name)")  // bad_certificate
    }
    let (error, peer, _) = try visit(
      pki,
      try pki.issue(OddPKI.serverShape("DNS:*.example.org")),
      name: "localhost"
    )
    #expect(error != nil && peer == nil)
    // The CN is localhost, and there is no SAN that says so.
    let byName = try visit(pki, try pki.issue(OddPKI.serverShape("DNS:other.example")))
    #expect(byName.error != nil && byName.peer == nil)
  }

  @Test func theClientRefusesOddServers() throws {
    let pki = try OddPKI()
    var stranger = OddCertificate.Shape.authority
    stranger.commonName = "foreign"
    let foreign = try OddCertificate(stranger)
    var expired = OddPKI.serverShape()
    (expired.notBefore, expired.notAfter) = (-7200, -3600)
    var asClient = OddCertificate.Shape.client("DNS:localhost")
    asClient.commonName = "localhost"
    let odd: [(OddCertificate, Int)] = [
      (try OddCertificate(OddPKI.serverShape(), issuer: foreign), 48), (try pki.issue(expired), 45),
      (try pki.issue(asClient), 43),
    ]
    for (certificate, expected) in odd {
      let (error, peer, alert) = try visit(pki, certificate)
      #expect(error != nil && peer == nil && alert == expected)
    }
    let good = try pki.issue(OddPKI.serverShape())
    #expect(try visit(pki, good) { $0.version = TLS1_2_VERSION }.peer == nil)
    #expect(
      try visit(pki, good) { $0.protocols = nil }.error == .handshake("the peer does not speak keyring/1")
    )
    #expect(try visit(pki, good) { $0.protocols = ["h2"] }.peer == nil)
  }

  @Test func aNameThatIsNoneIsRefusedBeforeAnythingIsSent() throws {
    let context = try OddPKI().client()
    for name in ["", "localhost\0.evil.example", "\0", "127.0.0.1\0"] {
      #expect(throws: TLSError.self) { try TLSEngine(context, serverName: name) }
    }
  }
}
