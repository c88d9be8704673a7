import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// From the Nth call on that changes a disk, none is made any more: as if the process had ended there.
private final class End: Sendable {
  private struct State {
    var left: Int?
    var made = 0
  }
  private let state = Mutex(State())
  private static let changing: Set<SystemCall> = [
    .write, .fsync, .fdatasync, .ftruncate, .rename, .unlink, .mkdir,
  ]

  var calls: SystemCalls {
    SystemCalls { call in
      guard Self.changing.contains(call) else { return .proceed }
      return self.state.withLock { state in
        state.made += 1
        guard let left = state.left else { return .proceed }
        state.left = max(0, left - 1)
        return left > 0 ? .proceed : .fail(EIO)
      }
    }
  }

  /// Makes `count` more calls.
  func arm(after count: Int) { state.withLock { $0 = State(left: count) } }
  /// Calls since `arm`.
  var made: Int { state.withLock { $0.made } }
}

/// A restore that ends at any point leaves a tenant that is absent, quarantined, as it was or restored: never one without a key that the
/// backup has. Run again, it completes.
@Suite struct RestoreCampaignTests {
  struct Place {
    let name: String
    let how: TestClient.Restoring
    /// A folder to restore into; nil for an empty machine.
    let data: @Sendable () throws -> TestDirectory?
  }

  private static func copy(_ data: TestDirectory) throws -> TestDirectory {
    let copy = try TestDirectory()
    for name in try FileManager.default.contentsOfDirectory(atPath: data.path) {
      try FileManager.default.copyItem(atPath: data(name), toPath: copy(name))
    }
    return copy
  }

  @Test func aRestoreThatEndsAnywhereCompletesWhenRunAgain() async throws {
    let (server, admin, instance) = try await BackupTests.filled(2)
    let bytes = try await admin.backup("acme").bytes
    _ = try await instance.call(try .store(.shared("newer"), "x"))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    let (present, emptied) = (server.data, try Self.copy(server.data))
    try FileManager.default.removeItem(atPath: emptied("tenants/acme/keyring"))
    try FileManager.default.removeItem(atPath: emptied("anchors/acme.anchor"))
    let places = [
      Place(name: "an empty machine", how: .init()) { nil },
      Place(name: "an emptied tenant", how: .init()) { try Self.copy(emptied) },
      Place(name: "a newer keyring", how: .acceptingRollback) { try Self.copy(present) },
    ]
    var random = Campaign.generator("restore")
    var (points, restored) = (0, 0)
    for place in places {
      let most = try await calls(of: place, bytes, server.pki)
      #expect(most > 10, "\(place.name)")
      let all = Array(0..<most)
      let rounds = min(Campaign.rounds(short: 4, long: most), most)
      for count in rounds == most ? all : Array(all.shuffled(using: &random).prefix(rounds)) {
        restored += try await end(after: count, place, bytes, server.pki) ? 1 : 0
        points += 1
      }
    }
    Campaign.report("restore", ["points": points, "completed before": restored, "keys lost": 0])
    #expect(points >= 12)
  }

  /// How many calls a restore makes that change a disk.
  private func calls(of place: Place, _ bytes: [UInt8], _ pki: TestPKI) async throws -> Int {
    let end = End()
    let server = try await self.server(place, pki, end)
    let admin = try server.client(.serviceAdmin)
    let id = try await send(bytes, place.how, admin)
    end.arm(after: .max)
    _ = try await admin.call(.admin(.restore("acme", .end(id))))
    let made = end.made
    await admin.close()
    await server.shutdown()
    return made
  }

  private func server(_ place: Place, _ pki: TestPKI, _ end: End) async throws -> TestServer {
    try await TestServer(
      pki: pki,
      data: try place.data(),
      backupPassphrase: BackupTests.passphrase,
      rootKey: BackupTests.otherRootKey,
      calls: end.calls
    )
  }

  private func send(
    _ bytes: [UInt8],
    _ how: TestClient.Restoring,
    _ admin: TestClient
  ) async throws -> TransferID {
    let begin = RestoreBeginCall(
      bytes: UInt64(bytes.count),
      digest: try Backup(bytes).digest,
      acceptRollback: how.acceptRollback
    )
    guard case .restore(.begun(let id)) = try await admin.call(.admin(.restore("acme", .begin(begin)))) else {
      throw UnexpectedReply()
    }
    #expect(bytes.count <= TransferID.chunkBytes)
    _ = try await admin.call(.admin(.restore("acme", .write(id, offset: 0, data: bytes))))
    return id
  }

  /// - Returns: true where the restore was done before the end came.
  private func end(
    after count: Int,
    _ place: Place,
    _ bytes: [UInt8],
    _ pki: TestPKI
  ) async throws -> Bool {
    let what: Comment = "\(place.name), ended after \(count) calls"
    let end = End()
    let first = try await server(place, pki, end)
    let admin = try first.client(.serviceAdmin)
    let id = try await send(bytes, place.how, admin)
    end.arm(after: count)
    let refusal = try await admin.refusal(.admin(.restore("acme", .end(id))))
    await admin.close()
    await first.shutdown()

    let second = try await BackupTests.server(data: first.data, pki: pki)
    let (again, instance) = (try second.client(.serviceAdmin), try second.instance("acme", "db1"))
    var how = place.how
    for index in 0..<2 {
      let name = KeyName.shared("k\(index)")
      // An error, or the value: never "absent".
      guard try await instance.refusal(.fetch(name)) == nil else { continue }
      let value = try await instance.fetch(name)
      if value == nil, try isUntouched(place, first, bytes) { how = .acceptingRollback; continue }
      #expect(value == hexadecimal("of k\(index)".utf8), what)
    }
    _ = try await again.restore("acme", bytes, how)
    for index in 0..<2 { #expect(try await BackupTests.fetch(instance, index), what) }
    #expect(try await instance.fetch(.shared("newer")) == nil, what)
    let left = try FileManager.default.subpathsOfDirectory(atPath: first.data.path).filter {
      $0.hasSuffix(".new")
    }
    #expect(left.isEmpty, "\(what): \(left)")
    for client in [again, instance] { await client.close() }
    await second.shutdown()
    return refusal == nil
  }

  /// True where the restore ended before it put a storage file there, so that the emptied tenant began another keyring at its first call, as
  /// it would have without a restore.
  private func isUntouched(_ place: Place, _ server: TestServer, _ bytes: [UInt8]) throws -> Bool {
    guard place.name == "an emptied tenant" else { return false }
    let file = try [UInt8](Data(contentsOf: URL(filePath: server.data("tenants/acme/keyring"))))
    let present = try StorageFileReader.read(file, tenant: TenantName("acme")).state.id
    return try present != Backup(bytes).manifest.keyring
  }
}
