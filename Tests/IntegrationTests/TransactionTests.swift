internal import KeyringClient
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing
import WireProtocol

@Suite struct TransactionTests {
  private func serve(_ body: (TestServer, TestClient) async throws -> Void) async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    try await body(server, client)
    await client.close()
    await server.shutdown()
  }

  @Test func allOrNothing() async throws {
    try await serve { _, client async throws in
      _ = try await client.call(.generate(.own("there")))
      let before = try await client.fetch(.own("there"))
      let failing: [Change] = [
        .generate(.own("a"), type: "AES", length: 32), .remove(.own("there")), .remove(.own("missing")),
      ]
      #expect(try await client.refusal(.transact(failing))?.reason == .keyAbsent)
      #expect(try await client.fetch(.own("a")) == nil)
      #expect(try await client.fetch(.own("there")) == before)
      // A later change sees an earlier one: remove, store again, rotate what was just stored.
      let good: [Change] = [
        .remove(.own("there")), .generate(.own("there"), type: "AES", length: 16), .rotate(.own("there")),
        .generate(.own("a"), type: "SECRET", length: 7),
      ]
      guard case .transact(let versions) = try await client.call(.transact(good)) else {
        throw UnexpectedReply()
      }
      #expect(versions == [0, 1, 2, 1])
      #expect(try await client.fetch(.own("there"), version: 1) != client.fetch(.own("there"), version: 2))
      #expect(try await client.fetch(.own("there"), version: 3) == nil)
      #expect(try await client.fetch(.own("a"))?.count == 14)
    }
  }

  @Test func aTransactionHas1To128Changes() async throws {
    try await serve { _, client async throws in
      #expect(try await client.refusal(.transact([]))?.reason == .requestMalformed)
      let changes = (0..<129).map { Change.generate(.own("k\($0)"), type: "AES", length: 16) }
      #expect(try await client.refusal(.transact(changes))?.reason == .requestMalformed)
      _ = try await client.call(.transact(Array(changes.prefix(128))))
      guard case .list(let keys, _) = try await client.call(.list(ListCall(scope: .instance))) else {
        throw UnexpectedReply()
      }
      #expect(keys.count == 128)
    }
  }

  @Test func manyWritersOfOneKeyAgreeOnOneWinner() async throws {
    try await serve { server, client async throws in
      let winners = try await withThrowingTaskGroup(of: Bool.self) { group in
        for _ in 0..<32 {
          group.addTask { try await client.refusal(.generate(.shared("k"))) == nil }
        }
        return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
      }
      #expect(winners == 1)
      // Rotations of one key at one time: each adds a version, none is lost.
      try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<20 { group.addTask { _ = try await client.client.call(.change(.rotate(.shared("k")))) } }
        try await group.waitForAll()
      }
      guard case .describe(let info) = try await client.call(.describe(.shared("k"), version: 0)) else {
        throw UnexpectedReply()
      }
      #expect(info?.latestVersion == 21)
    }
  }

  @Test func pagesOfAListingShowOneSnapshot() async throws {
    try await serve { _, client async throws in
      for round in 0..<5 {
        let changes = (0..<100).map {
          Change.generate(.shared("key-\(round * 100 + $0)"), type: "AES", length: 16)
        }
        _ = try await client.call(.transact(changes))
      }
      var seen: [[UInt8]] = []
      var token: [UInt8] = []
      repeat {
        let call = ListCall(scope: .shared, pageSize: 70, pageToken: token)
        guard case .list(let keys, let next) = try await client.call(.list(call)) else {
          throw UnexpectedReply()
        }
        seen += keys.map(\.name.keyID)
        token = next
        _ = try await client.call(.generate(.shared("during-\(seen.count)")))
      } while !token.isEmpty
      #expect(seen.count == 500)
      #expect(Set(seen).count == 500)
      #expect(!seen.contains { $0.starts(with: "during".utf8) })
      let stale = ListCall(scope: .shared, pageToken: [UInt8](repeating: 1, count: 16))
      #expect(try await client.refusal(.list(stale))?.reason == .listExpired)
    }
  }

  @Test func aCallerIsNotAnsweredFromBeforeWhatItHasSeen() async throws {
    try await serve { _, client async throws in
      let (sequence, _) = try await client.client.call(.generate(.own("k")))
      _ = try await client.client.call(.fetch(.own("k")), minSequence: sequence)
      await #expect(throws: (any Error).self) {
        try await client.client.call(.fetch(.own("k")), minSequence: sequence + 1)
      }
    }
  }
}
