import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Synchronization
import Testing
import WireProtocol

@testable import KeyringService

/// Backups and restores under way are few, and end.
@Suite struct TransfersTests {
  /// A clock that a test turns.
  private final class Clock: Sendable {
    let now = Mutex<UInt64>(1_000_000_000_000)
    func turn(_ nanoseconds: UInt64) { now.withLock { $0 += nanoseconds } }
  }

  private let clock = Clock()
  private let folder: TestDirectory
  private let transfers: Transfers
  private let acme: TenantName

  init() throws {
    folder = try TestDirectory()
    acme = try TenantName("acme")
    let clock = self.clock
    transfers = Transfers(now: { clock.now.withLock { $0 } })
  }

  private func begin(_ tenant: TenantName, _ name: String, connection: UInt64 = 1) throws -> TransferID {
    let id = try transfers.reserve(.backup, tenant, connection: connection)
    try transfers.fill(id, SpoolFile(in: DirectoryDescriptor(path: folder.path), name: name))
    return id
  }

  @Test func thereIsOneOfAKindATenantAndFewInAll() throws {
    _ = try begin(acme, "a")
    #expect(throws: ServiceError.self) { try transfers.reserve(.backup, acme, connection: 2) }
    let restore = Transfers.Kind.restore(RestoreBeginCall(bytes: 1, digest: .zero))
    let working = try transfers.reserve(restore, acme, connection: 1)
    for name in ["b", "c"] { _ = try begin(TenantName(name), name) }
    #expect(transfers.count == Transfers.most)
    #expect(throws: ServiceError.self) { try transfers.reserve(.backup, TenantName("d"), connection: 1) }
    transfers.drop(connection: 1)
    #expect(transfers.count == 1, "what works goes on, and counts")
    #expect(throws: ServiceError.self) { try transfers.reserve(restore, acme, connection: 2) }
    transfers.drop(working)
    #expect(transfers.count == 0)
  }

  @Test func oneWhoseLastCallDidNotBeginIsKeptUnlessItsConnectionEnded() throws {
    let id = try begin(acme, "a")
    _ = try transfers.use(id, acme, connection: 1, isLast: true)
    transfers.keep(id)
    _ = try transfers.use(id, acme, connection: 1, isLast: true)
    transfers.drop(connection: 1)
    #expect(transfers.count == 1)
    transfers.keep(id)
    #expect(transfers.count == 0)
  }

  @Test func noneLivesForEver() throws {
    let id = try begin(acme, "a")
    for _ in 0..<(Transfers.lifeNanoseconds / Transfers.idleNanoseconds) {
      clock.turn(Transfers.idleNanoseconds)
      _ = try transfers.use(id, acme, connection: 1)
    }
    clock.turn(Transfers.idleNanoseconds)
    #expect(throws: ServiceError.transferExpired) { try transfers.use(id, acme, connection: 1) }
  }

  @Test func oneThatNobodyUsesIsDroppedAndOneThatWorksIsNot() throws {
    let id = try begin(acme, "a")
    let making = try transfers.reserve(.backup, TenantName("b"), connection: 1)
    for _ in 0..<3 {
      clock.turn(Transfers.idleNanoseconds)
      _ = try transfers.use(id, acme, connection: 1)
    }
    clock.turn(Transfers.idleNanoseconds + 1)
    #expect(throws: ServiceError.transferExpired) { try transfers.use(id, acme, connection: 1) }
    #expect(transfers.count == 1, "what is being made is not idle")
    try transfers.fill(making, SpoolFile(in: DirectoryDescriptor(path: folder.path), name: "b"))
    _ = try transfers.use(making, TenantName("b"), connection: 1, isLast: true)
    clock.turn(Transfers.idleNanoseconds + 1)
    _ = try begin(acme, "c")
    #expect(transfers.count == 2)
    #expect(throws: ServiceError.transferExpired) {
      try transfers.use(making, TenantName("b"), connection: 1)
    }
  }

  @Test func itIsItsConnectionsAndItsTenants() throws {
    let id = try begin(acme, "a")
    #expect(throws: ServiceError.transferExpired) { try transfers.use(id, acme, connection: 2) }
    #expect(throws: ServiceError.transferExpired) { try transfers.use(id, TenantName("b"), connection: 1) }
    let ended = try transfers.reserve(.backup, TenantName("b"), connection: 3)
    transfers.drop(connection: 3)
    #expect(throws: ServiceError.transferExpired) {
      try transfers.fill(ended, SpoolFile(in: DirectoryDescriptor(path: folder.path), name: "b"))
    }
    #expect(transfers.count == 1, "its place is free once it was done")
    #expect(try transfers.use(id, acme, connection: 1).kind == .backup)
  }
}
