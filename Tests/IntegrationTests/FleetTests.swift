import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// `keyringctl tenant apply`, and certificates made with tenants.
@Suite struct FleetTests {
  private static func fleet(_ ctl: Keyringctl, _ text: String, _ options: String = "--yes") async throws
    -> TestProgram.Outcome
  {
    try ctl.folder.write("tenants.yaml", text)
    return try await ctl.run(
      ["tenant", "apply", "-f", "#/tenants.yaml"] + options.split(separator: " ").map(String.init),
      as: Keyringctl.admin
    )
  }

  private static let file = """
    tenants:
      - name: acme
        instances: [db1]
      - {name: beta, instances: any}
      - name: gamma
        profile: general
        instances: [db1, db2]
        variables: {outage_grace: 3h}

    """

  @Test func aFleetIsShownMadeAndThenAsItIs() async throws {
    let ctl = try await Keyringctl()
    let folders = ServiceFolders(data: ctl.server.data)
    for name in ["beta", "other", "gone"] { try await ctl.server.makeTenant(name) }
    try await ctl.succeed("tenant create gamma --instance db1", as: Keyringctl.admin)
    let before = folders.listing()
    let plan = """
      + acme (local, new CMK)
      = beta
      ~ gamma: profile keyring_aws -> general; outage_grace 24h -> 3h; instance db2 added
      1 to make, 1 to change, 1 as the file says; on the server 2 that the file does not name: left alone

      """
    let dry = try await Self.fleet(ctl, Self.file, "--dry-run")
    #expect(dry.status == 0 && dry.text == plan, "\(dry.text)\(dry.error)")
    let unasked = try await Self.fleet(ctl, Self.file, "")
    #expect(unasked.status != 0 && unasked.error.contains("--yes"), "\(unasked.error)")
    #expect(folders.listing() == before)
    let done = try await Self.fleet(ctl, Self.file)
    #expect(done.status == 0 && done.text == plan + "1 made, 1 changed\n", "\(done.text)\(done.error)")
    #expect(folders.isWhole("acme", "applied"))
    let again = try await Self.fleet(ctl, Self.file)
    #expect(
      again.status == 0 && again.text.contains("0 to make, 0 to change, 3 as the file says"),
      "\(again.text)"
    )
    let shown = try await ctl.succeed("tenant show gamma", as: Keyringctl.admin)
    for words in ["db1, db2", "general", "3h"] { #expect(shown.contains(words), "\(shown)") }
    await ctl.server.shutdown()
  }

  @Test func whatCannotBeChangesNothing() async throws {
    let ctl = try await Keyringctl()
    try await ctl.server.makeTenant("delta")
    let folders = ServiceFolders(data: ctl.server.data)
    let before = folders.listing()
    let files: [(String, String)] = [
      ("tenants: [{name: acme}, {name: delta, instances: any, variables: {anchor: strict}}]\n", "cannot be"),
      (
        "tenants: [{name: acme}, {name: eps, cmk_id: local-\(String(repeating: "0", count: 32))}]\n",
        "cannot be"
      ),
      ("tenants:\n  - name: acme\n  - name: Acme\n", "tenants.yaml:3:11: 'tenants.name'"),
      ("tenants:\n  - name: acme\n    profil: any\n", "tenants.yaml:3:13: unknown key 'tenants.profil'"),
      ("tenants:\n  - name: acme\n  - name: acme\n", "tenants.yaml:3:5: the tenant 'acme' is there twice"),
      ("tenants:\n  - profile: any\n", "'name' is missing"), ("tenants: 5\n", "is a list"),
      ("a: b\n", "'tenants' is missing"),
      ("tenants: [{name: acme, instances: [any, db1]}]\n", "`any`, or a list"),
      ("tenants: [{name: acme, instances: [../db1]}]\n", "instance"),
      ("tenants: [{name: acme, provider: aws}]\n", "cmk_id"),
      ("tenants: [{name: acme, provider: vault}]\n", "local or aws"),
      ("tenants: [{name: acme, profile: some}]\n", "profile"),
      ("tenants: [{name: acme, provider: aws, cmk_id: a, credentials_file: nothing}]\n", "nothing"),
      ("tenants: [{name: acme, variables: {nothing: 1}}]\n", "cannot be"),
    ]
    for (text, words) in files {
      let outcome = try await Self.fleet(ctl, text)
      #expect(outcome.status != 0 && outcome.error.contains(words), "\(text): \(outcome.error)")
      #expect(outcome.errorLines.count == 1, "\(outcome.error)")
      #expect(folders.listing() == before, "\(text)")
    }
    await ctl.server.shutdown()
  }

