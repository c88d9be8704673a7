import KeyringCore
import KeyringTestSupport
import NIOCore
import NIOPosix
import SecureMemory
import TLSTransport
import Testing
import WireProtocol

/// Time and number of connections are bounded.
@Suite(.timeLimit(.minutes(4))) struct ConnectionLimitTests {
  private func serve(
    _ limits: [String],
    _ body: (TestServer) async throws -> Void
  ) async throws {
    let server = try await TestServer(limits: limits)
    try await server.makeTenant("acme")
    try await body(server)
    await server.shutdown()
  }

  private func whoAmI(_ id: UInt64) -> Request { Request(id: id, call: .whoAmI) }

  private func isAnswered(_ client: RawClient) async throws -> Bool {
    try await client.send([whoAmI(1)])
    let reply = await client.reply()
    return reply?.id == 1 && reply?.refusal == nil
  }

  /// Waits for a connection to be taken and answered, after another one ended.
  private func eventuallyAnswered(_ server: TestServer, _ tenant: String = "acme") async throws {
    while true {
      try Task.checkCancellation()
      if let client = try await RawClient.connected(server, tenant) {
        let isAnswered = try await isAnswered(client)
        await client.close()
        if isAnswered { return }
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// TCP without TLS.
  private func silentConnection(_ server: TestServer) async throws -> any Channel {
    try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .connect(host: "127.0.0.1", port: server.port).get()
  }

  // MARK: Time

  @Test func aFrameThatStopsHalfWayEndsItsConnection() async throws {
    try await serve(["frame_timeout: 1s"]) { server async throws in
      for count in [1, 3, 5, 6] {
        let client = try #require(await RawClient.connected(server, "acme"))
        #expect(try await isAnswered(client))
        try await client.send(Array(whoAmI(2).frame.prefix(count)))
        #expect(await client.isClosedWithoutReply())
      }
    }
  }

  @Test func anIdleConnectionEnds() async throws {
    try await serve(["idle_timeout: 5s"]) { server async throws in
      let client = try #require(await RawClient.connected(server, "acme"))
      #expect(try await isAnswered(client))
      guard case .closed(nil)? = await client.next() else { throw UnexpectedReply() }
      let silent = try #require(await RawClient.connected(server, "acme"))
      guard case .closed(nil)? = await silent.next() else { throw UnexpectedReply() }
    }
  }

  @Test func aConnectionOfAgeEnds() async throws {
    try await serve(["connection_age: 2s"]) { server async throws in
      let client = try #require(await RawClient.connected(server, "acme"))
      var answered: UInt64 = 0
      while !Task.isCancelled, try await isAnswered(client) { answered += 1 }
      #expect(answered > 0)
      try await eventuallyAnswered(server)
    }
  }

  @Test func whoDoesNotShakeHandsEnds() async throws {
    try await serve(["handshake_timeout: 1s"]) { server async throws in
      let silent = try await silentConnection(server)
      try await silent.closeFuture.get()
      let client = try #require(await RawClient.connected(server, "acme"))
      #expect(try await isAnswered(client))
      await client.close()
    }
  }

  /// 0 where the administrator's own connection was idle for too long, since the machine is busy: it connects again.
  private func connectionCount(_ admin: TestClient) async -> UInt32 {
    do {
      guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else { return 0 }
      return status.connections
    } catch {
      return 0
    }
  }

  /// A client that takes no replies does not keep its connection by that.
  @Test func whoNeverReadsEnds() async throws {
    try await serve(["idle_timeout: 1s"]) { server async throws in
      let client = try #require(await RawClient.connected(server, "acme"))
      let value = String(repeating: "x", count: 4096)
      try await client.send([Request(id: 1, call: try .store(.own("k"), value))])
      #expect(await client.reply()?.refusal == nil)
      try await client.pauseReading()
      try await client.send((1...12_000).map { Request(id: $0, call: .fetch(.own("k"), version: 0)) })
      let admin = try server.client(.tenantAdmin(TenantName("acme")))
      var connections: UInt32 = 0
      repeat {
        try await Task.sleep(for: .milliseconds(300))
        connections = await connectionCount(admin)
      } while connections != 1  // its own
      #expect(connections == 1)
      await admin.close()
      await client.close()
    }
  }

  // MARK: Number

  @Test func connectionsAreBounded() async throws {
    try await serve(["connections: 2"]) { server async throws in
      try await eventuallyAnswered(server)  // the one that made the tenant is gone by then
      var kept: [RawClient] = []
      while kept.count < 2 {
        try Task.checkCancellation()
        guard let client = try await RawClient.connected(server, "acme") else { continue }
        kept.append(client)
      }
      #expect(try await RawClient.connected(server, "acme") == nil)
      for client in kept { #expect(try await isAnswered(client)) }
      await kept[0].close()
      try await eventuallyAnswered(server)
      #expect(try await isAnswered(kept[1]))
      await kept[1].close()
    }
  }

  @Test func handshakesUnderWayAreBounded() async throws {
    try await serve(["unauthenticated_connections: 1"]) { server async throws in
      let known = try #require(await RawClient.connected(server, "acme"))
      let silent = try await silentConnection(server)
      // The server takes them in order: the silent one is in its handshake.
      #expect(try await RawClient.connected(server, "acme") == nil)
      #expect(try await isAnswered(known))
      try await silent.close()
      try await eventuallyAnswered(server)
      await known.close()
    }
  }

  @Test func aTenantsConnectionsAreBounded() async throws {
    try await serve(["connections_per_tenant: 2"]) { server async throws in
      try await server.makeTenant("globex")
      let one = try #require(await RawClient.connected(server, "acme", "db1"))
      let two = try #require(await RawClient.connected(server, "acme", "db2"))
      let answers = (try await isAnswered(one), try await isAnswered(two))
      #expect(answers == (true, true))
      let three = try #require(await RawClient.connected(server, "acme", "db3"))
      let refusal = await three.reply()
      #expect(refusal?.id == 0)
      #expect(
        refusal?.refusal
          == Status(.throttled, "the tenant has as many connections as it may", retryAfterMilliseconds: 1000)
      )
      #expect(await three.isClosedWithoutReply())
      let other = try #require(await RawClient.connected(server, "globex"))
      #expect(try await isAnswered(other))
      await one.close()
      try await eventuallyAnswered(server)
      for client in [two, other] { await client.close() }
    }
  }

  @Test func connectionsThatNoTenantCountsAreBoundedByTheirName() async throws {
    try await serve(["connections_per_tenant: 1"]) { server async throws in
      let stranger = try #require(await RawClient.connected(server, "nobody", "db1"))
      #expect(try await isAnswered(stranger))
      let second = try #require(await RawClient.connected(server, "nobody", "db2"))
      #expect(await second.reply()?.refusal?.reason == .throttled)
      let other = try #require(await RawClient.connected(server, "nobody-else", "db1"))
      #expect(try await isAnswered(other))
      for client in [stranger, other] { await client.close() }
    }
  }
}
