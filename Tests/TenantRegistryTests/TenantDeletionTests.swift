import ConfigurationFiles
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Testing

@testable import TenantRegistry

@Suite struct TenantDeletionTests {
  private let folder: TestDirectory
  private let tenants: DirectoryDescriptor

  init() throws {
    folder = try TestDirectory()
    tenants = try DirectoryDescriptor(path: folder("tenants"), create: true)
  }

  private func deletion(_ tenant: String, days: Int? = nil) throws -> TenantDeletion {
    TenantDeletion(
      tenant: try TenantName(tenant),
      requestedBy: "spiffe://a.example/admin",
      requestedMilliseconds: 1_700_000_000_123,
      dueMilliseconds: 1_700_086_400_123,
      cmkDays: days
    )
  }

  @Test func whatIsWrittenIsReadAgain() throws {
    let deletions = try TenantDeletions(in: tenants)
    var (acme, globex) = (try deletion("acme"), try deletion("globex", days: 7))
    try deletions.write(acme)
    try deletions.write(globex)
    #expect(try deletions.read(TenantName("acme")) == acme)
    (acme.phase, acme.doneMilliseconds) = (.done, 1_700_086_400_999)
    globex.phase = .begun
    try deletions.write(acme)
    try deletions.write(globex)
    try deletions.write(receipt: Array("{}\n".utf8), acme)
    #expect(try TenantDeletions(in: tenants).all().map { try $0.get() } == [acme, globex])
    try deletions.remove(TenantName("acme"))
    #expect(try deletions.read(TenantName("acme")) == nil)
    #expect(try deletions.receipt(acme) == Array("{}\n".utf8), "a receipt stays")
  }

  /// A record that cannot be read is no reason to take the others for absent, nor itself.
  @Test func aDamagedRecordIsSaid() throws {
    let deletions = try TenantDeletions(in: tenants)
    try deletions.write(deletion("acme"))
    let path = folder("tenants/.deletions/acme.json")
    let text = try String(contentsOfFile: path, encoding: .utf8)
    for (old, new) in [("waiting", "waited"), ("\"acme\"", "\"globex\""), ("due_ms", "do_ms"), ("{", "")] {
      try text.replacing(old, with: new).write(toFile: path, atomically: false, encoding: .utf8)
      #expect(throws: ConfigurationError.self) { try deletions.read(TenantName("acme")) }
      let all = try deletions.all()
      #expect(all.count == 1)
      #expect(throws: ConfigurationError.self) { try all[0].get() }
    }
  }

  @Test func theNewestBackupsAreNamedAndTheOthersCounted() throws {
    let directory = try tenants.directory("acme", create: true)
    let files = TenantFiles(tenant: try TenantName("acme"), directory: directory, allowedEndpoints: [])
    #expect(try files.takenBackups() == TakenBackups())
    let count = TakenBackups.entriesMax + 3
    for index in 1...count {
      let sha256 = String(repeating: "ab", count: 32)
      try files.note(
        .init(
          takenMilliseconds: 1_700_000_000_000,
          sequence: UInt64(index),
          sha256: sha256,
          hasCMKs: index % 2 == 0
        )
      )
    }
    let taken = try files.takenBackups()
    #expect(taken.entries.map(\.sequence) == (4...UInt64(count)).map { $0 })
    #expect(taken.entries.map(\.hasCMKs) == taken.entries.map { $0.sequence % 2 == 0 })
    #expect(taken.forgotten == 3)
  }
}
