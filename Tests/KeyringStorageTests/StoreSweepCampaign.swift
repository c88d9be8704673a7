import Foundation
import KeyringCore
import KeyringTestSupport
import Synchronization
import Testing

@testable import KeyringStorage

/// Makes the Nth system call of each kind fail, once or from then on, for every N until an operation passes untouched; afterwards the disk
/// holds the old state or the new one, memory agrees with it, and what was acknowledged is there.
@Suite struct StoreSweepCampaign {
  static let errors = [EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EACCES]

  /// One fault: which call, how it fails, and for how long.
  struct Fault {
    let call: SystemCall
    let interception: Interception
    var duration = FaultPlan.Duration.once
    var then: Interception?
    var also: [SystemCall: Interception] = [:]
    /// True: only calls on the anchor's directory fail.
    var isOfAnchor = false

    /// Nothing can be lost by it: what was taken of a batch is cut off again.
    var isFullDisk: Bool {
      guard call == .write, !isOfAnchor, also.isEmpty, duration == .persistent else { return false }
      if case .fail(let code) = then ?? interception { return [ENOSPC, EDQUOT, EFBIG].contains(code) }
      return false
    }

    /// A signal, and a write of fewer bytes, are no failures.
    var mustPass: Bool {
      switch interception {
      case .fail(EINTR), .proceed: true
      case .short: then == nil
      case .fail: false
      }
    }
  }

  /// All of them in the long form. In the short form each call fails with one error a duration and place, another for each call.
  static func faults() -> [Fault] {
    var faults: [Fault] = []
    for (index, call) in SystemCall.allCases.enumerated() {
      for isOfAnchor in [false, true] {
        for (turn, duration) in FaultPlan.Duration.allCases.enumerated() {
          let one = [errors[(index + turn + (isOfAnchor ? 3 : 0)) % errors.count]]
          for code in Campaign.isLong || (duration == .once && !isOfAnchor) ? errors : one {
            faults.append(
              Fault(call: call, interception: .fail(code), duration: duration, isOfAnchor: isOfAnchor)
            )
          }
        }
        faults.append(Fault(call: call, interception: .fail(EINTR), isOfAnchor: isOfAnchor))
      }
    }
    for duration in FaultPlan.Duration.allCases {
      faults.append(Fault(call: .write, interception: .short, duration: duration))
    }
    // What a full disk does: it takes a part, and then nothing; and one where the part cannot be cut off again.
    for code in [ENOSPC, EDQUOT, EFBIG, EIO] {
      for also in [[:], [SystemCall.ftruncate: .fail(EIO)]] as [[SystemCall: Interception]] {
        faults.append(
          Fault(
            call: .write,
            interception: .short,
            duration: .persistent,
            then: .fail(code),
            also: also
          )
        )
      }
    }
    return faults
  }

  @Test(arguments: SweptStore.Action.allCases)
  func everyFailureLeavesTheOldStateOrTheNew(_ action: SweptStore.Action) async throws {
    var points = 0
    for fault in Self.faults() { points += try await sweep(action, fault) }
    Campaign.report("store sweep, \(action)", ["points": points])
    #expect(points >= 30)
  }

  /// - Returns: how often the fault was met.
  private func sweep(_ action: SweptStore.Action, _ fault: Fault) async throws -> Int {
    for number in 1...60 {
      await Task.yield()  // servers of other tests in this process have the same few threads
      let swept = try SweptStore(action, isOfAnchor: fault.isOfAnchor)
      let place = "\(action), \(fault), at \(number)"
      swept.plan.arm(
        fault.call,
        number,
        fault.interception,
        fault.duration,
        then: fault.then,
        also: fault.also
      )
      let result = swept.attempt()
      let wasHit = swept.plan.wasHit
      if fault.mustPass || !wasHit { #expect(throws: Never.self, "\(place)") { try result.get() } }
      if fault.isFullDisk, action == .append, number == 1 {
        #expect(throws: StoreError.self, "\(place)") { try result.get() }
        #expect(!swept.isInDoubt, "\(place): a full disk leaves no doubt")
      }
      try swept.check("\(place): \(result)")
      if fault.duration == .persistent {
        swept.insist()
        try swept.check("\(place), insisted")
      }
      swept.plan.disarm()
      try swept.checkAfter("\(place): \(result)")
      if !wasHit { return number - 1 }
    }
    Issue.record("\(action) never passed \(fault) untouched")
    return 0
  }
}

/// One operation on a store of its own, and what is known of its outcome.
final class SweptStore {
  enum Action: CaseIterable {
    case append, replace, replaceWhileAppending, create, load, loadATornTail, loadWithALateAnchor, close,
      accept, anchor
  }

