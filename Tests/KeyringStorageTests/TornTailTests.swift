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

  /// Zeros that are not a whole sector are no sector that was never written.
  @Test func zerosInAPartOfASectorAreDamage() throws {
    let (store, position) = try fixture.filled(2)
    try store.close()
    let good = try fixture.bytes()
    let batch = try batch((3..<20).map { try fixture.put("key-\($0)") }, position)
    let firstSector = (good.count + 511) / 512 * 512
    for range in [
      good.count..<firstSector, firstSector + 1..<firstSector + 512, firstSector..<firstSector + 511,
      (good.count + batch.count) / 512 * 512..<good.count + batch.count,
    ] {
      var damaged = good + batch
      for index in range { damaged[index] = 0 }
      #expect(throws: StoreError.self, "\(range)") {
        try StorageFileReader.read(damaged, tenant: fixture.tenant)
      }
    }
    var torn = good + batch
    for index in firstSector..<firstSector + 512 { torn[index] = 0 }
    #expect(try StorageFileReader.read(torn, tenant: fixture.tenant).validBytes == good.count)
  }

  /// The length of the file became durable and the page that holds the batch did not, as ext4 has it where the write of that page fails: a
  /// batch that is too short to have a sector of its own is zeros to the end of the file.
  @Test func aBatchOfZerosToTheEndOfTheFileWasNeverWritten() throws {
    let (store, position) = try fixture.filled(2)
    try store.close()
    let good = try fixture.bytes()
    let count = try batch([try fixture.put("x")], position).count
    #expect((good.count + 511) / 512 * 512 + 512 > good.count + count, "it has no whole sector")
    let torn = good + [UInt8](repeating: 0, count: count)
    #expect(try StorageFileReader.read(torn, tenant: fixture.tenant).validBytes == good.count)
    for index in [0, 8, count / 2, count - 1] {
      var damaged = torn
      damaged[good.count + index] = 1
      #expect(throws: StoreError.self, "byte \(index)") {
        try StorageFileReader.read(damaged, tenant: fixture.tenant)
      }
    }
  }
}
