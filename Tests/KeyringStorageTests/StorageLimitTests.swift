import Foundation
import KeyringCore
import Testing

@testable import KeyringStorage

/// What is written can be read again; what cannot is refused before it is written.
@Suite struct StorageLimitTests {
  let fixture: StoreFixture
  init() throws { fixture = try StoreFixture() }

  private func refusal(_ body: () throws -> StorePosition) -> String {
    do {
      return "\(try body())"
    } catch StoreError.unavailable(let what) {
      return what
    } catch {
      return "not unavailable: \(error)"
    }
  }

  @Test func aFileIsNotMadeLargerThanWhatIsRead() throws {
    let (filled, position) = try fixture.filled(3)
    let state = try filled.read().state
    try filled.close()
    let good = try fixture.bytes()
    let store = try fixture.store(fileBytesMax: good.count + 300)
    #expect(try store.load()?.position == position)
    let large = fixture.commit(4, try (0..<3).map { try fixture.put("large-\($0)") })
    let what = refusal {
      try store.append([large], expecting: position, authenticator: fixture.authenticator)
    }
    #expect(what.contains("nothing was written") && what.contains("may have \(good.count + 300)"), "\(what)")
    #expect(try fixture.bytes() == good)
    // A remove fits, and so the store still works after the refusal.
    let next = try store.append(
      [fixture.commit(4, [.remove(try fixture.identity("k3"))])],
      expecting: position,
      authenticator: fixture.authenticator
    )
    try store.close()
    let narrow = try fixture.store(fileBytesMax: try fixture.bytes().count)
    #expect(try narrow.load()?.position == next)
    var larger = state
    let many = try (4..<20).map { try fixture.put("k\($0)") }
    try larger.apply(fixture.commit(4, many))
    let before = try fixture.bytes()
    let replacement = refusal {
      try narrow.replace(with: fixture.image(larger), expecting: next, authenticator: fixture.authenticator)
    }
    #expect(replacement.contains("nothing was written"), "\(replacement)")
    #expect(try fixture.bytes() == before && narrow.read().position == next)
  }

  @Test func aCommitTooLongForItsLengthIsRefusedAndDoesNotEndTheServer() throws {
    let what = refusal {
      try EncodedBatch.make(
        [[1], [UInt8](repeating: 1, count: 101)],
        firstSequence: 1,
        previous: .zero,
        tenant: fixture.tenant,
        keyring: fixture.keyring,
        authenticator: fixture.authenticator,
        commitBytesMax: 100
      ).position
    }
    #expect(what.contains("a commit has 101 bytes"), "\(what)")
    #expect(StorageFormat.commitBytesMax < UInt32.max)
  }

  /// With a copy of all versions for each version, reading this would take hours.
  @Test(.timeLimit(.minutes(1))) func aKeyOfAsManyVersionsAsItMayHaveIsRead() throws {
    let (store, first) = try fixture.filled(1)
    let batches = try stride(from: 2, through: Key.versionsMax, by: 5_000).enumerated().map { index, from in
      let versions = from..<min(from + 5_000, Key.versionsMax + 1)
      return fixture.commit(
        UInt64(index + 2),
        try versions.map { try fixture.put("k1", version: UInt32($0)) }
      )
    }
    let position = try store.append(batches, expecting: first, authenticator: fixture.authenticator)
    let state = try store.read().state
    #expect(state.recordCount == Key.versionsMax)
    _ = try store.replace(
      with: fixture.image(state),
      expecting: position,
      authenticator: fixture.authenticator
    )
    let replaced = try store.read().state
    #expect(replaced.keys == state.keys)
    var full = replaced
    let more = fixture.commit(
      full.sequence + 1,
      [try fixture.put("k1", version: UInt32(Key.versionsMax + 1))]
    )
    #expect(throws: KeyringError.versionsExhausted) { try full.apply(more) }
    #expect(throws: KeyringError.versionsExhausted) { try full.replay(more) }
  }
}
