import KeyringCore
import Testing

@testable import KeyringStorage

/// When a file is worth writing anew.
@Suite struct CompactionTests {
  let fixture: StoreFixture
  init() throws { fixture = try StoreFixture() }

  /// Each store a batch of its own, of the smallest key, with an id and a long caller: what grows alone is never written anew.
  @Test func whatOnlyGrowsIsNotCompactedAndWhatIsRemovedIs() throws {
    var state = KeyringState(tenant: fixture.tenant, id: fixture.keyring)
    var window = IdempotencyWindow()
    var size = UInt64(StorageFormat.headerBytes)
    var position = StorePosition(sequence: 0, digest: .zero)
    func add(_ operations: [KeyringCore.Operation]) throws {
      let commit = Commit(
        sequence: state.sequence + 1,
        timeMilliseconds: 1_700_000_000_000,
        caller: String(repeating: "c", count: 400),
        idempotency: Commit.Idempotency(
          id: IdempotencyID(value: UInt128(state.sequence)),
          requestHash: .zero,
          versions: [1]
        ),
        operations: operations
      )
      let batch = try EncodedBatch.make(
        [CommitCodec.encode(commit)],
        firstSequence: commit.sequence,
        previous: position.digest,
        tenant: fixture.tenant,
        keyring: fixture.keyring,
        authenticator: fixture.authenticator
      )
      size += UInt64(batch.bytes.count)
      position = batch.position
      try state.apply(commit)
    }
    func isWorthwhile() -> Bool {
      Compaction.isWorthwhile(storageBytes: size, state: state, idempotency: window)
    }
    try add([.addWrappingKey(try fixture.wrappingKey)])
    for number in 0..<10_000 {
      try add([try fixture.put("\(number)")])
      try #require(!isWorthwhile(), "after \(number) stores")
    }
    for number in 0..<9_000 { try add([.remove(try fixture.identity("\(number)"))]) }
    #expect(isWorthwhile())
    // Written anew it is not worth it, though the window of ids is full.
    for number in 0..<UInt64(IdempotencyWindow.entriesMax) {
      window.insert(
        IdempotencyWindow.Entry(
          caller: "c",
          idempotency: Commit.Idempotency(
            id: IdempotencyID(value: UInt128(number)),
            requestHash: .zero,
            versions: [.max]
          ),
          sequence: .max,
          timeMilliseconds: .max
        )
      )
    }
    let image = KeyringImage(
      tenant: fixture.tenant,
      id: fixture.keyring,
      sequence: state.sequence + 1,
      timeMilliseconds: 1,
      caller: "keyringd",
      wrappingKeys: Array(state.wrappingKeys.values),
      keys: state.keys,
      idempotency: window
    )
    size = UInt64(CommitCodec.encode(image).count + 500)
    #expect(Compaction.garbageBytes(storageBytes: size, state: state, idempotency: window) < 1000)
    #expect(!isWorthwhile())
  }
}
