import ConfigurationFiles
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Testing

@testable import TenantRegistry

@Suite struct TenantFilesTests {
  let folder: TestDirectory
  private static let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  init() throws {
    folder = try TestDirectory()
    try makeDirectory("tenants")
  }

  private func makeDirectory(_ name: String, mode: Int = 0o700) throws {
    try FileManager.default.createDirectory(atPath: folder(name), withIntermediateDirectories: true)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: folder(name))
  }

  private func tenants() throws -> TenantsDirectory {
    TenantsDirectory(directory: try DirectoryDescriptor(path: folder("tenants")), allowedEndpoints: [])
  }

  private func tenant(_ name: String, _ yaml: String = "cmk_id: of-the-file\n") throws -> TenantFiles {
    try makeDirectory("tenants/\(name)")
    try folder.write("tenants/\(name)/tenant.yaml", yaml)
    return try #require(try tenants().open(try TenantName(name)))
  }

  private func refusal(_ files: TenantFiles) -> String {
    do throws(ConfigurationError) {
      _ = try files.load()
      return "it was taken"
    } catch {
      return "\(error)"
    }
  }

  @Test func whatWouldBeTooLargeToReadIsNotWritten() throws {
    let files = try tenant("acme")
    var persisted = PersistedState()
    persisted.instances = try (0..<900).map {
      AllowedInstance(name: try InstanceName("i\($0)-" + String(repeating: "x", count: 55)))
    }
    try files.write(persisted)
    let good = try String(contentsOfFile: folder("tenants/acme/persisted.json"), encoding: .utf8)
    persisted.instances += try (0..<200).map {
      AllowedInstance(name: try InstanceName("j\($0)-" + String(repeating: "x", count: 55)))
    }
    do {
      try files.write(persisted)
      Issue.record("it was written")
    } catch {
      #expect("\(error)".contains("may have 65536: nothing was written"))
    }
    #expect(try String(contentsOfFile: folder("tenants/acme/persisted.json"), encoding: .utf8) == good)
    #expect(try files.load().persisted.instances.count == 900)
  }

  // MARK: Precedence

  @Test func globalComesBeforePersistedBeforeFileBeforeDefault() throws {
    let files = try tenant("acme")
    var (settings, persisted) = try files.load()
    #expect(settings.cmkID.text == "of-the-file" && settings.source(.cmkID) == "file")
    #expect(settings.profile == .keyringAWS && settings.source(.profile) == "default")
    settings = try settings.setting(.cmkID, "persisted", isPersisted: true)
    #expect(settings.cmkID.text == "persisted" && settings.source(.cmkID) == "persisted")
    persisted.variables = settings.persisted
    try files.write(persisted)
    settings = try settings.setting(.cmkID, "global", isPersisted: false)
    #expect(settings.cmkID.text == "global" && settings.source(.cmkID) == "global" && settings.isCMKTransient)
    let again = try files.load().settings
    #expect(again.cmkID.text == "persisted", "a restart comes back to what was persisted")
    #expect(!again.isCMKTransient)
    // Persisting ends the global value, as MySQL's SET PERSIST sets both.
    settings = try settings.setting(.cmkID, "newest", isPersisted: true)
    #expect(settings.cmkID.text == "newest" && settings.source(.cmkID) == "persisted")
  }

  @Test func aRefusedValueLeavesTheOldOne() throws {
    let settings = try tenant("acme").load().settings
    for (name, value) in [
      (VariableName.cmkID, "a b"), (.profile, "AES"), (.readOnly, "2"), (.wrappingKeyTTL, "soon"),
      (.wrappingKeyTTL, "0"), (.outageGrace, "1000000000h"), (.provider, "aws"), (.endpoint, "https://a"),
      (.storageFile, "b"),
    ] {
      #expect(throws: ConfigurationError.self, "\(name) \(value)") {
        try settings.setting(name, value, isPersisted: false)
      }
    }
    #expect(settings.shown(.profile) == "keyring_aws")
  }

  /// Each is refused without the other; a dictionary has no order, so that this is tried often.
  @Test func valuesThatNeedOneAnotherAreReadInAnyOrder() throws {
    let files = try tenant("acme")
    var persisted = PersistedState()
    persisted.variables = [.wrappingKeyTTL: "0", .outageGrace: "0", .profile: "any", .readOnly: "true"]
    try files.write(persisted)
    for _ in 0..<50 {
      let settings = try files.load().settings
      #expect(settings.wrappingKeyTTL == .zero && settings.outageGrace == .zero && settings.isReadOnly)
    }
    let other = try tenant("globex", "{cmk_id: a, wrapping_key_ttl: 0, outage_grace: 0}")
    var longer = PersistedState()
    longer.variables = [.wrappingKeyTTL: "1m", .outageGrace: "1h"]
    try other.write(longer)
    #expect(try other.load().settings.outageGrace == .seconds(3600))
    persisted.variables[.outageGrace] = nil
    try files.write(persisted)
    #expect(refusal(files).contains("persisted.json: wrapping_key_ttl 0"))
  }

  // MARK: Files

  @Test func filesThatOthersMayReadLinksAndNoTextAreRefused() throws {
    let files = try tenant("acme")
    let path = folder("tenants/acme/tenant.yaml")
    let manager = FileManager.default
    for mode in [0o644, 0o640, 0o604] {
      try manager.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
      #expect(refusal(files).contains("tenant.yaml may be used by others"))
    }
    try manager.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
    #expect(refusal(files) == "it was taken")
    try folder.write("tenants/acme/persisted.json", "{\"version\": 1, \"variables\": {\"profile\": \"AES\"}}")
    #expect(refusal(files).contains("acme/persisted.json: 'profile': keyring_aws, general or any"))
    try folder.write("tenants/acme/persisted.json", "{\"version\": 3}")
    #expect(refusal(files).contains("acme/persisted.json:1:13: 'version'"))
    try manager.removeItem(atPath: folder("tenants/acme/persisted.json"))
    try Data([0x63, 0xff, 0xfe]).write(to: URL(filePath: path))
    #expect(refusal(files).contains("tenant.yaml: not UTF-8"))
    try manager.removeItem(atPath: path)
    #expect(refusal(files).contains("tenant.yaml is not there"))
    try folder.write("elsewhere.yaml", "cmk_id: a\n")
    try manager.createSymbolicLink(atPath: path, withDestinationPath: folder("elsewhere.yaml"))
    #expect(refusal(files).contains("tenant.yaml is not a plain file"))
  }

  @Test func aFolderThatOthersMayEnterOrALinkIsRefused() throws {
    _ = try tenant("acme")
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: folder("tenants/acme"))
    #expect(throws: ConfigurationError.self) { try tenants().open(try TenantName("acme")) }
    try makeDirectory("elsewhere")
    try FileManager.default.createSymbolicLink(
      atPath: folder("tenants/linked"),
      withDestinationPath: folder("elsewhere")
    )
    #expect(throws: ConfigurationError.self) { try tenants().open(try TenantName("linked")) }
    #expect(try tenants().open(try TenantName("absent")) == nil)
  }

  @Test func writtenFilesArePrivate() throws {
    let made = try tenants().create(try TenantName("acme"), yaml: "cmk_id: a\n")
    var persisted = PersistedState()
    persisted.isDisabled = true
    try made.write(persisted)
    for (name, mode) in [
      ("tenants/acme", 0o700), ("tenants/acme/tenant.yaml", 0o600), ("tenants/acme/persisted.json", 0o600),
    ] {
      let attributes = try FileManager.default.attributesOfItem(atPath: folder(name))
      #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == mode, "\(name)")
    }
    #expect(try made.load().persisted.isDisabled)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder("tenants/acme")).count == 2)
  }

  @Test(arguments: ["../outside", "/outside", ".", "..", "", "a/b", "A", "a\0b", "a\n", "-a"])
  func aHostileTenantsNameIsNone(_ name: String) throws {
    #expect(throws: KeyringError.self) { try TenantName(name) }
    let before = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    #expect(throws: (any Error).self) {
      _ = try tenants().create(try TenantName(name), yaml: "cmk_id: a\n")
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == before)
    #expect(try tenants().names().isEmpty)
  }

  @Test func whatIsNoTenantsNameIsPassedOver() throws {
    _ = try tenant("acme")
    for name in ["README.md", ".git", "Acme", "lost+found", "a_b"] { try makeDirectory("tenants/\(name)") }
    #expect(try tenants().names().map(\.text) == ["acme"])
  }

  // MARK: What is to be copied, and what is documented

  @Test func theExamplesLoad() throws {
    let source = Self.top.appending(path: "tenants.example")
    let copy = folder("copied")
    try FileManager.default.copyItem(atPath: source.path, toPath: copy)
    let names = FileManager.default.enumerator(atPath: copy)?.compactMap { $0 as? String } ?? []
    for path in [copy] + names.map({ "\(copy)/\($0)" }) {
      var isDirectory: ObjCBool = false
      _ = unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
      try FileManager.default.setAttributes(
        [.posixPermissions: isDirectory.boolValue ? 0o700 : 0o600],
        ofItemAtPath: path
      )
    }
    let directory = TenantsDirectory(directory: try DirectoryDescriptor(path: copy), allowedEndpoints: [])
    let tenants = try directory.names()
    #expect(tenants.map(\.text) == ["acme", "globex", "initech"])
    let settings = try tenants.map { try #require(try directory.open($0)).load().settings }
    #expect(
      settings[0].file.instances
        == .listed([
          AllowedInstance(name: try InstanceName("db1")), AllowedInstance(name: try InstanceName("db2")),
        ])
    )
    #expect(
      settings[1].file.anchor == .strict && settings[1].file.limits == [.keys: 100_000, .connections: 32]
    )
    let service = Self.top.appending(path: "deploy/keyringd.example.yaml")
    let made = try ServiceConfiguration(
      yaml: try String(contentsOf: service, encoding: .utf8),
      file: "keyringd.example.yaml",
      directory: "/d"
    )
    #expect(made.rootKey == .file("/d/root.key"))
  }

  @Test func everyKeyIsDocumented() throws {
    let text = try String(contentsOf: Self.top.appending(path: "docs/CONFIGURATION.md"), encoding: .utf8)
    let parts = text.split(separator: "## A tenant's file")
    #expect(parts.count == 2)
    let service =
      ServiceConfiguration.keys + ServiceConfiguration.tlsKeys.map { "tls.\($0)" }
      + ServiceConfiguration.localProviderKeys.map { "local_provider.\($0)" }
      + ServiceConfiguration.backupKeys.map { "backup.\($0)" }
      + ServiceConfiguration.awsKeys.map { "aws.\($0)" }
      + AuditSettings.keys.map { "audit.\($0)" }
      + ServiceConfiguration.limitKeys.map { "limits.\($0)" }
    let tenant = TenantConfiguration.keys + TenantConfiguration.limitKeys.map { "limits.\($0)" }
    #expect(service.count >= 37 && tenant.count >= 21)
    for key in service { #expect(parts[0].contains("\n| `\(key)` |"), "\(key)") }
    for key in tenant { #expect(parts[1].contains("\n| `\(key)` |"), "\(key)") }
    for variable in VariableName.allCases {
      let row = parts[1].split(separator: "\n").first { $0.hasPrefix("| `\(variable.rawValue)` |") }
      #expect(row?.contains(variable.isDynamic ? "| yes |" : "| no |") == true, "\(variable)")
    }
    // And nothing is documented that there is not.
    for (part, keys) in [(parts[0], service), (parts[1], tenant)] {
      for row in part.split(separator: "\n") where row.hasPrefix("| `") {
        let key = row.split(separator: "`")[1]
        #expect(keys.contains(String(key)), "\(key)")
      }
    }
  }
}

extension TenantsDirectory {
  /// A tenant as an operator puts it there.
  func create(_ tenant: TenantName, yaml: String) throws -> TenantFiles {
    let made = try make(tenant)
    try AtomicFile.replace("tenant.yaml", in: made.directory, with: [Array(yaml.utf8)])
    return made
  }
}
