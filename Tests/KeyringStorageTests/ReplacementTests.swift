import Foundation
import KeyringCore
import KeyringTestSupport
import Testing

@testable import KeyringStorage

/// A file that is written anew while the one before goes on.
@Suite struct ReplacementTests {
  let fixture: StoreFixture
  init() throws { fixture = try StoreFixture() }

  private func begin(_ store: FileKeyringStore, _ position: StorePosition) throws -> any KeyringReplacement {
    try store.beginReplacement(
      with: fixture.image(store.read().state),
      at: position,
      authenticator: fixture.authenticator
    )
  }

  private func append(_ store: FileKeyringStore, _ sequence: UInt64, _ position: StorePosition) throws
    -> (Commit, StorePosition)
  {
    let commit = fixture.commit(sequence, [try fixture.put("k\(sequence)")])
    return (commit, try store.append([commit], expecting: position, authenticator: fixture.authenticator))
  }

  private func replaced(_ position: StorePosition) -> Commit {
    fixture.commit(position.sequence + 1, [.replaced(position)])
  }

  private func finish(_ draft: any KeyringReplacement, _ commits: [Commit], _ position: StorePosition) throws
    -> StorePosition
  {
    try draft.finish(
      commits,
      expecting: position,
      former: fixture.authenticator,
      authenticator: fixture.authenticator
    )
  }

  private var leftover: Bool { FileManager.default.fileExists(atPath: fixture.file + ".new") }

