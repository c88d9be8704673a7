internal import Foundation
internal import Glibc

/// keyringd itself, as a process: on loopback, a free port and a folder of its own.
public final class TestDaemon: TestEndpoint {
  /// Certificates for its clients.
  public let pki: TestPKI
  /// Its configuration, tenants, anchors, CMKs, log.
  public let data: TestDirectory
  /// The process.
  public let process: TestProcess
  /// Where it listens.
  public let port: Int

  /// What it keeps, by path; relative ones are in its own folder.
  public struct Directories: Sendable {
    /// Of the tenants.
    public var tenants = "tenants"
    /// Of their anchors.
    public var anchors = "anchors"
    /// Of the local provider's CMKs.
    public var cmks = "cmks"

    /// In the daemon's own folder.
    public init() {}

    /// All in one folder.
    public init(in folder: String) {
      tenants = "\(folder)/tenants"
      anchors = "\(folder)/anchors"
      cmks = "\(folder)/cmks"
    }
  }

  /// It ended instead of becoming ready.
  public struct NotReady: Error, CustomStringConvertible {
    /// What it said.
    public let description: String
  }

  /// Starts it and waits for its ready line.
  ///
  /// - Parameters:
  ///   - pki: of another daemon, so that its clients' certificates serve; or new certificates.
  ///   - data: the folder of another daemon that ended: it goes on from there; or one that a test prepared.
  ///   - directories: where `tenants`, `anchors` and `cmks` are, if not there; those of another that ended, and it goes on from them.
  ///   - port: to listen on, such as another's that ended, whose clients are to find this one; 0 for a free one.
  ///   - configuration: more lines of the configuration.
  ///   - rootKey: 64 hexadecimal digits.
  ///   - environment: more variables.
  ///   - wrapper: a command that ends with executing its arguments.
  ///   - program: instead of the keyringd that is built beside the tests.
  ///   - revocationList: a file of the PKI's folder.
  public init(
    pki: TestPKI? = nil,
    data: TestDirectory? = nil,
    directories: Directories = Directories(),
    port: Int = 0,
    configuration: [String] = [],
    rootKey: String = String(repeating: "5a", count: 32),
    environment: [String: String] = [:],
    wrapper: [String] = [],
    program: TestProgram? = nil,
    revocationList: String? = nil
  ) async throws {
    let pki = try pki ?? TestPKI()
    let data = try data ?? TestDirectory()
    (self.pki, self.data) = (pki, data)
    try data.write("root.key", rootKey + "\n")
    let lines =
      [
        "listen: 127.0.0.1:\(port)", "health_listen: 'off'", "trust_domain: \(pki.trustDomain)",
        "tls: {certificate: \(pki.directory("server.crt")), key: \(pki.directory("server.key")), client_ca: \(pki.directory("ca.crt"))\(revocationList.map { ", client_crl: \(pki.directory($0))" } ?? "")}",
        "tenants_directory: \(directories.tenants)", "anchor_directory: \(directories.anchors)",
        "local_provider: {directory: \(directories.cmks), root_key_file: root.key}",
      ] + configuration
    try data.write("keyringd.yaml", lines.joined(separator: "\n") + "\n")
    let program = try program ?? TestProgram(product: "keyringd")
    let command = wrapper + [program.path, "--config", data("keyringd.yaml")]
    process = try TestProgram(path: command[0]).start(
      Array(command.dropFirst()),
      environment: environment,
      directory: data.path,
      error: data("log")
    )
    self.port = try await Self.readyPort(process, data("log"))
  }

  private static func readyPort(_ process: TestProcess, _ log: String) async throws -> Int {
    while true {
      let isRunning = process.isRunning  // before the log is read: what it said last is in it
      let text = try String(contentsOfFile: log, encoding: .utf8)
      if let match = text.firstMatch(of: /keyringd .* ready on [^ ]*:(\d+)\n/), let port = Int(match.1) {
        return port
      }
      guard isRunning else { throw NotReady(description: text) }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// What it wrote to standard error so far.
  public var log: String {
    get throws { try String(contentsOfFile: data("log"), encoding: .utf8) }
  }

  /// Ends it in good order.
  public func shutdown() async {
    process.signal(SIGTERM)
    await process.ended()
  }
}
