internal import KeyringTestSupport
import Foundation
import KeyringCore
import Testing

@testable import KeyringStorage

/// Makes the Nth system call of each kind fail, for every N until an operation passes untouched; afterwards the disk holds the old state or the
/// new one, memory agrees with it, and what was acknowledged is there.
@Suite struct FaultSweepTests {
  static let errors = [EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EACCES]

  private enum Action: CaseIterable { case append, replace, create }

  @Test func everyFailureLeavesTheOldStateOrTheNew() throws {
    var points = 0
    for action in Action.allCases {
      for call in SystemCall.allCases {
        for code in Self.errors { points += try sweep(action, call, .fail(code)) }
      }
      points += try sweep(action, .write, .short)
      points += try sweep(action, .write, .fail(EINTR))
    }
    #expect(points >= 150)
  }

  private func sweep(_ action: Action, _ call: SystemCall, _ interception: Interception) throws -> Int {
    for number in 1...50 {
      if try !hit(action, call, number, interception) { return number - 1 }
    }
    Issue.record("\(action) never passed \(call) untouched")
    return 0
  }

  /// - Returns: false where the call was not made as many times.
  private func hit(_ action: Action, _ call: SystemCall, _ number: Int, _ interception: Interception) throws
    -> Bool
  {
    let fixture = try StoreFixture()
    let plan = FaultPlan()
    let store: FileKeyringStore
    var before: StorePosition?
    if action == .create {
      store = try fixture.store(calls: plan.calls)
      #expect(try store.load() == nil)
    } else {
      (store, before) = try fixture.filled(3, calls: plan.calls)
    }
    plan.arm(call, number, interception)
    let result = Result { try perform(action, store, fixture, before) }
    let wasHit = plan.wasHit
    plan.disarm()
    let loaded = try store.load()
    let place = "\(action), \(call) \(number) \(interception): \(result)"
    switch result {
    case .success(let position): #expect(loaded?.position == position, "\(place)")
    case .failure(StoreError.outcomeUnknown):
      #expect(
        loaded?.position == before || loaded?.position.sequence == (before?.sequence ?? 0) + 1,
        "\(place)"
      )
    case .failure: #expect(loaded?.position == before, "\(place)")
    }
    try goesOn(store, fixture, loaded, place)
    return wasHit
  }

  private func perform(
    _ action: Action,
    _ store: FileKeyringStore,
    _ fixture: StoreFixture,
    _ before: StorePosition?
  ) throws -> StorePosition {
    switch (action, before) {
    case (.append, .some(let before)):
      return try store.append(
        [fixture.commit(4, [try fixture.put("k4")])],
        expecting: before,
        authenticator: fixture.authenticator
      )
    case (.replace, .some(let before)):
      var state = KeyringState(tenant: fixture.tenant, id: fixture.keyring)
      try state.apply(fixture.commit(1, [.addWrappingKey(try fixture.wrappingKey), try fixture.put("k1")]))
      for index in 2...3 { try state.apply(fixture.commit(UInt64(index), [try fixture.put("k\(index)")])) }
      return try store.replace(
        with: fixture.image(state),
        expecting: before,
        authenticator: fixture.authenticator
      )
    default:
      return try store.create(
        tenant: fixture.tenant,
        id: fixture.keyring,
        commits: [fixture.commit(1, [.addWrappingKey(try fixture.wrappingKey), try fixture.put("k1")])],
        authenticator: fixture.authenticator
      )
    }
  }

  /// The store works again, and what it then writes is read by a new one; no temporary file is left.
  private func goesOn(
    _ store: FileKeyringStore,
    _ fixture: StoreFixture,
    _ loaded: LoadedKeyring?,
    _ place: String
  ) throws {
    guard let loaded else { return }
    let next = fixture.commit(loaded.position.sequence + 1, [try fixture.put("after")])
    let position = try store.append([next], expecting: loaded.position, authenticator: fixture.authenticator)
    try store.close()
    let again = try #require(try fixture.store().load(), "\(place)")
    #expect(again.position == position, "\(place)")
    let names = try FileManager.default.contentsOfDirectory(atPath: fixture.folder("tenant"))
    #expect(Set(names) == ["keyring", "keyring.lock"], "\(place)")
  }
}
