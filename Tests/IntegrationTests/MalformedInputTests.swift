import KeyringCore
import KeyringTestSupport
import SecureMemory
import TLSTransport
import Testing
import WireProtocol

/// What a server does with clients that send what they should not.
@Suite(.timeLimit(.minutes(4))) struct MalformedInputTests {
  private func serve(
    limits: [String] = [],
    profile: String = "any",
    _ body: (TestServer, RawClient) async throws -> Void
  ) async throws {
    let server = try await TestServer(limits: limits)
    try await server.makeTenant("acme", profile: profile)
    let client = try #require(await RawClient.connected(server, "acme"))
    try await body(server, client)
    await client.close()
    await server.shutdown()
  }

  private func whoAmI(_ id: UInt64) -> Request { Request(id: id, call: .whoAmI) }

  private func expectAnswered(_ client: RawClient, _ id: UInt64) async throws {
    try await client.send([whoAmI(id)])
    let reply = await client.reply()
    #expect(reply?.id == id)
    #expect(reply?.refusal == nil)
  }

  /// A transaction that takes a while.
  private func slow(_ id: UInt64, _ prefix: String, _ count: Int, timeout: UInt32 = 0) -> Request {
    let changes = (0..<count).map { Change.generate(.own("\(prefix)\($0)"), type: "AES", length: 4096) }
    return Request(id: id, timeoutMilliseconds: timeout, call: .transact(changes))
  }

  // MARK: Frames

  @Test(
    "a frame that is none gets its reply, and the connection closes",
    arguments: [
      ([1], .requestMalformed, "compressed messages are not part of keyring/1"),
      ([7, 0, 0, 0, 1, 0], .requestMalformed, "a frame begins with the flags 0, not 7"),
      ([0, 0, 0, 0, 0], .requestMalformed, "a frame has at least one byte of message"),
      ([0, 0, 0x40, 0, 1], .messageTooLarge, "a message of 4194305 bytes is over the limit of 4194304"),
      ([0, 0, 0, 0, 1, 0xff], .requestMalformed, "the frame does not hold a keyring.v1.Request"),
      ([0, 0, 0, 0, 3, 0xc2, 0x01, 0], .requestMalformed, "a request's id is not 0"),
    ] as [([UInt8], Reason, String)]
  )
  func badFrame(bytes: [UInt8], reason: Reason, message: String) async throws {
    try await serve { server, client async throws in
      // What was asked before is answered; what comes behind is not read.
      try await client.send(whoAmI(1).frame)
      #expect(await client.reply()?.id == 1)
      try await client.send(bytes + whoAmI(2).frame)
      let reply = await client.reply()
      #expect(reply?.id == 0)
      #expect(reply?.refusal == Status(reason, message))
      #expect(await client.isClosedWithoutReply())
      let other = try #require(await RawClient.connected(server, "acme"))
      try await expectAnswered(other, 1)
      await other.close()
    }
  }

  @Test func aRequestThatIsRefusedLeavesTheConnection() async throws {
    try await serve { _, client async throws in
      // Two of them, and a good one behind, in one write: an unknown field (number 100), and no call.
      let unknown: [UInt8] = [0, 0, 0, 0, 8, 0x08, 5, 0xc2, 0x01, 0, 0xa0, 0x06, 1]
      let empty: [UInt8] = [0, 0, 0, 0, 2, 0x08, 6]
      try await client.send(unknown + empty + whoAmI(7).frame)
      var refusals: [UInt64: Status?] = [:]
      for _ in 0..<3 {
        let reply = try #require(await client.reply())
        refusals[reply.id] = .some(reply.refusal)
      }
      #expect(
        refusals == [
          5: Status(.requestMalformed, "the request has a field that this server does not know"),
          6: Status(.requestMalformed, "the request has no call"), 7: nil,
        ]
      )
    }
  }

  @Test func aFrameMayComeByteByByte() async throws {
    try await serve { _, client async throws in
      for byte in whoAmI(3).frame { try await client.send([byte]) }
      #expect(await client.reply()?.id == 3)
      // And many in one.
      try await client.send((4..<40).map { whoAmI($0) })
      var ids: Set<UInt64> = []
      while ids.count < 36, let reply = await client.reply() { ids.insert(reply.id) }
      #expect(ids == Set(4..<40))
    }
  }

  @Test func onlyATransactionMayBeLarge() async throws {
    try await serve { _, client async throws in
      let value = String(repeating: "x", count: 70_000)
      let store = Request(id: 4, call: try .store(.own("k"), value))
      let whole = store.frame
      // As it comes, and in two halves.
      try await client.send(whole)
      #expect(await client.reply()?.refusal?.reason == .messageTooLarge)
      try await client.send(Array(whole.prefix(40_000)))
      try await client.send(Array(whole.dropFirst(40_000)))
      let reply = await client.reply()
      #expect(reply?.id == 4)
      #expect(
        reply?.refusal
          == Status(.messageTooLarge, "a message of \(whole.count - 5) bytes is over the limit of 65536")
      )
      // A fetch, too, though memory could answer it.
      let owner = KeyName(scope: .instance, owner: [UInt8](repeating: 1, count: 70_000), keyID: [1])
      try await client.send([Request(id: 5, call: .fetch(owner, version: 0))])
      #expect(await client.reply()?.refusal?.reason == .messageTooLarge)
      let changes = try (0..<5).map { number -> Change in
        guard case .change(let change) = try Call.store(.own("k\(number)"), String(value.prefix(16_000)))
        else {
          throw UnexpectedReply()
        }
        return change
      }
      try await client.send([Request(id: 6, call: .transact(changes))])
      #expect(await client.reply()?.refusal == nil)
    }
  }

  @Test func largeFramesUnderWayCountAgainstTheirTenant() async throws {
    let server = try await TestServer(limits: ["tenant_in_flight_bytes: 200000"])
    try await server.makeTenant("acme")
    try await server.makeTenant("globex")
    // 150,000 bytes are announced, and never come: 50,000 are left.
    let one = try #require(await RawClient.connected(server, "acme"))
    try await one.send(Frame.prefix(count: 150_000) + [8])
    try await one.send([1])
    let two = try #require(await RawClient.connected(server, "acme", "db2"))
    try await expectAnswered(two, 1)  // by then the first one's prefix was read
    try await two.send(Frame.prefix(count: 100_000) + [8])
    let refusal = await two.reply()
    #expect(refusal?.id == 0)
    #expect(refusal?.refusal?.reason == .throttled)
    #expect(await two.isClosedWithoutReply())
    let other = try #require(await RawClient.connected(server, "globex"))
    try await other.send(Frame.prefix(count: 100_000) + [8])
    #expect(try await !isRefused(other, server))
    // What a connection took, its end gives back.
    await one.close()
    #expect(await one.isClosedWithoutReply())
    var isTaken = false
    while !isTaken {
      try Task.checkCancellation()
      let again = try #require(await RawClient.connected(server, "acme", "db2"))
      try await again.send(Frame.prefix(count: 100_000) + [8])
      try await again.send(whoAmI(1).frame)  // the frame goes on
      isTaken = try await !isRefused(again, server)
      await again.close()
    }
    await server.shutdown()
  }

  /// True if the server closes the connection before another is answered.
  private func isRefused(_ client: RawClient, _ server: TestServer) async throws -> Bool {
    let witness = try #require(await RawClient.connected(server, "globex"))
    try await expectAnswered(witness, 1)
    await witness.close()
    await client.close()
    return await client.reply() != nil
  }

  // MARK: Requests in flight

  @Test func twoRequestsOfOneID() async throws {
    try await serve { _, client async throws in
      try await client.send([Request(id: 1, call: .generate(.own("there")))])
      #expect(await client.reply()?.refusal == nil)
      // The second and the third come while the first is under way, in the same round; memory could answer the fetch.
      let fetch = Request(id: 9, call: .fetch(.own("there"), version: 0))
      try await client.send([slow(9, "a", 128), whoAmI(9), fetch])
      for _ in 0..<2 {
        let reply = await client.reply()
        #expect(reply?.id == 9)
        #expect(
          reply?.refusal == Status(.requestMalformed, "a request of this id is in flight on this connection")
        )
      }
      guard case .success(.transact(let versions))? = await client.reply()?.outcome else {
        throw UnexpectedReply()
      }
      #expect(versions.count == 128)
      try await client.send([fetch])
      #expect(await client.reply()?.refusal == nil)
    }
  }

  /// An id whose deadline passed is free: what comes of the first request is not taken for the second's answer.
  @Test func anIDIsFreeAfterItsDeadline() async throws {
    try await serve { _, client async throws in
      try await client.send([slow(1, "warm", 1)])
      #expect(await client.reply()?.refusal == nil)
      var passed = 0
      for turn in 0..<5 {
        try await client.send([slow(9, "a\(turn)-", 128, timeout: 1)])
        let first = try #require(await client.reply())
        let reason = first.refusal?.reason
        passed += reason == .outcomeUnknown || reason == .timeout ? 1 : 0
        try await client.send([slow(9, "b\(turn)-", 127)])
        guard case .success(.transact(let versions))? = await client.reply()?.outcome else {
          throw UnexpectedReply()
        }
        #expect(versions.count == 127)
      }
      #expect(passed > 0, "no deadline passed: this showed nothing")
    }
  }

  /// With one request in flight at most, replies come in order, though every other one takes longer than the next.
  @Test func requestsPastTheBoundWait() async throws {
    try await serve(limits: ["requests_in_flight_per_connection: 1"]) { _, client async throws in
      let requests = (1...60).map { id in
        id % 2 == 0 ? whoAmI(UInt64(id)) : slow(UInt64(id), "k\(id)-", 4)
      }
      try await client.send(requests)
      var ids: [UInt64] = []
      while ids.count < 60, let reply = await client.reply() {
        #expect(reply.refusal == nil)
        ids.append(reply.id)
      }
      #expect(ids == Array(1...60))
    }
  }

  @Test func manyMoreThanTheBoundAreAllAnswered() async throws {
    try await serve(limits: ["requests_in_flight_per_connection: 4"]) { _, client async throws in
      try await client.send((1...2000).map { whoAmI($0) })
      var ids: Set<UInt64> = []
      while ids.count < 2000, let reply = await client.reply() {
        #expect(reply.refusal == nil)
        ids.insert(reply.id)
      }
      #expect(ids == Set(1...2000))
    }
  }

  /// A client that writes and does not read is held back; nothing of it piles up in the server.
  @Test func whoDoesNotReadIsHeldBack() async throws {
    try await serve { server, client async throws in
      let value = String(repeating: "x", count: Profile.valueBytesMax)
      try await client.send([Request(id: 1, call: try .store(.own("k"), value))])
      #expect(await client.reply()?.refusal == nil)
      try await client.pauseReading()
      // 96 MiB of replies; sockets and the server's own bound take a small part of it.
      let count: UInt64 = 6000
      try await client.send((1...count).map { Request(id: $0, call: .fetch(.own("k"), version: 0)) })
      let admin = try server.client(.serviceAdmin)
      // Until nothing but these questions is answered any more.
      var (before, after) = (UInt64(0), try await calls(admin))
      while after > before + 1 || after < 100 {
        before = after
        try await Task.sleep(for: .milliseconds(300))
        after = try await calls(admin)
      }
      #expect(after < count / 2)
      try await client.resumeReading()
      var replies: UInt64 = 0
      while replies < count, let reply = await client.reply() {
        #expect(reply.refusal == nil)
        replies += 1
      }
      #expect(replies == count)
      await admin.close()
    }
  }

  /// Calls answered since the start, this one not counted yet or counted: by one more each time.
  private func calls(_ admin: TestClient) async throws -> UInt64 {
    guard case .service(let status) = try await admin.call(.admin(.status(""))) else {
      throw UnexpectedReply()
    }
    return status.calls
  }
}
