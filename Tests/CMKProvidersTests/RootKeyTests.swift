import CMKProviders
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Testing

@Suite struct RootKeyTests {
  let fixture: LocalFixture
  init() throws { fixture = try LocalFixture() }

  private func write(_ name: String, _ text: String, mode: Int = 0o600) throws -> String {
    try fixture.folder.write(name, text)
    let path = fixture.folder(name)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    return path
  }

  /// Why a source is refused.
  private func refusal(_ source: RootKey.Source) throws -> String {
    do throws(CMKError) {
      let directory: DirectoryDescriptor
      do {
        directory = try fixture.directory()
      } catch {
        return "the test's own directory: \(error)"
      }
      _ = try RootKey.load(source, directory: directory)
      return "it was taken"
    } catch {
      guard case .configuration(let why) = error else { return "not a configuration error: \(error)" }
      return why
    }
  }

  @Test func aFileACredentialAndAPassphraseGiveRootKeys() async throws {
    let digits = String(repeating: "5a", count: 32)
    _ = try RootKey.load(.file(try write("a", digits)), directory: try fixture.directory())
    _ = try RootKey.load(.file(try write("b", digits + "\n")), directory: try fixture.directory())
    // The same key by another way: the CMKs are there again.
    let cmk = try await fixture.provider().create().id
    try FileManager.default.createDirectory(
      atPath: fixture.folder("credentials"),
      withIntermediateDirectories: false
    )
    _ = try write("credentials/keyring-root", digits + "\n")
    let root = try RootKey.load(
      .credential("keyring-root", directory: fixture.folder("credentials")),
      directory: try fixture.directory()
    )
    let provider = LocalProvider(
      tenant: try TenantName("acme"),
      directory: try fixture.directory(),
      root: root,
      nowMilliseconds: { 1 }
    )
    #expect(try await provider.describe(cmk: cmk).state == .enabled)
  }

  @Test func aPassphraseIsStretchedAndRecognised() throws {
    let right = try write("passphrase", "correct horse battery\n")
    _ = try RootKey.load(.passphrase(right), directory: try fixture.directory())
    let check = try String(contentsOfFile: fixture.folder("cmks/root-check"), encoding: .utf8)
    #expect(check.contains("scrypt 131072 "))
    _ = try RootKey.load(.passphrase(right), directory: try fixture.directory())
    let wrong = try refusal(.passphrase(try write("wrong", "correct horse batterz\n")))
    #expect(wrong.contains("not the root key"))
    #expect(try refusal(.file(fixture.folder("root.key"))).contains("passphrase: configure that"))
    #expect(try refusal(.passphrase(try write("short", "eleven byte"))).contains("at least 12 bytes"))
  }

  @Test(arguments: [
    ("short", String(repeating: "5a", count: 31), "64 hexadecimal digits"),
    ("long", String(repeating: "5a", count: 33), "64 hexadecimal digits"),
    ("not hexadecimal", String(repeating: "5g", count: 32), "64 hexadecimal digits"),
    ("upper case", String(repeating: "5A", count: 32), "64 hexadecimal digits"),
    ("empty", "", "64 hexadecimal digits"),
    ("two lines", String(repeating: "5a", count: 32) + "\n\n", "more than one line"),
  ])
  func aMalformedFileIsRefused(_ what: String, _ text: String, _ why: String) throws {
    let path = try write("bad.key", text)
    let refusal = try refusal(.file(path))
    #expect(refusal.contains(why) && refusal.contains("bad.key"), "\(what): \(refusal)")
    #expect(!FileManager.default.fileExists(atPath: fixture.folder("cmks/root-check")))
  }

  @Test func aFileThatOthersMayReadALinkADirectoryAndNothingAreRefused() throws {
    let digits = String(repeating: "5a", count: 32)
    for mode in [0o644, 0o640, 0o602] {
      let refusal = try refusal(.file(try write("open.key", digits, mode: mode)))
      #expect(refusal.contains("may be used by others") && refusal.contains("open.key"), "\(refusal)")
    }
    try FileManager.default.createSymbolicLink(
      atPath: fixture.folder("link.key"),
      withDestinationPath: fixture.folder("root.key")
    )
    #expect(try refusal(.file(fixture.folder("link.key"))).contains("link.key is not a plain file"))
    #expect(try refusal(.file(fixture.folder("cmks"))).contains("not a regular file"))
    #expect(try refusal(.file(fixture.folder("absent.key"))).contains("absent.key is not there"))
    #expect(
      try refusal(.credential("absent", directory: fixture.folder.path)).contains("absent is not there")
    )
  }

  @Test func anotherRootKeyIsRefusedBeforeItMakesACMK() async throws {
    _ = try await fixture.provider().create()
    let other = try write("other.key", String(repeating: "5b", count: 32))
    #expect(try refusal(.file(other)).contains("not the root key"))
    try FileManager.default.removeItem(atPath: fixture.folder("cmks/root-check"))
    #expect(try refusal(.file(other)).contains("restore it from a backup"))
  }

  @Test func aDamagedCheckIsRefusedAndWhatACrashLeftIsNot() throws {
    _ = try write("cmks/root-check.new", "keyring-root 1\nscr")
    _ = try RootKey.load(.file(fixture.folder("root.key")), directory: try fixture.directory())
    #expect(!FileManager.default.fileExists(atPath: fixture.folder("cmks/root-check.new")))
    let good = try String(contentsOfFile: fixture.folder("cmks/root-check"), encoding: .utf8)
    for bad in [good + "\n", String(good.dropLast()), good.replacing("scrypt 0 ", with: "scrypt 00 "), ""] {
      _ = try write("cmks/root-check", bad)
      #expect(try refusal(.file(fixture.folder("root.key"))).contains("root-check is damaged"))
    }
  }
}
