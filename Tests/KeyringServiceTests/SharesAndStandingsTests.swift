import KeyringCore
import SecureMemory
import Testing
import WireProtocol

@testable import KeyringService

@Suite struct SharesAndStandingsTests {
  @Test func noTenantTakesTheLockedMemoryOfAll() throws {
    let shares = SecretShares(arenaBytes: 4096)
    let (acme, globex) = (try TenantName("acme"), try TenantName("globex"))
    #expect(shares.take(2048, acme))
    #expect(!shares.take(32, acme), "half of it is the most for one")
    #expect(shares.take(1024, globex))
    #expect(!shares.take(32, globex), "a quarter is left for commits")
    shares.give(2048, acme)
    #expect(shares.take(1024, globex))
  }

  @Test func aCallTakesWhatTheArenaGivesForItsSecrets() throws {
    let name = KeyName(scope: .shared, owner: [], keyID: [1])
    #expect(Call.change(.generate(name, type: "AES", length: 33)).secretBytes == 64)
    #expect(Call.change(.generate(name, type: "AES", length: 32)).secretBytes == 32)
    #expect(Call.change(.generate(name, type: "AES", length: .max)).secretBytes == 16_384)
    #expect(Call.transact([.rotate(name), .remove(name)]).secretBytes == 16_384)
    #expect(Call.fetch(name, version: 0).secretBytes == 0)
    var create = TenantCreateCall(tenant: "acme")
    #expect(Call.admin(.tenantCreate(create)).secretBytes == 0)
    create.credentials = try unsafe Secret(count: 100) { _ in }
    #expect(Call.admin(.tenantApply([create, create])).secretBytes == 256)
  }

  /// The clock is read before the lock is had: another thread may have noted a later time meanwhile.
  @Test func aLaterTimeThanTheOwnIsNoOverflow() throws {
    var standings = WrappingKeyStandings()
    let id = WrappingKeyID(value: 1)
    standings.entries[id] = .init(standing: .denied("no"), confirmedAt: 0, askedAt: 1001)
    #expect(standings.freshRefusal(id, now: 1000) == .tenantLocked("no"))
    #expect(standings.freshRefusal(id, now: 1001 + WrappingKeyStandings.probeInterval) == nil)
  }

  /// What cannot be checked is not taken for tampering.
  @Test func anHMACThatCannotBeComputedIsNoVerdict() throws {
    let fixture = try PipelineFixture()
    let mac = try fixture.writeKey.authenticate([1, 2, 3])
    func pending(_ message: [UInt8]) -> PendingAuthentication {
      PendingAuthentication(
        wrappingKeyID: fixture.writeKey.wrappingKeyID,
        message: message,
        mac: mac,
        place: ""
      )
    }
    #expect(try fixture.writeKey.verifies(pending([1, 2, 3])))
    #expect(try !fixture.writeKey.verifies(pending([1, 2])))
    fixture.writeKey.wipe()
    #expect(throws: StoreError.authenticatorUnavailable) {
      try fixture.writeKey.verifies(pending([1, 2, 3]))
    }
  }
}
