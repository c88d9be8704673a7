internal import TLSTransport
import KeyringCore
import KeyringTestSupport
import Testing
import WireProtocol

/// What MySQL's keyring does that a server can show; the numbers are those of the list of behaviours that MySQL's own tests assert.
@Suite struct MySQLBehaviourTests {
  /// A server with the tenant `acme`, and its instance `db1`.
  private func serve(
    profile: String = "keyring_aws",
    _ body: (TestServer, TestClient) async throws -> Void
  ) async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme", profile: profile)
    let client = try server.instance("acme", "db1")
    try await body(server, client)
    await client.close()
    await server.shutdown()
  }

  private func describe(_ client: TestClient, _ name: KeyName) async throws -> KeyInfo? {
    guard case .describe(let info) = try await client.call(.describe(name, version: 0)) else {
      throw UnexpectedReply()
    }
    return info
  }

  @Test(
    "1: generate AES of 16, 24, 32 bytes; length and type are as asked",
    arguments: [16, 24, 32] as [UInt32]
  )
  func item1(length: UInt32) async throws {
    try await serve { _, client async throws in
      _ = try await client.call(.generate(.own("k", owner: "u@h"), "AES", length))
      let info = try await describe(client, .own("k", owner: "u@h"))
      #expect(info?.length == length)
      #expect(info?.type == "AES")
      #expect(try await client.fetch(.own("k", owner: "u@h"))?.count == Int(length) * 2)
    }
  }

  @Test("2: fetch, type and length of a missing key: absent, no error")
  func item2() async throws {
    try await serve { _, client async throws in
      #expect(try await client.fetch(.own("missing")) == nil)
      #expect(try await describe(client, .own("missing")) == nil)
    }
  }

  @Test("3: remove of a missing key fails")
  func item3() async throws {
    try await serve { _, client async throws in
      #expect(try await client.refusal(.remove(.own("missing")))?.reason == .keyAbsent)
    }
  }

  @Test("4, 5: an empty id fails for every call")
  func items4and5() async throws {
    try await serve { _, client async throws in
      let empty = KeyName.own("")
      for call in try [
        .fetch(empty), .describe(empty, version: 0), .remove(empty), .generate(empty), .store(empty, "x"),
        .change(.rotate(empty)),
      ] as [Call] {
        let status = try await client.refusal(call)
        #expect(status?.reason == .nameInvalid)
        #expect(status?.message == "key_id cannot be empty")
      }
    }
  }

  @Test("6: an unknown type fails and leaves nothing")
  func item6() async throws {
    try await serve { _, client async throws in
      #expect(try await client.refusal(.generate(.own("k"), "xxx", 16))?.reason == .typeInvalid)
      #expect(try await client.refusal(try .store(.own("k"), "v", type: "xxx"))?.reason == .typeInvalid)
      #expect(try await client.fetch(.own("k")) == nil)
    }
  }

  @Test("7, 8: storing or generating an existing key fails and leaves the first")
  func items7and8() async throws {
    try await serve { _, client async throws in
      _ = try await client.call(try .store(.own("k"), "first"))
      let first = try await client.fetch(.own("k"))
      #expect(try await client.refusal(try .store(.own("k"), "first"))?.reason == .keyExists)
      #expect(
        try await client.refusal(try .store(.own("k"), "0123456789abcdef", type: "AES"))?.reason == .keyExists
      )
      #expect(try await client.refusal(.generate(.own("k")))?.reason == .keyExists)
      #expect(try await client.fetch(.own("k")) == first)
      #expect(try await describe(client, .own("k"))?.type == "SECRET")
    }
  }

  @Test("9, 10, 11: owners do not meet, whoever they are")
  func items9to11() async throws {
    try await serve { _, client async throws in
      _ = try await client.call(try .store(.own("k", owner: "a@h"), "of a"))
      #expect(try await client.fetch(.own("k", owner: "b@h")) == nil)
      for other in ["b@h", "root@localhost", ""] {
        #expect(try await client.refusal(.remove(.own("k", owner: other)))?.reason == .keyAbsent)
      }
      _ = try await client.call(try .store(.own("k", owner: "b@h"), "of b"))
      #expect(try await client.fetch(.own("k", owner: "a@h")) != client.fetch(.own("k", owner: "b@h")))
      _ = try await client.call(.remove(.own("k", owner: "b@h")))
      #expect(try await client.fetch(.own("k", owner: "a@h")) != nil)
    }
  }

  @Test("14: the server's own (empty) owner is a namespace like any other")
  func item14() async throws {
    try await serve { _, client async throws in
      _ = try await client.call(try .store(.own("k"), "system"))
      #expect(try await client.refusal(try .store(.own("k"), "again"))?.reason == .keyExists)
      #expect(try await client.fetch(.own("k", owner: "u@h")) == nil)
      _ = try await client.call(.remove(.own("k")))
      #expect(try await client.fetch(.own("k")) == nil)
    }
  }

  @Test("15: a restart loses nothing")
  func item15() async throws {
    let first = try await TestServer()
    try await first.makeTenant("acme")
    let client = try first.instance("acme", "db1")
    _ = try await client.call(try .store(.own("s"), "stored\u{0}with NUL"))
    _ = try await client.call(.generate(.own("g"), "AES", 24))
    let values = (try await client.fetch(.own("s")), try await client.fetch(.own("g")))
    await client.close()
    await first.shutdown()
    let second = try await TestServer(pki: first.pki, data: first.data)
    let again = try second.instance("acme", "db1")
    #expect(try await again.fetch(.own("s")) == values.0)
    #expect(try await again.fetch(.own("g")) == values.1)
    #expect(try await describe(again, .own("g"))?.type == "AES")
    await again.close()
    await second.shutdown()
  }

  @Test("16, 18: stores of 4,096 and 16,384 bytes, by profile")
  func items16and18() async throws {
    let long = { String(repeating: "x", count: $0) }
    try await serve { _, client async throws in
      _ = try await client.call(try .store(.own("4096"), long(4096)))
      #expect(try await client.refusal(try .store(.own("4097"), long(4097)))?.reason == .lengthInvalid)
      #expect(try await client.refusal(try .store(.own("16384"), long(16384)))?.reason == .lengthInvalid)
    }
    try await serve(profile: "general") { _, client async throws in
      _ = try await client.call(try .store(.own("16384"), long(16384)))
      #expect(try await client.refusal(try .store(.own("16392"), long(16392)))?.reason == .lengthInvalid)
    }
  }

  @Test("17: generating SECRET of 1,024, 1,025 and 16,384 bytes, by profile")
  func item17() async throws {
    try await serve { _, client async throws in
      _ = try await client.call(.generate(.own("1024"), "SECRET", 1024))
      #expect(try await client.refusal(.generate(.own("1025"), "SECRET", 1025))?.reason == .lengthInvalid)
    }
    try await serve(profile: "general") { _, client async throws in
      _ = try await client.call(.generate(.own("16384"), "SECRET", 16384))
      #expect(try await client.fetch(.own("16384"))?.count == 32768)
    }
  }

  @Test("19, 20, 21: AES of odd lengths, RSA and DSA, by profile")
  func items19to21() async throws {
    try await serve { _, client async throws in
      #expect(try await client.refusal(.generate(.own("a"), "AES", 64))?.reason == .lengthInvalid)
      let odd = String(repeating: "k", count: 39)
      #expect(try await client.refusal(try .store(.own("b"), odd, type: "AES"))?.reason == .lengthInvalid)
      _ = try await client.call(try .store(.own("c"), String(repeating: "k", count: 24), type: "AES"))
      #expect(try await client.refusal(.generate(.own("d"), "RSA", 128))?.reason == .typeInvalid)
      #expect(try await client.refusal(.generate(.own("e"), "DSA", 128))?.reason == .typeInvalid)
    }
    try await serve(profile: "general") { _, client async throws in
      for (id, type, length) in [("a", "AES", 64), ("b", "RSA", 256), ("c", "DSA", 384)]
        as [(String, String, UInt32)]
      {
        _ = try await client.call(.generate(.own(id), type, length))
      }
    }
  }

  @Test("26: PEM text as SECRET comes back to the byte")
  func item26() async throws {
    let pem =
      "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\r\n-----END PRIVATE KEY-----\n"
    try await serve { _, client async throws in
      _ = try await client.call(try .store(.own("pem"), pem))
      #expect(try await client.fetch(.own("pem")) == hexadecimal(pem.utf8))
    }
  }

  @Test("28, 31: listing names id and owner; nine keys of three owners, three of them removed")
  func items28and31() async throws {
    try await serve { _, client async throws in
      func listed() async throws -> Set<[String]> {
        guard case .list(let keys, let next) = try await client.call(.list(ListCall(scope: .instance))) else {
          throw UnexpectedReply()
        }
        #expect(next.isEmpty)
        return Set(
          keys.map {
            [String(decoding: $0.name.keyID, as: UTF8.self), String(decoding: $0.name.owner, as: UTF8.self)]
          }
        )
      }
      #expect(try await listed().isEmpty)
      var names: Set<[String]> = []
      for owner in ["a@h", "b@h", "c@h"] {
        for id in ["1", "2", "3"] {
          _ = try await client.call(try .store(.own(id, owner: owner), owner + id))
          names.insert([id, owner])
        }
      }
      #expect(try await listed() == names)
      for owner in ["a@h", "b@h", "c@h"] {
        _ = try await client.call(.remove(.own("2", owner: owner)))
        #expect(try await client.refusal(.remove(.own("2", owner: owner)))?.reason == .keyAbsent)
        #expect(try await client.fetch(.own("2", owner: owner)) == nil)
      }
      #expect(try await listed() == names.filter { $0[0] != "2" })
      #expect(try await client.fetch(.own("3", owner: "b@h")) == hexadecimal("b@h3".utf8))
    }
  }

  @Test("51: rotate_keys changes no value and every ciphertext")
  func item51() async throws {
    try await serve { server, client async throws in
      for id in 1...20 { _ = try await client.call(.generate(.own("k\(id)"))) }
      _ = try await client.call(.change(.rotate(.own("k1"))))
      var before: [String?] = []
      for id in 1...20 { before.append(try await client.fetch(.own("k\(id)"))) }
      let first = try await describe(client, .own("k1"))
      let admin = try server.client(.tenantAdmin(TenantName("acme")))
      guard
        case .rotateKeys(let report) = try await admin.call(
          .admin(.rotateKeys("acme", allowTransient: false))
        )
      else {
        throw UnexpectedReply()
      }
      #expect(report.recordsElsewhere == 0)
      #expect(report.records == 22)  // 21 versions of keys, and the keyring's own
      for id in 1...20 { #expect(try await client.fetch(.own("k\(id)")) == before[id - 1]) }
      #expect(try await describe(client, .own("k1"))?.wrappingKeyID == report.wrappingKeyID)
      #expect(first?.wrappingKeyID != report.wrappingKeyID)
      await admin.close()
    }
  }

  @Test("52: rotate_cmk leaves the id, and old keys fetchable")
  func item52() async throws {
    try await serve { server, client async throws in
      _ = try await client.call(.generate(.own("k")))
      let before = try await client.fetch(.own("k"))
      let admin = try server.client(.tenantAdmin(TenantName("acme")))
      guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))),
        case .rotateCMK(let id, let version) = try await admin.call(.admin(.rotateCMK("acme")))
      else { throw UnexpectedReply() }
      #expect(id == status.summary.cmkID)
      #expect(version == 2)
      #expect(try await client.fetch(.own("k")) == before)
      await admin.close()
    }
  }

  @Test("53: an unknown cmk_id is refused, the old one in force")
  func item53() async throws {
    try await serve { server, client async throws in
      let admin = try server.client(.tenantAdmin(TenantName("acme")))
      guard case .tenant(let before) = try await admin.call(.admin(.status("acme"))) else {
        throw UnexpectedReply()
      }
      let unknown = "local-00000000000000000000000000000000"
      let set = Call.admin(.variablesSet(tenant: "acme", name: "cmk_id", value: unknown, .global))
      #expect(try await admin.refusal(set)?.reason == .variableInvalid)
      guard case .tenant(let after) = try await admin.call(.admin(.status("acme"))) else {
        throw UnexpectedReply()
      }
      #expect(after.summary.cmkID == before.summary.cmkID)
      _ = try await client.call(.generate(.own("k")))
      await admin.close()
    }
  }
}
