import KeyringCore
import TLSTransport
import Testing

/// Who a URI SAN names: three forms, to the byte, and nothing else.
@Suite struct PeerIdentityTests {
  static let trustDomain = "test.example"

  static func parse(_ uris: String...) throws(PeerIdentity.Refusal) -> PeerIdentity {
    try PeerIdentity.parse(uriSANs: uris.map { Array($0.utf8) }, trustDomain: trustDomain)
  }

  static func accepted() throws -> [(String, PeerIdentity)] {
    let long = String(repeating: "a", count: 63)
    return [
      ("spiffe://test.example/admin", .serviceAdmin),
      ("spiffe://test.example/tenant/acme/admin", .tenantAdmin(try TenantName("acme"))),
      ("spiffe://test.example/tenant/admin/admin", .tenantAdmin(try TenantName("admin"))),
      (
        "spiffe://test.example/tenant/acme/instance/db1",
        .instance(try TenantName("acme"), try InstanceName("db1"))
      ),
      (
        "spiffe://test.example/tenant/a-1/instance/0", .instance(try TenantName("a-1"), try InstanceName("0"))
      ),
      (
        "spiffe://test.example/tenant/\(long)/instance/\(long)",
        .instance(try TenantName(long), try InstanceName(long))
      ),
    ]
  }

  @Test func theThreeFormsAreReadAndWrittenAlike() throws {
    for (uri, identity) in try Self.accepted() {
      #expect(try Self.parse(uri) == identity)
      #expect(identity.uri(trustDomain: Self.trustDomain) == uri)
    }
  }

  @Test(arguments: [
    "", "spiffe://", "spiffe://test.example", "spiffe://test.example/",
    // Another trust domain, or one that only begins or ends as ours.
    "spiffe://evil.example/admin", "spiffe://test.example.evil/admin", "spiffe://test.examplf/admin",
    "spiffe://evil.test.example/admin", "spiffe://test.exampl/admin", "spiffe:///admin",
    // Another scheme.
    "https://test.example/admin", "spiffe:/test.example/admin", "spiffes://test.example/admin",
    "test.example/admin", "//test.example/admin", " spiffe://test.example/admin",
    // Upper case.
    "SPIFFE://test.example/admin", "Spiffe://test.example/admin", "spiffe://TEST.example/admin",
    "spiffe://test.example/Admin", "spiffe://test.example/tenant/Acme/admin",
    "spiffe://test.example/tenant/acme/instance/DB1", "spiffe://test.example/Tenant/acme/admin",
    // NUL, white space, control characters.
    "spiffe://test.example/admin\0", "spiffe://test.example/admin\0.evil.example/x",
    "spiffe://test.example/tenant/acme\0/admin", "spiffe://test.example\0/admin",
    "spiffe://test.example/admin\n", "spiffe://test.example/tenant/ac me/admin",
    "spiffe://test.example/admin ",
    // Percent escapes, of letters as of slashes and dots.
    "spiffe://test.example/%61dmin", "spiffe://test.example/tenant%2facme/admin",
    "spiffe://test.example/tenant/acme/%61dmin", "spiffe://test.example/tenant/%2e%2e/admin",
    // Dotted, empty segments, trailing slashes.
    "spiffe://test.example/./admin", "spiffe://test.example/tenant/../admin",
    "spiffe://test.example/tenant/acme/../admin", "spiffe://test.example/tenant/./admin",
    "spiffe://test.example//admin", "spiffe://test.example/tenant//admin",
    "spiffe://test.example/tenant/acme//admin", "spiffe://test.example/admin/",
    "spiffe://test.example/tenant/acme/admin/", "spiffe://test.example/tenant/acme/instance/db1/",
    "spiffe://test.example/tenant/acme/instance/", "spiffe://test.example/tenant/acme/instance/..",
    // Query, fragment, port, user.
    "spiffe://test.example/admin?", "spiffe://test.example/admin?x=1", "spiffe://test.example/admin#",
    "spiffe://test.example/admin#x", "spiffe://test.example/tenant/acme/admin?tenant=other",
    "spiffe://test.example:8550/admin", "spiffe://test.example:/admin", "spiffe://me@test.example/admin",
    "spiffe://me:pw@test.example/admin", "spiffe://evil.example@test.example/admin",
    // Other paths.
    "spiffe://test.example/root", "spiffe://test.example/tenant", "spiffe://test.example/tenant/acme",
    "spiffe://test.example/tenant/acme/instance", "spiffe://test.example/admin/admin",
    "spiffe://test.example/admin/tenant/acme", "spiffe://test.example/tenant/acme/instance/db1/admin",
    "spiffe://test.example/tenants/acme/admin", "spiffe://test.example/tenant/acme/admin/db1",
    "spiffe://test.example/tenant/acme/instances/db1", "spiffe://test.example/x/tenant/acme/instance/db1",
    "spiffe://test.example\\admin", "spiffe://test.example/tenant/acme;x/admin",
    // Names that are none.
    "spiffe://test.example/tenant/-acme/admin", "spiffe://test.example/tenant/acme-/admin",
    "spiffe://test.example/tenant/a_b/admin", "spiffe://test.example/tenant/ä/admin",
    "spiffe://test.example/tenant/acme/instance/-", "spiffe://test.example/tenant/acme/instance/d.b",
  ])
  func everythingElseIsRefused(uri: String) {
    #expect(throws: PeerIdentity.Refusal.self) { try Self.parse(uri) }
  }

