import HashTreeCollections
import KeyringCore
import Testing

@Suite struct KeyringStateTests {
  let wrappingKey: WrappingKey
  var state: KeyringState

  init() throws {
    wrappingKey = try Self.wrappingKey(1)
    state = KeyringState(tenant: try TenantName("acme"), id: KeyringID(value: 9))
    try state.apply(Self.commit(1, [.addWrappingKey(wrappingKey), try Self.put("a", 1)]))
  }

  private static func wrappingKey(_ number: UInt128, encryptions: UInt64 = 0) throws -> WrappingKey {
    WrappingKey(
      id: WrappingKeyID(value: number),
      cmkID: try CMKID("local-1"),
      provider: .local,
      wrapped: [1],
      commitment: .zero,
      createdMilliseconds: 1,
      encryptions: encryptions
    )
  }

  private static func identity(_ id: String) throws -> KeyIdentity {
    try KeyIdentity(scope: .shared, owner: [], keyID: Array(id.utf8))
  }

  private static func put(
    _ id: String,
    _ version: UInt32,
    type: String = "AES",
    under key: UInt128 = 1
  ) throws -> Operation {
    .put(
      try identity(id),
      try KeyType(type),
      try Record(
        version: version,
        length: 16,
        createdMilliseconds: 1,
        id: RecordID(value: UInt128(version)),
        wrappingKeyID: WrappingKeyID(value: key),
        nonce: [UInt8](repeating: 0, count: 12),
        ciphertext: [UInt8](repeating: 0, count: 32)
      )
    )
  }

  private static func commit(_ sequence: UInt64, _ operations: [Operation]) -> Commit {
    Commit(
      sequence: sequence,
      timeMilliseconds: 1,
      caller: "keyringd",
      idempotency: nil,
      operations: operations
    )
  }

  /// A commit's last operation fails: nothing of it is there, whatever failed.
  @Test func aCommitIsAppliedWholeOrNotAtAll() throws {
    let bad: [(Operation, KeyringError?)] = [
      (try Self.put("a", 1), .keyExists), (.remove(try Self.identity("absent")), .keyAbsent),
      (try Self.put("absent", 2), .keyAbsent), (try Self.put("a", 3), nil),
      (try Self.put("a", 2, type: "SECRET"), nil), (try Self.put("d", 1, under: 2), nil),
      (.addWrappingKey(wrappingKey), nil),
    ]
    for (operation, expected) in bad {
      var tried = state
      let commit = Self.commit(
        2,
        [try Self.put("b", 1), .remove(try Self.identity("b")), try Self.put("c", 1), operation]
      )
      do {
        try tried.apply(commit)
        Issue.record("\(operation) was applied")
      } catch {
        if let expected {
          #expect(error == expected)
        } else {
          guard case .inconsistent = error else {
            Issue.record("\(error)")
            continue
          }
        }
      }
      #expect(tried.sequence == 1)
      #expect(tried.keys == state.keys)
      #expect(tried.wrappingKeys == state.wrappingKeys)
      #expect(tried.recordsByWrappingKey == state.recordsByWrappingKey)
    }
  }

  @Test func sequencesFollowOneAnother() throws {
    for sequence in [0, 1, 3, UInt64.max] as [UInt64] {
      var tried = state
      #expect(throws: KeyringError.self) { try tried.apply(Self.commit(sequence, [try Self.put("b", 1)])) }
    }
  }

  @Test func versionsAndCountsAreKept() throws {
    var state = state
    try state.apply(Self.commit(2, [try Self.put("a", 2), try Self.put("a", 3), try Self.put("b", 1)]))
    let key = try #require(state.keys[try Self.identity("a")])
    #expect(key.records.map(\.version) == [1, 2, 3])
    #expect(key.record(version: 0)?.version == 3)
    #expect(key.record(version: 2)?.version == 2)
    #expect(key.record(version: 4) == nil)
    #expect(state.recordCount == 4)
    #expect(state.wrappingKeys[wrappingKey.id]?.encryptions == 4)
    try state.apply(Self.commit(3, [.remove(try Self.identity("a"))]))
    #expect(state.recordCount == 1)
    #expect(state.wrappingKeys[wrappingKey.id]?.encryptions == 4, "encryptions are never taken back")
  }

