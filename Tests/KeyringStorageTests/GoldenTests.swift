import Cryptography
import Foundation
import HashTreeCollections
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

@testable import KeyringService
@testable import KeyringStorage

/// The files in Golden/, which every later version must read, and which `read.py` reads from docs/FILE_FORMAT.md alone.
///
/// Where the format changes on purpose, KEYRING_GOLDEN=write makes these tests write the files anew; the old ones are then kept under
/// another name, as files of an older version.
@Suite struct GoldenTests {
  static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Golden")
  let golden: GoldenKeyring

  init() throws { golden = try GoldenKeyring() }

  private func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: Self.folder.appending(path: name)))
  }

  @Test func encodingTheContentGivesTheFilesToTheByte() throws {
    let files = try golden.files()
    #expect(files.count == 7)
    for (name, made) in files {
      if ProcessInfo.processInfo.environment["KEYRING_GOLDEN"] == "write" {
        try Data(made).write(to: Self.folder.appending(path: name))
      }
      #expect(try bytes(name) == made, "\(name)")
    }
  }

  @Test func readingTheFirstFileGivesItsContent() throws {
    let content = try StorageFileReader.read(try bytes("first.keyring"), tenant: golden.tenant)
    let (state, window) = try golden.state()
    #expect(content.state.sequence == 7)
    #expect(content.state.keys == state.keys)
    #expect(content.state.wrappingKeys == state.wrappingKeys)
    #expect(content.idempotency == window)
    #expect(content.positions == (try golden.file().positions))
    #expect(content.replaced.sequence == 0)
    #expect(content.tornTail == nil)
  }

  @Test func readingTheReplacementGivesItsContent() throws {
    let content = try StorageFileReader.read(try bytes("replacement.keyring"), tenant: golden.tenant)
    var (state, window) = try golden.state()
    try state.apply(
      .remove(try KeyIdentity(scope: .shared, owner: [], keyID: Array("alpha".utf8)))
    )
    #expect(content.state.sequence == 9)
    #expect(content.state.keys == state.keys)
    #expect(content.state.wrappingKeys == state.wrappingKeys)
    #expect(content.idempotency == window)
    #expect(content.positions == (try golden.replacement().positions))
    #expect(content.replaced == (try golden.file().positions.last))
  }

  @Test func theServersOwnKeysVerifyTheHMACsAndOpenTheRecords() throws {
    let content = try StorageFileReader.read(try bytes("first.keyring"), tenant: golden.tenant)
    var held: [WrappingKeyID: HeldWrappingKey] = [:]
    for known in [golden.first, golden.second] {
      held[known.wrappingKeyID] = try HeldWrappingKey(
        id: known.wrappingKeyID,
        plaintext: try publicSecret(known.plaintext),
        commitment: known.key.commitment,
        tenant: golden.tenant,
        keyring: golden.keyring,
        servableUntil: 0
      )
    }
    #expect(content.pendingAuthentications.count == 5)
    for pending in content.pendingAuthentications {
      #expect(try held[pending.wrappingKeyID]?.verifies(pending) == true, "\(pending.place)")
    }
    var opened = 0
    for (identity, key) in content.state.keys {
      for record in key.records {
        let secret = try #require(held[record.wrappingKeyID]).open(record, identity: identity, type: key.type)
        let expected = Array(try #require(golden.values[record.id]).utf8)
        #expect(unsafe secret.withUnsafeBytes { unsafe Array($0) } == expected)
        opened += 1
      }
    }
    #expect(opened == 6)
  }

  @Test(arguments: [
    ("first", "first.anchor"), ("first", "first-behind.anchor"), ("first", "first-accepted.anchor"),
    ("replacement", "replacement.anchor"), ("replacement", "first.anchor"),
  ])
  func theFilesOpenWithTheirAnchors(_ name: String, _ anchor: String) throws {
    let fixture = try StoreFixture()
    for (source, target) in [("\(name).keyring", fixture.file), (anchor, fixture.anchor)] {
      try Data(try bytes(source)).write(to: URL(filePath: target))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: target)
    }
    let loaded = try #require(try fixture.store().load())
    #expect(loaded.state.sequence == (name == "first" ? 7 : 9))
    #expect(try fixture.bytes() == bytes("\(name).keyring"))
  }

  @Test func anAnchorOfTheReplacementDoesNotOpenTheFirstFile() throws {
    let fixture = try StoreFixture()
    for (source, target) in [("first.keyring", fixture.file), ("replacement.anchor", fixture.anchor)] {
      try Data(try bytes(source)).write(to: URL(filePath: target))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: target)
    }
    #expect(throws: StoreError.self) { try fixture.store().load() }
  }

  // MARK: The independent reader

  private func read(_ file: String, _ anchor: String?, keys: [KnownWrappingKey]) throws -> (Int32, String) {
    var arguments = ["python3", "-B", Self.folder.appending(path: "read.py").path, "keyring", file]
    if let anchor { arguments += ["--anchor", Self.folder.appending(path: anchor).path] }
    for key in keys { arguments += ["--wrapping-key", "\(key.wrappingKeyID)=\(hexadecimal(key.plaintext))"] }
    return try run(arguments)
  }

  @Test(arguments: ["first", "replacement"])
  func theIndependentReaderAgrees(_ name: String) throws {
    let (positions, listing) =
      name == "first"
      ? (try golden.file().positions, try GoldenListing.first(golden))
      : (try golden.replacement().positions, try GoldenListing.replacement(golden))
    let last = try #require(positions.last)
    let anchor = "anchor \(last.sequence) digest \(last.digest) hmac ok"
    let path = Self.folder.appending(path: "\(name).keyring").path
    let (status, output) = try read(path, "\(name).anchor", keys: [golden.first, golden.second])
    #expect(status == 0)
    #expect(output == (listing + [anchor]).joined(separator: "\n") + "\n")
  }

  private func readBackup(_ file: String, keys: [KnownWrappingKey]) throws -> (Int32, String) {
    var arguments = ["python3", "-B", Self.folder.appending(path: "read.py").path, "backup", file]
    for key in keys { arguments += ["--wrapping-key", "\(key.wrappingKeyID)=\(hexadecimal(key.plaintext))"] }
    return try run(arguments)
  }

  @Test func theIndependentReaderReadsTheBackupAsThisOneDoes() throws {
    let backup = try Backup(try bytes("first.backup"))
    let path = Self.folder.appending(path: "first.backup").path
    let (status, output) = try readBackup(path, keys: [golden.first, golden.second])
    let parts = backup.manifest.parts.map { "part \($0.name) \($0.length) sha256 \($0.digest)" }
    let head =
      "backup of acme at 1700000003000 by spiffe://keyring.example.org/admin sequence 7 hmac ok"
    #expect(status == 0)
    #expect(output == ([head] + parts + (try GoldenListing.first(golden))).joined(separator: "\n") + "\n")
    let folder = try TestDirectory()
    for place in stride(from: 3, to: try bytes("first.backup").count, by: 251) {
      var bad = try bytes("first.backup")
      bad[place] ^= 0x10
      try Data(bad).write(to: URL(filePath: folder("bad")))
      #expect(try readBackup(folder("bad"), keys: [golden.first, golden.second]).0 == 1, "byte \(place)")
    }
  }

  @Test func theIndependentReaderRefusesAnyFlippedByte() throws {
    let good = try bytes("first.keyring")
    let folder = try TestDirectory()
    for place in stride(from: 5, to: good.count, by: good.count / 20) {
      var bad = good
      bad[place] ^= 0x10
      try Data(bad).write(to: URL(filePath: folder("bad")))
      let (status, output) = try read(folder("bad"), nil, keys: [golden.first, golden.second])
      #expect(status == 1 && output.isEmpty, "byte \(place)")
    }
    let (status, _) = try read(
      Self.folder.appending(path: "first.keyring").path,
      "replacement.anchor",
      keys: []
    )
    #expect(status == 1, "an anchor ahead of the file")
  }
}

/// Runs a program to its end; answers its exit status and what it wrote to stdout.
func run(_ arguments: [String]) throws -> (Int32, String) {
  let process = Process()
  process.executableURL = URL(filePath: "/usr/bin/env")
  process.arguments = arguments
  let output = Pipe()
  process.standardOutput = output
  process.standardError = FileHandle.nullDevice
  try process.run()
  let data = try output.fileHandleForReading.readToEnd() ?? Data()
  process.waitUntilExit()
  return (process.terminationStatus, String(decoding: data, as: UTF8.self))
}