  @Test func commitsMadeMeanwhileAreInTheNewFile() throws {
    let (store, first) = try fixture.filled(3, .writtenBehind)
    let draft = try begin(store, first)
    let (fourth, second) = try append(store, 4, first)
    let (fifth, third) = try append(store, 5, second)
    #expect(leftover)
    try draft.append([fourth], authenticator: fixture.authenticator)
    let inode = try FileManager.default.attributesOfItem(atPath: fixture.file)[.systemFileNumber] as? Int
    let position = try finish(draft, [fifth, replaced(third)], third)
    #expect(position.sequence == 6 && !leftover)
    #expect(
      try FileManager.default.attributesOfItem(atPath: fixture.file)[.systemFileNumber] as? Int != inode
    )
    // The anchor is where the old file stood, durable before the new one appeared: that opens the new one.
    #expect(try fixture.anchorPosition() == third)
    let read = try store.read()
    #expect(read.position == position && read.state.keyCount == 5)
    let (_, last) = try append(store, 7, position)
    try store.close()
    #expect(try fixture.store().load()?.position == last)
  }

  /// The file before is left as it was by whatever becomes of a new one that is not finished.
  @Test func anUnfinishedOneChangesNothing() throws {
    let (store, first) = try fixture.filled(3)
    let before = try fixture.bytes()
    let abandoned = try begin(store, first)
    abandoned.abandon()
    #expect(try fixture.bytes() == before && !leftover)
    let overtaken = try begin(store, first)
    let present = try begin(store, first)
    #expect(throws: StoreError.self) { try finish(overtaken, [replaced(first)], first) }
    #expect(try fixture.bytes() == before && leftover)
    overtaken.abandon()
    #expect(leftover, "that is another's by now")
    #expect(throws: StoreError.self) {
      try finish(present, [replaced(first)], StorePosition(sequence: 3, digest: .zero))
    }
    #expect(try fixture.bytes() == before && !leftover)
    let forgotten = try begin(store, first)
    #expect(try store.load()?.position == first)
    #expect(throws: StoreError.self) { try finish(forgotten, [replaced(first)], first) }
    #expect(try fixture.bytes() == before && !leftover)
    let left = try begin(store, first)
    try store.close()
    #expect(throws: StoreError.self) { try finish(left, [replaced(first)], first) }
    #expect(try fixture.bytes() == before && !leftover)
  }

  /// The file appeared whole: no crash cuts off what it appeared with, and so nothing of that is taken for a torn tail.
  @Test func aFileWrittenAnewIsCutOffOnlyBehindWhatItAppearedWith() throws {
    let (store, first) = try fixture.filled(2)
    let draft = try begin(store, first)
    let (third, second) = try append(store, 3, first)
    let position = try finish(draft, [third, replaced(second)], second)
    let appeared = try fixture.bytes().count
    _ = try append(store, 5, position)
    let bytes = try fixture.bytes()
    for count in 0..<appeared {
      #expect(throws: StoreError.self, "\(count) bytes") {
        try StorageFileReader.read(Array(bytes[..<count]), tenant: fixture.tenant)
      }
    }
    for count in appeared..<bytes.count {
      let content = try StorageFileReader.read(Array(bytes[..<count]), tenant: fixture.tenant)
      #expect(content.position == position && (content.tornTail != nil) == (count > appeared))
    }
  }

  @Test func whatWasReplacedIsSaidOnceAndRight() throws {
    let (store, first) = try fixture.filled(2)
    let wrong = StorePosition(sequence: 1, digest: first.digest)
    for commits in [
      [], [fixture.commit(3, [.replaced(wrong)])], [replaced(first), fixture.commit(4, [.replaced(first)])],
      [fixture.commit(3, [.replaced(first), .remove(try fixture.identity("k1"))])],
    ] {
      let draft = try begin(store, first)
      if !commits.isEmpty { try draft.append(commits, authenticator: fixture.authenticator) }
      let bytes = Array(try Data(contentsOf: URL(filePath: fixture.file + ".new")))
      #expect(throws: StoreError.self) { try StorageFileReader.read(bytes, tenant: fixture.tenant) }
    }
    let draft = try begin(store, first)
    try draft.append([replaced(first)], authenticator: fixture.authenticator)
    let bytes = Array(try Data(contentsOf: URL(filePath: fixture.file + ".new")))
    #expect(try StorageFileReader.read(bytes, tenant: fixture.tenant).replaced == first)
    // In a first file it is never said.
    #expect(throws: StoreError.self) {
      let next = try store.append(
        [fixture.commit(3, [.replaced(first)])],
        expecting: first,
        authenticator: fixture.authenticator
      )
      _ = try StorageFileReader.read(try fixture.bytes(), tenant: fixture.tenant).position == next
    }
  }

  /// A batch that finds no room is cut off again, durably: else a crash could leave its remains behind the next one.
  @Test func whatFoundNoRoomIsDurablyCutOff() throws {
    let (plan, fixture) = (FaultPlan(), try StoreFixture())
    let (store, position) = try fixture.filled(2, calls: plan.calls)
    let commit = fixture.commit(3, [try fixture.put("k3")])
    func append() throws -> StorePosition {
      try store.append([commit], expecting: position, authenticator: fixture.authenticator)
    }
    plan.arm(.write, 1, .fail(ENOSPC))
    #expect(throws: StoreError.unavailable("cannot write \(fixture.file): No space left on device")) {
      try append()
    }
    #expect(
      plan.log.filter { [.write, .fdatasync, .ftruncate, .fsync].contains($0) } == [
        .write, .ftruncate, .fsync,
      ]
    )
    // The next one works, without anything being loaded again.
    plan.disarm()
    #expect(try append().sequence == 3)
  }

  /// An anchor at sequence 0 is of a creation that did not end: of one batch, and no more.
  @Test func anAnchorOfACreationOpensNoLaterFile() throws {
    for count in [1, 2] {
      let fixture = try StoreFixture()
      let (store, _) = try fixture.filled(count)
      try store.close()
      let nothing = StorePosition(sequence: 0, digest: .zero)
      let anchor = try Anchor.make(
        tenant: fixture.tenant,
        keyring: fixture.keyring,
        position: nothing,
        authenticator: nil
      )
      try Data(try anchor.encode(tenant: fixture.tenant)).write(to: URL(filePath: fixture.anchor))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: fixture.anchor)
      if count == 1 {
        #expect(try fixture.store().load()?.position.sequence == 1)
      } else {
        #expect(throws: StoreError.self) { try fixture.store().load() }
      }
    }
  }

  /// Clocks that were put back leave times in a window that reading it must not judge again.
  @Test func whatAWindowRemembersIsReadAsItIs() throws {
    var window = IdempotencyWindow()
    for (index, time) in [1_000_000_000, 1_000, 1_000_000_500].enumerated() {
      window.insert(
        fixture.commit(
          UInt64(index + 1),
          [],
          idempotency: Commit.Idempotency(
            id: IdempotencyID(value: UInt128(index + 1) << 80),
            requestHash: .zero,
            versions: []
          ),
          time: UInt64(time)
        )
      )
    }
    #expect(window.entries.count == 3)
    var state = KeyringState(tenant: fixture.tenant, id: fixture.keyring)
    try state.apply(fixture.commit(1, [.addWrappingKey(try fixture.wrappingKey)]))
    let image = KeyringImage(
      tenant: fixture.tenant,
      id: fixture.keyring,
      sequence: 1,
      timeMilliseconds: 1,
      caller: "keyringd",
      wrappingKeys: [try fixture.wrappingKey],
      keys: state.keys,
      idempotency: window
    )
    let bytes = CommitCodec.encode(image)
    let decoded = try unsafe bytes.withUnsafeBytes {
      try unsafe CommitCodec.decode($0, tenant: fixture.tenant, keyring: fixture.keyring)
    }
    guard case .image(let read, _) = decoded else {
      Issue.record("no image")
      return
    }
    #expect(read.idempotency.entries == window.entries)
  }
}