  let action: Action
  let plan = FaultPlan()
  private let fixture: StoreFixture
  private let store: FileKeyringStore
  /// Where the file stands for certain.
  private var settled: StorePosition?
  /// True where one commit more may be there.
  private(set) var isInDoubt = false
  private var isAccepted = true

  init(_ action: Action, isOfAnchor: Bool) throws {
    self.action = action
    fixture = try StoreFixture()
    let isLate = [.loadWithALateAnchor, .close, .anchor].contains(action)
    store = try fixture.store(
      isLate ? .writtenBehind : .strict,
      calls: isOfAnchor ? SystemCalls() : plan.calls,
      anchorCalls: plan.calls
    )
    switch action {
    case .create: _ = try store.load()
    case .append, .replace, .replaceWhileAppending, .close, .anchor: settled = try fixture.filled(3, store).1
    case .load, .loadATornTail, .loadWithALateAnchor, .accept:
      let (first, position) = try fixture.filled(3, isLate ? .writtenBehind : .strict)
      settled = position
      let anchor = try Data(contentsOf: URL(filePath: fixture.anchor))
      try first.close()
      switch action {
      case .loadATornTail: try tear(position)
      case .loadWithALateAnchor: try anchor.write(to: URL(filePath: fixture.anchor))
      case .accept:
        try FileManager.default.removeItem(atPath: fixture.anchor)
        isAccepted = false
      default: break
      }
    }
  }

  private func commit(_ position: StorePosition, _ id: String) throws -> Commit {
    fixture.commit(position.sequence + 1, [try fixture.put(id)])
  }

  /// Puts the first half of a batch behind the file.
  private func tear(_ position: StorePosition) throws {
    let batch = try EncodedBatch.make(
      [CommitCodec.encode(commit(position, "torn"))],
      firstSequence: position.sequence + 1,
      previous: position.digest,
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      authenticator: fixture.authenticator
    )
    try fixture.overwrite(try fixture.bytes() + batch.bytes.prefix(batch.bytes.count / 2))
  }

  // MARK: Acting

  /// Performs the operation, and notes what is known after.
  func attempt() -> Result<Void, any Error> {
    note { () throws -> StorePosition? in
      switch self.action {
      case .append: return try self.append(try self.known(), "new")
      case .replace: return try self.replace(try self.known())
      case .replaceWhileAppending: return try self.replaceWhileAppending()
      case .create: return try self.create()
      case .load, .loadATornTail, .loadWithALateAnchor:
        let loaded = try self.store.load()
        #expect(loaded?.position == self.settled)
      case .close: try self.store.close()
      case .accept:
        try self.store.accept(sequence: 3)
        self.isAccepted = true
      case .anchor: try self.store.anchor(authenticator: self.fixture.authenticator)
      }
      return self.settled
    }
  }

  /// While the fault lasts: what the store says then counts like everything else.
  func insist() {
    _ = note {
      let loaded = try self.store.load()
      try self.expectAllowed(loaded?.position, "loaded while the fault lasted")
      self.settled = loaded?.position
      self.isInDoubt = false
      guard let position = loaded?.position else { return nil }
      return try self.append(position, "insisted")
    }
  }

