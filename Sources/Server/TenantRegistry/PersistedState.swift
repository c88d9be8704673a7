public import ConfigurationFiles
internal import Cryptography
public import KeyringCore

/// `persisted.json`: what administrators changed at run time to last, beside the tenant's file (as mysqld-auto.cnf).
public struct PersistedState: Sendable, Equatable {
  /// What `set persist` wrote.
  public var variables: [VariableName: String] = [:]
  /// Instances allowed beyond those of the file, or to do something else than it says.
  public var instances: [AllowedInstance] = []
  /// Tombstones: when names were revoked, Unix seconds.
  public var revoked: [InstanceName: UInt64] = [:]
  /// An administrator disabled the tenant.
  public var isDisabled = false
  /// The provider that `tenant move` put in the place of the file's.
  public var moved: ProviderSettings?
  /// The providers before it, which wrapping keys may still need.
  public var former: [ProviderSettings] = []

  /// Nothing persisted.
  public init() {}

  /// Reads the file; strict, as everything.
  ///
  /// - Parameter allowedEndpoints: hosts that endpoints may name.
  public init(json: String, file: String, allowedEndpoints: [String]) throws(ConfigurationError) {
    var document = try StrictYAML(json, file: file)  // JSON is YAML
    guard try document.number("version", 1...1) == 1 else { throw document.error("'version' is missing") }
    if var variables = try document.mapping("variables") {
      for (name, text) in variables.takeAll() {
        guard let variable = VariableName(rawValue: name), variable.isDynamic, let text else {
          throw document.error("'variables' has no variable '\(name)'")
        }
        self.variables[variable] = text
      }
    }
    instances = try document.items("instances", AllowedInstance.init) ?? []
    if var tombstones = try document.mapping("revoked") {
      for (name, text) in tombstones.takeAll() {
        guard let second = text.flatMap(UInt64.init) else {
          throw document.error("'revoked' has no time of '\(name)'")
        }
        revoked[try TenantConfiguration.instance(name)] = second
      }
    }
    isDisabled = try document.flag("disabled") ?? false
    moved = try document.mapping("provider").map { mapping throws(ConfigurationError) in
      try ProviderSettings(persisted: mapping, allowedEndpoints: allowedEndpoints)
    }
    former = try (document.list("former_providers") ?? []).map { mapping throws(ConfigurationError) in
      try ProviderSettings(persisted: mapping, allowedEndpoints: allowedEndpoints)
    }
    let checksum = try document.text("sha256")
    try document.finish(known: Self.keys)
    if let checksum, try checksum != Self.checksum(self.json) {
      throw document.error(
        "the content does not match its 'sha256': the file is damaged, or was edited; restore it, or take the line out"
      )
    }
  }

  private static let keys = [
    "version", "variables", "instances", "revoked", "disabled", "provider", "former_providers", "sha256",
  ]

  private static func checksum(_ text: String) throws(ConfigurationError) -> String {
    do {
      let hash = try SHA256()
      try hash.update(Array(text.utf8))
      return hexadecimal(try hash.finish().bytes)
    } catch {
      throw ConfigurationError("SHA-256 failed: \(error)")
    }
  }

  /// The file's text, with the checksum of what it says.
  func encoded() throws(ConfigurationError) -> String {
    let body = json
    return body.dropLast(3) + ",\n  \"sha256\": \"\(try Self.checksum(body))\"\n}\n"
  }

  /// What the file says, as its checksum covers it.
  public var json: String {
    let variables = variables.sorted { $0.key.rawValue < $1.key.rawValue }
      .map { "\"\($0.key.rawValue)\": \(Self.quoted($0.value))" }
    let instances = instances.map(\.json)
    var more = ""
    if !revoked.isEmpty {
      let tombstones = revoked.sorted { $0.key.text < $1.key.text }.map { "\"\($0.key)\": \($0.value)" }
      more += ",\n  \"revoked\": {\(tombstones.joined(separator: ", "))}"
    }
    if let moved { more += ",\n  \"provider\": \(Self.object(moved))" }
    if !former.isEmpty {
      more +=
        ",\n  \"former_providers\": [\(former.map(Self.object).joined(separator: ", "))]"
    }
    return """
      {
        "version": 1,
        "variables": {\(variables.joined(separator: ", "))},
        "instances": [\(instances.joined(separator: ", "))],
        "disabled": \(isDisabled)\(more)
      }

      """
  }

  private static func object(_ provider: ProviderSettings) -> String { object(provider.persistedMembers) }

  /// Names and values of printable ASCII as a JSON object.
  static func object(_ members: [(name: String, value: String)]) -> String {
    "{\(members.map { "\"\($0.name)\": \(quoted($0.value))" }.joined(separator: ", "))}"
  }

  /// Values are printable ASCII: quotes and backslashes are all there is to escape.
  static func quoted(_ text: String) -> String {
    "\"" + text.reduce(into: "") { $0 += $1 == "\"" || $1 == "\\" ? "\\\($1)" : "\($1)" } + "\""
  }
}
