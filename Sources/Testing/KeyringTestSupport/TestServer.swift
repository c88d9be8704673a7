public import KeyringClient
internal import KeyringCore
public import KeyringService
public import KeyringStorage
internal import Logging
internal import SecureMemory
public import TLSTransport
internal import TenantRegistry
public import WireProtocol

/// A whole server in the test's process: on loopback, a free port and a folder of its own.
public final class TestServer: TestEndpoint {
  /// Certificates for its clients.
  public let pki: TestPKI
  /// Its tenants, anchors, CMKs.
  public let data: TestDirectory
  /// Where it listens.
  public let port: Int
  /// Where health and metrics are; nil where that is off.
  public var healthPort: Int? { server.healthPort }
  private let server: KeyringServer

  /// Starts one; on the folder of another that was shut down, it goes on from there.
  ///
  /// - Parameters:
  ///   - lines: more of the configuration.
  ///   - limits: lines of the configuration's `limits`.
  ///   - port: to listen on; 0 for a free one.
  ///   - backupPassphrase: under which CMKs lie in backups; nil for none.
  ///   - hasHealth: whether it serves health and metrics, on a free port.
  ///   - rootKey: of a new folder: 64 hexadecimal digits.
  ///   - calls: its way to the disk, some of which a test makes fail.
  ///   - audit: lines of the configuration's `audit` besides the directory, which is `audit`; nil for no audit logs.
  ///   - auditing: how the audit logs are kept.
  ///   - revocationList: a file of the PKI's folder.
  public init(
    pki: TestPKI? = nil,
    data: TestDirectory? = nil,
    lines: [String] = [],
    limits: [String] = [],
    port: Int = 0,
    backupPassphrase: String? = nil,
    hasHealth: Bool = false,
    rootKey: String = String(repeating: "5a", count: 32),
    calls: SystemCalls = SystemCalls(),
    audit: [String]? = nil,
    auditing: Auditing = Auditing(),
    revocationList: String? = nil
  ) async throws {
    let pki = try pki ?? TestPKI()
    let isNew = data == nil
    let data = try data ?? TestDirectory()
    if isNew { try data.write("root.key", rootKey + "\n") }
    self.pki = pki
    self.data = data
    var yaml = """
      listen: 127.0.0.1:\(port)
      health_listen: '\(hasHealth ? "127.0.0.1:0" : "off")'
      trust_domain: \(pki.trustDomain)
      tls: {certificate: \(pki.directory("server.crt")), key: \(pki.directory("server.key")), client_ca: \(pki.directory("ca.crt"))\(revocationList.map { ", client_crl: \(pki.directory($0))" } ?? "")}
      tenants_directory: tenants
      anchor_directory: anchors
      local_provider: {directory: cmks, root_key_file: root.key}
      allowed_endpoints: [127.0.0.1, localhost]
      event_loops: 1

      """
    if let backupPassphrase {
      try data.write("backup.passphrase", backupPassphrase + "\n")
      yaml += "backup: {passphrase_file: backup.passphrase}\n"
    }
    yaml += lines.map { "\($0)\n" }.joined()
    if let audit { yaml += "audit: {\((["directory: audit"] + audit).joined(separator: ", "))}\n" }
    if !limits.isEmpty { yaml += "limits: {\(limits.joined(separator: ", "))}\n" }
    let configuration = try ServiceConfiguration(yaml: yaml, file: "test.yaml", directory: data.path)
    var logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    logger.logLevel = .error
    let resources = try ServiceResources(
      configuration,
      credentialsDirectory: nil,
      logger: logger,
      calls: calls,
      auditing: auditing
    )
    server = try await KeyringServer.start(Service(resources, isMemoryLocked: false))
    self.port = server.port
  }

  /// Ends it in good order.
  public func shutdown() async { await server.shutdown() }
}

/// A server that clients of a test can be made for.
public protocol TestEndpoint: Sendable {
  /// Certificates for its clients.
  var pki: TestPKI { get }
  /// Where it listens.
  var port: Int { get }
}

extension TestEndpoint {
  /// A client that shows a certificate for `identity`.
  ///
  /// - Parameters:
  ///   - port: of something between it and the server; nil for the server's own.
  ///   - attempts: how often a call is tried.
  ///   - timeout: of a call.
  public func client(
    _ identity: PeerIdentity,
    port: Int? = nil,
    attempts: Int = 1,
    timeout: Duration = .seconds(30)
  ) throws -> TestClient {
    try client(files: try pki.client(identity), port: port, attempts: attempts, timeout: timeout)
  }

