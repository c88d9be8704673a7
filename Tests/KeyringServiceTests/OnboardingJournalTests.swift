import CMKProviders
import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import Logging
import TenantRegistry
import Testing

@testable import KeyringService
@testable import KeyringStorage

/// What an onboarding may undo is what its journal says, and only as long as its staging directory is there.
@Suite struct OnboardingJournalTests {
  private let data: TestDirectory
  private let resources: ServiceResources

  init() throws {
    data = try TestDirectory()
    try data.write("root.key", String(repeating: "5a", count: 32) + "\n")
    let yaml = """
      listen: 127.0.0.1:0
      trust_domain: test.example
      tls: {certificate: a, key: a, client_ca: a}
      tenants_directory: tenants
      anchor_directory: anchors
      local_provider: {directory: cmks, root_key_file: root.key}
      """
    resources = try ServiceResources(
      try ServiceConfiguration(yaml: yaml, file: "test.yaml", directory: data.path),
      credentialsDirectory: nil,
      logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    )
  }

  private static func entry(_ tenant: String, _ cmk: CMKID?) throws -> OnboardingJournal.Entry {
    OnboardingJournal.Entry(tenant: try TenantName(tenant), keyring: KeyringID(value: 7), cmk: cmk)
  }

  /// A local CMK's file of a tenant.
  private func makeCMK(_ tenant: String) async throws -> (id: CMKID, path: String) {
    let id = try await resources.localProvider(try TenantName(tenant)).create().id
    return (id, data("cmks/\(tenant)/\(id)"))
  }

  private func put(_ journal: OnboardingJournal, staging: Bool) throws {
    try AtomicFile.replace(
      journal.name,
      in: resources.onboardings,
      with: [try journal.encode(resources.root)]
    )
    guard staging else { return }
    for entry in journal.entries {
      _ = try resources.onboardings.directory(journal.stagingName(entry.tenant), create: true)
    }
  }

  private func settle() throws -> OnboardingFiles.Leftovers { try OnboardingFiles(resources).settleAll() }

  private func isThere(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

  @Test func itIsReadAsItWasWrittenAndNothingElseIs() throws {
    let cmk = try NewLocalCMK(
      tenant: try TenantName("acme"),
      root: try #require(resources.root),
      nowMilliseconds: 1
    ).id
    let journal = try OnboardingJournal(entries: [Self.entry("acme", cmk), Self.entry("beta", nil)])
    let bytes = try journal.encode(resources.root)
    #expect(try OnboardingJournal.decode(bytes, name: journal.name, root: resources.root) == journal)
    #expect(try OnboardingJournal.decode(bytes, name: "x" + journal.name, root: resources.root) == nil)
    #expect(try OnboardingJournal.decode(bytes, name: journal.name, root: nil) == nil)
    for index in bytes.indices {
      var changed = bytes
      changed[index] ^= 1
      #expect(
        try OnboardingJournal.decode(changed, name: journal.name, root: resources.root) == nil,
        "byte \(index)"
      )
    }
    // One without an HMAC, of a service without a root key, names no CMK.
    let plain = try OnboardingJournal(entries: [Self.entry("beta", nil)])
    let text = String(decoding: try plain.encode(nil), as: UTF8.self)
    #expect(try OnboardingJournal.decode(Array(text.utf8), name: plain.name, root: resources.root) == plain)
    let forged = text.replacing(" -\n", with: " \(cmk)\n")
    #expect(try OnboardingJournal.decode(Array(forged.utf8), name: plain.name, root: resources.root) == nil)
  }

  @Test func whatWasBegunIsUndone() async throws {
    let (id, path) = try await makeCMK("acme")
    try put(OnboardingJournal(entries: [Self.entry("acme", id)]), staging: true)
    #expect(try settle().undone.map(\.text) == ["acme"])
    #expect(!isThere(path) && !isThere(data("cmks/acme")))
    #expect(try resources.onboardings.names().isEmpty)
  }

  @Test func aJournalThatOutlivedItsTimeRemovesNothing() async throws {
    let (id, path) = try await makeCMK("acme")
    try put(OnboardingJournal(entries: [Self.entry("acme", id)]), staging: false)
    #expect(try settle().undone.isEmpty)
    #expect(isThere(path))
    #expect(try resources.onboardings.names().isEmpty)
  }

  @Test func aCMKOfATenantThatIsThereStays() async throws {
    let (id, path) = try await makeCMK("acme")
    _ = try resources.tenants.make(try TenantName("acme"))
    try put(OnboardingJournal(entries: [Self.entry("acme", id)]), staging: true)
    _ = try settle()
    #expect(isThere(path))
  }

  /// Somebody who can write into the tenants directory, and kept a journal, cannot have the CMK of a tenant in use removed.
  @Test func aCMKOfAKeyringThatWasUsedStays() async throws {
    let (id, path) = try await makeCMK("acme")
    let entry = try Self.entry("acme", id)
    let position = StorePosition(sequence: 2, digest: .zero)
    let anchor = try Anchor(keyring: entry.keyring, position: position, authentication: nil).encode(
      tenant: entry.tenant
    )
    try AtomicFile.replace("acme.anchor", in: resources.anchors, with: [anchor])
    let journal = try OnboardingJournal(entries: [entry])
    try put(journal, staging: true)
    let left = try settle()
    #expect(left.undone.isEmpty && left.unsettled.map(\.journal) == [journal])
    #expect(isThere(path) && isThere(data("anchors/acme.anchor")))
  }

  @Test func whatIsNotOursIsLeftAlone() async throws {
    let (id, path) = try await makeCMK("acme")
    let journal = try OnboardingJournal(entries: [Self.entry("acme", id)])
    try put(journal, staging: true)
    let other = try resources.root?.authenticationText(of: [], purpose: "another") ?? ""
    var lines = String(decoding: try journal.encode(resources.root), as: UTF8.self).split(separator: "\n")
    lines[lines.count - 1] = "mac \(other)"
    try AtomicFile.replace(
      journal.name,
      in: resources.onboardings,
      with: [Array((lines.joined(separator: "\n") + "\n").utf8)]
    )
    #expect(try settle().strange == [journal.name])
    #expect(isThere(path))
    #expect(try resources.onboardings.names().count == 2)
  }

  /// No onboarding leaves one with files in it; a disk that lost a rename which it had made durable does, and then all the tenant's keys are there.
  @Test func stagingDirectoriesWithoutAJournalGoUnlessTheyHaveFiles() throws {
    _ = try resources.onboardings.directory("0123.acme", create: true)
    let staged = try resources.onboardings.directory("4567.beta", create: true)
    try staged.writeUnsynced("keyring", [1])
    let left = try settle()
    #expect(left.undone.isEmpty && left.strange == ["4567.beta"])
    #expect(try resources.onboardings.names() == ["4567.beta"] && staged.names() == ["keyring"])
  }
}