  @Test func namesOfOverSixtyThreeBytesAreRefused() {
    let long = String(repeating: "a", count: 64)
    #expect(throws: PeerIdentity.Refusal.self) {
      try Self.parse("spiffe://test.example/tenant/\(long)/admin")
    }
    #expect(throws: PeerIdentity.Refusal.self) {
      try Self.parse("spiffe://test.example/tenant/acme/instance/\(long)")
    }
  }

  @Test func thereIsExactlyOneURI() {
    #expect(throws: PeerIdentity.Refusal.self) {
      try PeerIdentity.parse(uriSANs: [], trustDomain: Self.trustDomain)
    }
    let admin = "spiffe://test.example/admin"
    #expect(throws: PeerIdentity.Refusal.self) { try Self.parse(admin, admin) }
    #expect(throws: PeerIdentity.Refusal.self) { try Self.parse(admin, "https://test.example/") }
    #expect(throws: PeerIdentity.Refusal.self) { try Self.parse("https://test.example/", admin) }
  }

  @Test func anOverLongURIIsRefusedForItsLength() throws {
    let room = PeerIdentity.uriBytesMax - "spiffe://test.example/".utf8.count
    let longest = "spiffe://test.example/" + String(repeating: "a", count: room)
    do throws(PeerIdentity.Refusal) {
      _ = try Self.parse(longest + "a")
      Issue.record("it was accepted")
    } catch {
      #expect(error.description.contains("longer than 2048"))
    }
    do throws(PeerIdentity.Refusal) {
      _ = try Self.parse(longest)
      Issue.record("it was accepted")
    } catch {
      #expect(!error.description.contains("longer"))
    }
  }

  @Test func bytesThatAreNoTextAreRefused() {
    let prefix = Array("spiffe://test.example/tenant/".utf8)
    for bytes: [UInt8] in [[0xff], [0xc0, 0xaf], [0x61, 0x80], [0xe2, 0x80, 0xae]] {
      #expect(throws: PeerIdentity.Refusal.self) {
        try PeerIdentity.parse(
          uriSANs: [prefix + bytes + Array("/admin".utf8)],
          trustDomain: Self.trustDomain
        )
      }
    }
  }

  /// Takes each byte out, changes it, and puts one in: no URI near an accepted one is taken for the same identity.
  @Test func noNeighbourIsTakenForTheSame() throws {
    var neighbours = 0
    for (uri, identity) in try Self.accepted().prefix(4) {
      let bytes = Array(uri.utf8)
      for index in bytes.indices {
        for byte in [UInt8](0...255) where byte != bytes[index] {
          var changed = bytes
          changed[index] = byte
          var grown = bytes
          grown.insert(byte, at: index)
          for candidate in [changed, grown] where candidate != bytes {
            neighbours += 1
            #expect(read(candidate) != identity, "\(candidate)")
          }
        }
        var cut = bytes
        cut.remove(at: index)
        #expect(read(cut) != identity)
      }
    }
    #expect(neighbours > 50_000)
  }

  private func read(_ uri: [UInt8]) -> PeerIdentity? {
    do {
      return try PeerIdentity.parse(uriSANs: [uri], trustDomain: Self.trustDomain)
    } catch {
      return nil
    }
  }

  @Test func trustDomains() {
    for good in ["a", "test.example", "a_b-c.9", String(repeating: "a", count: 255)] {
      #expect(PeerIdentity.isTrustDomain(good))
    }
    for bad in ["", "A", "a/b", "a:1", "a@b", "a%20", "a b", "ä", "a\0", String(repeating: "a", count: 256)] {
      #expect(!PeerIdentity.isTrustDomain(bad))
    }
  }
}
