import Foundation
import KeyringTestSupport
import Testing

/// The servers that the other tests stand on, with the keyrings that they bring themselves.
@Suite struct FixtureTests {
  @Test func mysqlEncryptsRestartsAndRecovers() async throws {
    let mysql = try await RunningMySQL.started(.file)
    #expect(try await mysql.query("SELECT version()").hasPrefix("9.7"))
    try await mysql.query("CREATE DATABASE d; CREATE TABLE d.secret (a TEXT) ENCRYPTION='Y'")
    try await mysql.query("CREATE TABLE d.plain (a TEXT); INSERT INTO d.plain VALUES ('marker-in-the-open')")
    try await mysql.query("INSERT INTO d.secret VALUES ('marker-out-of-sight')")
    #expect(try await mysql.refusal("SELECT * FROM d.absent")?.number == 1146)
    try await mysql.restart()
    #expect(try mysql.server.files(containing: "marker-in-the-open").contains("d/plain.ibd"))
    #expect(try mysql.server.files(containing: "marker-out-of-sight").filter { $0.hasPrefix("d/") } == [])
    await mysql.kill()
    try await mysql.start()
    #expect(try await mysql.rows("SELECT a, 1 FROM d.secret") == [["marker-out-of-sight", "1"]])
    await mysql.stop()
    try mysql.use(.none)
    try await mysql.start()
    #expect(try await mysql.refusal("SELECT * FROM d.secret")?.number == 3185)
    await mysql.stop()
    #expect(mysql.server.process?.status == 0)
  }

  @Test func mariadbEncryptsRestartsAndRecovers() async throws {
    let mariadb = try await RunningMariaDB.started(.file(ids: [1, 2]))
    #expect(try await mariadb.query("SELECT version()").hasPrefix("10.11"))
    try await mariadb.query(
      "CREATE DATABASE d; CREATE TABLE d.secret (a TEXT) ENGINE=InnoDB ENCRYPTED=YES ENCRYPTION_KEY_ID=2"
    )
    try await mariadb.query(
      "CREATE TABLE d.plain (a TEXT); INSERT INTO d.plain VALUES ('marker-in-the-open')"
    )
    try await mariadb.query("INSERT INTO d.secret VALUES ('marker-out-of-sight')")
    #expect(try await mariadb.refusal("SELECT * FROM d.absent")?.number == 1146)
    try await mariadb.restart()
    #expect(try mariadb.server.files(containing: "marker-in-the-open").contains("d/plain.ibd"))
    #expect(try mariadb.server.files(containing: "marker-out-of-sight").filter { $0.hasPrefix("d/") } == [])
    await mariadb.kill()
    try await mariadb.start()
    #expect(try await mariadb.rows("SELECT a, 1 FROM d.secret") == [["marker-out-of-sight", "1"]])
    await mariadb.stop()
    try mariadb.use(.none)
    try await mariadb.start()
    #expect(try await mariadb.refusal("SELECT * FROM d.secret") != nil)
    await mariadb.stop()
    #expect(mariadb.server.process?.status == 0)
  }

  @Test func postgresqlStartsAndReloads() async throws {
    let postgresql = try await RunningPostgreSQL()
    try await postgresql.start()
    #expect(try await postgresql.query("SHOW server_version").hasPrefix("15."))
    try await postgresql.configure(["work_mem = 5MB"])
    postgresql.reload()
    #expect(try await eventually { try await postgresql.query("SHOW work_mem") == "5MB" })
    #expect(try await postgresql.refusal("SELECT * FROM absent") != nil)
    await postgresql.stop()
    #expect(postgresql.server.process?.status == 0)
  }

  @Test func aFailedStartIsSaid() async throws {
    let mysql = try await RunningMySQL(.none, options: ["no_such_option=1"])
    await #expect(throws: DatabaseProcess.NotReady.self) { try await mysql.start() }
    #expect(try await mysql.server.failedStart().contains("no_such_option"))
  }
}
