internal import Cryptography
public import KeyringCore

/// `persisted.json`: what administrators changed at run time to last, beside the tenant's file (as mysqld-auto.cnf).
public struct PersistedState: Sendable, Equatable {
  /// What `set persist` wrote.
  public var variables: [VariableName: String] = [:]
  /// Instances allowed beyond those of the file.
  public var instances: [InstanceName] = []
  /// An administrator disabled the tenant.
  public var isDisabled = false

  /// Nothing persisted.
  public init() {}

  /// Reads the file; strict, as everything.
  public init(json: String, file: String) throws(ConfigurationError) {
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
    instances = try document.words("instances", TenantConfiguration.instance) ?? []
    isDisabled = try document.flag("disabled") ?? false
    let checksum = try document.text("sha256")
    try document.finish(known: ["version", "variables", "instances", "disabled", "sha256"])
    if let checksum, try checksum != Self.checksum(self.json) {
      throw document.error(
        "the content does not match its 'sha256': the file is damaged, or was edited; restore it, or take the line out"
      )
    }
  }

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
    let instances = instances.map { "\"\($0)\"" }
    return """
      {
        "version": 1,
        "variables": {\(variables.joined(separator: ", "))},
        "instances": [\(instances.joined(separator: ", "))],
        "disabled": \(isDisabled)
      }

      """
  }

  /// Values are printable ASCII: quotes and backslashes are all there is to escape.
  private static func quoted(_ text: String) -> String {
    "\"" + text.reduce(into: "") { $0 += $1 == "\"" || $1 == "\\" ? "\\\($1)" : "\($1)" } + "\""
  }
}