  private func note(_ body: () throws -> StorePosition?) -> Result<Void, any Error> {
    do {
      settled = try body()
      return .success(())
    } catch StoreError.outcomeUnknown {
      isInDoubt = true
      return .failure(StoreError.outcomeUnknown(""))
    } catch {
      // A disk that fails says nothing about the file: nobody may quarantine the tenant for it.
      switch error as? StoreError {
      case .unavailable, .busy: break
      case .changed where !isAccepted: break
      case .changed, .damaged, .authenticatorUnavailable, .outcomeUnknown, .none:
        Issue.record("\(action): \(error)")
      }
      return .failure(error)
    }
  }

  private func known() throws -> StorePosition { try #require(settled) }

  private func append(_ position: StorePosition, _ id: String) throws -> StorePosition {
    try store.append([commit(position, id)], expecting: position, authenticator: fixture.authenticator)
  }

  private func replace(_ position: StorePosition) throws -> StorePosition {
    let state = try fixture.store().read().state
    return try store.replace(
      with: fixture.image(state),
      expecting: position,
      authenticator: fixture.authenticator
    )
  }

  /// A commit is made while the new file is written; it is durable in the old one whatever becomes of the new one.
  private func replaceWhileAppending() throws -> StorePosition {
    let (from, authenticator) = (try known(), fixture.authenticator)
    let image = try fixture.image(try fixture.store().read().state)
    let draft = try store.beginReplacement(with: image, at: from, authenticator: authenticator)
    do {
      let meanwhile = try commit(from, "meanwhile")
      let position = try store.append([meanwhile], expecting: from, authenticator: authenticator)
      settled = position
      let last = fixture.commit(position.sequence + 1, [.replaced(position)])
      return try draft.finish(
        [meanwhile, last],
        expecting: position,
        former: authenticator,
        authenticator: authenticator
      )
    } catch {
      draft.abandon()
      throw error
    }
  }

  private func create() throws -> StorePosition {
    try store.create(
      tenant: fixture.tenant,
      id: fixture.keyring,
      commits: [fixture.commit(1, [.addWrappingKey(try fixture.wrappingKey), try fixture.put("k1")])],
      authenticator: fixture.authenticator
    )
  }

  // MARK: Checking

  private func expectAllowed(_ position: StorePosition?, _ place: String) throws {
    if position == settled { return }
    #expect(
      isInDoubt && position?.sequence == (settled?.sequence ?? 0) + 1,
      "\(place): \(String(describing: position))"
    )
  }

  /// At any moment: the file is the old one or the new one to whoever reads it, and a store that is open stands where the file stands.
  func check(_ place: String) throws {
    guard FileManager.default.fileExists(atPath: fixture.file) else {
      #expect(settled == nil, "\(place): the file is gone")
      return
    }
    let position = try fixture.store().read().position
    try expectAllowed(position, place)
    if let open = store.state.withLock({ $0.open?.position }) { #expect(open == position, "\(place)") }
  }

  /// Once the fault is over: the store is as good as another one, goes on, and leaves nothing behind.
  func checkAfter(_ place: String) throws {
    if !isAccepted {
      // It was accepted, or it was not and can be.
      if Result(catching: { try store.load() }).isFailure { try store.accept(sequence: 3) }
    }
    let loaded = try store.load()
    try expectAllowed(loaded?.position, place)
    let next: StorePosition
    if let loaded {
      let seen = try fixture.store().read()
      #expect(seen.position == loaded.position && seen.state.keys == loaded.state.keys, "\(place)")
      next = try append(loaded.position, "after")
    } else {
      next = try create()
    }
    try store.close()
    let again = try #require(try fixture.store().load(), "\(place)")
    #expect(again.position == next, "\(place)")
    let names = try ["tenant", "anchors"].map {
      Set(try FileManager.default.contentsOfDirectory(atPath: fixture.folder($0)))
    }
    #expect(names == [["keyring", "keyring.lock"], ["\(fixture.tenant).anchor"]], "\(place)")
  }
}

extension Result {
  fileprivate var isFailure: Bool {
    if case .failure = self { true } else { false }
  }
}
