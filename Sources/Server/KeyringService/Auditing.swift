public import AuditLog
public import KeyringStorage
internal import Logging
internal import TenantRegistry

/// How the audit logs are kept; a test has its own.
public struct Auditing: Sendable {
  /// How much is kept and waited for; the size of files comes from the configuration.
  public var limits = AuditLimits()
  /// The way of a log, by its name, to its disk; nil in production.
  public var calls: (@Sendable (String) -> SystemCalls)?

  /// As in production.
  public init() {}

  /// The audit directory of the configuration; nil where it has none.
  func open(
    _ settings: AuditSettings?,
    anchors: DirectoryDescriptor,
    _ pools: FlushPools,
    _ logger: Logger
  ) throws -> AuditDirectory? {
    guard let settings else { return nil }
    let device = try DirectoryDescriptor(path: settings.directory, create: true).status().device
    let anchorDevice = try anchors.status().device
    var limits = self.limits
    limits.fileBytesMax = settings.fileBytesMax
    let syslog: SyslogAddress? =
      switch settings.syslog {
      case .none: nil
      case .unix(let path): .unix(path: path)
      case .udp(let host, let port): .udp(host: host, port: port)
      }
    return try AuditDirectory(
      path: settings.directory,
      anchors: anchors,
      limits: limits,
      syslog: syslog,
      AuditDirectory.Surroundings(
        run: { pools.run(device: device, .audit, $0) },
        // Its own threads even where it is the same disk: a head that hangs holds up no entry.
        runForHeads: { pools.run(device: anchorDevice, .auditHead, $0) },
        notice: { logger.error("\($0)") },
        calls: calls
      )
    )
  }
}
