public import ConfigurationFiles

/// keyringd's configuration file. docs/CONFIGURATION.md lists the keys.
public struct ServiceConfiguration: Sendable, Equatable {
  /// An address to listen on.
  public struct Address: Sendable, Equatable {
    /// IP address or host name.
    public let host: String
    /// 0: any free one.
    public let port: Int
  }

  /// Caps, so that no caller exhausts the server.
  public struct Limits: Sendable, Equatable {
    /// Connections, at most.
    public let connections: Int
    /// Those of them whose handshake is not done.
    public let unauthenticatedConnections: Int
    /// Connections of one tenant, unless its file says otherwise.
    public let connectionsPerTenant: Int
    /// Requests that one connection has in flight.
    public let requestsInFlightPerConnection: Int
    /// Bytes of one tenant's requests in flight, unless its file says otherwise.
    public let tenantInFlightBytes: Int
    /// Requests of all that are being executed: past it, each has its weighted share.
    public let requestsInFlight: Int
    /// Bytes of all large requests in flight.
    public let inFlightBytes: Int
    /// Requests a second of the service's administrators; those of one tenant have a tenth.
    public let administrativeRequestsPerSecond: Int
    /// For the TLS handshake.
    public let handshakeTimeout: Duration
    /// From the first byte of a frame to its last.
    public let frameTimeout: Duration
    /// Without a request.
    public let idleTimeout: Duration
    /// Of a connection, less up to a tenth.
    public let connectionAge: Duration
    /// Tenants open at one time; those not used for longest close before there are more.
    public let openTenants: Int
  }

  /// Where the local provider's root key comes from.
  public enum RootKeySource: Sendable, Equatable {
    case file(String)
    case credential(String)
    case passphrase(String)
  }

  /// Default: 127.0.0.1:8550.
  public let listen: Address
  /// Health, readiness, metrics; default: 127.0.0.1:8551; nil: off.
  public let healthListen: Address?
  /// Mandatory.
  public let trustDomain: String
  /// PEM files; mandatory.
  public let certificateFile: String
  /// PEM, mode 0600; mandatory.
  public let privateKeyFile: String
  /// PEM: who issues clients' certificates; mandatory.
  public let clientAuthorityFile: String
  /// PEM: which of their certificates are revoked; nil: none.
  public let clientRevocationFile: String?
  /// Mandatory.
  public let tenantsDirectory: String
  /// Best on another disk; mandatory.
  public let anchorDirectory: String
  /// Of the local provider; nil where the service has none.
  public let cmkDirectory: String?
  /// Of the local provider.
  public let rootKey: RootKeySource?
  /// The passphrase under which local CMKs lie in backups; nil: no backups of local tenants.
  public let backupPassphraseFile: String?
  /// PEM: whom to trust for AWS's certificates in the place of the system's CAs; for emulators, and proxies that break TLS.
  public let awsCAFile: String?
  /// `http://HOST:PORT`: the proxy on the way to AWS; nil: none, whatever the environment says.
  public let awsProxy: String?
  /// Hosts that a tenant's endpoint may name.
  public let allowedEndpoints: [String]
  /// Locked memory, in bytes; a power of two; default: 4 MiB.
  public let secureMemoryBytes: Int
  /// Start though memory cannot be locked; default: false.
  public let allowsUnlockedMemory: Bool
  /// 0: one a core.
  public let eventLoops: Int
  /// Of each file system; default: 2.
  public let flushThreads: Int
  /// Caps and timeouts.
  public let limits: Limits
  /// A tenant that nobody used for this long closes, and its wrapping keys are wiped; default: 1h.
  public let idleClose: Duration
  /// Where calls are written down; nil: nowhere.
  public let audit: AuditSettings?
  /// trace, debug, info, notice, warning, error; default: info.
  public let logLevel: String

