import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import Synchronization
import TLSTransport
import Testing

/// One keyringd, its tenants, and the certificates of their databases; keyringd can go and come back where it was.
final class DatabaseFleet: Sendable {
  /// True behind `Tests/run --databases` (KEYRING_DATABASES=long): three rounds of changes under load, and outages of 60 s.
  static let isLong = ProcessInfo.processInfo.environment["KEYRING_DATABASES"] == "long"

  let pki: TestPKI
  private let running: Mutex<TestDaemon>

  /// Tenants by name, with their instances.
  init(_ tenants: [String: [String]]) async throws {
    pki = try TestPKI()
    let daemon = try await TestDaemon(pki: pki)
    running = Mutex(daemon)
    _ = try pki.client(.serviceAdmin)
    for (tenant, instances) in tenants {
      try await ctl("tenant create \(tenant) \(instances.map { "--instance \($0)" }.joined(separator: " "))")
      for instance in instances {
        _ = try pki.client(.instance(TenantName(tenant), InstanceName(instance)))
      }
    }
  }

  /// The keyringd of now.
  var daemon: TestDaemon { running.withLock { $0 } }

  /// Runs keyringctl as the service's administrator, or as an instance (`acme/db1`).
  @discardableResult
  func ctl(_ command: String, as instance: String? = nil) async throws -> String {
    let outcome = try await attempt(command, as: instance)
    try #require(outcome.status == 0, "keyringctl \(command): \(outcome.error)")
    return outcome.text
  }

  func attempt(_ command: String, as instance: String? = nil) async throws -> TestProgram.Outcome {
    let shown = instance.map { files($0) } ?? pki.configuration("admin")
    return try await TestProgram(product: "keyringctl").run(
      command.split(separator: " ").map(String.init),
      environment: [
        "KEYRING_SERVER": "localhost:\(daemon.port)", "KEYRING_CERT": shown.certificateFile,
        "KEYRING_KEY": shown.privateKeyFile, "KEYRING_CA": shown.authorityFile,
      ]
    )
  }

  /// The certificate of an instance, `acme/db1`.
  func files(_ instance: String) -> TLSConfiguration {
    let parts = instance.split(separator: "/")
    return pki.configuration("tenant-\(parts[0])-instance-\(parts[1])")
  }

  /// Has every instance and the server get new certificates, in the same files.
  func renewCertificates(_ instances: [String]) throws {
    for instance in instances {
      let parts = instance.split(separator: "/").map(String.init)
      _ = try pki.client(.instance(TenantName(parts[0]), InstanceName(parts[1])))
    }
    try pki.issue("server", .server(hosts: ["localhost", "127.0.0.1"]))
  }

  /// The id of a tenant's new CMK.
  func newCMK(_ tenant: String) async throws -> String {
    let text = try await ctl("cmk create \(tenant) --output json")
    let json = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    return try #require(json["cmk_id"] as? String)
  }

  /// The id of the CMK in force.
  func cmk(_ tenant: String) async throws -> String {
    let text = try await ctl("variables --tenant \(tenant)")
    return try #require(text.firstMatch(of: /cmk_id +(\S+)/).map { String($0.1) })
  }

  /// Ends keyringd.
  func keyringdEnds(by signal: Int32 = SIGTERM) async {
    daemon.process.signal(signal)
    await daemon.process.ended()
  }

  /// Starts it where it was.
  func keyringdComesBack() async throws {
    let before = daemon
    let after = try await TestDaemon(pki: pki, data: before.data, port: before.port)
    running.withLock { $0 = after }
  }

