import Foundation
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

@testable import KeyringStorage

/// A provider that knows the plaintexts of the golden wrapping keys.
struct KnownProvider: CMKProvider {
  let keys: [KnownWrappingKey]
  let kind = ProviderKind.local

  func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> Secret {
    guard let key = keys.first(where: { $0.key.wrapped == wrapped }) else { throw .denied("not known") }
    do {
      return try publicSecret(key.plaintext)
    } catch {
      throw .unreachable("\(error)")
    }
  }

  func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> GeneratedDataKey {
    throw .refused("")
  }
  func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> [UInt8]
  {
    throw .refused("")
  }
  func generateRandom(count: Int) async throws(CMKError) -> Secret { throw .refused("") }
  func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription { throw .refused("") }
  func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription { throw .refused("") }
}

extension GoldenKeyring {
  static let cmkPart = Array("a CMK file, to the format bytes like any\n".utf8)
  static let configuration = Array("cmk_id: local-00000000000000000000000000000002\n".utf8)
  static let persisted = Array(
    "{\n  \"version\": 1,\n  \"variables\": {},\n  \"instances\": [\"db9\"],\n  \"disabled\": false\n}\n".utf8
  )

  /// A backup of the first file, of fixed bytes alone.
  func backup(
    _ authenticator: KnownWrappingKey?,
    unproved: [WrappingKeyID] = [],
    cmkPart: [UInt8] = Self.cmkPart
  ) throws -> [UInt8] {
    let bytes = try file().bytes
    let manifest = BackupManifest(
      try StorageFileReader.read(bytes, tenant: tenant),
      timeMilliseconds: 1_700_000_003_000,
      caller: "spiffe://keyring.example.org/admin",
      cmks: [first, second].map { known in
        .init(provider: .local, id: known.key.cmkID, version: 1, wrappingKeys: 1)
      },
      stretching: .init(salt: Array(0..<16), cost: 1 << 17),
      unproved: unproved
    )
    let parts = [
      BackupPart(name: "keyring", bytes: bytes), BackupPart(name: "tenant.yaml", bytes: Self.configuration),
      BackupPart(name: "persisted.json", bytes: Self.persisted),
      BackupPart(name: "cmks/\(second.key.cmkID)", bytes: cmkPart),
    ]
    var written: [UInt8] = []
    _ = try BackupWriter.write(manifest, parts: parts, authenticator: authenticator) { written += $0 }
    return written
  }
}

/// The bytes of backup files: docs/FILE_FORMAT.md, "Backup files".
@Suite struct BackupFileTests {
  let golden: GoldenKeyring

  init() throws { golden = try GoldenKeyring() }

  @Test func whatIsWrittenIsRead() throws {
    let bytes = try golden.backup(golden.second)
    let backup = try Backup(bytes)
    #expect(backup.manifest.tenant == golden.tenant && backup.manifest.keyring == golden.keyring)
    #expect(backup.manifest.position == (try golden.file().positions.last))
    #expect(backup.manifest.keys == 3 && backup.manifest.records == 6)
    #expect(backup.parts.map(\.name).last == "cmks/\(golden.second.key.cmkID)")
    #expect(backup.part("keyring") == (try golden.file().bytes))
    #expect(backup.part("persisted.json") == GoldenKeyring.persisted)
    #expect(try backup.digest.bytes == StorageFormat.sha256(bytes).bytes)
    #expect(backup.authentication?.wrappingKeyID == golden.second.wrappingKeyID)
    #expect(try Backup(golden.backup(nil)).authentication == nil)
  }

  @Test func anyFlippedByteAnyTruncationAndAnythingBehindIsRefused() throws {
    let good = try golden.backup(golden.second)
    var (flipped, cut) = (0, 0)
    for place in good.indices {
      var bad = good
      bad[place] ^= UInt8(1 << (place % 8))
      #expect(throws: BackupError.self, "byte \(place)") { try Backup(bad) }
      flipped += 1
    }
    for count in 0..<good.count {
      #expect(throws: BackupError.self, "\(count) bytes") { try Backup(Array(good[..<count])) }
      cut += 1
    }
    #expect(throws: BackupError.self) { try Backup(good + [0]) }
    #expect(throws: BackupError.self) { try Backup(good + good) }
    #expect(flipped == good.count && cut == good.count && good.count > 3000)
  }

