import KeyringCore
import Testing

@testable import KeyringStorage

/// What of a damaged last batch shows that a crash tore it, and what does not.
@Suite struct TornTailTests {
  let fixture: StoreFixture
  init() throws { fixture = try StoreFixture() }

  /// A batch behind `good` that ends at 1 byte behind a sector: its last byte, which is zero, is alone in a sector.
  private func batchEndingBehindASector(_ good: Int, _ position: StorePosition) throws -> [UInt8] {
    for count in 1...255 {
      let id = String(repeating: "x", count: count)
      let batch = try batch([try fixture.put(id), try fixture.put("other")], position)
      if (good + batch.count) % 512 == 1 { return batch }
    }
    throw StoreError.busy("no such length")
  }

  private func batch(_ operations: [KeyringCore.Operation], _ position: StorePosition) throws -> [UInt8] {
    try EncodedBatch.make(
      [CommitCodec.encode(fixture.commit(position.sequence + 1, operations))],
      firstSequence: position.sequence + 1,
      previous: position.digest,
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      authenticator: fixture.authenticator
    ).bytes
  }

  @Test func bitRotInTheLastBatchIsDamageThoughItsLastByteIsAlone() throws {
    let (store, position) = try fixture.filled(2)
    try store.close()
    let good = try fixture.bytes()
    let batch = try batchEndingBehindASector(good.count, position)
    #expect(
      try StorageFileReader.read(good + batch, tenant: fixture.tenant).position.sequence == 3
    )
    for index in [0, 70, 120, batch.count - 90, batch.count - 2] {
      var rotten = good + batch
      rotten[good.count + index] ^= 1
      #expect(throws: StoreError.self, "byte \(index)") {
        try StorageFileReader.read(rotten, tenant: fixture.tenant)
      }
    }
  }

  /// Zeros that are not all that the batch has in a sector are no sector that was never written; those that are, are, in its first and last
  /// sector, too, which a power cut on ext4 leaves.
  @Test func zerosInAPartOfASectorAreDamage() throws {
    let (store, position) = try fixture.filled(2)
    try store.close()
    let good = try fixture.bytes()
    let batch = try batch((3..<20).map { try fixture.put("key-\($0)") }, position)
    let (begin, end) = (good.count, good.count + batch.count)
    let (first, last) = ((begin + 511) / 512 * 512, end / 512 * 512)
    #expect(first - begin > 2 && end - last > 2 && last - first >= 512)
    func zeroed(_ range: Range<Int>) -> [UInt8] {
      (good + batch).enumerated().map { range.contains($0.offset) ? 0 : $0.element }
    }
    for range in [
      begin + 1..<first, begin..<first - 1, first + 1..<first + 512, first..<first + 511, last + 1..<end,
      last..<end - 2,
    ] {
      #expect(throws: StoreError.self, "\(range)") {
        try StorageFileReader.read(zeroed(range), tenant: fixture.tenant)
      }
    }
    for range in [begin..<first, first..<first + 512, last..<end, last - 512..<end, begin..<end] {
      let content = try StorageFileReader.read(zeroed(range), tenant: fixture.tenant)
      #expect(content.validBytes == good.count, "\(range)")
    }
  }

  /// Of a batch that is too short for a sector of its own, too.
  @Test func aShortBatchOfZerosWasNeverWritten() throws {
    let (store, position) = try fixture.filled(2)
    try store.close()
    let good = try fixture.bytes()
    let count = try batch([try fixture.put("x")], position).count
    let first = (good.count + 511) / 512 * 512
    #expect(first + 512 > good.count + count && first - good.count > 1, "it has no whole sector")
    var torn = good + [UInt8](repeating: 0, count: count)
    #expect(try StorageFileReader.read(torn, tenant: fixture.tenant).validBytes == good.count)
    torn[good.count + 1] = 1
    torn[torn.count - 2] = 1
    #expect(throws: StoreError.self) { try StorageFileReader.read(torn, tenant: fixture.tenant) }
  }
}