  /// A client that shows a certificate of the PKI's folder, by its name.
  public func client(showing name: String) throws -> TestClient {
    try client(files: pki.configuration(name), port: nil, attempts: 1, timeout: .seconds(30))
  }

  private func client(
    files: TLSConfiguration,
    port: Int?,
    attempts: Int,
    timeout: Duration
  ) throws -> TestClient {
    var configuration = KeyringClientConfiguration(
      host: "localhost",
      port: port ?? self.port,
      certificateFile: files.certificateFile,
      privateKeyFile: files.privateKeyFile,
      authorityFile: files.authorityFile
    )
    configuration.attempts = attempts
    configuration.timeout = timeout
    return TestClient(client: try KeyringClient(configuration))
  }

  /// A client that is an instance.
  public func instance(_ tenant: String, _ instance: String) throws -> TestClient {
    try client(.instance(TenantName(tenant), InstanceName(instance)))
  }

  /// Makes a tenant in which any instance may call.
  @discardableResult
  public func makeTenant(_ name: String, profile: String = "keyring_aws") async throws -> String {
    let admin = try client(.serviceAdmin)
    let call = TenantCreateCall(tenant: name, profile: profile, anyInstance: true)
    guard case .tenantCreate(let cmkID, _) = try await admin.call(.admin(.tenantCreate(call))) else {
      throw UnexpectedReply()
    }
    await admin.close()
    return cmkID
  }
}

/// A reply of another kind than the call's.
public struct UnexpectedReply: Error {
  /// Nothing to add.
  public init() {}
}

/// A client with the calls of tests in short.
public struct TestClient: Sendable {
  /// The client.
  public let client: KeyringClient

  /// Calls through `client`.
  public init(client: KeyringClient) { self.client = client }

  /// Makes a call; answers its result.
  public func call(_ call: Call) async throws(KeyringClientError) -> ReplyResult {
    try await client.call(call).result
  }

  /// Why a call is refused; nil where it is not.
  public func refusal(_ call: Call) async throws(KeyringClientError) -> Status? {
    do throws(KeyringClientError) {
      _ = try await client.call(call)
      return nil
    } catch {
      guard case .refused(let status) = error else { throw error }
      return status
    }
  }

  /// Makes a CMK for a tenant whose provider is local; answers its id.
  public func makeCMK(_ tenant: String) async throws -> String {
    let call = Call.admin(.cmk(tenant: tenant, .create, cmkID: "", days: 0))
    guard case .cmk(let id, _, _) = try await self.call(call) else { throw UnexpectedReply() }
    return id
  }

  /// A key's value as hexadecimal digits; nil if there is none.
  public func fetch(_ name: KeyName, version: UInt32 = 0) async throws(KeyringClientError) -> String? {
    guard case .fetch(let key) = try await call(.fetch(name, version: version)) else { return "unexpected" }
    return key.map { key in unsafe key.value.withUnsafeBytes { unsafe hexadecimal($0) } }
  }

  /// Ends it.
  public func close() async { await client.close() }
}

extension KeyName {
  /// An instance's own key of the server's owner.
  public static func own(_ id: String, owner: String = "") -> KeyName {
    KeyName(scope: .instance, owner: Array(owner.utf8), keyID: Array(id.utf8))
  }

  /// A key that the tenant's instances share.
  public static func shared(_ id: String, owner: String = "") -> KeyName {
    KeyName(scope: .shared, owner: Array(owner.utf8), keyID: Array(id.utf8))
  }
}

extension Call {
  /// Stores text.
  public static func store(_ name: KeyName, _ text: String, type: String = "SECRET") throws -> Call {
    var bytes = Array(text.utf8)
    // SECRET: of a test, none of anybody's.
    let secret = try unsafe bytes.withUnsafeMutableBytes {
      try unsafe Secret(copying: UnsafeRawBufferPointer($0))
    }
    return .change(.store(name, type: type, value: secret))
  }

  /// Generates a key.
  public static func generate(_ name: KeyName, _ type: String = "AES", _ length: UInt32 = 32) -> Call {
    .change(.generate(name, type: type, length: length))
  }

  /// Removes a key.
  public static func remove(_ name: KeyName) -> Call { .change(.remove(name)) }

  /// Fetches the newest version.
  public static func fetch(_ name: KeyName) -> Call { .fetch(name, version: 0) }
}
