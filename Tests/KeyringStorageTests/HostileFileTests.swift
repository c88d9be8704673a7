import KeyringCore
import Testing

@testable import KeyringStorage

/// Files whose checksums are right, made by someone who has the disk: they are refused, and stop no server.
@Suite struct HostileFileTests {
  let fixture: StoreFixture
  init() throws { fixture = try StoreFixture() }

  private func file(_ origin: StorePosition, _ messages: [[UInt8]]) throws -> [UInt8] {
    let head = try StorageHeader(
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      createdMilliseconds: .max,
      origin: origin
    ).encode()
    let batch = try EncodedBatch.make(
      messages,
      firstSequence: max(1, origin.sequence),
      previous: try #require(Digest(bytes: head[144...])),
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      authenticator: HostileAuthenticator(wrappingKeyID: fixture.authenticator.wrappingKeyID)
    )
    return head + batch.bytes
  }

  private struct HostileAuthenticator: BatchAuthenticator {
    let wrappingKeyID: WrappingKeyID
    func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest { .zero }
  }

  @Test func impossiblePositionsAreDamage() throws {
    let digest = try #require(Digest(bytes: [UInt8](repeating: 1, count: 32)))
    for (sequence, digest) in [(UInt64.max, digest), (1 << 63, digest), (0, digest)] {
      let commit = fixture.commit(1, [.addWrappingKey(try fixture.wrappingKey)])
      let head = try StorageHeader(
        tenant: fixture.tenant,
        keyring: fixture.keyring,
        createdMilliseconds: 1,
        origin: StorePosition(sequence: sequence, digest: digest)
      ).encode()
      let batch = try EncodedBatch.make(
        [CommitCodec.encode(commit)],
        firstSequence: 1,
        previous: try #require(Digest(bytes: head[144...])),
        tenant: fixture.tenant,
        keyring: fixture.keyring,
        authenticator: fixture.authenticator
      )
      #expect(
        throws: StoreError.damaged("the file's header names an impossible position as the one it was made at")
      ) {
        try StorageFileReader.read(head + batch.bytes, tenant: fixture.tenant)
      }
    }
  }

  @Test func timesAtTheEndOfTimeAreRead() throws {
    let idempotency = Commit.Idempotency(id: IdempotencyID(value: .max), requestHash: .zero, versions: [.max])
    let commits = [1, 2].map { (sequence: UInt64) in
      Commit(
        sequence: sequence,
        timeMilliseconds: sequence == 1 ? .max : 1,
        caller: "\(sequence)",
        idempotency: idempotency,
        operations: []
      )
    }
    let first = Commit(
      sequence: 1,
      timeMilliseconds: .max,
      caller: "1",
      idempotency: idempotency,
      operations: [.addWrappingKey(try fixture.wrappingKey)]
    )
    let bytes = try file(
      StorePosition(sequence: 0, digest: .zero),
      [CommitCodec.encode(first), CommitCodec.encode(commits[1])]
    )
    let content = try StorageFileReader.read(bytes, tenant: fixture.tenant)
    #expect(content.idempotency.entries.count == 2)
  }

  /// What is no canonical commit is refused, though all checksums around it are right.
  @Test func commitsThatAreNotCanonicalAreRefused() throws {
    let good = CommitCodec.encode(fixture.commit(1, [.addWrappingKey(try fixture.wrappingKey)]))
    let nothing = StorePosition(sequence: 0, digest: .zero)
    #expect(try StorageFileReader.read(try file(nothing, [good]), tenant: fixture.tenant).state.sequence == 1)
    let bad: [(String, [UInt8])] = [
      ("an unknown field", good + [0x78, 1]),
      ("a default written out", [0x08, 1, 0x10, 0] + good.dropFirst(5)),
      ("a field there twice", [0x08, 1] + good), ("a long varint", [0x08, 0x81, 0] + good.dropFirst(2)),
      ("no message", [0xff]), ("nothing", []), ("cut off", Array(good.dropLast())),
    ]
    for (what, message) in bad {
      #expect(throws: StoreError.self, "\(what)") {
        try StorageFileReader.read(try file(nothing, [message]), tenant: fixture.tenant)
      }
    }
  }
}
