import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport

/// component_keyring_service.so in a process that plays mysqld's part: Programs/component-driver.c.
struct ComponentDriver {
  /// With the component's configuration: where the .so would be.
  let folder: TestDirectory
  private let build: String

  /// Builds what is missing.
  init(_ sanitizer: CClients.Sanitizer? = nil) async throws {
    folder = try TestDirectory()
    build = try await CClients.built(sanitizer)
    let make = [
      "\(CClients.top)/.build/c.lock", "make", "-s", "-C", "\(CClients.top)/Sources/Clients",
      "SANITIZE=\(sanitizer?.rawValue ?? "")", "mysql-component-driver",
    ]
    let outcome = try await TestProgram(path: "/usr/bin/flock").run(make)
    guard outcome.status == 0 else { throw NotBuilt(description: outcome.error) }
  }

  /// The program does not build.
  struct NotBuilt: Error, CustomStringConvertible {
    let description: String
  }

  /// The shared object.
  var component: String { "\(build)/component_keyring_service.so" }

  /// Writes the configuration beside the component: of an instance of acme, and with more members of the JSON object.
  func configure(_ server: some TestEndpoint, instance: String = "db1", port: Int? = nil, _ more: String...)
    throws
  {
    try configure(pki: server.pki, port: port ?? server.port, instance: instance, more)
  }

  /// The same for a server that there is none of (yet).
  func configure(pki: TestPKI, port: Int, tenant: String = "acme", instance: String = "db1", _ more: [String])
    throws
  {
    let files = try pki.client(.instance(TenantName(tenant), InstanceName(instance)))
    let members = [
      #""servers": "localhost:\#(port)""#, #""certificate": "\#(files.certificateFile)""#,
      #""key": "\#(files.privateKeyFile)""#, #""ca": "\#(files.authorityFile)""#,
    ]
    try write("{\((members + more).joined(separator: ", "))}")
  }

  /// Writes a configuration of any kind.
  func write(_ text: String) throws { try folder.write("component_keyring_service.cnf", text) }

  /// The command that loads it.
  var load: String { "load \(folder.path)/ -" }

  /// What the commands printed.
  typealias Answers = DriverProcess.Answers

  private var process: DriverProcess {
    DriverProcess(program: "\(build)/component-driver", library: component, folder: folder)
  }

  /// Gives the commands to a new process, and waits for its end.
  func run(_ commands: [String]) async throws -> Answers { try await process.run(commands) }

  /// The same in which `meanwhile` runs when the process has come to `pause`: between two lists of commands.
  func run(_ before: [String], pause meanwhile: @escaping () async throws -> Void, _ after: [String])
    async throws -> Answers
  {
    try await process.run(before, pause: meanwhile, after)
  }
}