  /// With every digest made anew: what is left is what the parts must be.
  @Test func manifestsThatContradictTheirPartsAreRefused() throws {
    let backup = try Backup(try golden.backup(golden.second))
    func made(_ manifest: BackupManifest, _ parts: [BackupPart]) throws -> Backup {
      var written: [UInt8] = []
      _ = try BackupWriter.write(manifest, parts: parts, authenticator: golden.second) { written += $0 }
      return try Backup(written)
    }
    let parts = backup.parts
    #expect(try made(backup.manifest, parts).digest == backup.digest)
    let arrangements: [[BackupPart]] = [
      [], Array(parts.dropFirst()), [parts[0]], [parts[1], parts[0]] + parts[2...], parts + [parts[3]],
      parts + [BackupPart(name: "credentials", bytes: [1])],
      parts + [BackupPart(name: "cmks/local-0", bytes: [1])],
      [parts[0], parts[1], parts[3], parts[2]], Array(parts[..<3]),
    ]
    for arrangement in arrangements {
      #expect(throws: BackupError.self, "\(arrangement.map(\.name))") {
        try made(backup.manifest, arrangement)
      }
    }
    // Another storage file than the manifest's; a torn one; another tenant's.
    let torn = parts[0].bytes + parts[0].bytes[176..<300]
    let replacement = try golden.replacement().bytes
    for bytes in [replacement, torn, Array(parts[0].bytes.dropLast())] {
      let other = [BackupPart(name: "keyring", bytes: bytes)] + parts[1...]
      #expect(throws: BackupError.self) { try made(backup.manifest, other) }
    }
    let content = backup.content
    func manifest(_ cmks: [BackupManifest.CMK], cost: UInt64 = 1 << 17, salt: Int = 16) -> BackupManifest {
      BackupManifest(
        content,
        timeMilliseconds: 1,
        caller: "c",
        cmks: cmks,
        stretching: .init(salt: [UInt8](repeating: 1, count: salt), cost: cost),
        unproved: []
      )
    }
    let cmks = backup.manifest.cmks
    #expect(throws: Never.self) { try made(manifest(cmks), parts) }
    #expect(throws: BackupError.self, "a CMK is missing") { try made(manifest([cmks[1]]), parts) }
    #expect(throws: BackupError.self, "a CMK is there twice") { try made(manifest(cmks + [cmks[1]]), parts) }
    #expect(throws: BackupError.self, "a short salt") { try made(manifest(cmks, salt: 15), parts) }
  }

  // MARK: Proof

  private func ask(_ state: KeyringState, _ keys: [KnownWrappingKey]) async -> UnwrappedKeys {
    await UnwrappedKeys.ask(for: state) { _ throws(CMKError) in KnownProvider(keys: keys) }
  }

  @Test func everyHMACIsCheckedAndEveryRecordOpened() async throws {
    let backup = try Backup(try golden.backup(golden.second))
    let also = [try #require(backup.authentication)]
    let both = await ask(backup.content.state, [golden.first, golden.second])
    let proof = try KeyringProof(backup.content, also: also, under: both)
    #expect(proof.authenticated == 6 && proof.opened == 6)
    #expect(proof.unauthenticated == 0 && proof.unopened == 0)
    #expect(both.newest(of: backup.content.state)?.wrappingKeyID == golden.second.wrappingKeyID)
    let one = await ask(backup.content.state, [golden.first])
    let part = try KeyringProof(backup.content, also: also, under: one)
    #expect(part.authenticated == 4 && part.unauthenticated == 2 && part.unopened == 1 && part.opened == 5)
    #expect(
      one.refused.count == 1
        && one.newest(of: backup.content.state)?.wrappingKeyID == golden.first.wrappingKeyID
    )
  }

  @Test func aWrongHMACAndARecordThatDoesNotOpenAreNoticed() async throws {
    let backup = try Backup(try golden.backup(golden.second))
    let keys = await ask(backup.content.state, [golden.first, golden.second])
    let right = try #require(backup.authentication)
    for other in [golden.first.wrappingKeyID, golden.second.wrappingKeyID, WrappingKeyID(value: 1)] {
      let wrong = PendingAuthentication(
        wrappingKeyID: other,
        message: right.message + (other == right.wrappingKeyID ? [0] : []),
        mac: right.mac,
        place: "backup's manifest"
      )
      #expect(throws: StoreError.self) { try KeyringProof(backup.content, also: [wrong], under: keys) }
    }
    // A record moved to another key: the bytes around it made right by someone who has the wrapping key.
    var state = KeyringState(tenant: golden.tenant, id: golden.keyring)
    for commit in golden.batches.flatMap(\.commits) { try state.apply(commit) }
    let (identity, key) = try #require(
      state.keys.first {
        $0.value.records.count == 1 && $0.key.scope == .shared || $0.value.records.count > 1
      }
    )
    let moved = try KeyIdentity(scope: .shared, owner: [], keyID: Array("moved".utf8))
    let first = key.records[0]
    #expect(identity != moved)
    try state.apply(.put(moved, key.type, first))
    let content = StorageFileContent(
      state: state,
      idempotency: backup.content.idempotency,
      position: backup.content.position,
      replaced: backup.content.replaced,
      positions: backup.content.positions,
      pendingAuthentications: backup.content.pendingAuthentications,
      validBytes: backup.content.validBytes,
      tornTail: nil
    )
    #expect(throws: StoreError.self) { try KeyringProof(content, under: keys) }
  }

  // MARK: Copies of a store

  @Test func aCopyStaysWhatItIsWhateverBecomesOfTheFile() throws {
    let fixture = try StoreFixture()
    let (store, position) = try fixture.filled(3)
    let copy = try store.copy()
    let before = try fixture.bytes()
    #expect(copy.position == position && copy.size == before.count)
    let next = try store.append(
      [fixture.commit(4, [try fixture.put("k4")])],
      expecting: position,
      authenticator: fixture.authenticator
    )
    #expect(try copy.bytes() == before)
    let state = try store.read().state
    _ = try store.replace(with: fixture.image(state), expecting: next, authenticator: fixture.authenticator)
    #expect(try copy.bytes() == before)
    #expect(try fixture.bytes() != before)
    try store.close()
    #expect(try copy.bytes() == before)
    #expect(throws: StoreError.self) { try store.copy() }
  }

  @Test func spoolFilesHaveNoNameAndAreReadAsTheyWereWritten() throws {
    let folder = try TestDirectory()
    let directory = try DirectoryDescriptor(path: folder.path)
    let spool = try SpoolFile(in: directory, name: "a")
    #expect(try directory.names().isEmpty)
    try spool.write([4, 5], at: 3)
    try spool.write([1, 2, 3], at: 0)
    try spool.append([6])
    #expect(spool.size == 6)
    #expect(try spool.read(at: 0, count: 6) == [1, 2, 3, 4, 5, 6])
    #expect(throws: BackupError.self) { try spool.read(at: 5, count: 2) }
    try folder.write("left", "of a crash")
    try SpoolFile.clean(directory)
    #expect(try directory.names().isEmpty)
  }
}
