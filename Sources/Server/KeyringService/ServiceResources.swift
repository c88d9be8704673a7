internal import AuditLog
public import ConfigurationFiles
internal import CMKProviders
internal import HTTPTransport
internal import KeyringCore
public import KeyringStorage
public import Logging
public import TenantRegistry
internal import Synchronization

/// What all tenants of a service share: directories, threads, the root key, limits.
public struct ServiceResources: Sendable {
  let configuration: ServiceConfiguration
  let tenants: TenantsDirectory
  let anchors: DirectoryDescriptor
  let cmks: DirectoryDescriptor?
  let root: RootKey?
  let cmkLock: FileLock?
  let backupPassphrase: BackupPassphrase?
  let stretchingTurns = Turns()
  /// Where backups lie on their way.
  let transfers: DirectoryDescriptor
  /// st_dev of that.
  let transferDevice: UInt64
  /// Where tenants lie on their way.
  let onboardings: DirectoryDescriptor
  let deletions: DeletionIndex
  let flushPools: FlushPools
  let http: HTTPLoop
  let anchorWriter: AnchorWriter
  let admission: ServerAdmission
  let audit: AuditDirectory?
  /// Of the service itself.
  let serviceLog: AuditLogWriter?
  let logger: Logger

  /// Opens the directories and the root key that the configuration names.
  ///
  /// - Parameters:
  ///   - calls: the way to the disk of all of it; a test makes some fail.
  ///   - auditing: of the audit logs; a test has its own.
  /// - Throws: `ConfigurationError`, saying which and why.
  public init(
    _ configuration: ServiceConfiguration,
    credentialsDirectory: String?,
    logger: Logger,
    calls: SystemCalls = SystemCalls(),
    auditing: Auditing = Auditing()
  ) throws(ConfigurationError) {
    self.configuration = configuration
    self.logger = logger
    do {
      let directory = try DirectoryDescriptor(
        path: configuration.tenantsDirectory,
        create: true,
        calls: calls
      )
      tenants = TenantsDirectory(
        directory: directory,
        allowedEndpoints: configuration.allowedEndpoints,
        hasAuditLog: configuration.audit != nil
      )
      anchors = try DirectoryDescriptor(path: configuration.anchorDirectory, create: true, calls: calls)
      deletions = try DeletionIndex(directory, logger)
      flushPools = FlushPools(threadsPerFileSystem: configuration.flushThreads)
      anchorWriter = AnchorWriter()
      admission = ServerAdmission(configuration.limits)
      audit = try auditing.open(configuration.audit, anchors: anchors, flushPools, logger)
      serviceLog = try audit?.log(AuditDirectory.serviceLog)
      http = try HTTPLoop()
      backupPassphrase = try configuration.backupPassphraseFile.map { file throws(CMKError) in
        try BackupPassphrase(file: file)
      }
      transfers = try directory.directory(Self.transfersName, create: true)
      transferDevice = try transfers.status().device
      try SpoolFile.clean(transfers)
      onboardings = try directory.directory(Self.onboardingsName, create: true)
      guard let path = configuration.cmkDirectory, let source = configuration.rootKey else {
        (cmks, root, cmkLock) = (nil, nil, nil)
        return
      }
      let opened = try DirectoryDescriptor(path: path, create: true, calls: calls)
      cmkLock = try opened.lockFile(".lock")  // first: two servers would each make a salt
      try opened.removeLeftovers(of: ["root-check"])
      root = try RootKey.load(try Self.rootKeySource(source, credentialsDirectory), directory: opened)
      cmks = opened
    } catch let error as ConfigurationError {
      throw error
    } catch {
      throw ConfigurationError("\(error)")
    }
  }

  /// No tenant's name.
  static let transfersName = ".transfers"
  /// No tenant's name.
  static let onboardingsName = ".onboarding"

  /// Looks at all that `init` and the listener open: the directories, the root key, the certificates. Changes nothing and takes no lock, so
  /// that it can be run beside a server.
  ///
  /// - Throws: `ConfigurationError`, saying which and why.
  public static func check(_ configuration: ServiceConfiguration, credentialsDirectory: String?)
    throws(ConfigurationError)
  {
    do {
      _ = try existing(configuration.tenantsDirectory)
      _ = try existing(configuration.anchorDirectory)
      if let audit = configuration.audit { _ = try existing(audit.directory) }
      if let path = configuration.cmkDirectory, let source = configuration.rootKey {
        let source = try rootKeySource(source, credentialsDirectory)
        try RootKey.check(source, directory: try existing(path))
      }
      if let file = configuration.backupPassphraseFile { _ = try BackupPassphrase(file: file) }
    } catch let error as ConfigurationError {
      throw error
    } catch {
      throw ConfigurationError("\(error)")
    }
    _ = try ServerTLS(configuration, Logger(label: "check", factory: { _ in SwiftLogNoOpLogHandler() }))
  }

  /// A directory, or nil where it would be made; the one that it would be made in is there.
  private static func existing(_ path: String) throws(FileError) -> DirectoryDescriptor? {
    do {
      return try DirectoryDescriptor(path: path)
    } catch .absent {
      let parent = path.lastIndex(of: "/").map { path[..<$0] } ?? "."
      _ = try DirectoryDescriptor(path: "\(parent)/.", requirePrivate: false)
      return nil
    }
  }

  private static func rootKeySource(
    _ source: ServiceConfiguration.RootKeySource,
    _ credentialsDirectory: String?
  ) throws(ConfigurationError) -> RootKey.Source {
    switch source {
    case .file(let path): return .file(path)
    case .passphrase(let path): return .passphrase(path)
    case .credential(let name):
      guard let credentialsDirectory else {
        throw ConfigurationError("root_key_credential is set, but systemd gave no CREDENTIALS_DIRECTORY")
      }
      return .credential(name, directory: credentialsDirectory)
    }
  }

  /// The embedded provider, for a tenant.
  func localProvider(_ tenant: TenantName) throws(CMKError) -> LocalProvider {
    guard let cmks, let root else { throw .configuration("the service has no local_provider configured") }
    return LocalProvider(
      tenant: tenant,
      directory: cmks,
      root: root,
      nowMilliseconds: { unixMilliseconds() }
    )
  }
}