  @Test func theExampleIsAFleet() async throws {
    let ctl = try await Keyringctl()
    let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let text = try String(contentsOf: top.appending(path: "deploy/tenants.yaml.example"), encoding: .utf8)
    let outcome = try await Self.fleet(ctl, text, "--dry-run")
    #expect(
      outcome.text.contains(
        "+ acme (local, new CMK)\n+ initech (local, new CMK)\n! globex: KMS_UNREACHABLE"
      )
    )
    #expect(outcome.text.contains("2 to make"), "\(outcome.text)\(outcome.error)")
    await ctl.server.shutdown()
  }

  /// Killed in the middle of a fleet, the server has some of it; the same file makes the rest.
  @Test func aFleetGoesOnWhereItWasCutOff() async throws {
    let ctl = try await Keyringctl()
    let names = (0..<450).map { "t\($0)" }
    func file(_ names: some Sequence<String>) -> String {
      "tenants:\n" + names.map { "  - {name: \($0), instances: any}\n" }.joined()
    }
    let first = try await Self.fleet(ctl, file(names.prefix(230)))
    #expect(first.status == 0, "\(first.error)")
    let all = try await Self.fleet(ctl, file(names), "--yes --output json")
    let json = try #require(try JSONSerialization.jsonObject(with: all.output) as? [String: Any])
    #expect((json["made"] as? [String])?.count == 220 && json["unchanged"] as? Int == 230, "\(all.error)")
    #expect(all.errorLines.allSatisfy { $0.contains(" of ") }, "\(all.error)")
    let folders = ServiceFolders(data: ctl.server.data)
    let listing = folders.listing()
    for name in names { #expect(listing.contains("tenants/\(name)/keyring")) }
    #expect(listing.filter { $0.hasPrefix("cmks/") && $0.contains("/local-") }.count == names.count)
    #expect(folders.onboardings.isEmpty)
    await ctl.server.shutdown()
  }

  @Test func certificatesAreMadeOnce() async throws {
    let ctl = try await Keyringctl()
    let admin = Keyringctl.admin
    try await ctl.succeed(
      "pki init --directory #/pki --trust-domain \(ctl.server.pki.trustDomain)",
      as: admin
    )
    let command = "tenant create acme --instance db1 --pki #/pki --certificates #/certs"
    let first = try await ctl.succeed(command, as: admin)
    for name in ["acme-admin", "acme-db1"] { #expect(first.contains("certificate \(name).crt"), "\(first)") }
    let (path, key) = (ctl.folder("certs/acme-db1.crt"), ctl.folder("certs/acme-db1.key"))
    let kept = try String(contentsOfFile: path, encoding: .utf8)
    let again = try await ctl.succeed(command, as: admin)
    #expect(!again.contains("certificate") && again.contains("nothing was changed"))
    #expect(try String(contentsOfFile: path, encoding: .utf8) == kept)
    // Half a pair, and another's key: made anew. A certificate of another CA or identity is not ours to replace.
    try FileManager.default.removeItem(atPath: key)
    #expect(try await ctl.succeed(command, as: admin).contains("certificate acme-db1.crt"))
    #expect(try String(contentsOfFile: path, encoding: .utf8) != kept)
    try FileManager.default.removeItem(atPath: key)
    try FileManager.default.copyItem(atPath: ctl.folder("certs/acme-admin.key"), toPath: key)
    #expect(try await ctl.succeed(command, as: admin).contains("certificate acme-db1.crt"))
    try FileManager.default.removeItem(atPath: path)
    try FileManager.default.copyItem(atPath: ctl.folder("certs/acme-admin.crt"), toPath: path)
    let foreign = try await ctl.run(
      command.split(separator: " ").map(String.init),
      as: admin
    )
    #expect(
      foreign.status != 0 && foreign.error.contains("another CA or another identity"),
      "\(foreign.error)"
    )
    await ctl.server.shutdown()
  }
}
