import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// What is special to the component in a real mysqld: what it costs, what it says, and migration.
@Suite(.timeLimit(.minutes(10))) struct MySQLComponentServerTests {
  private let encrypted =
    "CREATE DATABASE d; CREATE TABLE d.t1 (a INT PRIMARY KEY) ENCRYPTION='Y'; INSERT INTO d.t1 VALUES (1)"

  private func acme() async throws -> TestServer {
    let server = try await TestServer()
    try await server.makeTenant("acme", profile: "any")
    return server
  }

  /// The configuration of acme's db1, with more members.
  private func configuration(_ pki: TestPKI, _ port: Int, _ more: [String] = []) throws -> String {
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let members = [
      #""servers": "localhost:\#(port)""#, #""certificate": "\#(files.certificateFile)""#,
      #""key": "\#(files.privateKeyFile)""#, #""ca": "\#(files.authorityFile)""#,
    ]
    return "{\((members + more).joined(separator: ", "))}"
  }

  private func calls(_ admin: TestClient) async throws -> UInt64 {
    guard case .service(let status) = try await admin.call(.admin(.status(""))) else {
      throw UnexpectedReply()
    }
    return status.calls
  }

  /// InnoDB asks once for each encrypted tablespace, one after the other.
  @Test func aStartCostsOneRoundTripForAllTables() async throws {
    let server = try await acme()
    let admin = try server.client(.serviceAdmin)
    let keyring = RunningMySQL.Keyring.service(
      configuration: try configuration(server.pki, server.port, [#""cache_ms": 600000"#])
    )
    let mysql = try await RunningMySQL.started(keyring)
    let tables = (2...60).map { "CREATE TABLE d.t\($0) (a INT PRIMARY KEY) ENCRYPTION='Y'" }.joined(
      separator: ";"
    )
    try await mysql.query("\(encrypted); \(tables)")
    await mysql.stop()
    let before = try await calls(admin)
    try await mysql.start()
    // The call that asks is counted by the next one. One to try the configuration, one for the master key.
    let atStart = try await calls(admin) - before - 1
    #expect(atStart == 2)
    let rotated = try await calls(admin)
    try await mysql.query("ALTER INSTANCE ROTATE INNODB MASTER KEY")
    #expect(try await calls(admin) - rotated - 1 <= 4)
    #expect(try await mysql.query("SELECT COUNT(*) FROM d.t1, d.t60") == "0")
    await mysql.stop()
    await admin.close()
    await server.shutdown()
  }

  /// The error log says which keyring, which tenant, which instance, and why; and it recovers by itself.
  @Test func theLogSaysWhy() async throws {
    let server = try await acme()
    let admin = try server.client(.serviceAdmin)
    let text = try configuration(server.pki, server.port, [#""cache_ms": 0"#])
    let mysql = try await RunningMySQL.started(.service(configuration: text))
    try await mysql.query(encrypted)
    _ = try await admin.call(.admin(.tenantLock("acme")))
    let create = "CREATE TABLE d.t2 (a INT) ENCRYPTION='Y'"
    #expect(try await mysql.refusal(create)?.number == 3185)
    #expect(try await mysql.refusal("ALTER INSTANCE ROTATE INNODB MASTER KEY")?.number == 3185)
    #expect(try await mysql.refusal("ALTER INSTANCE RELOAD KEYRING")?.number == 4035)
    // A table that is open goes on.
    try await mysql.query("INSERT INTO d.t1 VALUES (2)")
    let line = try #require(try mysql.log.split(separator: "\n").first { $0.contains("TENANT_LOCKED") })
    #expect(
      line.contains("[ERROR]") && line.contains("localhost:\(server.port), tenant acme, instance db1"),
      "\(line)"
    )
    let status = try await mysql.query(
      "SELECT STATUS_VALUE FROM performance_schema.keyring_component_status WHERE STATUS_KEY = 'Last_error'"
    )
    #expect(status.contains("TENANT_LOCKED"))
    _ = try await admin.call(.admin(.tenantUnlock("acme")))
    try await mysql.query(create)
    #expect(try mysql.log.contains("answers again after"))
    await mysql.stop()
    await admin.close()
    await server.shutdown()
  }

  /// mysql_migrate_keyring, from MySQL's own file and back: the data is readable under each.
  @Test func migratesFromAndToComponentKeyringFile() async throws {
    let server = try await acme()
    let mysql = try await RunningMySQL.started(.file)
    try await mysql.query(encrypted)
    await mysql.stop()
    let text = try configuration(server.pki, server.port)
    try mysql.use(.service(configuration: text))
    func migrate(_ source: String, _ destination: String) async throws -> TestProgram.Outcome {
      try await mysql.run(
        "mysql_migrate_keyring",
        [
          "--no-defaults", "--component-dir=\(mysql.folder("plugin"))",
          "--source-keyring=component_keyring_\(source)",
          "--destination-keyring=component_keyring_\(destination)",
        ]
      )
    }
    let there = try await migrate("file", "service")
    #expect(there.status == 0, "\(there.error)")
    // What is there is not overwritten, and the tool says why.
    let again = try await migrate("file", "service")
    #expect(again.status == 1 && (again.text + again.error).contains("tenant acme, instance db1: KEY_EXISTS"))
    try await mysql.start()
    #expect(try await mysql.query("SELECT * FROM d.t1") == "1")
    try await mysql.query("ALTER INSTANCE ROTATE INNODB MASTER KEY")
    let names = try await mysql.query("SELECT COUNT(*) FROM performance_schema.keyring_keys")
    #expect(names == "2")
    await mysql.stop()
    try FileManager.default.removeItem(atPath: mysql.folder("keys"))
    let back = try await migrate("service", "file")
    #expect(back.status == 0, "\(back.error)")
    await server.shutdown()
    try mysql.use(.file)
    try await mysql.start()
    #expect(try await mysql.query("SELECT * FROM d.t1") == "1")
    await mysql.stop()
  }
}
