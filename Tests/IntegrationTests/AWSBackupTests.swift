import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Backups of tenants whose CMK is in AWS KMS: the CMK is not in them, and where it can be asked they are restored.
@Suite struct AWSBackupTests {
  @Test func aTenantOfAWSGoesToAnEmptyMachine() async throws {
    try await AWSFixture.use { fixture in
      _ = try await fixture.client.call(.generate(.own("k")))
      let value = try await fixture.client.fetch(.own("k"))
      let backup = try await fixture.admin.backup("acme")
      #expect(backup.summary.sequence > 0)
      let other = try await TestServer()
      let admin = try other.client(.serviceAdmin)
      // Without credentials there it cannot be proved to open, and is refused.
      #expect(try await admin.restoreRefusal("acme", backup.bytes) != nil)
      try FileManager.default.createDirectory(
        atPath: other.data("tenants/acme"),
        withIntermediateDirectories: false,
        attributes: [.posixPermissions: 0o700]
      )
      try fixture.tenant.putCredentials(in: other.data("tenants"))
      _ = try await admin.restore("acme", backup.bytes)
      let client = try other.instance("acme", "db1")
      #expect(try await client.fetch(.own("k")) == value)
      _ = try await client.call(.generate(.own("new")))
      for each in [client, admin] { await each.close() }
      await other.shutdown()
    }
  }

  /// A backup taken between a move and its rotate-keys needs both CMKs, and is restored with both.
  @Test func aBackupInTheMiddleOfAMove() async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer(backupPassphrase: "a passphrase of a test")
    let local = try await server.makeTenant("acme")
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.generate(.own("old")))
    let tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
    try tenant.putCredentials(in: server.data("tenants"))
    let settings: [TenantMoveCall.Setting] = [
      .init(name: "provider", value: "aws"), .init(name: "endpoint", value: kms.endpoint),
    ]
    _ = try await admin.call(
      .admin(.tenantMove(TenantMoveCall(tenant: "acme", cmkID: tenant.cmkID, settings: settings)))
    )
    _ = try await client.call(.generate(.own("new")))
    let values = [try await client.fetch(.own("old")), try await client.fetch(.own("new"))]
    let backup = try await admin.backup("acme")
    let other = try await TestServer(backupPassphrase: "a passphrase of a test")
    let otherAdmin = try other.client(.serviceAdmin)
    try FileManager.default.createDirectory(
      atPath: other.data("tenants/acme"),
      withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700]
    )
    try tenant.putCredentials(in: other.data("tenants"))
    let report = try await otherAdmin.restore("acme", backup.bytes)
    #expect(report.cmksMade == [local])
    let otherClient = try other.instance("acme", "db1")
    #expect(try await otherClient.fetch(.own("old")) == values[0])
    #expect(try await otherClient.fetch(.own("new")) == values[1])
    _ = try await otherAdmin.call(.admin(.rotateKeys("acme", allowTransient: false)))
    #expect(try await otherClient.fetch(.own("old")) == values[0])
    for each in [client, admin, otherAdmin, otherClient] { await each.close() }
    await server.shutdown()
    await other.shutdown()
    try await kms.shutdown()
  }
}