  @Test func aWrappingKeyEncryptsTwoToThe31TimesAndNoMore() throws {
    var state = state
    try state.apply(
      Self.commit(2, [.addWrappingKey(try Self.wrappingKey(2, encryptions: (1 << 31) - 1))])
    )
    try state.apply(Self.commit(3, [try Self.put("last", 1, under: 2)]))
    #expect(throws: KeyringError.wrappingKeyExhausted) {
      try state.apply(Self.commit(4, [try Self.put("more", 1, under: 2)]))
    }
    #expect(state.sequence == 3)
    try state.apply(Self.commit(4, [try Self.put("other", 1, under: 1)]))
  }

  @Test func anImageOfAnExhaustedWrappingKeyOpens() throws {
    var state = state
    try state.apply(
      Self.commit(2, [.addWrappingKey(try Self.wrappingKey(2, encryptions: (1 << 31) - 1))])
    )
    try state.apply(Self.commit(3, [try Self.put("last", 1, under: 2)]))
    let image = KeyringImage(
      tenant: state.tenant,
      id: state.id,
      sequence: 4,
      timeMilliseconds: 1,
      caller: "keyringd",
      wrappingKeys: state.wrappingKeys.values.sorted { $0.id.value < $1.id.value },
      keys: state.keys,
      idempotency: IdempotencyWindow()
    )
    let opened = try KeyringState(image)
    #expect(opened.keys == state.keys)
    #expect(opened.wrappingKeys == state.wrappingKeys)
    #expect(opened.recordsByWrappingKey == state.recordsByWrappingKey)
  }

  /// What is useful depends on what is there, not on how it came: by commits, in place, from an image, or after removes.
  @Test func usefulBytesAreThoseOfWhatIsThere() throws {
    var state = state
    let empty = try Self.afterCommits([[.addWrappingKey(wrappingKey)]])
    let commits: [[Operation]] = [
      [try Self.put("a", 2), try Self.put("b", 1)], [.remove(try Self.identity("a"))],
      [try Self.put("c", 1)],
      [try Self.put("c", 2), .remove(try Self.identity("c")), .remove(try Self.identity("b"))],
    ]
    var replayed = state
    for (index, operations) in commits.enumerated() {
      let before = state.usefulBytes
      #expect(throws: KeyringError.self) {
        try state.apply(Self.commit(UInt64(index + 2), operations + [try Self.put("none", 2)]))
      }
      #expect(state.usefulBytes == before)
      try state.apply(Self.commit(UInt64(index + 2), operations))
      try replayed.replay(Self.commit(UInt64(index + 2), operations))
      #expect(replayed.keys == state.keys && replayed.usefulBytes == state.usefulBytes)
      let image = KeyringImage(
        tenant: state.tenant,
        id: state.id,
        sequence: state.sequence,
        timeMilliseconds: 1,
        caller: "keyringd",
        wrappingKeys: Array(state.wrappingKeys.values),
        keys: state.keys,
        idempotency: IdempotencyWindow()
      )
      #expect(try KeyringState(image).usefulBytes == state.usefulBytes)
    }
    #expect(state.keys.isEmpty && state.usefulBytes == empty.usefulBytes && empty.usefulBytes > 0)
  }

  private static func afterCommits(_ commits: [[Operation]]) throws -> KeyringState {
    var state = KeyringState(tenant: try TenantName("acme"), id: KeyringID(value: 9))
    for operations in commits { try state.apply(commit(state.sequence + 1, operations)) }
    return state
  }

  @Test func recordsHavePossibleLengths() throws {
    func make(_ version: UInt32, _ length: UInt32, _ nonce: Int, _ ciphertext: Int) throws -> Record {
      try Record(
        version: version,
        length: length,
        createdMilliseconds: 1,
        id: RecordID(value: 1),
        wrappingKeyID: WrappingKeyID(value: 1),
        nonce: [UInt8](repeating: 0, count: nonce),
        ciphertext: [UInt8](repeating: 0, count: ciphertext)
      )
    }
    #expect(try make(1, 1, 12, 17).length == 1)
    for (version, length, nonce, ciphertext) in [
      (0, 1, 12, 17), (1, 0, 12, 16), (1, 1, 11, 17), (1, 1, 12, 16), (1, 1, 12, 18),
    ] as [(UInt32, UInt32, Int, Int)] {
      #expect(throws: KeyringError.self) { try make(version, length, nonce, ciphertext) }
    }
  }
}
