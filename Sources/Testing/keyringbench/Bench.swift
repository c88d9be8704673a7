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
    let authority = try CertificateAuthority.create(name: "bench", days: 2)
    try write("ca.crt", authority.certificatePEM)
    let ca = try CertificateAuthority.load(
      certificatePEM: authority.certificatePEM,
      privateKeyPEM: authority.privateKeyPEM
    )
    let uri = "spiffe://bench.example/"
    for (name, purpose) in [
      ("server", .server(hosts: ["localhost", "127.0.0.1"])), ("admin", .client(uri: uri + "admin")),
      ("db", .client(uri: uri + "tenant/bench/instance/db")),
    ] as [(String, CertificatePurpose)] {
      let issued = try ca.issue(purpose, days: 1)
      try write("\(name).crt", issued.certificatePEM)
      try write(
        "\(name).key",
        unsafe issued.privateKeyPEM.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
      )
    }
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

  /// Starts keyringd on a new folder, with a tenant and the shared key `bench`.
  func serve() async throws -> Target {
    stopServer()
    data += 1
    let target = try startServer()
    let admin = try client("admin", target)
    _ = try await admin.call(.admin(.tenantCreate(TenantCreateCall(tenant: "bench", anyInstance: true))))
    await admin.close()
    let instance = try client("db", target)
    let name = KeyName(scope: .shared, owner: [], keyID: Array("bench".utf8))
    _ = try await instance.call(.change(.generate(name, type: "AES", length: 32)))
    await instance.close()
    return target
  }

  private func startServer() throws -> Target {
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
      limits: {connections_per_tenant: 1000}

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

  /// Brings the keyring to about `count` keys.
  func fill(_ count: Int, _ target: Target) async throws {
    let client = try client("db", target)
    for start in stride(from: 0, to: count, by: 128) {
      let changes = (start..<min(start + 128, count)).map { index in
        Change.generate(
          KeyName(scope: .shared, owner: [], keyID: Array("filled-\(index)".utf8)),
          type: "AES",
          length: 32
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
    let name = KeyName(scope: .shared, owner: [], keyID: Array("bench".utf8))
    guard case .fetch(.some) = try await client.call(.fetch(name, version: 0)).result else {
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
