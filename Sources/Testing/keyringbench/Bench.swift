import CBenchmark
import Cryptography
import Foundation
import KeyringClient
import KeyringCore
import SecureMemory
import TLSTransport
import WireProtocol

/// Certificates, servers and their folder, for one run.
final class Bench {
  let directory: String
  private let keyringd: String
  private let authority: IssuedCertificate
  private var processes: [Process] = []
  private var server: Process?
  private var data = 0

  init(keyringd: String) async throws {
    self.keyringd = keyringd
    directory =
      FileManager.default.currentDirectoryPath + "/.build-bench-\(ProcessInfo.processInfo.processIdentifier)"
    try FileManager.default.createDirectory(
      atPath: directory,
      withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700]
    )
    authority = try CertificateAuthority.create(name: "bench", days: 2)
    try write("ca.crt", authority.certificatePEM)
    try issue("server", .server(hosts: ["localhost", "127.0.0.1"]))
    try issue("admin", .client(uri: Self.trust + "admin"))
    try issueInstance("db", of: "bench")
  }

  private static let trust = "spiffe://bench.example/"

  private func issue(_ name: String, _ purpose: CertificatePurpose) throws {
    let ca = try CertificateAuthority.load(
      certificatePEM: authority.certificatePEM,
      privateKeyPEM: authority.privateKeyPEM
    )
    let issued = try ca.issue(purpose, days: 1)
    try write("\(name).crt", issued.certificatePEM)
    try write(
      "\(name).key",
      unsafe issued.privateKeyPEM.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
    )
  }

  /// Issues a certificate, into files of that name, for the instance `db` of a tenant.
  func issueInstance(_ name: String, of tenant: String) throws {
    try issue(name, .client(uri: "\(Self.trust)tenant/\(tenant)/instance/db"))
  }

  private func write(_ name: String, _ text: String) throws {
    try text.write(toFile: "\(directory)/\(name)", atomically: false, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(directory)/\(name)")
  }

  func files(_ name: String) -> Files {
    Files("\(directory)/\(name).crt", "\(directory)/\(name).key", "\(directory)/ca.crt")
  }

  private func start(_ path: String, _ arguments: [String], readyOn pipe: Pipe, _ isError: Bool) throws -> (
    Process, String
  ) {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/taskset")
    process.arguments = ["-c", "0", path] + arguments
    if isError { process.standardError = pipe } else { process.standardOutput = pipe }
    try process.run()
    var line = ""
    while !line.contains("\n") {
      let bytes = pipe.fileHandleForReading.availableData
      guard !bytes.isEmpty else { throw BenchError(description: "\(path) did not start: \(line)") }
      line += String(decoding: bytes, as: UTF8.self)
    }
    // What it logs from now on must not fill the pipe.
    pipe.fileHandleForReading.readabilityHandler = { _ = $0.availableData }
    return (process, line)
  }

  func floor(good: Bool) throws -> Target {
    let files = files("server")
    var arguments = [
      "floor", "--cert", files.certificate, "--key", files.privateKey, "--ca", files.authority,
    ]
    if good { arguments.append("--good") }
    let (process, line) = try start(CommandLine.arguments[0], arguments, readyOn: Pipe(), false)
    processes.append(process)
    guard
      let port = Int32(line.split(separator: " ").last?.trimmingCharacters(in: .whitespacesAndNewlines) ?? "")
    else {
      throw BenchError(description: "no port in '\(line)'")
    }
    return Target(host: "127.0.0.1", port: port, files: self.files("db"), pid: process.processIdentifier)
  }

  /// A new folder for the next keyringd.
  func startAnew() {
    stopServer()
    data += 1
  }

  /// Of the tenants of the keyringd that runs, or of the next one.
  var tenantsDirectory: String { "\(directory)/tenants-\(data)" }

  /// Starts keyringd on a new folder, with a tenant and the shared key `bench`.
  func serve() async throws -> Target {
    startAnew()
    return try await createTenant(try startServer())
  }

  /// Makes the tenant `bench`, of the local provider, and its shared key `bench`.
  func createTenant(_ target: Target) async throws -> Target {
    let admin = try client("admin", target)
    _ = try await admin.call(.admin(.tenantCreate(TenantCreateCall(tenant: "bench", anyInstance: true))))
    // What is measured is the server, not its limits.
    for name in ["requests_per_second", "writes_per_second", "kms_calls_per_second"] {
      try await set("limits.\(name)", "unlimited", of: "bench", admin)
    }
    await admin.close()
    try await target.generateKey(target.files)
    return target
  }

  /// Persists a variable.
  func set(_ name: String, _ value: String, of tenant: String, _ admin: KeyringClient) async throws {
    _ = try await admin.call(
      .admin(.variablesSet(tenant: tenant, name: name, value: value, .persist))
    )
  }

  /// Starts keyringd on the folder of before, or on a new one after `startAnew`.
  ///
  /// - Parameter lines: more of its configuration.
  func startServer(
    _ lines: [String] = ["limits: {connections_per_tenant: 1000}"]
  ) throws -> Target {
    try write("root-\(data).key", String(repeating: "42", count: 32) + "\n")
    try write("passphrase", "of a benchmark, nobody's secret\n")
    try write(
      "keyringd-\(data).yaml",
      """
      listen: 127.0.0.1:0
      health_listen: 'off'
      trust_domain: bench.example
      tls: {certificate: server.crt, key: server.key, client_ca: ca.crt}
      tenants_directory: tenants-\(data)
      anchor_directory: anchors-\(data)
      local_provider: {directory: cmks-\(data), root_key_file: root-\(data).key}
      backup: {passphrase_file: passphrase}
      event_loops: 1
      \(lines.joined(separator: "\n"))

      """
    )
    let (process, line) = try start(
      keyringd,
      ["--config", "\(directory)/keyringd-\(data).yaml"],
      readyOn: Pipe(),
      true
    )
    server = process
    guard let address = line.split(separator: " ").first(where: { $0.contains("127.0.0.1:") }),
      let port = Int32(address.split(separator: ":")[1].prefix { $0.isNumber })
    else { throw BenchError(description: "no port in '\(line)'") }
    return Target(host: "127.0.0.1", port: port, files: files("db"), pid: process.processIdentifier)
  }

  private func client(_ name: String, _ target: Target) throws -> KeyringClient {
    try target.client(files(name))
  }

  /// Brings the keyring to about `count` keys, stored rather than generated: a KMS is not asked for them.
  func fill(_ count: Int, _ target: Target) async throws {
    let client = try target.client(target.files)
    let value = try Target.keyValue()
    for start in stride(from: 0, to: count, by: 128) {
      let changes = (start..<min(start + 128, count)).map { index in
        Change.store(
          KeyName(scope: .shared, owner: [], keyID: Array("filled-\(index)".utf8)),
          type: "AES",
          value: value
        )
      }
      _ = try await client.call(.transact(changes))
    }
    await client.close()
  }

  /// Starts keyringd on the folder of before; seconds from sending the first fetch, connected already, to its answer.
  func openingSeconds() async throws -> Double {
    let target = try startServer()
    let client = try client("db", target)
    _ = try await client.call(.whoAmI)
    let start = bench_clock()
    guard case .fetch(.some) = try await client.call(.fetch(Target.keyName, version: 0)).result else {
      throw BenchError(description: "the key is not there")
    }
    let seconds = bench_clock() - start
    await client.close()
    return seconds
  }

  private func bench_clock() -> Double { ProcessInfo.processInfo.systemUptime }

  func stopServer() {
    server?.terminate()
    server?.waitUntilExit()
    server = nil
  }

  func stop() {
    stopServer()
    for process in processes {
      process.terminate()
      process.waitUntilExit()
    }
    do {
      try FileManager.default.removeItem(atPath: directory)
    } catch {
      print("\(directory) is left: \(error)")
    }
  }
}
