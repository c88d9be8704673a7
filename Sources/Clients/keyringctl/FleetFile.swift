import ConfigurationFiles
import KeyringCore
import SecureMemory
import WireProtocol

/// A fleet of tenants, as `tenant apply` reads it; docs/CONFIGURATION.md, "Fleet file".
struct FleetFile {
  /// One of them.
  struct Entry {
    let name: TenantName
    /// Everything but the credentials.
    let call: TenantCreateCall
    /// The file whose content is sent; nil for none.
    let credentialsFile: String?

    var isAWS: Bool { call.provider == "aws" }

    /// - Throws: where the credentials' file cannot be read.
    func call(isDryRun: Bool) throws -> TenantCreateCall {
      var call = self.call
      call.isDryRun = isDryRun
      call.credentials = try credentialsFile.map { try CredentialsArgument.read($0) }
      return call
    }
  }

  /// The longest file, in bytes.
  static let bytesMax = 16 << 20

  let entries: [Entry]

  private static let settings = [
    "region", "endpoint", "credentials", "aws_profile", "role_arn", "role_external_id", "sts_endpoint",
  ]
  private static let keys =
    ["name", "provider", "cmk_id", "profile", "instances", "credentials_file", "variables"] + settings

  /// Reads a file.
  ///
  /// - Throws: `Failure`, naming file, line and column.
  init(_ path: String) throws {
    let text = try Input.text(path, bytesMax: Self.bytesMax)
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    do throws(ConfigurationError) {
      var yaml = try StrictYAML(text, file: path, bytesMax: Self.bytesMax)
      guard let items = try yaml.list("tenants") else { throw yaml.error("'tenants' is missing: a list") }
      try yaml.finish(known: ["tenants"])
      var seen: Set<TenantName> = []
      var entries: [Entry] = []
      for item in items {
        let entry = try Self.entry(item, folder)
        guard seen.insert(entry.name).inserted else {
          throw item.error("the tenant '\(entry.name)' is there twice")
        }
        entries.append(entry)
      }
      self.entries = entries
    } catch {
      throw Failure("\(error)")
    }
  }

  private static func entry(_ yaml: StrictYAML, _ folder: String) throws(ConfigurationError) -> Entry {
    var yaml = yaml
    guard let name = try yaml.take("name", name) else { throw yaml.error("'name' is missing") }
    let provider = try yaml.take("provider", provider) ?? "local"
    let cmkID = try yaml.text("cmk_id") ?? ""
    let profile = try yaml.take("profile", profile) ?? ""
    var isAny = false
    let instances = try yaml.words("instances") { word throws(ConfigurationError) -> String in
      if word == "any" { isAny = true } else { _ = try instance(word) }
      return word
    }
    guard !isAny || instances?.count == 1 else {
      throw yaml.error("'instances' is `any`, or a list of names")
    }
    var settings: [TenantMoveCall.Setting] = []
    for key in Self.settings {
      if let value = try yaml.text(key) { settings.append(.init(name: key, value: value)) }
    }
    let file = try yaml.text("credentials_file")
    if var variables = try yaml.mapping("variables") {
      for (name, text) in variables.takeAll() {
        guard let text, !text.isEmpty else { throw variables.error("'variables.\(name)' is one value") }
        settings.append(.init(name: name, value: text))
      }
    }
    try yaml.finish(known: keys)
    guard provider == "local" || !cmkID.isEmpty else { throw yaml.error("'cmk_id' is missing: provider aws") }
    let call = TenantCreateCall(
      tenant: name.text,
      provider: provider,
      cmkID: cmkID,
      profile: profile,
      instances: isAny ? [] : instances ?? [],
      anyInstance: isAny,
      settings: settings
    )
    return Entry(name: name, call: call, credentialsFile: file.map { $0.hasPrefix("/") ? $0 : folder + $0 })
  }

  // MARK: Values

  private static func name(_ text: String) throws(ConfigurationError) -> TenantName {
    do {
      return try TenantName(text)
    } catch {
      throw ConfigurationError("\(error)")
    }
  }

  private static func instance(_ text: String) throws(ConfigurationError) -> InstanceName {
    do {
      return try InstanceName(text)
    } catch {
      throw ConfigurationError("\(error), not '\(text)'")
    }
  }

  private static func provider(_ text: String) throws(ConfigurationError) -> String {
    guard ProviderKind(rawValue: text) != nil else {
      throw ConfigurationError("local or aws is expected, not '\(text)'")
    }
    return text
  }

  private static func profile(_ text: String) throws(ConfigurationError) -> String {
    guard Profile(rawValue: text) != nil else {
      throw ConfigurationError("keyring_aws, general or any is expected, not '\(text)'")
    }
    return text
  }
}