  /// component_keyring_service.cnf of an instance; `more` are its further members.
  func mysql(_ instance: String, more: String = #""cache_ms": 1000, "load_wait_ms": 2000"#)
    -> RunningMySQL.Keyring
  {
    let files = files(instance)
    return .service(
      configuration: """
        {"servers": ["localhost:\(daemon.port)"], "certificate": "\(files.certificateFile)", "key": "\(files.privateKeyFile)",
         "ca": "\(files.authorityFile)", "timeout_ms": 5000, "connect_timeout_ms": 1000, \(more)}
        """
    )
  }

  /// The options of keyring_key_management of an instance.
  func mariadb(_ instance: String, more: [String] = []) -> RunningMariaDB.Keyring {
    let files = files(instance)
    return .service(
      options: [
        "servers=localhost:\(daemon.port)", "certificate=\(files.certificateFile)",
        "key=\(files.privateKeyFile)", "ca=\(files.authorityFile)",
      ].map { "keyring_key_management_\($0)" } + more
    )
  }
}

/// Clients that insert row after row into a table of one database, each remembering what was acknowledged.
final class WriteLoad: Sendable {
  let name: String
  private let database: any RunningDatabase
  private let folder: TestDirectory
  private let clients: [TestProcess]

  /// Starts them; the table is made, in the database's default encryption.
  init(_ name: String, _ database: any RunningDatabase, clients count: Int = 2, pause: Double = 0.01)
    async throws
  {
    (self.name, self.database) = (name, database)
    folder = try TestDirectory()
    try await database.query("CREATE DATABASE IF NOT EXISTS fleet")
    var clients: [TestProcess] = []
    for client in 0..<count {
      let table = "fleet.load\(client)"
      try await database.query(
        "CREATE TABLE \(table) (id INT PRIMARY KEY, filler VARCHAR(500), changed INT DEFAULT 0) ENGINE=InnoDB"
      )
      // One client stops at its first failure, and prints a row's number once it is committed.
      let statements = (0..<40_000).map { id in
        "INSERT INTO \(table) (id, filler) VALUES (\(id), REPEAT('r\(id % 10)', 200)); SELECT \(id); "
          + "UPDATE \(table) SET changed = changed + 1 WHERE id = \(id / 2); DO SLEEP(\(pause));\n"
      }
      try folder.write("in\(client)", statements.joined())
      clients.append(
        try database.server.startClient(
          input: folder("in\(client)"),
          output: folder("out\(client)"),
          error: folder("err\(client)")
        )
      )
    }
    self.clients = clients
  }

  /// What a client was told is there.
  private func acknowledged(_ client: Int) throws -> [Int] {
    // A line is whole where its end is there.
    let text = try String(contentsOfFile: folder("out\(client)"), encoding: .utf8)
    return text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().compactMap { Int($0) }
  }

  /// How many rows were acknowledged until now.
  func count() throws -> Int {
    try clients.indices.map { try acknowledged($0).count }.reduce(0, +)
  }

  /// No statement failed until now, and every client goes on: waits for one more row of each.
  func goesOn(_ what: String, _ location: SourceLocation = #_sourceLocation) async throws {
    for (index, client) in clients.enumerated() {
      let before = try acknowledged(index).count
      let hasMore = try await eventually(within: .seconds(60)) {
        try acknowledged(index).count > before || !client.isRunning
      }
      let error = try String(contentsOfFile: folder("err\(index)"), encoding: .utf8)
      #expect(
        hasMore && client.isRunning && error.isEmpty,
        "\(name) after \(what): \(error)",
        sourceLocation: location
      )
    }
    #expect(database.server.isRunning, "\(name) after \(what)", sourceLocation: location)
  }

  /// Ends the clients.
  func stop() async {
    for client in clients {
      client.signal(SIGKILL)
      await client.ended()
    }
  }

  /// Every acknowledged row is there, and every table is whole.
  func verify(_ location: SourceLocation = #_sourceLocation) async throws {
    for client in clients.indices {
      let rows = try await database.query("SELECT id FROM fleet.load\(client) WHERE LENGTH(filler) = 400")
      let there = Set(rows.split(separator: "\n").compactMap { Int($0) })
      let lost = try acknowledged(client).filter { !there.contains($0) }
      #expect(lost.isEmpty, "\(name): acknowledged and lost: \(lost.prefix(10))", sourceLocation: location)
      #expect(!there.isEmpty, sourceLocation: location)
      let check = try await database.query("CHECK TABLE fleet.load\(client)")
      #expect(check.hasSuffix("OK"), "\(name): \(check)", sourceLocation: location)
    }
  }
}
