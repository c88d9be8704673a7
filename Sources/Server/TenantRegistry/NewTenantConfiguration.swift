public import ConfigurationFiles
internal import KeyringCore

/// The `tenant.yaml` of a tenant that is to be made, from what an administrator sent.
public struct NewTenantConfiguration: Sendable {
  /// The file's text.
  public let yaml: String
  /// What it comes to.
  public let settings: TenantSettings
  /// The variables that were asked for; what was left open is none of them.
  public let asked: [VariableName]

  /// What an administrator sent.
  public struct Request: Sendable {
    /// The CMK.
    public var cmkID: String
    /// `local` or `aws`; empty: local.
    public var provider: String
    /// Empty: the default.
    public var profile: String
    /// Those that may call.
    public var instances: [String]
    /// Any may.
    public var anyInstance: Bool
    /// More keys of the file; `limits.keys` for what is under `limits`.
    public var settings: [(name: String, value: String)]

    /// Puts the parts together.
    public init(
      cmkID: String,
      provider: String,
      profile: String,
      instances: [String],
      anyInstance: Bool,
      settings: [(name: String, value: String)]
    ) {
      self.cmkID = cmkID
      self.provider = provider
      self.profile = profile
      self.instances = instances
      self.anyInstance = anyInstance
      self.settings = settings
    }
  }

  /// Writes the file and reads it, as the server will.
  ///
  /// - Parameters:
  ///   - allowedEndpoints: hosts that endpoints may name.
  ///   - hasAuditLog: the service has an audit directory.
  /// - Throws: `ConfigurationError` for what such a file could not say.
  public init(
    _ request: Request,
    allowedEndpoints: [String],
    hasAuditLog: Bool
  ) throws(ConfigurationError) {
    var lines: [(name: String, value: String)] = [
      ("cmk_id", request.cmkID), ("provider", request.provider.isEmpty ? "local" : request.provider),
    ]
    if !request.profile.isEmpty { lines.append(("profile", request.profile)) }
    let own = ["cmk_id", "provider", "profile", "instances"]
    var seen: Set<String> = []
    for setting in request.settings {
      guard !own.contains(setting.name), seen.insert(setting.name).inserted else {
        throw ConfigurationError("'\(setting.name.prefix(64))' is there twice")
      }
    }
    lines += request.settings.filter { !$0.name.hasPrefix("limits.") }
    var yaml = ""
    for line in lines { yaml += try Self.line(line.name, line.value) }
    yaml += try Self.instances(request)
    let limits = request.settings.filter { $0.name.hasPrefix("limits.") }
    if !limits.isEmpty { yaml += "limits:\n" }
    for limit in limits { yaml += "  " + (try Self.line(String(limit.name.dropFirst(7)), limit.value)) }
    self.yaml = yaml
    let file = try TenantConfiguration(
      yaml: yaml,
      file: "tenant.yaml",
      allowedEndpoints: allowedEndpoints,
      hasAuditLog: hasAuditLog
    )
    settings = try TenantSettings(file: file, persisted: PersistedState())
    asked =
      (lines + limits).filter { !$0.value.isEmpty }.compactMap { VariableName(rawValue: $0.name) }
  }

  /// A line of the file. Nothing that was sent can end it, or begin another.
  private static func line(_ name: String, _ value: String) throws(ConfigurationError) -> String {
    guard (1...64).contains(name.utf8.count),
      name.utf8.allSatisfy({ (0x61...0x7a).contains($0) || $0 == UInt8(ascii: "_") })
    else { throw ConfigurationError("'\(name.prefix(64))' is not a key of tenant.yaml") }
    guard (1...2048).contains(value.utf8.count), value.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      throw ConfigurationError("'\(name)': printable ASCII without spaces is expected, 1 to 2,048 bytes")
    }
    return "\(name): \(isPlain(value) ? value : PersistedState.quoted(value))\n"
  }

  /// True for what YAML reads as it is, without quotes.
  private static func isPlain(_ value: String) -> Bool {
    func isAlphanumeric(_ byte: UInt8) -> Bool {
      (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
    }
    return value.utf8.first.map(isAlphanumeric) == true && !value.hasSuffix(":")
      && value.utf8.allSatisfy { isAlphanumeric($0) || "-_./:".utf8.contains($0) }
  }

  private static func instances(_ request: Request) throws(ConfigurationError) -> String {
    var names: [String] = []
    for text in request.instances { names.append(try TenantConfiguration.instance(text).text) }
    if request.anyInstance { return "instances: any\n" }
    // In the file that word lets every instance in.
    guard !names.contains("any") else {
      throw ConfigurationError("no instance of tenant.yaml can be called 'any': it means all of them")
    }
    return names.isEmpty ? "" : "instances: [\(names.joined(separator: ", "))]\n"
  }
}
