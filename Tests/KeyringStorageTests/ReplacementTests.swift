import Foundation
import KeyringCore
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
}