  static let keys = [
    "listen", "health_listen", "trust_domain", "tls", "tenants_directory", "anchor_directory",
    "local_provider", "backup", "aws",
    "allowed_endpoints", "secure_memory_bytes", "allow_unlocked_memory", "event_loops", "flush_threads",
    "limits", "idle_close", "log_level", "audit",
  ]

  static let tlsKeys = ["certificate", "key", "client_ca", "client_crl"]
  static let localProviderKeys = ["directory", "root_key_file", "root_key_credential", "passphrase_file"]
  static let backupKeys = ["passphrase_file"]
  static let awsKeys = ["ca_file", "proxy"]
  static let limitKeys = [
    "connections", "unauthenticated_connections", "connections_per_tenant",
    "requests_in_flight_per_connection", "tenant_in_flight_bytes", "requests_in_flight", "in_flight_bytes",
    "admin_requests_per_second", "handshake_timeout", "frame_timeout", "idle_timeout", "connection_age",
    "open_tenants",
  ]

  /// Reads the file.
  ///
  /// - Parameter directory: what relative paths are relative to.
  public init(yaml: String, file: String, directory: String) throws(ConfigurationError) {
    var yaml = try StrictYAML(yaml, file: file)
    func path(_ text: String) -> String { text.hasPrefix("/") ? text : "\(directory)/\(text)" }
    func required(_ name: String, _ from: inout StrictYAML) throws(ConfigurationError) -> String {
      guard let text = try from.text(name) else { throw from.error("'\(name)' has to be set") }
      return text
    }
    listen = try yaml.take("listen", Self.address) ?? Address(host: "127.0.0.1", port: 8550)
    let health = try yaml.take("health_listen") { text throws(ConfigurationError) in
      text == "off" ? Optional<Address>.none : try Self.address(text)
    }
    healthListen = health ?? Address(host: "127.0.0.1", port: 8551)
    trustDomain = try required("trust_domain", &yaml)
    guard var tls = try yaml.mapping("tls") else { throw yaml.error("'tls' has to be set") }
    certificateFile = path(try required("certificate", &tls))
    privateKeyFile = path(try required("key", &tls))
    clientAuthorityFile = path(try required("client_ca", &tls))
    clientRevocationFile = try tls.text("client_crl").map(path)
    try tls.finish(known: Self.tlsKeys)
    tenantsDirectory = path(try required("tenants_directory", &yaml))
    anchorDirectory = path(try required("anchor_directory", &yaml))
    let local = try yaml.mapping("local_provider")
    (cmkDirectory, rootKey) = try Self.localProvider(local, path)
    var backup = try yaml.mapping("backup")
    backupPassphraseFile = try backup?.text("passphrase_file").map(path)
    try backup?.finish(known: Self.backupKeys)
    var aws = try yaml.mapping("aws")
    awsCAFile = try aws?.text("ca_file").map(path)
    awsProxy = try aws?.take("proxy", Self.proxy)
    try aws?.finish(known: Self.awsKeys)
    allowedEndpoints =
      try yaml.words("allowed_endpoints") { text throws(ConfigurationError) in
        guard TenantConfiguration.endpointHost("https://\(text)") == text else {
          throw ConfigurationError("a host name is expected, not '\(text)'")
        }
        return text
      } ?? []
    secureMemoryBytes =
      try yaml.take("secure_memory_bytes") { text throws(ConfigurationError) in
        guard let bytes = Int(text), bytes >= 65_536, bytes <= 1 << 30, bytes & (bytes - 1) == 0 else {
          throw ConfigurationError("a power of two from 65536 to 1073741824 is expected, not '\(text)'")
        }
        return bytes
      } ?? 4 << 20
    allowsUnlockedMemory = try yaml.flag("allow_unlocked_memory") ?? false
    eventLoops = try yaml.number("event_loops", 0...256) ?? 0
    flushThreads = try yaml.number("flush_threads", 1...64) ?? 2
    limits = try Self.limits(yaml.mapping("limits"))
    idleClose = try yaml.duration("idle_close") ?? .seconds(3600)
    let auditing = try yaml.mapping("audit")
    audit = try auditing.map { mapping throws(ConfigurationError) in try AuditSettings(mapping, path) }
    logLevel = try yaml.take("log_level", Self.logLevel) ?? "info"
    try yaml.finish(known: Self.keys)
  }

