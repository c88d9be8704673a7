import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// keyringctl itself, as a process, against a server.
struct Keyringctl {
  let server: TestServer
  let program: TestProgram
  /// For files of a test: `#` in a command.
  let folder: TestDirectory

  init() async throws {
    server = try await TestServer(backupPassphrase: BackupTests.passphrase)
    folder = try TestDirectory()
    program = try TestProgram(product: "keyringctl")
    // For `import`.
    try FileManager.default.createDirectory(atPath: folder("keys"), withIntermediateDirectories: false)
    try folder.write("keys/raw", String(repeating: "r", count: 16))
    // For `tenant apply`.
    for round in 0..<2 { try folder.write("fleet\(round)", "tenants: [{name: u\(round), instances: any}]\n") }
  }

  /// What is in the folder beside what commands read; sorted.
  func written() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder.path).filter {
      !["keys", "fleet0", "fleet1"].contains($0)
    }
    .sorted()
  }

  /// The environment that names the server and shows a certificate.
  func environment(_ identity: PeerIdentity) throws -> [String: String] {
    let files = try server.pki.client(identity)
    return [
      "KEYRING_SERVER": "localhost:\(server.port)", "KEYRING_CERT": files.certificateFile,
      "KEYRING_KEY": files.privateKeyFile, "KEYRING_CA": files.authorityFile,
    ]
  }

  func run(
    _ arguments: [String],
    as identity: PeerIdentity,
    input: String = ""
  ) async throws -> TestProgram.Outcome {
    let arguments = arguments.map { $0.replacing("#", with: folder.path) }
    return try await program.run(arguments, environment: environment(identity), input: Data(input.utf8))
  }

  /// Runs a command that succeeds, and answers what it printed.
  @discardableResult
  func succeed(
    _ command: String,
    as identity: PeerIdentity,
    input: String = "",
    _ location: SourceLocation = #_sourceLocation
  ) async throws -> String {
    let outcome = try await run(command.split(separator: " ").map(String.init), as: identity, input: input)
    #expect(
      outcome.status == 0 && !outcome.isSignal,
      "\(command): \(outcome.error)",
      sourceLocation: location
    )
    #expect(outcome.error.isEmpty, "\(command): \(outcome.error)", sourceLocation: location)
    #expect(!outcome.text.isEmpty, "\(command)", sourceLocation: location)
    return outcome.text
  }

  static let admin = PeerIdentity.serviceAdmin
  static func instance(_ name: String) throws -> PeerIdentity {
    .instance(try TenantName("acme"), try InstanceName(name))
  }
}

@Suite struct KeyringctlTests {
  // MARK: Success

  /// Every command, with the certificate that may use it; `@` stands for a name that each round has anew.
  static func commands() throws -> [(String, PeerIdentity, String)] {
    let (admin, db1) = (Keyringctl.admin, try Keyringctl.instance("db1"))
    let tenantAdmin = PeerIdentity.tenantAdmin(try TenantName("acme"))
    return [
      ("tenant create t@ --instance db1", admin, ""),
      ("tenant apply -f #/fleet@ --yes", admin, ""), ("tenant list", admin, ""),
      ("tenant show acme", tenantAdmin, ""), ("tenant disable t@", admin, ""),
      ("tenant enable t@", admin, ""), ("tenant reload acme", tenantAdmin, ""),
      ("tenant delete t@ --confirm t@ --after 7d", admin, ""), ("tenant undelete t@", admin, ""),
      ("tenant enable t@", admin, ""), ("tenant create d@", admin, ""),
      ("tenant delete d@ --confirm d@ --now", admin, ""), ("tenant receipt d@", admin, ""),
      ("tenant lock t@", admin, ""), ("tenant unlock t@", admin, ""), ("reload", admin, ""),
      ("instance add acme r@ --permissions read --scopes own,shared", admin, ""),
      ("instance list acme", tenantAdmin, ""), ("instance revoke acme r@", admin, ""),
      ("set global read_only false --tenant acme", tenantAdmin, ""),
      ("set persist wrapping_key_ttl 5m --tenant acme", tenantAdmin, ""),
      ("set global limits.keys 1000 --tenant acme", admin, ""),
      ("set global limits.keys DEFAULT --tenant acme", admin, ""),
      ("reset persist wrapping_key_ttl --tenant acme", tenantAdmin, ""),
      ("variables --tenant acme", admin, ""),
      ("cmk create acme", admin, ""), ("rotate-cmk acme", tenantAdmin, ""),
      ("key generate g@ --type AES --length 16", db1, ""), ("key store s@ --shared", db1, "stored"),
      ("key fetch s@ --shared", db1, ""), ("key describe g@", db1, ""), ("key rotate g@", db1, ""),
      ("key list", db1, ""), ("key list --shared", db1, ""),
      ("key transact", db1, "generate x@ AES 16\nrotate x@\n"),
      ("backup acme #/b@", tenantAdmin, ""), ("restore acme #/b@", admin, ""), ("verify #/b@", db1, ""),
      ("inspect #/b@ --keys", db1, ""), ("key remove g@", db1, ""), ("rotate-keys acme", tenantAdmin, ""),
      ("status", admin, ""),
      ("status acme", tenantAdmin, ""), ("whoami", db1, ""), ("import #/keys --type AES", db1, ""),
      ("explain acme", admin, ""), ("explain acme --key-id s@ --shared", tenantAdmin, ""),
    ]
  }

