import Foundation
import KeyringTestSupport
import Testing

/// Databases that are started while keyringd is down: what each says, as docs/DATABASES.md has it, and how it recovers.
@Suite(.timeLimit(.minutes(15))) struct OutageStartTests {
  /// What makes mysqld need a key before it is ready, and MySQL's own lines about it.
  private struct Need: Sendable {
    let options: [String]
    var statement = "DO 1"
    let says: [String]
  }

  private static let needs = [
    Need(options: ["innodb_redo_log_encrypt=ON"], says: ["[MY-012676]", "[MY-010119] [Server] Aborting"]),
    Need(options: ["binlog_encryption=ON"], says: ["[MY-013278]", "[MY-010119] [Server] Aborting"]),
    Need(options: ["innodb_undo_log_encrypt=ON"], says: ["[MY-012676]", "[MY-010119] [Server] Aborting"]),
    Need(
      options: [],
      statement: "ALTER TABLESPACE mysql ENCRYPTION='Y'",
      says: ["[MY-012226]", "[MY-010119] [Server] Aborting"]
    ),
  ]

  /// With its logs or its dictionary encrypted it ends, with a status for which a service manager starts it again; one that may wait long
  /// enough comes up with keyringd.
  @Test(arguments: DatabaseFleet.isLong ? Array(needs.indices) : [0, 1])
  func mysqlThatNeedsAKeyToStart(_ index: Int) async throws {
    let need = Self.needs[index]
    let documented = try DocumentedLines(of: "MySQL")
    let fleet = try await DatabaseFleet(["acme": ["db1"]])
    let mysql = try await RunningMySQL.started(
      fleet.mysql("acme/db1", more: #""load_wait_ms": 300"#),
      options: need.options
    )
    try await mysql.query("\(need.statement); CREATE DATABASE d; CREATE TABLE d.t (a INT) ENCRYPTION='Y'")
    try await mysql.query("INSERT INTO d.t VALUES (1)")
    await mysql.stop()
    await fleet.keyringdEnds()
    let log = try await mysql.server.failedStart()
    let port = fleet.daemon.port
    #expect(try documented.find(1, in: log, port: port, instance: "db1") != nil, "\(log)")
    for line in need.says { #expect(log.contains(line), "\(log)") }
    #expect(mysql.server.process?.status == 1 && mysql.server.process?.isSignal == false)
    try mysql.use(fleet.mysql("acme/db1", more: #""load_wait_ms": 120000"#))
    try mysql.server.launch()
    try await Task.sleep(for: .seconds(DatabaseFleet.isLong ? 30 : 1))
    #expect(mysql.server.isRunning)
    try await fleet.keyringdComesBack()
    #expect(try await mysql.server.says("ready for connections"))
    #expect(try await mysql.query("SELECT a FROM d.t") == "1")
    await mysql.stop()
    #expect(mysql.server.process?.status == 0)
    await fleet.keyringdEnds()
  }

  /// With tables encrypted and nothing else it comes up, and they open with keyringd.
  @Test func mysqlWithEncryptedTables() async throws {
    let documented = try DocumentedLines(of: "MySQL")
    let fleet = try await DatabaseFleet(["acme": ["db1"]])
    let port = fleet.daemon.port
    let mysql = try await RunningMySQL.started(
      fleet.mysql("acme/db1", more: #""load_wait_ms": 300"#)
    )
    try await mysql.query("CREATE DATABASE d; CREATE TABLE d.plain (a INT)")
    for name in ["used", "unused"] {
      try await mysql.query("CREATE TABLE d.\(name) (a INT) ENCRYPTION='Y'; INSERT INTO d.\(name) VALUES (1)")
    }
    await mysql.stop()
    await fleet.keyringdEnds()
    try await mysql.start()
    for number in [1, 2] { try await documented.expect(number, of: mysql, port: port, instance: "db1") }
    for line in ["[MY-012657]", "[MY-012226]"] { #expect(try mysql.log.contains(line)) }
    #expect(try await mysql.query("SELECT COUNT(*) FROM d.plain") == "0")
    #expect(try await mysql.refusal("SELECT * FROM d.used")?.number == 3185)
    try await fleet.keyringdComesBack()
    // InnoDB remembers what it could not open; the rest opens by itself, without RELOAD KEYRING.
    let isBack = try await eventually {
      try await mysql.refusal("CREATE TABLE IF NOT EXISTS d.new (a INT) ENCRYPTION='Y'") == nil
    }
    #expect(isBack)
    #expect(try await mysql.query("SELECT a FROM d.unused") == "1")
    #expect(try await mysql.refusal("SELECT * FROM d.used")?.number == 3185)
    #expect(try mysql.log.contains("instance db1: answers again after"))
    try await mysql.restart()
    #expect(try await mysql.query("SELECT a FROM d.used") == "1")
    await mysql.stop()
    await fleet.keyringdEnds()
  }

  /// MariaDB ends; one that may wait long enough comes up with keyringd.
  @Test func mariadb() async throws {
    let documented = try DocumentedLines(of: "MariaDB")
    let fleet = try await DatabaseFleet(["acme": ["maria1"]])
    let port = fleet.daemon.port
    func keyring(_ wait: Int) -> RunningMariaDB.Keyring {
      let more = ["keyring_key_management_wait=\(wait)", "keyring_key_management_refresh=1"]
      return fleet.mariadb("acme/maria1", more: more)
    }
    let mariadb = try await RunningMariaDB(keyring(1), options: RunningMariaDB.encryptsAll)
    // A server without its key.
    let absent = try await mariadb.server.failedStart()
    for number in [4, 5] {
      #expect(try documented.find(number, in: absent, port: port, instance: "maria1") != nil, "\(absent)")
    }
    try await fleet.ctl("key generate mariadb/1", as: "acme/maria1")
    try await mariadb.start()
    try await mariadb.query("CREATE DATABASE d; CREATE TABLE d.t (a INT) ENGINE=InnoDB")
    await fleet.keyringdEnds()
    try await documented.expect(1, of: mariadb, port: port, instance: "maria1")
    // Everything goes on, also what is written and the log.
    try await mariadb.query("INSERT INTO d.t VALUES (1); CREATE TABLE d.u (a INT) ENGINE=InnoDB; FLUSH LOGS")
    try await fleet.keyringdComesBack()
    #expect(try await mariadb.server.says("instance maria1: answers again, after"))
    await fleet.keyringdEnds()
    await mariadb.stop()
    #expect(mariadb.server.process?.status == 0)
    let log = try await mariadb.server.failedStart()
    #expect(try documented.find(3, in: log, port: port, instance: "maria1") != nil, "\(log)")
    for line in ["Plugin 'keyring_key_management' init function returned error", "[ERROR] Aborting"] {
      #expect(log.contains(line), "\(log)")
    }
    #expect(mariadb.server.process?.status == 1 && mariadb.server.process?.isSignal == false)
    try mariadb.use(keyring(120))
    try mariadb.server.launch()
    try await documented.expect(2, of: mariadb, port: port, instance: "maria1")
    if DatabaseFleet.isLong { try await Task.sleep(for: .seconds(30)) }
    try await fleet.keyringdComesBack()
    #expect(try await mariadb.server.says("ready for connections"))
    #expect(try await mariadb.query("SELECT a FROM d.t") == "1")
    await mariadb.stop()
    await fleet.keyringdEnds()
  }
}
