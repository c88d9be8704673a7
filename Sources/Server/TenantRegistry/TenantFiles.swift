public import ConfigurationFiles
public import KeyringCore
public import KeyringStorage

extension ConfigurationError {
  /// A file that was not read: for what it is, or because the disk failed.
  package init(_ error: FileError) {
    if case .unacceptable = error { self.init("\(error)") } else { self.init("\(error)", isUnread: true) }
  }
}

/// One tenant's directory, opened once.
public final class TenantFiles: Sendable {
  /// Whose.
  public let tenant: TenantName
  /// The directory.
  public let directory: DirectoryDescriptor
  let allowedEndpoints: [String]
  let hasAuditLog: Bool

  init(
    tenant: TenantName,
    directory: DirectoryDescriptor,
    allowedEndpoints: [String],
    hasAuditLog: Bool = false
  ) {
    self.tenant = tenant
    self.directory = directory
    self.allowedEndpoints = allowedEndpoints
    self.hasAuditLog = hasAuditLog
  }

  func bytes(_ name: String) throws(ConfigurationError) -> [UInt8]? {
    do {
      return try directory.readFile(name, bytesMax: StrictYAML.bytesMax)
    } catch .absent {
      return nil
    } catch {
      throw ConfigurationError(error)
    }
  }

  func read(_ name: String) throws(ConfigurationError) -> String? {
    guard let bytes = try bytes(name) else { return nil }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw ConfigurationError("\(directory.path)/\(name): not UTF-8")
    }
    return text
  }

  /// Reads `tenant.yaml` and `persisted.json`.
  public func load() throws(ConfigurationError) -> (settings: TenantSettings, persisted: PersistedState) {
    let file = "\(directory.path)/tenant.yaml"
    guard let yaml = try read("tenant.yaml") else { throw ConfigurationError("\(file) is not there") }
    let configuration = try TenantConfiguration(
      yaml: yaml,
      file: file,
      allowedEndpoints: allowedEndpoints,
      hasAuditLog: hasAuditLog
    )
    var persisted = PersistedState()
    if let json = try read("persisted.json") {
      persisted = try PersistedState(
        json: json,
        file: "\(directory.path)/persisted.json",
        allowedEndpoints: allowedEndpoints
      )
    }
    do throws(ConfigurationError) {
      return (try TenantSettings(file: configuration, persisted: persisted), persisted)
    } catch {
      throw ConfigurationError("\(directory.path)/persisted.json: \(error)")
    }
  }

  /// Writes `persisted.json`; durable when it returns.
  ///
  /// - Throws: `FileError.unacceptable`, with the file as it was, where it would be larger than what `load` reads; what `AtomicFile` throws.
  public func write(_ persisted: PersistedState) throws(FileError) {
    let bytes: [UInt8]
    do {
      bytes = Array(try persisted.encoded().utf8)
    } catch {
      throw .unchanged("\(error)")
    }
    guard bytes.count <= StrictYAML.bytesMax else {
      throw .unacceptable(
        "\(directory.path)/persisted.json would have \(bytes.count) bytes, and may have \(StrictYAML.bytesMax): nothing was written; put instances into tenant.yaml instead"
      )
    }
    try AtomicFile.replace("persisted.json", in: directory, with: [bytes])
  }
}

/// The tenants directory: one folder a tenant.
public final class TenantsDirectory: Sendable {
  /// The directory.
  public let directory: DirectoryDescriptor
  let hasAuditLog: Bool
  /// Hosts that a tenant's `endpoint` may name.
  public let allowedEndpoints: [String]

  /// - Parameters:
  ///   - allowedEndpoints: hosts that a tenant's `endpoint` may name.
  ///   - hasAuditLog: the service has an audit directory.
  public init(directory: DirectoryDescriptor, allowedEndpoints: [String], hasAuditLog: Bool = false) {
    self.directory = directory
    self.allowedEndpoints = allowedEndpoints
    self.hasAuditLog = hasAuditLog
  }

  func files(_ tenant: TenantName, _ directory: DirectoryDescriptor) -> TenantFiles {
    TenantFiles(
      tenant: tenant,
      directory: directory,
      allowedEndpoints: allowedEndpoints,
      hasAuditLog: hasAuditLog
    )
  }

  /// The tenants there are; what is no tenant's name is passed over. Reads names only: configuration is read at first use.
  public func names() throws(ConfigurationError) -> [TenantName] {
    do {
      return try directory.names().compactMap { name in
        do {
          return try TenantName(name)
        } catch {
          return nil
        }
      }
    } catch {
      throw ConfigurationError(error)
    }
  }

  /// Opens a tenant's directory; nil where there is none.
  public func open(_ tenant: TenantName) throws(ConfigurationError) -> TenantFiles? {
    do {
      let opened = try directory.directory(tenant.text)
      return files(tenant, opened)
    } catch .absent {
      return nil
    } catch {
      throw ConfigurationError(error)
    }
  }
}