  @Test func everyCommandSucceedsForPeopleAndForPrograms() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    for (round, suffix) in ["", " --output json"].enumerated() {
      for (command, identity, input) in try Self.commands() {
        let line = command.replacing("@", with: "\(round)") + suffix
        let text = try await ctl.succeed(line, as: identity, input: input.replacing("@", with: "\(round)"))
        let isJSON = JSONSerialization.isValidJSONObject(
          (try? JSONSerialization.jsonObject(with: Data(text.utf8))) ?? 0
        )
        #expect(isJSON == (round == 1), "\(line): \(text)")
        if round == 1 { #expect(text.filter { $0 == "\n" }.count == 1, "\(line)") }
      }
    }
    await ctl.server.shutdown()
  }

  @Test func everyCommandOfTheProgramIsTried() async throws {
    let tried = try Set(Self.commands().map { Array($0.0.split(separator: " ")) })
    // the first two have tests of their own, the others in LockingTests, MovingTests and AuditTests
    let elsewhere = ["cmk", "pki", "tenant accept", "tenant move", "audit verify"]
    for path in try await Self.leaves() {
      let isTried = tried.contains { $0.starts(with: path.split(separator: " ")) }
      #expect(isTried || elsewhere.contains { path.hasPrefix($0) }, "\(path)")
    }
  }

