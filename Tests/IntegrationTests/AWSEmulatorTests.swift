import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Against moto, which checks the signature of every request and the permissions of who signed it.
@Suite struct AWSEmulatorTests {
  private func use(_ body: (AWSEmulator, TestServer, TestClient) async throws -> Void) async throws {
    let emulator = try await AWSEmulator()
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await body(emulator, server, admin)
    await admin.close()
    await server.shutdown()
    await emulator.shutdown()
  }

  private func status(_ admin: TestClient, _ tenant: String = "acme") async throws -> TenantStatus {
    guard case .tenant(let status) = try await admin.call(.admin(.status(tenant))) else {
      throw UnexpectedReply()
    }
    return status
  }

  /// Every call of an instance and of an administrator, as for a local tenant, and all is there after a restart.
  @Test func theWholeKeyringWithAWS() async throws {
    try await use { emulator, server, admin in
      try emulator.tenant(key: 1, user: 1).put(in: server.data("tenants"))
      let client = try server.instance("acme", "db1")
      _ = try await client.call(.generate(.own("a")))
      _ = try await client.call(.store(.shared("b", owner: "u@h"), "stored"))
      _ = try await client.call(.change(.rotate(.own("a"))))
      _ = try await client.call(
        .transact([.generate(.own("c"), type: "AES", length: 16), .rotate(.own("c")), .remove(.own("c"))])
      )
      let values = [try await client.fetch(.own("a")), try await client.fetch(.own("a"), version: 1)]
      #expect(values[0] != nil && values[0] != values[1])
      guard case .rotateCMK(let id, _) = try await admin.call(.admin(.rotateCMK("acme"))) else {
        throw UnexpectedReply()
      }
      #expect(id == emulator.keys[1])
      _ = try await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))
      #expect(try await client.fetch(.own("a")) == values[0])
      #expect(try await status(admin).wrappingKeys.map(\.state) == ["held"])
      #expect(
        try await status(admin).credentials?.accessKeyID == String(emulator.users[1].accessKeyID.suffix(4))
      )
      await client.close()
    }
  }

  @Test func whoMayNotIsRefusedAndWhoIsUnknownIsNobody() async throws {
    try await use { emulator, server, _ in
      var wrong = emulator.tenant("wrong")
      wrong.secretAccessKey = String(wrong.secretAccessKey.reversed())
      var unknown = emulator.tenant("unknown")
      unknown.accessKeyID = "AKIAUNKNOWN000000000"
      for (tenant, reason) in [
        (wrong, Reason.kmsUnreachable), (unknown, .kmsUnreachable),
        (emulator.tenant("forbidden", user: 2), .kmsDenied),
      ] {
        try tenant.put(in: server.data("tenants"))
        let client = try server.client(.instance(TenantName(tenant.name), InstanceName("db1")))
        let refusal = try await client.refusal(.generate(.own("k")))
        #expect(refusal?.reason == reason, "\(tenant.name): \(String(describing: refusal))")
        #expect(refusal?.message.contains(tenant.secretAccessKey) == false)
        await client.close()
      }
    }
  }

  /// Instances fetch and write without a pause while the credentials are exchanged, back and forth: nobody notices.
  @Test func credentialsChangeUnderLoad() async throws {
    try await use { emulator, server, admin in
      let (first, second) = (emulator.tenant(key: 1, user: 0), emulator.tenant(key: 1, user: 1))
      try first.put(in: server.data("tenants"))
      let clients = try (0..<4).map { try server.instance("acme", "db\($0)") }
      for client in clients { _ = try await client.call(.generate(.own("k"))) }
      try await withThrowingTaskGroup(of: Void.self) { group in
        for client in clients {
          group.addTask {
            var turn = 0
            while !Task.isCancelled {
              #expect(try await client.fetch(.own("k")) != nil)
              turn += 1
              if turn % 20 == 0 { _ = try await client.call(.store(.own("n\(turn)"), "x")) }
            }
          }
        }
        for turn in 0..<4 {
          try (turn % 2 == 0 ? second : first).putCredentials(in: server.data("tenants"))
          _ = try await admin.call(.admin(.tenantReload("acme")))
          let ended = String((turn % 2 == 0 ? second : first).accessKeyID.suffix(4))
          #expect(try await status(admin).credentials?.accessKeyID == ended)
        }
        group.cancelAll()
        try await group.waitForAll()
      }
      for client in clients { await client.close() }
    }
  }
}
