import Foundation
import Glibc
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// A whole server on a disk that fails for a while: what its clients are told, and that it goes on by itself.
@Suite struct StorageFailureTests {
  /// What becomes of the disk's calls, as a test wants it at the moment.
  private final class Disk: Sendable {
    private let rule = Mutex<(@Sendable (SystemCall) -> Interception)?>(nil)

    var calls: SystemCalls { SystemCalls { call in self.rule.withLock { $0 }?(call) ?? .proceed } }
    func set(_ new: (@Sendable (SystemCall) -> Interception)?) { rule.withLock { $0 = new } }
  }

  private func bytes(_ server: TestServer, _ tenant: String) throws -> Data {
    try Data(contentsOf: URL(filePath: server.data("tenants/\(tenant)/keyring")))
  }

  private func state(_ admin: TestClient) async throws -> TenantState {
    guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return status.summary.state
  }

  @Test(arguments: [ENOSPC, EDQUOT, EFBIG]) func aFullDiskRefusesChangesAndNothingElse(_ code: Int32)
    async throws
  {
    let disk = Disk()
    let server = try await TestServer(calls: disk.calls)
    try await server.makeTenant("acme")
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.store(.own("k"), "before"))
    let (before, value) = (try bytes(server, "acme"), try await client.fetch(.own("k")))
    // Room for half of a batch, then for nothing.
    let isFirst = Atomic(true)
    disk.set { call in
      guard call == .write else { return .proceed }
      return isFirst.exchange(false, ordering: .relaxed) ? .short : .fail(code)
    }
    for _ in 0..<3 {
      #expect(try await client.refusal(.store(.own("new"), "value"))?.reason == .storageUnavailable)
      #expect(try bytes(server, "acme") == before)
      #expect(try await client.fetch(.own("k")) == value)
      #expect(try await client.fetch(.own("new")) == nil)
      #expect(try await state(admin) == .ready)
      isFirst.store(true, ordering: .relaxed)
    }
    disk.set(nil)
    _ = try await client.call(.store(.own("new"), "value"))
    #expect(try await client.fetch(.own("new")) != nil)
    for client in [client, admin] { await client.close() }
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let back = try again.instance("acme", "db1")
    #expect(try await back.fetch(.own("k")) == value)
    #expect(try await back.fetch(.own("new")) != nil)
    await back.close()
    await again.shutdown()
  }

  /// After a failed sync only reading the disk again tells what is there, and it must be written anew; until there is room for that, readers go
  /// on with what was durable.
  @Test func afterAFailedSyncReadersGoOnUntilTheStorageIsRecovered() async throws {
    let disk = Disk()
    let server = try await TestServer(calls: disk.calls)
    try await server.makeTenant("acme")
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    _ = try await client.call(.store(.own("k"), "before"))
    let value = try await client.fetch(.own("k"))
    disk.set { $0 == .fdatasync ? .fail(EIO) : $0 == .fsync ? .fail(ENOSPC) : .proceed }
    #expect(try await client.refusal(.store(.own("doubt"), "value"))?.reason == .outcomeUnknown)
    for _ in 0..<3 {
      #expect(try await client.fetch(.own("k")) == value)
      #expect(try await client.fetch(.own("doubt")) == nil)
      // It bears an id that may have been sent before: nobody can look it up now.
      #expect(try await client.refusal(.store(.own("new"), "value"))?.reason == .outcomeUnknown)
      #expect(try await state(admin) == .degraded)
    }
    guard case .list(let keys, _) = try await client.call(.list(ListCall(scope: .instance))) else {
      throw UnexpectedReply()
    }
    #expect(keys.map(\.name) == [.own("k")])
    disk.set(nil)
    // Readers alone bring it back.
    while try await state(admin) != .ready { #expect(try await client.fetch(.own("k")) == value) }
    // Its batch was written, and is now synced in a new file.
    #expect(try await client.fetch(.own("doubt")) != nil)
    _ = try await client.call(.store(.own("new"), "value"))
    #expect(try await client.fetch(.own("new")) != nil)
    for client in [client, admin] { await client.close() }
    await server.shutdown()
  }

  /// Settings that the disk does not hand out say nothing about a key, or about a change that may have been sent before; a server that has
  /// no descriptor left for a moment does not call them invalid.
  @Test(arguments: [SystemCall.read, .open], [EIO, EMFILE])
  func settingsThatTheDiskDoesNotHandOut(_ failing: SystemCall, _ code: Int32) async throws {
    let disk = Disk()
    let first = try await TestServer()
    try await first.makeTenant("acme")
    let writer = try first.instance("acme", "db1")
    _ = try await writer.call(.store(.own("k"), "before"))
    await writer.close()
    await first.shutdown()
    let server = try await TestServer(pki: first.pki, data: first.data, calls: disk.calls)
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    disk.set { $0 == failing ? .fail(code) : .proceed }
    let refusal = try await client.refusal(.fetch(.own("k"), version: 0))
    #expect(refusal?.reason == .storageUnavailable && refusal?.message.contains("settings") == true)
    #expect(try await client.refusal(.store(.own("new"), "value"))?.reason == .outcomeUnknown)
    let call = AdminCall.explain(ExplainCall(tenant: "acme"))
    guard case .explain(let explanation) = try await admin.call(.admin(call)) else { throw UnexpectedReply() }
    #expect(explanation.findings.map(\.code) == [.configurationInvalid])
    #expect(explanation.findings.first?.detail.isEmpty == false)
    disk.set(nil)
    #expect(try await client.fetch(.own("k")) != nil)
    #expect(try await client.fetch(.own("new")) == nil)
    for client in [client, admin] { await client.close() }
    await server.shutdown()
  }

  /// A client that was told "unknown" and asks again is not told "nothing changed" by a server that cannot look yet.
  @Test func aClientInDoubtIsNotToldThatNothingChanged() async throws {
    let disk = Disk()
    let server = try await TestServer(calls: disk.calls)
    try await server.makeTenant("acme")
    let patient = try server.client(.instance(TenantName("acme"), InstanceName("db1")), attempts: 3)
    _ = try await patient.call(.store(.own("k"), "before"))
    disk.set { $0 == .fdatasync ? .fail(EIO) : $0 == .fsync ? .fail(ENOSPC) : .proceed }
    #expect(try await patient.refusal(.store(.own("doubt"), "value"))?.reason == .outcomeUnknown)
    disk.set(nil)
    await patient.close()
    await server.shutdown()
  }
}
