import KeyringClient
import KeyringCore
import KeyringTestSupport
import NIOCore
import NIOPosix
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// What the client does where the server, or the way to it, does not.
@Suite struct ClientTests {
  private func client(
    _ server: TestServer,
    port: Int,
    attempts: Int = 20,
    timeout: Duration = .seconds(30)
  ) throws -> TestClient {
    try server.client(
      .instance(TenantName("acme"), InstanceName("db1")),
      port: port,
      attempts: attempts,
      timeout: timeout
    )
  }

  @Test func manyCallsShareOneConnection() async throws {
    let server = try await TestServer(limits: ["connections_per_tenant: 1"])
    try await server.makeTenant("acme")
    let client = try client(server, port: server.port, attempts: 1)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<64 {
        group.addTask { _ = try await client.call(.generate(.own("k\(index)"))) }
      }
      try await group.waitForAll()
    }
    await client.close()
    await server.shutdown()
  }

  /// The reply is lost, the change was made: sent again under its id it is answered, and not made twice.
  @Test func aChangeWhoseReplyIsLostHappensOnce() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let proxy = try await CuttingProxy(to: server.port)
    let client = try client(server, port: proxy.port)
    for index in 0..<5 {
      _ = try await client.call(.whoAmI)
      proxy.arm()
      guard case .generate(let version) = try await client.call(.generate(.own("k\(index)"))) else {
        throw UnexpectedReply()
      }
      #expect(version == 1)
      proxy.arm()
      guard case .rotate(let next) = try await client.call(.change(.rotate(.own("k\(index)")))) else {
        throw UnexpectedReply()
      }
      #expect(next == 2, "a rotation that was sent twice is one version")
    }
    #expect(proxy.cuts.load(ordering: .relaxed) == 10)
    await client.close()
    try await proxy.close()
    await server.shutdown()
  }

  @Test func aServerThatComesBackIsFoundAgain() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let client = try client(server, port: server.port, attempts: 100)
    _ = try await client.call(.generate(.own("k")))
    let value = try await client.fetch(.own("k"))
    await server.shutdown()
    let fetching = Task { try await client.fetch(.own("k")) }
    let again = try await TestServer(pki: server.pki, data: server.data, port: server.port)
    #expect(try await fetching.value == value)
    await client.close()
    await again.shutdown()
  }

  @Test func aServerThatSaysNothingIsGivenUp() async throws {
    let pki = try await TestServer()
    let silent = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .bind(host: "127.0.0.1", port: 0).get()
    let client = try client(
      pki,
      port: try #require(silent.localAddress?.port),
      attempts: 1,
      timeout: .milliseconds(200)
    )
    await #expect(throws: KeyringClientError.self) { try await client.call(.whoAmI) }
    await client.close()
    try await silent.close()
    await pki.shutdown()
  }

  @Test func anAdministratorsCallIsNotSentTwice() async throws {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let proxy = try await CuttingProxy(to: server.port)
    let admin = try server.client(.serviceAdmin, port: proxy.port, attempts: 20)
    _ = try await admin.call(.whoAmI)
    proxy.arm()
    await #expect(throws: KeyringClientError.self) { try await admin.call(.admin(.rotateCMK("acme"))) }
    guard
      case .cmk(_, _, let version) = try await admin.call(
        .admin(.cmk(tenant: "acme", .describe, cmkID: cmk, days: 0))
      )
    else { throw UnexpectedReply() }
    #expect(version == 2, "once, and no more")
    await admin.close()
    try await proxy.close()
    await server.shutdown()
  }
}
