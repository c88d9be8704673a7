import Foundation
import KeyringTestSupport
import Testing

/// The files of one MySQL server, copied to another of the same tenant.
@Suite(.timeLimit(.minutes(10))) struct CopiedDataTests {
  private static let tables = (0..<3).map {
    "CREATE TABLE d.t\($0) (a INT PRIMARY KEY); INSERT INTO d.t\($0) VALUES (\($0))"
  }
  .joined(separator: "; ")

  private func service(_ fleet: DatabaseFleet, _ instance: String, _ scope: String) -> RunningMySQL.Keyring {
    fleet.mysql(instance, more: #""cache_ms": 1000, "load_wait_ms": 2000, "scope": "\#(scope)""#)
  }

  /// A cold copy: db1 is stopped, and db2 gets its files; `isNew` makes it a server of its own.
  private func copy(_ from: RunningMySQL, _ to: RunningMySQL, isNew: Bool = true) async throws {
    try await DatabaseFolder.shell(
      "rm -rf \"$2\"; cp -a --reflink=auto \"$1\" \"$2\"; [ \"$3\" = old ] || rm \"$2/auto.cnf\"",
      [from.folder("data"), to.folder("data"), isNew ? "new" : "old"]
    )
  }

  /// The names of keys that an instance sees.
  private func keys(_ fleet: DatabaseFleet, _ instance: String, _ more: String = "") async throws -> Set<
    Substring
  > {
    let list = try await fleet.ctl("key list \(more)", as: instance)
    return Set(list.split(separator: "\n").dropFirst().compactMap { $0.split(separator: " ").first })
  }

  /// In shared scope the copy opens with the other's certificate, and each goes on under a key of its own.
  @Test func aCopyOpensInSharedScope() async throws {
    let fleet = try await DatabaseFleet(["acme": ["db1", "db2"]])
    let options = RunningMySQL.encryptsAll
    let first = try await RunningMySQL.started(
      service(fleet, "acme/db1", "shared"),
      options: options + ["server_id=1"]
    )
    try await first.query("CREATE DATABASE d; \(Self.tables)")
    await first.stop()
    let before = try await keys(fleet, "acme/db1", "--shared")
    let second = try await RunningMySQL(
      service(fleet, "acme/db2", "shared"),
      options: options + ["server_id=2"]
    )
    try await copy(first, second)
    for server in [first, second] { try await server.start() }
    #expect(try await keys(fleet, "acme/db2", "--shared").isSuperset(of: before))
    for server in [first, second] {
      #expect(
        try await server.query("SELECT a FROM d.t0 UNION SELECT a FROM d.t1 UNION SELECT a FROM d.t2")
          == "0\n1\n2"
      )
      try await server.query(
        "ALTER INSTANCE ROTATE INNODB MASTER KEY; ALTER INSTANCE ROTATE BINLOG MASTER KEY"
      )
    }
    let uuid = try await second.query("SELECT @@server_uuid")
    #expect(try await uuid != first.query("SELECT @@server_uuid"))
    #expect(try await keys(fleet, "acme/db1", "--shared").contains { $0.hasPrefix("INNODBKey-\(uuid)-") })
    for (index, server) in [first, second].enumerated() {
      try await server.query("INSERT INTO d.t0 VALUES (\(100 + index))")
      try await server.restart()
      #expect(try await server.query("SELECT a FROM d.t0") == "0\n\(100 + index)")
      await server.stop()
    }
    await fleet.keyringdEnds()
  }

  /// In instance scope the copy stays shut, its log says why, and no key takes the place of the one that is missing: with `isNew` false,
  /// the copy has the other server's UUID, and InnoDB would make one under the same name.
  @Test(arguments: [true, false]) func aCopyStaysShutInInstanceScope(isNew: Bool) async throws {
    let fleet = try await DatabaseFleet(["acme": ["db1", "db2"]])
    let options = ["default_table_encryption=ON"]
    let first = try await RunningMySQL.started(service(fleet, "acme/db1", "instance"), options: options)
    try await first.query("CREATE DATABASE p ENCRYPTION='N'; CREATE TABLE p.plain (a INT)")
    try await first.query("CREATE DATABASE d; \(Self.tables); ALTER INSTANCE ROTATE INNODB MASTER KEY")
    let uuid = try await first.query("SELECT @@server_uuid")
    await first.stop()
    let second = try await RunningMySQL(service(fleet, "acme/db2", "instance"), options: options)
    try await copy(first, second, isNew: isNew)
    try await second.start()
    #expect(try await second.query("SELECT COUNT(*) FROM p.plain") == "0")
    #expect(try await second.refusal("SELECT * FROM d.t0")?.number == 3185)
    let names = "keyring localhost:\(fleet.daemon.port), tenant acme, instance db2: KEY_ABSENT: "
    #expect(try await second.server.says("\(names)there is no INNODBKey-\(uuid)-2 in scope instance"))
    // Number 2 is missing. InnoDB, which has forgotten that, makes number 1 for its next table.
    if isNew {
      try await second.query("CREATE TABLE d.made (a INT)")
      let own = try await second.query("SELECT @@server_uuid")
      #expect(try await keys(fleet, "acme/db2") == ["INNODBKey-\(own)-1"])
    } else {
      for statement in ["CREATE TABLE d.made (a INT)", "ALTER INSTANCE ROTATE INNODB MASTER KEY"] {
        #expect(try await second.refusal(statement)?.number == 3185)
      }
      #expect(try second.log.contains("\(names)INNODBKey-\(uuid)-1 is not made"))
      #expect(try await keys(fleet, "acme/db2") == [])
      // The way out: what cannot be read is given up.
      try await second.query("DROP TABLE d.t0, d.t1, d.t2")
      try await second.restart()
      try await second.query("CREATE TABLE d.made (a INT)")
    }
    await second.stop()
    await fleet.keyringdEnds()
  }

  /// Where the logs are encrypted, too, the copy does not start; with the keys that are its own it does.
  @Test func aCopyWithEncryptedLogsDoesNotStart() async throws {
    let fleet = try await DatabaseFleet(["acme": ["db1", "db2"]])
    let options = RunningMySQL.encryptsAll
    let first = try await RunningMySQL.started(service(fleet, "acme/db1", "instance"), options: options)
    try await first.query("CREATE DATABASE d; \(Self.tables)")
    let uuid = try await first.query("SELECT @@server_uuid")
    await first.stop()
    let second = try await RunningMySQL(service(fleet, "acme/db2", "instance"), options: options)
    try await copy(first, second)
    let log = try await second.server.failedStart()
    #expect(log.contains("tenant acme, instance db2: KEY_ABSENT: there is no INNODBKey-\(uuid)-1"), "\(log)")
    #expect(second.server.process?.status == 1 && second.server.process?.isSignal == false)
    #expect(try await keys(fleet, "acme/db2") == [])
    try second.use(service(fleet, "acme/db1", "instance"))
    try await second.start()
    #expect(try await second.query("SELECT a FROM d.t2") == "2")
    await second.stop()
    await fleet.keyringdEnds()
  }
}
