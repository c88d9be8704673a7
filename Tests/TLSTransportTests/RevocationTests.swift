import Cryptography
import Foundation
import KeyringTestSupport
import TLSTransport
import Testing

/// Revocation lists in the handshake, engine to engine, and against connections that are open.
@Suite struct RevocationTests {
  let pki: TestPKI

  init() throws {
    pki = try TestPKI()
    for name in ["good", "bad"] {
      try pki.issue(name, .client(uri: "spiffe://test.example/tenant/acme/instance/\(name)"))
    }
  }

  /// A server that reads these lists.
  private func server(_ lists: String?) throws -> TLSContext {
    let authorities = try TrustedAuthorities(file: pki.directory("ca.crt"))
    return try TLSContext(
      CertifiedKey(
        certificateFile: pki.directory("server.crt"),
        privateKeyFile: pki.directory("server.key")
      ),
      authorities,
      revoked: try lists.map { try RevocationLists(file: pki.directory($0), authorities: authorities) },
      role: .server(trustDomain: pki.trustDomain)
    )
  }

  private func knock(_ name: String, _ server: TLSContext) throws -> (server: EnginePeer, client: EnginePeer)
  {
    let client = try EnginePeer(
      try TLSContext(pki.configuration(name), role: .client),
      serverName: "localhost"
    )
    let peer = try EnginePeer(server)
    converse(.atOnce, client.wire, peer.wire)
    return (peer, client)
  }

  @Test func whoIsOnTheListIsRefusedAndTheLogSaysWhy() throws {
    try pki.revoke(["bad"])
    let server = try server("ca.crl")
    #expect(try knock("good", server).server.peer != nil)
    let refused = try knock("bad", server)
    #expect(refused.server.peer == nil)
    let why = "\(try #require(refused.server.error))"
    for part in ["certificate revoked", "spiffe://test.example/tenant/acme/instance/bad", "SHA-256"] {
      #expect(why.contains(part), "\(why)")
    }
    // Without a list nobody is.
    #expect(try knock("bad", try self.server(nil)).server.peer != nil)
  }

  @Test func aListIsAddedTo() throws {
    try pki.revoke([])
    #expect(try knock("bad", try server("ca.crl")).server.peer != nil)
    try pki.revoke(["bad"])
    try pki.revoke(["good", "bad"])
    for name in ["good", "bad"] { #expect(try knock(name, try server("ca.crl")).server.peer == nil) }
  }

  @Test func anOpenConnectionIsExaminedUnderANewList() throws {
    let before = try server(nil)
    let (good, bad) = (try knock("good", before), try knock("bad", before))
    try pki.revoke(["bad"])
    let after = try server("ca.crl")
    #expect(good.server.engine.refusal(by: after) == nil)
    #expect(bad.server.engine.refusal(by: after) == "certificate revoked")
    #expect(bad.server.engine.refusal(by: before) == nil)
    // Another CA: whoever it did not certify.
    let other = try TestPKI()
    let foreign = try TLSContext(other.configuration("server"), role: .server(trustDomain: "test.example"))
    #expect(good.server.engine.refusal(by: foreign) != nil)
  }

  /// Nobody is let in past a list's time; who is in already stays.
  @Test func aListPastItsTimeRefusesEverybody() async throws {
    let tool = Openssl(pki.directory)
    try await tool.makeList("old.crl", from: "20200101000000Z", to: "20200102000000Z")
    let server = try server("old.crl")
    let refused = try knock("good", server)
    #expect(refused.server.peer == nil)
    #expect("\(try #require(refused.server.error))".contains("CRL has expired"))
    let open = try knock("good", try self.server(nil))
    #expect(open.server.engine.refusal(by: server) == nil)
  }

  @Test func aCAWithoutAListCertifiesNobodyWhereListsAreRead() throws {
    let other = try TestPKI()
    try other.revoke([])
    let both =
      try String(contentsOfFile: pki.directory("ca.crt"), encoding: .utf8)
      + String(contentsOfFile: other.directory("ca.crt"), encoding: .utf8)
    try pki.directory.write("both.crt", both)
    let authorities = try TrustedAuthorities(file: pki.directory("both.crt"))
    let server = try TLSContext(
      CertifiedKey(certificateFile: pki.directory("server.crt"), privateKeyFile: pki.directory("server.key")),
      authorities,
      revoked: RevocationLists(file: other.directory("ca.crl"), authorities: authorities),
      role: .server(trustDomain: pki.trustDomain)
    )
    let refused = try knock("good", server)
    #expect(refused.server.peer == nil)
    #expect("\(try #require(refused.server.error))".contains("CRL"))
  }

  @Test func whatIsNoListOfTheseCAsIsNotTaken() async throws {
    try pki.revoke(["bad"])
    let good = try String(contentsOfFile: pki.directory("ca.crl"), encoding: .utf8)
    let other = try TestPKI()
    try other.revoke([])
    let foreign = try String(contentsOfFile: other.directory("ca.crl"), encoding: .utf8)
    try await Openssl(pki.directory).makeList("early.crl", from: "20990101000000Z", to: "20990201000000Z")
    let early = try String(contentsOfFile: pki.directory("early.crl"), encoding: .utf8)
    let cases = [
      ("", "holds no PEM revocation list"), ("rubbish\n", "holds no PEM revocation list"),
      (String(good.prefix(good.count / 2)), "cannot be read"),
      (good + good.prefix(good.count / 2), "cannot be read"),
      (foreign, "not signed by any"), (good + foreign, "not signed by any"), (early, "not valid yet"),
    ]
    for (text, words) in cases {
      try pki.directory.write("case.crl", text)
      do throws(TLSError) {
        let authorities = try TrustedAuthorities(file: pki.directory("ca.crt"))
        _ = try RevocationLists(file: pki.directory("case.crl"), authorities: authorities)
        Issue.record("taken: \(words)")
      } catch {
        #expect("\(error)".contains(words), "\(error)")
      }
    }
    // Several lists in one file count all.
    try pki.directory.write("two.crl", good + good)
    #expect(try knock("bad", try server("two.crl")).server.peer == nil)
  }
}

/// `openssl ca`, for lists of any time.
private struct Openssl {
  let directory: TestDirectory

  init(_ directory: TestDirectory) { self.directory = directory }

  func makeList(_ name: String, from: String, to: String) async throws {
    try directory.write("index.txt", "")
    try directory.write("crlnumber", "01\n")
    let path = directory.path
    try directory.write(
      "openssl.cnf",
      "[ca]\ndefault_ca=x\n[x]\ndatabase=\(path)/index.txt\ncrlnumber=\(path)/crlnumber\ndefault_md=sha256\n"
    )
    let outcome = try await TestProgram(path: "/usr/bin/openssl").run([
      "ca", "-config", directory("openssl.cnf"), "-gencrl", "-keyfile", directory("ca.key"), "-cert",
      directory("ca.crt"), "-crl_lastupdate", from, "-crl_nextupdate", to, "-out", directory(name),
    ])
    try #require(outcome.status == 0, "\(outcome.error)")
  }
}
