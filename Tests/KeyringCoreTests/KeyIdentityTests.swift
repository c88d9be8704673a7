import KeyringCore
import Testing

@Suite struct KeyIdentityTests {
  private func identity(_ scope: Scope, _ owner: String, _ keyID: String) throws -> KeyIdentity {
    try KeyIdentity(scope: scope, owner: Array(owner.utf8), keyID: Array(keyID.utf8))
  }

  @Test func partsThatJoinAlikeAreDifferentKeys() throws {
    let a = try InstanceName("a")
    let ab = try InstanceName("ab")
    let identities = [
      try identity(.shared, "ab", "c"), try identity(.shared, "a", "bc"), try identity(.shared, "", "abc"),
      try identity(.instance(a), "b", "c"), try identity(.instance(ab), "", "c"),
      try identity(.instance(a), "", "bc"), try identity(.server, "", "abc"),
      try identity(.shared, "AB", "c"),
    ]
    #expect(Set(identities).count == identities.count)
    #expect(Set(identities.map(\.encoded)).count == identities.count)
  }

  @Test func thePartsComeBack() throws {
    let name = try InstanceName("db-1")
    let owner = (0..<512).map { UInt8(truncatingIfNeeded: $0) }
    let keyID = (0..<255).map { UInt8(truncatingIfNeeded: 255 - $0) }
    for scope in [Scope.shared, .server, .instance(name)] {
      let identity = try KeyIdentity(scope: scope, owner: owner, keyID: keyID)
      #expect(identity.scope == scope)
      #expect(Array(identity.owner) == owner)
      #expect(Array(identity.keyID) == keyID)
    }
    let documented = try identity(.instance(name), "o", "k").encoded
    #expect(documented == [2, 4] + Array("db-1".utf8) + [0, 1, 0x6f, 1, 0x6b])
  }

  @Test func lengthsAreLimited() throws {
    func make(_ owner: Int, _ keyID: Int) throws -> KeyIdentity {
      try KeyIdentity(
        scope: .shared,
        owner: [UInt8](repeating: 1, count: owner),
        keyID: [UInt8](repeating: 2, count: keyID)
      )
    }
    #expect(throws: KeyringError.nameInvalid("key_id cannot be empty")) { try make(0, 0) }
    #expect(throws: KeyringError.nameInvalid("a key_id has at most 255 bytes")) { try make(0, 256) }
    #expect(throws: KeyringError.nameInvalid("an owner has at most 512 bytes")) { try make(513, 1) }
    #expect(try make(512, 255).owner.count == 512)
  }

  @Test func orderIsByScopeThenOwnerThenKeyID() throws {
    let sorted = [
      try identity(.shared, "", "z"), try identity(.shared, "a", "b"), try identity(.shared, "a", "ba"),
      try identity(.shared, "aa", "a"), try identity(.shared, "b", "a"),
      try identity(.instance(try InstanceName("a")), "", "a"),
    ]
    #expect(sorted.reversed().sorted() == sorted)
    #expect(sorted[0].hasScope(of: sorted[4]))
    #expect(!sorted[0].hasScope(of: sorted[5]))
  }

  @Test(arguments: [
    "", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a b", "é", "a\0", "a\n",
    String(repeating: "a", count: 64),
  ])
  func namesThatAreNone(_ text: String) {
    #expect(throws: KeyringError.self) { try TenantName(text) }
    #expect(throws: KeyringError.self) { try InstanceName(text) }
  }

  @Test(arguments: ["a", "0", "a-b", "a--b", String(repeating: "a", count: 63)])
  func namesThatAreSome(_ text: String) throws {
    #expect(try TenantName(text).text == text)
    #expect(try InstanceName(text).text == text)
  }

  @Test func cmkIDsArePrintable() throws {
    #expect(try CMKID("arn:aws:kms:eu-central-1:1:key/1").text == "arn:aws:kms:eu-central-1:1:key/1")
    for text in ["", "a b", "a\n", "é", String(repeating: "a", count: 2049)] {
      #expect(throws: KeyringError.self) { try CMKID(text) }
    }
  }
}