  private static func localProvider(
    _ mapping: StrictYAML?,
    _ path: (String) -> String
  ) throws(ConfigurationError) -> (String?, RootKeySource?) {
    guard var local = mapping else { return (nil, nil) }
    guard let directory = try local.text("directory") else {
      throw local.error("'local_provider.directory' has to be set")
    }
    var sources: [RootKeySource] = []
    if let file = try local.text("root_key_file") { sources.append(.file(path(file))) }
    if let name = try local.text("root_key_credential") { sources.append(.credential(name)) }
    if let file = try local.text("passphrase_file") { sources.append(.passphrase(path(file))) }
    try local.finish(known: localProviderKeys)
    guard sources.count == 1 else {
      throw local.error("'local_provider' has one of root_key_file, root_key_credential, passphrase_file")
    }
    return (path(directory), sources[0])
  }

  private static func limits(_ mapping: StrictYAML?) throws(ConfigurationError) -> Limits {
    var limits = mapping
    let made = Limits(
      connections: try limits?.number("connections", 1...1_000_000) ?? 1024,
      unauthenticatedConnections: try limits?.number("unauthenticated_connections", 1...100_000) ?? 128,
      connectionsPerTenant: try limits?.number("connections_per_tenant", 1...100_000) ?? 64,
      requestsInFlightPerConnection: try limits?.number("requests_in_flight_per_connection", 1...4096) ?? 64,
      tenantInFlightBytes: try limits?.number("tenant_in_flight_bytes", 65_536...1_073_741_824) ?? 16 << 20,
      requestsInFlight: try limits?.number("requests_in_flight", 1...1_000_000) ?? 4096,
      inFlightBytes: try limits?.number("in_flight_bytes", 8_388_608...68_719_476_736) ?? 256 << 20,
      administrativeRequestsPerSecond: try limits?.number(
        "admin_requests_per_second",
        1...TenantLimit.rateMax
      ) ?? 2000,
      handshakeTimeout: try limits?.duration("handshake_timeout") ?? .seconds(5),
      frameTimeout: try limits?.duration("frame_timeout") ?? .seconds(10),
      idleTimeout: try limits?.duration("idle_timeout") ?? .seconds(300),
      connectionAge: try limits?.duration("connection_age") ?? .seconds(3600),
      openTenants: try limits?.number("open_tenants", 1...1_000_000) ?? 10_000
    )
    try limits?.finish(known: limitKeys)
    return made
  }

  private static func proxy(_ text: String) throws(ConfigurationError) -> String {
    let isPrintable = text.utf8.allSatisfy { (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "@") }
    guard text.hasPrefix("http://"), text.utf8.count > 7, isPrintable else {
      throw ConfigurationError("http://HOST:PORT without user name is expected, not '\(text)'")
    }
    return text
  }

  private static func logLevel(_ text: String) throws(ConfigurationError) -> String {
    guard ["trace", "debug", "info", "notice", "warning", "error"].contains(text) else {
      throw ConfigurationError("trace, debug, info, notice, warning or error is expected, not '\(text)'")
    }
    return text
  }

  private static func address(_ text: String) throws(ConfigurationError) -> Address {
    guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
      (0...65_535).contains(port)
    else {
      throw ConfigurationError("an address such as 127.0.0.1:8550 or [::1]:8550 is expected, not '\(text)'")
    }
    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    guard !host.isEmpty else {
      throw ConfigurationError("an address such as 127.0.0.1:8550 is expected, not '\(text)'")
    }
    return Address(host: host, port: port)
  }
}
