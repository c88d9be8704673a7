import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// keyringctl backup, restore, verify and inspect, as processes.
///
/// One at a time: each stretches a passphrase several times, with 128 MiB and a core.
@Suite(.serialized) struct KeyringctlBackupTests {
  private func json(_ text: String) throws -> [String: Any] {
    try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  private func filled() async throws -> Keyringctl {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let db1 = try Keyringctl.instance("db1")
    try await ctl.succeed("key store MyKey --owner root@%", as: db1, input: "never to be seen")
    try await ctl.succeed("key generate Shared --shared --type AES --length 16", as: db1)
    try await ctl.succeed("key rotate Shared --shared", as: db1)
    return ctl
  }

  private func refuse(
    _ ctl: Keyringctl,
    _ command: String,
    _ words: String,
    _ location: SourceLocation = #_sourceLocation
  ) async throws {
    let outcome = try await ctl.run(command.split(separator: " ").map(String.init), as: Keyringctl.admin)
    KeyringctlTests.expectOneLine(outcome, command, location)
    #expect(outcome.error.contains(words), "\(command): \(outcome.error)", sourceLocation: location)
  }

  @Test func aBackupAppearsWholeOrNotAtAllAndReplacesNothing() async throws {
    let ctl = try await filled()
    let admin = Keyringctl.admin
    let first = try json(try await ctl.succeed("backup acme #/b --output json", as: admin))
    let bytes = try Data(contentsOf: URL(filePath: ctl.folder("b")))
    let sum = try await TestProgram(path: "/usr/bin/sha256sum").run([ctl.folder("b")])
    #expect(sum.text.hasPrefix(try #require(first["sha256"] as? String)))
    #expect(first["bytes"] as? Int == bytes.count && first["proved"] as? Bool == true)
    #expect(first["keys"] as? Int == 2)
    let mode = try FileManager.default.attributesOfItem(atPath: ctl.folder("b"))[.posixPermissions]
    #expect(mode as? Int == 0o600)
    try await refuse(ctl, "backup acme #/b", "is there already")
    #expect(try Data(contentsOf: URL(filePath: ctl.folder("b"))) == bytes)
    try await ctl.succeed("backup acme #/b --force", as: admin)
    #expect(try Data(contentsOf: URL(filePath: ctl.folder("b"))) != bytes, "another salt, another time")
    try await refuse(ctl, "backup nobody #/c", "TENANT_ABSENT")
    try await refuse(ctl, "backup acme #/no/such/folder", "cannot make")
    // Files of others, whatever their names.
    try ctl.folder.write("b.partial", "the operator's own")
    try ctl.folder.write("c.partial", "the operator's own")
    try await ctl.succeed("backup acme #/b --force", as: admin)
    try await refuse(ctl, "backup nobody #/c", "TENANT_ABSENT")
    for name in ["b.partial", "c.partial"] {
      let path = ctl.folder(name)
      #expect(FileManager.default.contents(atPath: path) == Data("the operator's own".utf8), "\(name)")
      try? FileManager.default.removeItem(atPath: path)  // where it is gone, that was told
    }
    let names = try ctl.written()
    #expect(names == ["b"], "no part of a file is left: \(names)")
    await ctl.server.shutdown()
  }

  /// FAT, CIFS and many FUSE file systems have no link(2); others do not know renameat2(2)'s RENAME_NOREPLACE.
  @Test func aBackupIsWrittenWhereThereAreNoLinks() async throws {
    let ctl = try await filled()
    let strace = TestProgram(path: "/usr/bin/strace")
    func run(_ tenant: String, _ file: String, _ failing: String...) async throws -> TestProgram.Outcome {
      let injections = failing.map { "--inject=\($0)" }
      let command = [ctl.program.path, "backup", tenant, ctl.folder(file)]
      return try await strace.run(
        ["--follow-forks", "--trace=link,linkat,renameat2", "--output=/dev/null"] + injections + command,
        environment: ctl.environment(Keyringctl.admin)
      )
    }
    let noLinks = "link,linkat:error=EPERM"
    let noRenames = "renameat2:error=EINVAL"
    for (file, failing) in [("a", noLinks), ("b", noRenames)] {
      let outcome = try await run("acme", file, failing)
      #expect(outcome.status == 0, "\(failing): \(outcome.error)")
      try await ctl.succeed("verify #/\(file)", as: Keyringctl.admin)
    }
    // Neither: told before the server is asked.
    let neither = try await run("nobody", "c", noLinks, noRenames)
    KeyringctlTests.expectOneLine(neither, "neither way")
    #expect(neither.error.contains("--force"), "\(neither.error)")
    #expect(try ctl.written() == ["a", "b"])
    await ctl.server.shutdown()
  }

  @Test func aFIFOIsNotWaitedFor() async throws {
    let ctl = try await Keyringctl()
    await ctl.server.shutdown()
    #expect(try await TestProgram(path: "/usr/bin/mkfifo").run([ctl.folder("fifo")]).status == 0)
    let timeout = TestProgram(path: "/usr/bin/timeout")
    let outcome = try await timeout.run(["60", ctl.program.path, "verify", ctl.folder("fifo")])
    #expect(outcome.status == 1 && outcome.error.contains("not a regular file"), "\(outcome.error)")
  }

  @Test func verifyFindsWhatIsWrong() async throws {
    let ctl = try await filled()
    let (admin, data) = (Keyringctl.admin, ctl.server.data)
    try await ctl.succeed("backup acme #/b", as: admin)
    let passphrase = "--backup-passphrase-file \(data("backup.passphrase"))"
    let proved = try json(try await ctl.succeed("verify #/b \(passphrase) --output json", as: admin))
    #expect(proved["records_opened"] as? Int == 4 && proved["hmacs_checked"] as? Int == 5)
    let bare = try json(try await ctl.succeed("verify #/b --output json", as: admin))
    #expect(bare["records_opened"] is NSNull && bare["whole"] as? Bool == true)
    try ctl.folder.write("wrong", "another passphrase\n")
    try await refuse(ctl, "verify #/b --backup-passphrase-file #/wrong", "passphrase")

    // Beside the running server.
    let file = data("tenants/acme/keyring")
    let keys = "--cmks \(data("cmks")) --root-key-file \(data("root.key"))"
    let whole = try json(try await ctl.succeed("verify \(file) \(keys) --output json", as: admin))
    #expect(whole["records_opened"] as? Int == 4 && whole["tenant"] as? String == "acme")
    await ctl.server.shutdown()
    let anchor = "--anchor \(data("anchors/acme.anchor"))"
    let anchored = try json(
      try await ctl.succeed("verify \(file) \(keys) \(anchor) --output json", as: admin)
    )
    #expect(anchored["anchor"] as? String == "agrees" && anchored["hmacs_checked"] as? Int == 5)
    try ctl.folder.write("root", String(repeating: "c3", count: 32) + "\n")
    try await refuse(ctl, "verify \(file) --cmks \(data("cmks")) --root-key-file #/root", "root key")

    let good = try Data(contentsOf: URL(filePath: file))
    func spoiled(_ name: String, _ change: (inout Data) -> Void) throws {
      var bytes = good
      change(&bytes)
      try bytes.write(to: URL(filePath: ctl.folder(name)))
    }
    try spoiled("flipped") { $0[$0.count / 2] ^= 1 }
    try await refuse(ctl, "verify #/flipped", "not whole")
    try spoiled("torn") { $0.removeLast(10) }
    try await refuse(ctl, "verify #/torn", "torn tail")
    try spoiled("older") { bytes in
      // Without its last batch: a good file, and not the one that the anchor knows.
      let magic = Data("KRBATCH\0".utf8)
      if let last = bytes.range(of: magic, options: .backwards) { bytes.removeSubrange(last.lowerBound...) }
    }
    try await ctl.succeed("verify #/older \(keys)", as: admin)
    try await refuse(ctl, "verify #/older \(anchor)", "behind its anchor")
    try ctl.folder.write("text", "neither one")
    try await refuse(ctl, "verify #/text", "neither a storage file nor a backup")
    try await refuse(ctl, "verify #/absent", "cannot open")
    try await refuse(ctl, "verify #/b --cmks x", "see `keyringctl verify --help`")
    var backup = try Data(contentsOf: URL(filePath: ctl.folder("b")))
    backup[backup.count - 40] ^= 1
    try backup.write(to: URL(filePath: ctl.folder("bad")))
    try await refuse(ctl, "verify #/bad", "not whole")
  }

  /// Whoever takes an HMAC away can make every digest right, and must not get exit status 0 of one who gave access.
  @Test func verifyWithKeysMissesAnHMACThatWasTakenAway() async throws {
    let ctl = try await filled()
    let (admin, data) = (Keyringctl.admin, ctl.server.data)
    try await ctl.succeed("backup acme #/b", as: admin)
    await ctl.server.shutdown()
    func strip(_ path: String, _ name: String, _ bytes: Range<Int>?) throws {
      var stripped = try [UInt8](Data(contentsOf: URL(filePath: path)).dropLast(32))
      let manifest = stripped[12..<16].reduce(0) { $0 << 8 | Int($1) }
      let range = bytes ?? 16 + manifest..<64 + manifest
      #expect(stripped[range].contains { $0 != 0 })
      stripped.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
      try Data(stripped + SHA256.hash(stripped).bytes).write(to: URL(filePath: ctl.folder(name)))
    }
    try strip(ctl.folder("b"), "stripped", nil)
    try await ctl.succeed("verify #/stripped", as: admin)
    let passphrase = "--backup-passphrase-file \(data("backup.passphrase"))"
    try await refuse(ctl, "verify #/stripped \(passphrase)", "its manifest has no HMAC")

    try strip(data("anchors/acme.anchor"), "anchor", 136..<184)
    let file = data("tenants/acme/keyring")
    let keys = "--cmks \(data("cmks")) --root-key-file \(data("root.key"))"
    try await ctl.succeed("verify \(file) --anchor #/anchor", as: admin)
    try await refuse(
      ctl,
      "verify \(file) \(keys) --anchor #/anchor",
      "#/anchor has no HMAC".replacing("#", with: ctl.folder.path)
    )
  }

  @Test func inspectShowsWhatIsThereAndNoSecret() async throws {
    let ctl = try await filled()
    let admin = Keyringctl.admin
    try await ctl.succeed("backup acme #/b", as: admin)
    for file in ["#/b", ctl.server.data("tenants/acme/keyring")] {
      let text = try await ctl.succeed("inspect \(file) --keys", as: admin)
      for shown in ["MyKey", "root@%", "instance db1", "Shared", "SECRET", "acme", "wrapping key", "local-"] {
        #expect(text.contains(shown), "\(shown)")
      }
      let all = try await ctl.succeed("inspect \(file) --keys --output json", as: admin)
      let object = try json(all)
      #expect(object["keys"] as? Int == 2 && object["records"] as? Int == 4)
      #expect((object["listing"] as? [Any])?.count == 2)
      #expect((object["manifest"] == nil) == (file != "#/b"))
      for secret in ["never to be seen", hexadecimal("never to be seen".utf8), "request-hash"] {
        #expect(!text.contains(secret) && !all.contains(secret))
      }
      #expect(try json(try await ctl.succeed("inspect \(file) --output json", as: admin))["listing"] == nil)
    }
    try await refuse(ctl, "inspect \(ctl.server.data("root.key"))", "neither")
    await ctl.server.shutdown()
  }

  @Test func restoreSaysWhatItWouldDoAndWhatItRefuses() async throws {
    let ctl = try await filled()
    let (admin, db1) = (Keyringctl.admin, try Keyringctl.instance("db1"))
    try await ctl.succeed("backup acme #/b", as: admin)
    try await ctl.succeed("key generate newer", as: db1)
    try await refuse(ctl, "restore acme #/b", "--accept-rollback")
    try await refuse(ctl, "restore globex #/b", "of the tenant 'acme'")
    try ctl.folder.write("text", "no backup")
    try await refuse(ctl, "restore acme #/text", "not a backup")
    let dry = try json(
      try await ctl.succeed("restore acme #/b --accept-rollback --dry-run --output json", as: admin)
    )
    #expect(dry["dry_run"] as? Bool == true && (dry["notices"] as? [String])?.count == 1)
    try await ctl.succeed("key describe newer", as: db1)
    #expect(try await ctl.succeed("restore acme #/b --accept-rollback", as: admin).contains("is restored"))
    #expect(try await ctl.run(["key", "describe", "newer"], as: db1).status == 3)
    #expect(
      try await ctl.succeed("key fetch MyKey --owner root@% --format raw", as: db1) == "never to be seen"
    )
    let tenant = PeerIdentity.tenantAdmin(try TenantName("acme"))
    let forbidden = try await ctl.run(["restore", "acme", "#/b"], as: tenant)
    KeyringctlTests.expectOneLine(forbidden, "a tenant's administrator")
    #expect(forbidden.error.contains("FORBIDDEN"))
    await ctl.server.shutdown()
  }
}
