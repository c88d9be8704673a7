import Foundation
import KeyringStorage
import KeyringTestSupport
import Testing

/// What a start does to the directories, and what `--check` leaves alone.
@Suite struct StartingTests {
  private static func names(in folder: String) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: folder).sorted()
  }

  /// A configuration whose CMKs lie under a passphrase, and its folder.
  private static func folder(_ pki: TestPKI) throws -> TestDirectory {
    let folder = try TestDirectory()
    try folder.write("passphrase", "correct horse battery\n")
    let lines = [
      "listen: 127.0.0.1:0", "health_listen: 'off'", "trust_domain: \(pki.trustDomain)",
      "tls: {certificate: \(pki.directory("server.crt")), key: \(pki.directory("server.key")), client_ca: \(pki.directory("ca.crt"))}",
      "tenants_directory: tenants", "anchor_directory: anchors",
      "local_provider: {directory: cmks, passphrase_file: passphrase}",
    ]
    try folder.write("keyringd.yaml", lines.joined(separator: "\n") + "\n")
    return folder
  }

  private static func run(_ configuration: String, _ arguments: [String]) async throws -> TestProgram.Outcome
  {
    try await TestProgram(product: "keyringd").run(["--config", configuration] + arguments)
  }

  @Test func aCheckMakesNothing() async throws {
    let pki = try TestPKI()
    let folder = try Self.folder(pki)
    let before = try Self.names(in: folder.path)
    let outcome = try await Self.run(folder("keyringd.yaml"), ["--check"])
    #expect(outcome.status == 0 && outcome.error.contains("the configuration is good"), "\(outcome.error)")
    #expect(try Self.names(in: folder.path) == before)
    try folder.write("passphrase", "short\n")
    let bad = try await Self.run(folder("keyringd.yaml"), ["--check"])
    #expect(bad.status != 0 && bad.error.contains("at least 12 bytes"), "\(bad.error)")
  }

  @Test func aCheckWorksBesideARunningServer() async throws {
    let daemon = try await TestDaemon()
    // The port is the one that is taken.
    let text = try String(contentsOfFile: daemon.data("keyringd.yaml"), encoding: .utf8)
    try daemon.data.write("keyringd.yaml", text.replacing("127.0.0.1:0", with: "127.0.0.1:\(daemon.port)"))
    let before = try Self.names(in: daemon.data.path)
    let outcome = try await Self.run(daemon.data("keyringd.yaml"), ["--check"])
    #expect(outcome.status == 0, "\(outcome.error)")
    #expect(try Self.names(in: daemon.data.path) == before)
    try daemon.data.write("root.key", String(repeating: "5b", count: 32) + "\n")
    let bad = try await Self.run(daemon.data("keyringd.yaml"), ["--check"])
    #expect(bad.status != 0 && bad.error.contains("not the root key"), "\(bad.error)")
    await daemon.shutdown()
  }

  /// Two first starts: the one without the lock makes no salt.
  @Test func aStartWithoutTheLockMakesNoRootCheck() async throws {
    let pki = try TestPKI()
    let folder = try Self.folder(pki)
    let cmks = try DirectoryDescriptor(path: folder("cmks"), create: true)
    let lock = try cmks.lockFile(".lock")
    let outcome = try await Self.run(folder("keyringd.yaml"), [])
    #expect(outcome.status != 0 && outcome.error.contains("locked by another server"), "\(outcome.error)")
    #expect(try cmks.names() == [".lock"])
    lock.release()
  }
}
