public import KeyringCore
public import KeyringStorage

/// A tenant's configuration as a backup has it, checked as if it were the tenant's.
public struct RestoredConfiguration: Sendable {
  /// What the two files say together.
  public let settings: TenantSettings
  /// What was persisted at run time.
  public let persisted: PersistedState
  let yaml: [UInt8]

  /// Reads both files, as they are in a backup.
  ///
  /// - Throws: where one cannot be used by this service.
  public init(
    yaml: [UInt8],
    persisted json: [UInt8]?,
    allowedEndpoints: [String]
  ) throws(ConfigurationError) {
    func text(_ bytes: [UInt8], _ file: String) throws(ConfigurationError) -> String {
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw ConfigurationError("\(file) in the backup: not UTF-8")
      }
      return text
    }
    let file = try TenantConfiguration(
      yaml: text(yaml, "tenant.yaml"),
      file: "tenant.yaml in the backup",
      allowedEndpoints: allowedEndpoints
    )
    var state = PersistedState()
    if let json {
      state = try PersistedState(json: text(json, "persisted.json"), file: "persisted.json in the backup")
    }
    settings = try TenantSettings(file: file, persisted: state.variables)
    persisted = state
    self.yaml = yaml
  }
}

extension TenantFiles {
  /// `tenant.yaml` and, if it is there, `persisted.json`, as they are.
  public func configurationBytes() throws(ConfigurationError) -> (yaml: [UInt8], persisted: [UInt8]?) {
    guard let yaml = try bytes("tenant.yaml") else {
      throw ConfigurationError("\(directory.path)/tenant.yaml is not there")
    }
    return (yaml, try bytes("persisted.json"))
  }

  /// Writes both files; `tenant.yaml`, which makes a tenant of a directory, comes last. Durable when it returns.
  ///
  /// - Parameter isDisabled: whatever the backup says: a restore enables nobody.
  public func restore(_ configuration: RestoredConfiguration, isDisabled: Bool) throws(FileError) {
    var persisted = configuration.persisted
    persisted.isDisabled = persisted.isDisabled || isDisabled
    if persisted == PersistedState() {
      try directory.removeFile("persisted.json")
    } else {
      try write(persisted)
    }
    try AtomicFile.replace("tenant.yaml", in: directory, with: [configuration.yaml])
  }
}

extension TenantsDirectory {
  /// A tenant's directory, made where it is not there; without `tenant.yaml` it is no tenant yet.
  public func make(_ tenant: TenantName) throws(FileError) -> TenantFiles {
    let made = try directory.directory(tenant.text, create: true)
    try directory.synchronize()
    return TenantFiles(tenant: tenant, directory: made, allowedEndpoints: allowedEndpoints)
  }

  /// Checks a configuration of a backup under this service's rules.
  public func check(yaml: [UInt8], persisted: [UInt8]?) throws(ConfigurationError) -> RestoredConfiguration {
    try RestoredConfiguration(yaml: yaml, persisted: persisted, allowedEndpoints: allowedEndpoints)
  }
}
