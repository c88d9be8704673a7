public import ConfigurationFiles
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
    allowedEndpoints: [String],
    hasAuditLog: Bool = false
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
      allowedEndpoints: allowedEndpoints,
      hasAuditLog: hasAuditLog
    )
    var state = PersistedState()
    if let json {
      state = try PersistedState(
        json: text(json, "persisted.json"),
        file: "persisted.json in the backup",
        allowedEndpoints: allowedEndpoints
      )
    }
    settings = try TenantSettings(file: file, persisted: state)
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
  /// - Parameter present: what is persisted now: a restore enables nobody, and lets no instance in that was revoked.
  public func restore(
    _ configuration: RestoredConfiguration,
    replacing present: PersistedState
  ) throws(FileError) {
    let persisted = configuration.persisted.replacing(present)
    if persisted == PersistedState() {
      try directory.removeFile("persisted.json")
    } else {
      try write(persisted)
    }
    try AtomicFile.replace("tenant.yaml", in: directory, with: [configuration.yaml])
  }
}

/// What a directory that is no tenant that loads has of one.
public struct TenantRemains: Sendable {
  /// The directory.
  public let files: TenantFiles
  /// `tenant.yaml` is there.
  public let hasConfiguration: Bool
  /// What `persisted.json` says; where it cannot be understood: that the tenant is disabled.
  public let persisted: PersistedState
  /// What the storage file is called; nil where `tenant.yaml` is not there, or cannot be understood.
  public let storageFile: String?
  /// Nothing is there but what a creation that ended leaves.
  public let isEmpty: Bool

  init(_ files: TenantFiles) throws(FileError) {
    self.files = files
    let directory = files.directory
    let yaml = try Self.text("tenant.yaml", directory)
    hasConfiguration = yaml != nil
    let json = try Self.text("persisted.json", directory)
    isEmpty = try directory.names().allSatisfy { $0.hasSuffix(".lock") || $0.hasSuffix(".new") }
    do {
      persisted =
        try json.map {
          let allowed = files.allowedEndpoints
          return try PersistedState(json: $0, file: "persisted.json", allowedEndpoints: allowed)
        } ?? PersistedState()
    } catch {
      var unknown = PersistedState()
      unknown.isDisabled = true
      persisted = unknown
    }
    do {
      storageFile = try yaml.map {
        try TenantConfiguration(
          yaml: $0,
          file: "tenant.yaml",
          allowedEndpoints: files.allowedEndpoints,
          hasAuditLog: files.hasAuditLog
        ).storageFile
      }
    } catch {
      storageFile = nil
    }
  }

  /// What is no UTF-8 is understood by no reader of it.
  private static func text(_ name: String, _ directory: DirectoryDescriptor) throws(FileError) -> String? {
    do throws(FileError) {
      return String(decoding: try directory.readFile(name, bytesMax: StrictYAML.bytesMax), as: UTF8.self)
    } catch .absent {
      return nil
    }
  }
}

extension TenantsDirectory {
  /// What is in a tenant's directory; nil where there is none.
  ///
  /// - Throws: where the disk does not tell: then nothing is known to be absent.
  public func remains(of tenant: TenantName) throws(FileError) -> TenantRemains? {
    do throws(FileError) {
      let opened = try directory.directory(tenant.text)
      return try TenantRemains(files(tenant, opened))
    } catch .absent {
      return nil
    }
  }

  /// A tenant's directory, made where it is not there; without `tenant.yaml` it is no tenant yet.
  public func make(_ tenant: TenantName) throws(FileError) -> TenantFiles {
    let made = try directory.directory(tenant.text, create: true)
    try directory.synchronize()
    return files(tenant, made)
  }

  /// Checks a configuration of a backup under this service's rules.
  public func check(yaml: [UInt8], persisted: [UInt8]?) throws(ConfigurationError) -> RestoredConfiguration {
    try RestoredConfiguration(
      yaml: yaml,
      persisted: persisted,
      allowedEndpoints: allowedEndpoints,
      hasAuditLog: hasAuditLog
    )
  }
}
