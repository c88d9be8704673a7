import KeyringCore
import Synchronization
import Testing

@testable import KeyringService

/// Transactions by event and action: no disk, no sockets, no sleeping. The numbers are those of CommitPipeline's invariants.
@Suite struct CommitPipelineTests {
  @Test func whatArrivesDuringAFlushIsTheNextBatch() throws {
    let fixture = try PipelineFixture()
    let first = fixture.submit([try fixture.put("a")])
    let others = try ["b", "c"].map { fixture.submit([try fixture.put($0)]) }
    #expect(
      first.value == nil && fixture.watcher.sequence == 1,
      "nothing is shown or answered before the flush (4)"
    )
    fixture.flush()
    #expect(first.sequence == 2 && fixture.watcher.sequence == 2)
    #expect(others.allSatisfy { $0.value == nil })
    fixture.flush()
    #expect(others.map(\.sequence) == [3, 4])
    #expect(fixture.store.state.withLock { $0.batches.map(\.count) } == [1, 2])
    #expect(!fixture.flush(), "one flush at a time, and none without need (3)")
  }

  @Test func aChangeIsJudgedByWhatIsAcceptedNotByWhatIsDurable() throws {
    let fixture = try PipelineFixture()
    _ = fixture.submit([try fixture.put("a")])
    let second = fixture.submit([try fixture.put("a")])
    #expect(second.failure == .keyring(.keyExists), "while the first is on its way (2)")
    fixture.flush()
    #expect(fixture.submit([try fixture.put("a", version: 2)]).value == nil)
    fixture.flush()
    #expect(fixture.watcher.sequence == 3)
  }

  @Test func aRefusedWriteFailsItsBatchAndAllBehindAndNothingElse() throws {
    let fixture = try PipelineFixture()
    fixture.store.state.withLock { $0.failures = [.unavailable("full")] }
    let first = fixture.submit([try fixture.put("a")])
    let behind = fixture.submit([try fixture.put("b")])
    fixture.flush()
    #expect(first.failure == .storageUnavailable("full"))
    guard case .storageUnavailable = behind.failure else {
      Issue.record("what was behind: \(String(describing: behind.value))")
      return
    }
    #expect(fixture.watcher.sequence == 1 && fixture.watcher.seen.withLock { $0.failure } == nil)
    let again = fixture.submit([try fixture.put("a")])
    fixture.flush()
    #expect(again.sequence == 2, "the failed one left nothing behind (5)")
  }

  @Test func afterAnUnknownOutcomeNothingInMemoryIsTrusted() throws {
    let fixture = try PipelineFixture()
    fixture.store.state.withLock { $0.failures = [.outcomeUnknown("sync failed")] }
    let first = fixture.submit([try fixture.put("a")])
    let behind = fixture.submit([try fixture.put("b")])
    fixture.flush()
    #expect(first.failure == .outcomeUnknown("sync failed"))
    guard case .storageUnavailable = behind.failure else {
      Issue.record("what was never written has a known outcome: \(String(describing: behind.value))")
      return
    }
    #expect(fixture.watcher.seen.withLock { $0.failure } == .outcomeUnknown("sync failed"))
    #expect(
      fixture.submit([try fixture.put("c")]).failure
        == .storageUnavailable("the storage must be recovered: sync failed")
    )
    #expect(!fixture.flush() && fixture.watcher.sequence == 1)
  }

  @Test func allOrNothingOfATransaction() throws {
    let fixture = try PipelineFixture()
    let doomed = fixture.submit([try fixture.put("a"), try fixture.put("b"), try fixture.put("a")])
    #expect(doomed.failure == .keyring(.keyExists))
    let pair = fixture.submit([try fixture.put("a"), try fixture.put("b")])
    fixture.flush()
    #expect(pair.sequence == 2)
    #expect(fixture.watcher.seen.withLock { $0.states.last?.keyCount } == 2)
  }

  @Test func aRequestSentAgainOnItsWayIsAnsweredOnce() throws {
    let fixture = try PipelineFixture()
    let now = UInt128(unixMilliseconds())
    func idempotency(_ hash: UInt8) throws -> Commit.Idempotency {
      Commit.Idempotency(
        id: IdempotencyID(value: now << 80 | 5),
        requestHash: try #require(Digest(bytes: [UInt8](repeating: hash, count: 32))),
        versions: [1]
      )
    }
    let first = fixture.submit([try fixture.put("a")], idempotency: try idempotency(1))
    let again = fixture.submit([try fixture.put("a")], idempotency: try idempotency(1))
    let other = fixture.submit([try fixture.put("b")], idempotency: try idempotency(2))
    #expect(other.failure == .keyring(.idempotencyMismatch))
    fixture.flush()
    #expect(first.sequence == 2 && again.sequence == 2)
    let later = fixture.submit([try fixture.put("a")], idempotency: try idempotency(1))
    #expect(later.sequence == 2, "and after it is durable")
    #expect(fixture.store.state.withLock { $0.batches.count } == 1)
  }

  @Test func commitsGoOnWhileStorageIsWrittenAnew() throws {
    let fixture = try PipelineFixture()
    let before = fixture.submit([try fixture.put("a")])
    let replaced = fixture.replace()
    let during = fixture.submit([try fixture.put("b")])
    fixture.flush()  // "a"
    fixture.flush()  // the snapshot, of before "a"
    #expect(before.sequence == 2 && during.value == nil && replaced.value == nil)
    let late = fixture.submit([try fixture.put("c")])
    #expect(late.value == nil, "files change next: it waits, and is not refused")
    fixture.flush()  // "b"
    #expect(during.sequence == 3)
    fixture.flush()  // the change of files
    #expect(try replaced.value?.get().sequence == 4)
    fixture.flush()
    #expect(late.sequence == 5)
    let state = fixture.store.state.withLock { $0 }
    #expect(state.images.map(\.sequence) == [1])
    #expect(state.replacement.map(\.sequence) == [2, 3, 4])
    #expect(state.replacement.map(\.caller) == ["adapted", "adapted", "keyringd"])
    #expect(state.replacement.last?.operations == [.replaced(StorePosition(sequence: 3, digest: .zero))])
    #expect(fixture.watcher.sequence == 5)
    #expect(fixture.watcher.seen.withLock { $0.states.last?.keyCount } == 3)
  }

  /// Many commits are added to the new file while more go on; only the last few have others wait.
  @Test func aLongTailIsAddedBeforeFilesChange() throws {
    let fixture = try PipelineFixture()
    let replaced = fixture.replace()
    let many = try (0..<20).map { fixture.submit([try fixture.put("k\($0)")]) }
    fixture.flush()  // the snapshot: nothing is durable since
    #expect(replaced.value == nil)
    while replaced.value == nil { #expect(fixture.flush()) }
    #expect(many.map(\.sequence) == (2...21).map { $0 })
    let state = fixture.store.state.withLock { $0 }
    #expect(state.replacement.map(\.sequence) == (2...22).map { $0 })
    #expect(state.replaced == [21])
    #expect(try replaced.value?.get().sequence == 22)
  }

  @Test func aReplacementThatFailsLeavesTheOldFileAndWhatWaitedGoesOn() throws {
    let fixture = try PipelineFixture()
    fixture.store.state.withLock { $0.failures = [.unavailable("no room")] }
    let replaced = fixture.replace()
    let during = fixture.submit([try fixture.put("a")])
    fixture.flush()
    #expect(replaced.value == .failure(.storageUnavailable("no room")))
    fixture.flush()
    #expect(during.sequence == 2)
    // The change of files fails so that nobody knows which one stands: then nothing in memory is trusted.
    let second = fixture.replace()
    fixture.flush()
    fixture.store.state.withLock { $0.failures = [.outcomeUnknown("rename")] }
    fixture.flush()
    #expect(second.value == .failure(.outcomeUnknown("rename")))
    #expect(fixture.watcher.seen.withLock { $0.failure } == .outcomeUnknown("rename"))
  }

  @Test func aFailedFlushEndsAReplacementUnderWay() throws {
    let fixture = try PipelineFixture()
    let replaced = fixture.replace()
    _ = fixture.submit([try fixture.put("a")])
    fixture.flush()  // the snapshot
    fixture.store.state.withLock { $0.failures = [.outcomeUnknown("sync failed")] }
    fixture.flush()  // "a"
    guard case .failure(.storageUnavailable) = replaced.value else {
      Issue.record("the old file stands: \(String(describing: replaced.value))")
      return
    }
    fixture.flush()
    #expect(fixture.store.state.withLock { $0.abandoned } == 1)
  }

  @Test func aTenantThatClosesLetsWhatItAcceptedBecomeDurable() throws {
    let fixture = try PipelineFixture()
    let first = fixture.submit([try fixture.put("a")])
    let waiting = fixture.submit([try fixture.put("b")])
    let isDrained = Atomic<Bool>(false)
    fixture.pipeline.stop(.unavailable("closing"))
    fixture.pipeline.drain { isDrained.store(true, ordering: .relaxed) }
    #expect(fixture.submit([try fixture.put("c")]).failure == .storageUnavailable("closing"))
    fixture.flush()
    #expect(first.sequence == 2 && !isDrained.load(ordering: .relaxed))
    fixture.flush()
    #expect(waiting.sequence == 3 && isDrained.load(ordering: .relaxed))
  }

  @Test func limitsAreOfWhatIsAccepted() throws {
    let fixture = try PipelineFixture(limits: KeyringLimits(keys: 2, bytes: .max))
    for id in ["a", "b"] { _ = fixture.submit([try fixture.put(id)]) }
    guard case .throttled = fixture.submit([try fixture.put("c")]).failure else {
      Issue.record("a third key of two was taken")
      return
    }
    #expect(
      fixture.submit([try fixture.put("a")]).failure == .keyring(.keyExists),
      "what else is wrong is said first"
    )
    let identity = try KeyIdentity(scope: .shared, owner: [], keyID: Array("a".utf8))
    let swapped = fixture.submit([.remove(identity), try fixture.put("c")])
    while fixture.flush() {}
    #expect(swapped.sequence == 4)
  }

  /// Of what is on its way, too; and a transaction that gives back as much as it takes is none that takes.
  @Test func bytesAreLimitedAsKeysAre() throws {
    let probe = try PipelineFixture()
    let empty = probe.pipeline.accepted.usefulBytes
    _ = probe.submit([try probe.put("a")])
    probe.settle()
    let one = Int(probe.pipeline.accepted.usefulBytes - empty)
    let fixture = try PipelineFixture(limits: KeyringLimits(keys: 100, bytes: Int(empty) + 2 * one))
    for id in ["a", "b"] { _ = fixture.submit([try fixture.put(id)]) }
    let third = fixture.submit([try fixture.put("c")])
    guard case .throttled(let why, 0) = third.failure else {
      Issue.record("a third key was taken, though there is room for two")
      return
    }
    #expect(why.hasPrefix("limits.bytes"))
    let identity = try KeyIdentity(scope: .shared, owner: [], keyID: Array("a".utf8))
    let swapped = fixture.submit([.remove(identity), try fixture.put("c")])
    let passing = fixture.submit([
      try fixture.put("d"), .remove(try KeyIdentity(scope: .shared, owner: [], keyID: Array("d".utf8))),
    ])
    while fixture.flush() {}
    #expect(swapped.sequence == 4 && passing.sequence == 5)
    fixture.settle()
    #expect(Int(fixture.pipeline.accepted.usefulBytes) == Int(empty) + 2 * one)
  }

  @Test func aChangePastItsDeadlineIsNotMade() throws {
    let fixture = try PipelineFixture()
    #expect(fixture.submit([try fixture.put("a")], deadline: 1).failure == .timeout)
    #expect(!fixture.flush())
  }

  @Test func aFlushUnderWayCanBeSeenFromOutside() throws {
    let fixture = try PipelineFixture()
    #expect(fixture.pipeline.flushBegan.load(ordering: .relaxed) == 0)
    _ = fixture.submit([try fixture.put("a")])
    #expect(fixture.pipeline.flushBegan.load(ordering: .relaxed) > 0)
    fixture.flush()
    #expect(fixture.pipeline.flushBegan.load(ordering: .relaxed) == 0)
  }
}
