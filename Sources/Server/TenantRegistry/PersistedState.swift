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
    try document.finish(known: ["version", "variables", "instances", "disabled"])
  }

  /// The file's text.
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