  @Test func localCMKsLive() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    func cmk(_ command: String) async throws -> [String: Any] {
      let text = try await ctl.succeed("cmk \(command) --output json", as: Keyringctl.admin)
      return try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }
    let id = try #require(try await cmk("create acme")["cmk_id"] as? String)
    let story = [
      ("show", "enabled"), ("disable", "disabled"), ("enable", "enabled"),
      ("schedule-deletion", "pending deletion"), ("cancel-deletion", "disabled"),
    ]
    for (command, state) in story {
      #expect(try await cmk("\(command) acme \(id)")["state"] as? String == state)
    }
    await ctl.server.shutdown()
  }

  @Test func aPKIForThoseWhoHaveNone() async throws {
    let folder = try TestDirectory()
    let program = try TestProgram(product: "keyringctl")
    func pki(_ command: String) async throws -> TestProgram.Outcome {
      try await program.run(["pki"] + command.split(separator: " ").map(String.init))
    }
    let directory = "--directory \(folder("pki"))"
    #expect(try await pki("init \(directory) --trust-domain test.example").status == 0)
    for what in ["server localhost 127.0.0.1", "admin", "tenant-admin acme", "instance acme db1"] {
      let outcome = try await pki("issue \(directory) --output json \(what)")
      let json = try JSONSerialization.jsonObject(with: outcome.output) as? [String: String]
      let files = TLSConfiguration(
        certificateFile: try #require(json?["certificate"]),
        privateKeyFile: try #require(json?["private_key"]),
        authorityFile: folder("pki/ca.crt")
      )
      #expect(throws: Never.self) { try TLSContext(files, role: .client) }
      let mode = try FileManager.default.attributesOfItem(atPath: files.privateKeyFile)[.posixPermissions]
      #expect(mode as? Int == 0o600)
    }
    for refused in [
      "issue \(directory) admin", "issue \(directory) nobody", "issue \(directory) instance acme",
      "issue \(directory) instance ACME db1", "issue \(directory) server a,URI:spiffe://test.example/admin",
      "init \(directory) --trust-domain other.example",
      "init --directory \(folder("other")) --trust-domain A",
    ] {
      Self.expectOneLine(try await pki(refused), refused)
    }
  }

  /// What an operator does about a stolen certificate, at once and with nothing but the commands.
  @Test func aStolenCertificateIsReplacedByCommands() async throws {
    let pki = try TestPKI()
    try pki.directory.write("trust-domain", pki.trustDomain + "\n")
    try pki.revoke([])
    let server = try await TestServer(pki: pki, revocationList: "ca.crl")
    try await server.makeTenant("acme")
    let program = try TestProgram(product: "keyringctl")
    func run(_ command: String, as name: String) async throws -> TestProgram.Outcome {
      let files = pki.configuration(name)
      let environment = [
        "KEYRING_SERVER": "localhost:\(server.port)", "KEYRING_CERT": files.certificateFile,
        "KEYRING_KEY": files.privateKeyFile, "KEYRING_CA": files.authorityFile,
      ]
      return try await program.run(command.split(separator: " ").map(String.init), environment: environment)
    }
    let directory = "--directory \(pki.directory.path)"
    func succeed(_ command: String, as name: String = "admin") async throws -> String {
      let outcome = try await run(command, as: name)
      #expect(outcome.status == 0, "\(command): \(outcome.error)")
      return outcome.text
    }
    _ = try await succeed("pki issue \(directory) instance acme db1")
    for end in ["crt", "key"] {
      let name = pki.directory("acme-db1.\(end)")
      try pki.directory.write("stolen.\(end)", String(contentsOfFile: name, encoding: .utf8))
      try FileManager.default.removeItem(atPath: name)
    }
    _ = try await succeed("key generate k", as: "stolen")
    #expect(try await succeed("instance revoke acme db1").contains("may not call"))
    #expect(try await succeed("instance list acme").contains("revoked"))
    #expect(try await succeed("instance add acme db1").contains("only certificates that begin after that"))
    _ = try await succeed("pki issue \(directory) instance acme db1")
    _ = try await succeed("key fetch k", as: "acme-db1")
    Self.expectOneLine(try await run("key fetch k", as: "stolen"), "key fetch k")
    // And it goes onto the list: not even the handshake is left to it.
    #expect(try await run("whoami", as: "stolen").status == 0)
    #expect(try await succeed("pki revoke \(directory) \(pki.directory("stolen.crt"))").contains("ca.crl"))
    #expect(try await succeed("reload").contains("client_crl"))
    Self.expectOneLine(try await run("whoami", as: "stolen"), "whoami")
    _ = try await succeed("key fetch k", as: "acme-db1")
    // Not one of this CA; and what the server cannot take is said.
    let other = try TestPKI()
    Self.expectOneLine(
      try await run("pki revoke \(directory) \(other.directory("server.crt"))", as: "admin"),
      "pki revoke"
    )
    try pki.directory.write("ca.crl", "rubbish\n")
    let refused = try await run("reload", as: "admin")
    #expect(refused.status != 0 && refused.errorLines.count == 1 && refused.error.contains("client_crl"))
    #expect(try await succeed("status").contains("NOT taken"))
    await server.shutdown()
  }

  // MARK: Key material

  @Test func materialGoesInAndOutInEachFormat() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let identity = try Keyringctl.instance("db1")
    let written = ["raw": "\u{1}key\n", "hex": "016b65790a", "base64": "AWtleQo="]
    for (format, text) in written {
      let input = format == "raw" ? text : text + "\n"
      try await ctl.succeed("key store \(format) --format \(format)", as: identity, input: input)
      for (other, expected) in written {
        let out = try await ctl.succeed("key fetch \(format) --format \(other)", as: identity)
        #expect(out == (other == "raw" ? expected : expected + "\n"))
      }
    }
    let json = try await ctl.succeed("key fetch raw --output json", as: identity)
    let object = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
    #expect(object?["value_hex"] as? String == "016b65790a" && object?["version"] as? Int == 1)
    let folder = try TestDirectory()
    try folder.write("material", "from a file")
    try await ctl.succeed("key store file --from \(folder("material"))", as: identity)
    try await ctl.succeed("key rotate file", as: identity)
    #expect(try await ctl.succeed("key fetch file --format raw --version 1", as: identity) == "from a file")
    for (format, text) in [
      ("hex", "0g"), ("hex", "012"), ("base64", "A*=="), ("base64", "A"), ("hex", "01 02"),
    ] {
      let outcome = try await ctl.run(["key", "store", "bad", "--format", format], as: identity, input: text)
      Self.expectOneLine(outcome, "\(format) \(text)")
      #expect(outcome.error.contains("not in \(format)") && !outcome.error.contains(text))
    }
    #expect(try await ctl.run(["key", "fetch", "bad"], as: identity).status == 3)
    await ctl.server.shutdown()
  }

  @Test func onlyFetchPrintsMaterial() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let identity = try Keyringctl.instance("db1")
    let material = "never to be seen"
    try await ctl.succeed("key store secret", as: identity, input: material)
    for (command, identity, _) in try Self.commands() where !command.contains("@") {
      let text = try await ctl.succeed(command + " --output json", as: identity, input: "remove secret")
      #expect(!text.contains(material) && !text.contains(hexadecimal(material.utf8)), "\(command)")
    }
    await ctl.server.shutdown()
  }

  // MARK: Failure

  static func expectOneLine(
    _ outcome: TestProgram.Outcome,
    _ what: String,
    _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(outcome.status != 0 && !outcome.isSignal, "\(what)", sourceLocation: location)
    #expect(outcome.output.isEmpty, "\(what): \(outcome.text)", sourceLocation: location)
    let isOneLine =
      outcome.errorLines.count == 1 && outcome.error.hasPrefix("keyringctl: ")
      && outcome.error.hasSuffix("\n")
    #expect(isOneLine, "\(what): \(outcome.error)", sourceLocation: location)
  }

  @Test func aFailureIsOneLineThatSaysWhatToDo() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    let (admin, db1) = (Keyringctl.admin, try Keyringctl.instance("db1"))
    try await ctl.succeed("key generate present", as: db1)
    let failures: [(String, PeerIdentity, String)] = [
      ("frob", admin, "see `keyringctl --help`"), ("key fetch", db1, "see `keyringctl key fetch --help`"),
      ("key fetch k --format rot13", db1, "see `keyringctl key fetch --help`"),
      ("key store k --value secret", db1, "see `keyringctl key store --help`"),
      ("status --output xml", admin, "see `keyringctl status --help`"),
      ("key generate present", db1, "KEY_EXISTS"), ("key rotate absent", db1, "KEY_ABSENT"),
      ("key generate k --length 5", db1, "LENGTH_INVALID"),
      ("key generate k --type RSA", db1, "TYPE_INVALID"),
      ("key fetch absent", db1, "there is no such key"), ("key describe absent", db1, "there is no such key"),
      ("key fetch present", admin, "FORBIDDEN"), ("tenant list", db1, "FORBIDDEN"),
      ("tenant create acme --profile general", admin, "TENANT_EXISTS"),
      ("tenant show nobody", admin, "TENANT_ABSENT"),
      ("tenant delete acme --now", admin, "--confirm acme"),
      ("tenant undelete acme", admin, "DELETION_REFUSED"),
      ("tenant receipt acme", admin, "DELETION_REFUSED"),
      ("tenant delete nobody --confirm nobody", admin, "TENANT_ABSENT"),
      ("set global cmk_id nothing --tenant acme", admin, "cmk"),
      ("set global nothing 1 --tenant acme", admin, "nothing"),
      ("set global limits.keys none --tenant acme", admin, "or unlimited (0)"),
      ("set global anchor strict --tenant acme", admin, "cannot be set at run time"),
      ("reset persist limits.keys --tenant acme", admin, "nothing is persisted"),
      ("key store k --from /nonexistent", db1, "/nonexistent"),
      ("key transact /nonexistent", db1, "/nonexistent"),
      ("status --server localhost:1", admin, "localhost:1"),
      ("status --server localhost:x", admin, "HOST:PORT"),
      ("status --cert /nonexistent", admin, "/nonexistent"),
      ("status --context /nonexistent", admin, "/nonexistent"),
    ]
    for (command, identity, words) in failures {
      var environment = try ctl.environment(identity)
      if command.contains("--context") { environment["KEYRING_CA"] = nil }
      let outcome = try await ctl.program.run(
        command.split(separator: " ").map(String.init),
        environment: environment
      )
      Self.expectOneLine(outcome, command)
      #expect(outcome.error.contains(words), "\(command): \(outcome.error)")
    }
    let nobody = try await ctl.program.run(["status"])
    Self.expectOneLine(nobody, "without anything")
    #expect(nobody.error.contains("give it, or set KEYRING_SERVER"))
    await ctl.server.shutdown()
  }

  // MARK: Connection

  @Test func optionsComeBeforeTheEnvironmentAndThatBeforeAContextFile() async throws {
    let ctl = try await Keyringctl()
    let folder = try TestDirectory()
    let tenant = PeerIdentity.tenantAdmin(try TenantName("acme"))
    let environment = try ctl.environment(tenant)
    let files = try ctl.server.pki.client(.serviceAdmin)
    for (name, from) in [("c.crt", files.certificateFile), ("c.key", files.privateKeyFile)] {
      try FileManager.default.copyItem(atPath: from, toPath: folder(name))
    }
    let context = """
      # the service's administrator; paths are relative to this file
      server: localhost:\(ctl.server.port)
      cert:   c.crt

      key: c.key
      ca: \(files.authorityFile)
      """
    try folder.write("context", context)
    func whoAmI(_ arguments: [String], _ environment: [String: String]) async throws -> String {
      let outcome = try await ctl.program.run(["whoami"] + arguments, environment: environment)
      return outcome.text + outcome.error
    }
    let admin = "spiffe://test.example/admin,"
    let fromFile = ["KEYRING_CONTEXT": folder("context")]
    #expect(try await whoAmI([], fromFile).hasPrefix(admin))
    #expect(try await whoAmI(["--context", folder("context")], [:]).hasPrefix(admin))
    #expect(
      try await whoAmI(["--context", folder("context")], ["KEYRING_CONTEXT": "/nonexistent"]).hasPrefix(admin)
    )
    #expect(
      try await whoAmI([], fromFile.merging(environment) { $1 }).hasPrefix(
        "spiffe://test.example/tenant/acme/admin,"
      )
    )
    let options = ["--cert", files.certificateFile, "--key", files.privateKeyFile]
    #expect(try await whoAmI(options, environment).hasPrefix(admin))

    // In its usual place it is found by itself.
    let place = folder("home/.config/keyring")
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    for name in ["c.crt", "c.key"] {
      try FileManager.default.copyItem(atPath: folder(name), toPath: "\(place)/\(name)")
    }
    try FileManager.default.copyItem(atPath: folder("context"), toPath: "\(place)/context.yaml")
    #expect(try await whoAmI([], ["HOME": folder("home")]).hasPrefix(admin))
    #expect(try await whoAmI([], ["XDG_CONFIG_HOME": folder("home/.config")]).hasPrefix(admin))

    for (text, number) in [("server: localhost:1\nserveur: x\n", 2), ("cert\n", 1), ("\n\nkey:\n", 3)] {
      try folder.write("bad", text)
      let outcome = try await ctl.program.run(["whoami", "--context", folder("bad")])
      Self.expectOneLine(outcome, text)
      #expect(outcome.error.contains("\(folder("bad")):\(number): "))
    }
    await ctl.server.shutdown()
  }

  // MARK: Help

  private struct Dump: Decodable {
    struct Argument: Decodable {
      let abstract: String?
      let valueName: String?
    }
    struct Command: Decodable {
      let commandName: String
      let abstract: String?
      let subcommands: [Command]?
      let arguments: [Argument]?
    }
    let command: Command
  }

  private static func tree() async throws -> Dump.Command {
    let outcome = try await TestProgram(product: "keyringctl").run(["--experimental-dump-help"])
    return try JSONDecoder().decode(Dump.self, from: outcome.output).command
  }

  private static func leaves() async throws -> [String] {
    func paths(_ command: Dump.Command) -> [String] {
      let below = (command.subcommands ?? []).filter { $0.commandName != "help" }
      guard !below.isEmpty else { return [command.commandName] }
      return below.flatMap { paths($0).map { "\(command.commandName) \($0)" } }
    }
    return try await paths(tree()).map { String($0.dropFirst("keyringctl ".count)) }
  }

  @Test func everythingIsExplainedAndNoOptionTakesASecret() async throws {
    var described = 0
    func check(_ command: Dump.Command) {
      #expect(!(command.abstract ?? "").isEmpty, "\(command.commandName)")
      for argument in command.arguments ?? [] {
        described += 1
        let name = argument.valueName ?? ""
        #expect(!(argument.abstract ?? "").isEmpty, "\(command.commandName) \(name)")
        for secret in ["secret", "password", "passphrase", "material", "value-hex", "token"] {
          #expect(!name.contains(secret), "\(command.commandName) \(name)")
        }
      }
      for below in command.subcommands ?? [] where below.commandName != "help" { check(below) }
    }
    check(try await Self.tree())
    #expect(described > 100)
    let program = try TestProgram(product: "keyringctl")
    for path in try await Self.leaves() + ["", "key", "tenant", "pki", "set", "reset", "cmk", "instance"] {
      let outcome = try await program.run(path.split(separator: " ").map(String.init) + ["--help"])
      #expect(outcome.status == 0 && outcome.error.isEmpty && outcome.text.contains("USAGE: keyringctl"))
    }
  }

  @Test func completionScripts() async throws {
    let program = try TestProgram(product: "keyringctl")
    #expect(try await program.run(["--help"]).text.contains("--generate-completion-script"))
    for shell in ["bash", "zsh", "fish"] {
      let script = try await program.run(["--generate-completion-script", shell])
      #expect(script.status == 0 && script.error.isEmpty && script.text.contains("rotate-keys"))
      if shell == "bash" {
        let check = try await TestProgram(path: "/bin/bash").run(["-n"], input: script.output)
        #expect(check.status == 0 && check.error.isEmpty, "\(check.error)")
      }
    }
    Self.expectOneLine(try await program.run(["--generate-completion-script", "cmd"]), "another shell")
  }

  // MARK: Progress

  @Test func aRotationTellsATerminalAndNobodyElseHowFarItIs() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("acme")
    try await ctl.succeed("key generate k", as: try Keyringctl.instance("db1"))
    let quiet = try await ctl.run(["rotate-keys", "acme"], as: Keyringctl.admin)
    #expect(quiet.status == 0 && quiet.error.isEmpty)
    // script(1) gives it a terminal.
    let command = "'\(ctl.program.path)' rotate-keys acme"
    let seen = try await TestProgram(path: "/usr/bin/script").run(
      ["--quiet", "--return", "--command", command, "/dev/null"],
      environment: ctl.environment(Keyringctl.admin)
    )
    #expect(seen.status == 0)
    let parts = seen.text.unicodeScalars.split(separator: "\r").map { String($0) }
    #expect(parts.first == "re-encrypting the keys of acme…")
    // Of the key, and of the server's own, under which it hashes requests.
    #expect(parts.contains { $0.hasPrefix("\u{1b}[K2 records re-encrypted") }, "\(parts)")
    await ctl.server.shutdown()
  }
}
