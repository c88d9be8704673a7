import Dispatch
import Foundation
import KeyringCore
import KeyringTestSupport
import Synchronization
import Testing

@testable import KeyringStorage

/// When and on which threads anchors are written: never ahead of the file, never waiting for a flush, and again where it failed.
@Suite(.timeLimit(.minutes(1))) struct AnchoringTests {
  let fixture: StoreFixture
  init() throws { fixture = try StoreFixture() }

  private func append(_ store: FileKeyringStore, _ number: Int, _ position: StorePosition) throws
    -> StorePosition
  {
    try store.append(
      [fixture.commit(UInt64(number), [try fixture.put("k\(number)")])],
      expecting: position,
      authenticator: fixture.authenticator
    )
  }

  /// Until the anchor on the disk is there; the suite's time limit ends the waiting.
  private func waitForAnchor(at position: StorePosition) async throws {
    while try fixture.anchorPosition() != position { try await Task.sleep(for: .milliseconds(2)) }
  }

  @Test func anAnchorThatWasFoundBehindIsBroughtUpOnRequestAndOnlyThen() throws {
    let plan = FaultPlan()
    let (store, position) = try fixture.filled(3, .writtenBehind)
    let old = try Data(contentsOf: URL(filePath: fixture.anchor))
    try store.close()
    try old.write(to: URL(filePath: fixture.anchor))
    let again = try fixture.store(.writtenBehind, calls: plan.calls)
    #expect(try again.load()?.position == position)
    #expect(try fixture.anchorPosition().sequence == 1)
    plan.arm(.rename, 1, .fail(EIO))
    #expect(throws: StoreError.self) { try again.anchor(authenticator: fixture.authenticator) }
    plan.disarm()
    try again.anchor(authenticator: fixture.authenticator)
    #expect(try fixture.anchorPosition() == position)
    plan.disarm()
    try again.anchor(authenticator: fixture.authenticator)
    #expect(plan.log.isEmpty, "it is there: nothing is done")
    let next = try append(again, 4, position)
    try again.close()
    #expect(try fixture.anchorPosition() == next)
    #expect(throws: StoreError.self) { try again.anchor(authenticator: fixture.authenticator) }
  }

  @Test func aFailedLateWriteIsTriedAgainAndTheOperatorToldOnce() async throws {
    let failures = Mutex((left: 0, told: 0))
    let store = try fixture.store(
      .writtenBehind,
      anchorCalls: SystemCalls { call in
        failures.withLock { failures in
          guard call == .rename, failures.left > 0 else { return .proceed }
          failures.left -= 1
          return .fail(EIO)
        }
      },
      anchorWriter: AnchorWriter(delayMilliseconds: 1),
      notice: { _ in failures.withLock { $0.told += 1 } }
    )
    let (_, position) = try fixture.filled(1, store)
    failures.withLock { $0.left = 5 }
    let next = try append(store, 2, position)
    try await waitForAnchor(at: next)
    #expect(failures.withLock { $0.left == 0 && $0.told == 1 })
    try store.close()
  }

  @Test func anAnchorIsWrittenWhileAFlushWaitsForTheDisk() async throws {
    let gate = Gate()
    let store = try fixture.store(
      .writtenBehind,
      calls: SystemCalls { call in
        if call == .fdatasync { gate.pass() }
        return .proceed
      },
      anchorCalls: SystemCalls(),
      anchorWriter: AnchorWriter(delayMilliseconds: 1)
    )
    let (_, first) = try fixture.filled(1, store)
    let second = try append(store, 2, first)
    gate.close()
    let flushed = Mutex<StorePosition?>(nil)
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread { [self] in
      let third = try? append(store, 3, second)  // checked below
      flushed.withLock { $0 = third }
      done.signal()
    }
    await gate.arrived()
    try await waitForAnchor(at: second)
    #expect(flushed.withLock { $0 } == nil, "the flush is still under way, and the anchor not ahead of it")
    gate.open()
    await wait(for: done)
    try store.close()
    #expect(try fixture.anchorPosition() == flushed.withLock { $0 })
  }

  @Test func aFlushDoesNotWaitForAnAnchor() async throws {
    let gate = Gate()
    let store = try fixture.store(
      .writtenBehind,
      anchorCalls: SystemCalls { call in
        if call == .fsync { gate.pass() }
        return .proceed
      },
      anchorWriter: AnchorWriter(delayMilliseconds: 1)
    )
    let (_, first) = try fixture.filled(1, store)
    gate.close()
    let second = try append(store, 2, first)
    await gate.arrived()
    let third = try append(store, 3, second)
    #expect(try fixture.anchorPosition() == first)
    gate.open()
    try await waitForAnchor(at: third)
    try store.close()
  }

  @Test func aHungWriteHoldsItsOwnTenantAndOneThread() async throws {
    let writer = AnchorWriter(delayMilliseconds: 1, writesMax: 2)
    let gate = Gate()
    gate.close()
    let counts = Mutex((hung: 0, others: 0))
    let hung = try TenantName("hung")
    writer.schedule(hung) {
      counts.withLock { $0.hung += 1 }
      gate.pass()
    }
    await gate.arrived()
    // Another write of the same tenant waits for the one that hangs, and takes no second thread.
    writer.schedule(hung) { counts.withLock { $0.hung += 1 } }
    for round in 1...3 {
      for name in ["a", "b", "c"] {
        writer.schedule(try TenantName(name)) { counts.withLock { $0.others += 1 } }
      }
      while counts.withLock({ $0.others }) < round * 3 { try await Task.sleep(for: .milliseconds(2)) }
    }
    #expect(counts.withLock { $0.hung } == 1)
    gate.open()
    while counts.withLock({ $0.hung }) < 2 { try await Task.sleep(for: .milliseconds(2)) }
  }

  @Test func anAnchorWithoutHMACIsReportedUntilACommitBringsOne() throws {
    let (store, position) = try fixture.filled(2)
    try store.close()
    #expect(try fixture.store().load()?.notices == [])
    try FileManager.default.removeItem(atPath: fixture.anchor)
    let again = try fixture.store()
    try again.accept(sequence: 2)
    let loaded = try #require(try again.load())
    #expect(loaded.notices.count == 1 && loaded.notices[0].contains("has no HMAC"))
    _ = try append(again, 3, position)
    try again.close()
    #expect(try fixture.store().load()?.notices == [])
  }

  private func wait(for semaphore: DispatchSemaphore) async {
    await withCheckedContinuation { continuation in
      Thread.detachNewThread {
        semaphore.wait()
        continuation.resume()
      }
    }
  }
}

/// Holds who passes while it is closed.
private final class Gate: Sendable {
  private let isClosed = Mutex(false)
  private let held = Mutex(0)
  private let opened = DispatchSemaphore(value: 0)

  func close() { isClosed.withLock { $0 = true } }

  func pass() {
    guard isClosed.withLock({ $0 }) else { return }
    held.withLock { $0 += 1 }
    opened.wait()
  }

  /// Waits until somebody is held.
  func arrived() async {
    while held.withLock({ $0 }) == 0 { await Task.yield() }
  }

  func open() {
    isClosed.withLock { $0 = false }
    held.withLock { held in
      for _ in 0..<held { opened.signal() }
      held = 0
    }
  }
}
