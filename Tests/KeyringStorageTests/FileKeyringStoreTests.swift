import Foundation
import KeyringCore
import KeyringTestSupport
import Testing

@testable import KeyringStorage

@Suite struct FileKeyringStoreTests {
  @Test func whatWasAppendedIsThereAfterReopening() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(5)
    try store.close()
    let loaded = try #require(try fixture.store().load())
    #expect(loaded.position == position)
    #expect(loaded.state.keyCount == 5)
    #expect(loaded.pendingAuthentications.count == 6)  // five batches and the anchor
    for pending in loaded.pendingAuthentications {
      #expect(try fixture.authenticator.authenticate(pending.message) == pending.mac)
    }
  }

  @Test func theOrderOfSystemCallsIsTheDurableOne() throws {
    let plan = FaultPlan()
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(2, calls: plan.calls)
    plan.disarm()
    let next = try store.append(
      [fixture.commit(3, [try fixture.put("k3")])],
      expecting: position,
      authenticator: fixture.authenticator
    )
    // The data, its sync, and only then the anchor: written, synced, renamed, its directory synced.
    #expect(
      plan.log.filter { [.write, .fdatasync, .fsync, .rename].contains($0) }
        == [.write, .fdatasync, .write, .fsync, .rename, .fsync]
    )
    plan.disarm()
    let state = try store.read().state
    plan.disarm()
    _ = try store.replace(with: fixture.image(state), expecting: next, authenticator: fixture.authenticator)
    #expect(
      plan.log.filter { [.write, .fdatasync, .fsync, .rename].contains($0) }
        == [.write, .write, .fsync, .write, .fsync, .rename, .fsync, .write, .fsync, .rename, .fsync]
    )
  }

  @Test func aReplacementBringsALateAnchorUpFirst() throws {
    let plan = FaultPlan()
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(3, .writtenBehind, calls: plan.calls)
    let anchor = try Data(contentsOf: URL(filePath: fixture.anchor))
    let state = try store.read().state
    // The rename of the new file fails: by then the anchor knows where the old one stood.
    plan.arm(.rename, 2, .fail(EIO))
    #expect(throws: StoreError.self) {
      try store.replace(with: fixture.image(state), expecting: position, authenticator: fixture.authenticator)
    }
    plan.disarm()
    let brought = try Data(contentsOf: URL(filePath: fixture.anchor))
    #expect(brought != anchor)
    #expect(try Anchor.decode(Array(brought), tenant: fixture.tenant).position == position)
    #expect(try store.load()?.position == position)
  }

  @Test func aReplacedFileOpensWithTheAnchorOfBefore() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(3)
    let old = try Data(contentsOf: URL(filePath: fixture.anchor))
    let new = try store.replace(
      with: fixture.image(try store.read().state),
      expecting: position,
      authenticator: fixture.authenticator
    )
    try store.close()
    try old.write(to: URL(filePath: fixture.anchor))
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: fixture.anchor)
    let loaded = try #require(try fixture.store().load())
    #expect(loaded.position == new)
    #expect(loaded.state.keyCount == 3)
  }

  @Test func aTornTailThatNobodyWasToldOfIsCutOff() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(3)
    try store.close()
    let good = try fixture.bytes()
    let batch = try EncodedBatch.make(
      [CommitCodec.encode(fixture.commit(4, [try fixture.put("k4")]))],
      firstSequence: 4,
      previous: position.digest,
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      authenticator: fixture.authenticator
    )
    for count in 1..<batch.bytes.count {
      try fixture.overwrite(good + batch.bytes[..<count])
      let store = try fixture.store()
      let loaded = try #require(try store.load(), "\(count) bytes")
      #expect(loaded.position == position)
      #expect(loaded.notices.count == 1)
      #expect(try fixture.bytes() == good)
      try store.close()
    }
    try fixture.overwrite(good + batch.bytes)
    #expect(try fixture.store().load()?.position == batch.position)
  }

  @Test func aTailWithAnUnwrittenSectorIsCutOffAndOtherDamageIsNot() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(2)
    try store.close()
    let good = try fixture.bytes()
    let operations = try (3..<40).map { try fixture.put("key-\($0)") }
    let batch = try EncodedBatch.make(
      [CommitCodec.encode(fixture.commit(3, operations))],
      firstSequence: 3,
      previous: position.digest,
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      authenticator: fixture.authenticator
    )
    var torn = good + batch.bytes
    let sector = (good.count / 512 + 2) * 512
    for index in sector..<sector + 512 { torn[index] = 0 }
    #expect(try StorageFileReader.read(torn, tenant: fixture.tenant).validBytes == good.count)
    var damaged = good + batch.bytes
    for index in sector..<sector + 100 { damaged[index] = 0 }
    #expect(throws: StoreError.self) { try StorageFileReader.read(damaged, tenant: fixture.tenant) }
    // A whole batch behind the damage means that what is damaged was acknowledged.
    let second = try EncodedBatch.make(
      [CommitCodec.encode(fixture.commit(4, [try fixture.put("last")]))],
      firstSequence: 4,
      previous: batch.position.digest,
      tenant: fixture.tenant,
      keyring: fixture.keyring,
      authenticator: fixture.authenticator
    )
    #expect(throws: StoreError.self) {
      try StorageFileReader.read(torn + second.bytes, tenant: fixture.tenant)
    }
  }

  @Test func anOlderFileADeletedFileAndAForeignFileAreNotTakenFor() throws {
    let fixture = try StoreFixture()
    var (store, position) = try fixture.filled(2)
    let older = try fixture.bytes()
    position = try store.append(
      [fixture.commit(3, [try fixture.put("k3")])],
      expecting: position,
      authenticator: fixture.authenticator
    )
    try store.close()
    try fixture.overwrite(older)
    #expect(kind(failure(try fixture.store().load())) == "changed", "an older file was opened")
    try FileManager.default.removeItem(atPath: fixture.file)
    #expect(kind(failure(try fixture.store().load())) == "changed", "a new keyring was offered")
    let other = try StoreFixture("globex")
    try other.filled(2).0.close()
    try FileManager.default.copyItem(atPath: other.file, toPath: fixture.file)
    #expect(kind(failure(try fixture.store().load())) == "changed", "another tenant's file was opened")
  }

  @Test func aFileWithoutAnchorIsNotOpenedUntilItIsAccepted() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(3)
    try store.close()
    try FileManager.default.removeItem(atPath: fixture.anchor)
    let again = try fixture.store()
    #expect(kind(failure(try again.load())) == "changed", "it was opened")
    #expect(throws: StoreError.self) { try again.accept(sequence: 2) }
    try again.accept(sequence: 3)
    #expect(try again.load()?.position == position)
  }

  /// The name of an error's case.
  private func kind(_ error: StoreError?) -> String {
    switch error {
    case .none: "none"
    case .changed: "changed"
    case .damaged: "damaged"
    case .busy: "busy"
    case .unavailable: "unavailable"
    case .outcomeUnknown: "outcomeUnknown"
    case .authenticatorUnavailable: "authenticatorUnavailable"
    }
  }

  private func failure<Value>(_ body: @autoclosure () throws -> Value) -> StoreError? {
    do {
      _ = try body()
      return nil
    } catch {
      return error as? StoreError
    }
  }

  @Test func aFileExchangedUnderARunningStoreIsNotWrittenTo() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(2)
    let good = try fixture.bytes()
    let commit = fixture.commit(3, [try fixture.put("k3")])
    func append() -> StoreError? {
      failure(try store.append([commit], expecting: position, authenticator: fixture.authenticator))
    }
    // Another file of the same content at the path.
    try FileManager.default.moveItem(atPath: fixture.file, toPath: fixture.folder("aside"))
    try FileManager.default.copyItem(atPath: fixture.folder("aside"), toPath: fixture.file)
    #expect(kind(append()) == "changed", "another inode was written to")
    #expect(try fixture.bytes() == good)
    // The same file, its last digest changed; then shorter; then gone.
    try FileManager.default.removeItem(atPath: fixture.file)
    try FileManager.default.moveItem(atPath: fixture.folder("aside"), toPath: fixture.file)
    var bad = good
    bad[good.count - 96] ^= 1
    try fixture.overwrite(bad)
    #expect(kind(append()) == "changed", "a changed digest was written behind")
    try fixture.overwrite(Array(good.dropLast(8)))
    #expect(kind(append()) == "changed", "a shorter file was written to")
    try FileManager.default.removeItem(atPath: fixture.file)
    #expect(kind(append()) == "changed", "a file was made")
    #expect(!FileManager.default.fileExists(atPath: fixture.file))
  }

  @Test func oneWriterAtATime() throws {
    let fixture = try StoreFixture()
    let (store, _) = try fixture.filled(2)
    #expect(kind(failure(try fixture.store().load())) == "busy", "two stores on one file")
    try store.close()
    #expect(try fixture.store().load() != nil)
  }

  @Test func theIdempotencyWindowOutlivesReopeningAndReplacement() throws {
    let fixture = try StoreFixture()
    var (store, position) = try fixture.filled(1)
    let idempotency = Commit.Idempotency(
      id: IdempotencyID(value: UInt128(77) << 80),
      requestHash: .zero,
      versions: [1, 0]
    )
    let commit = fixture.commit(2, [try fixture.put("k2")], idempotency: idempotency)
    position = try store.append([commit], expecting: position, authenticator: fixture.authenticator)
    try store.close()
    store = try fixture.store()
    let loaded = try #require(try store.load())
    #expect(loaded.idempotency.entries.map(\.idempotency) == [idempotency])
    let image = KeyringImage(
      tenant: fixture.tenant,
      id: fixture.keyring,
      sequence: 2,
      timeMilliseconds: 1,
      caller: "keyringd",
      wrappingKeys: [try fixture.wrappingKey],
      keys: loaded.state.keys,
      idempotency: loaded.idempotency
    )
    _ = try store.replace(with: image, expecting: position, authenticator: fixture.authenticator)
    #expect(try store.read().idempotency == loaded.idempotency)
  }
}
