import Foundation
import Glibc
import KeyringCore
import KeyringTestSupport
import Testing

@testable import KeyringStorage

/// A storage file that is restored, and a disk that fails meanwhile.
@Suite struct StoreRestoreTests {
  @Test func afterAFailedRestoreTheFileIsWrittenAnewEvenIfTheStoreWasClosed() throws {
    let fixture = try StoreFixture()
    let plan = FaultPlan()
    let (store, position) = try fixture.filled(2, calls: plan.calls)
    try store.close()
    let bytes = try fixture.bytes()
    #expect(try store.standing() == .keyring(fixture.keyring, [position]))
    plan.arm(.fsync, 2, .fail(EIO))  // of the directory, after the rename
    #expect(throws: StoreError.self) {
      try store.restore(
        bytes,
        keyring: fixture.keyring,
        position: position,
        authenticator: fixture.authenticator
      )
    }
    #expect(plan.wasHit)
    try store.close()
    plan.disarm()
    #expect(try store.load()?.position == position)
    #expect(plan.log.contains(.rename), "the inode that was renamed is not trusted")
    try store.close()
    plan.disarm()
    #expect(try store.load()?.position == position)
    #expect(!plan.log.contains(.rename))
    try store.close()
  }

  @Test func whereFileAndAnchorDifferBothPositionsStand() throws {
    let fixture = try StoreFixture()
    let (store, old) = try fixture.filled(2)
    let bytes = try fixture.bytes()
    let new = try store.append(
      [fixture.commit(3, [try fixture.put("k3")])],
      expecting: old,
      authenticator: fixture.authenticator
    )
    #expect(store.standingOpen() == .keyring(fixture.keyring, [new]))
    try store.close()
    #expect(store.standingOpen() == nil)
    try fixture.overwrite(bytes)
    #expect(try store.standing() == .keyring(fixture.keyring, [old, new]))
    try store.close()
  }
}
