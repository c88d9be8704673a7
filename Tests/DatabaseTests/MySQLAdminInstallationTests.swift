import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// component_keyring_service_admin comes and goes in a real mysqld, also where something is in the way.
@Suite(.timeLimit(.minutes(5))) struct MySQLAdminInstallationTests {
  private static let name = "component_keyring_service_admin"
  private static let functions = [
    "keyring_aws_rotate_cmk", "keyring_aws_rotate_keys", "keyring_service_status",
  ]

  private func acme(timeout: Int = 5000) async throws -> (TestServer, RunningMySQL, String) {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let files = try server.pki.client(.tenantAdmin(TenantName("acme")))
    let mysql = try await RunningMySQL(.none)
    let members = [
      #""servers": "localhost:\#(server.port)""#, #""certificate": "\#(files.certificateFile)""#,
      #""key": "\#(files.privateKeyFile)""#, #""ca": "\#(files.authorityFile)""#,
      #""timeout_ms": \#(timeout)"#,
    ]
    try mysql.folder.write("plugin/\(Self.name).cnf", "{\(members.joined(separator: ", "))}")
    return (server, mysql, cmk)
  }

  /// What is registered of the component: its variable, its functions, its privilege, its row.
  private func registered(_ mysql: RunningMySQL) async throws -> [String] {
    let variables = try await mysql.rows(
      "SELECT variable_name FROM performance_schema.global_variables WHERE variable_name LIKE '\(Self.name).%'"
    )
    let functions = try await mysql.rows(
      "SELECT udf_name FROM performance_schema.user_defined_functions WHERE udf_name LIKE 'keyring%' ORDER BY 1"
    )
    let privileges = try await mysql.rows("SHOW PRIVILEGES").filter { $0.first == "KEYRING_SERVICE_ADMIN" }
    let components = try await mysql.rows("SELECT component_urn FROM mysql.component")
    return (variables + functions + privileges.map { [$0[0]] } + components).compactMap(\.first)
  }

  private static let everything =
    ["\(name).cmk_id"] + functions + ["KEYRING_SERVICE_ADMIN", "file://\(name)"]

  /// A function that a statement is using: the component stays, whole, and goes when the statement has ended.
  @Test func itStaysWhileAStatementUsesIt() async throws {
    let (server, mysql, cmk) = try await acme()
    try await mysql.start()
    try await mysql.query("INSTALL COMPONENT 'file://\(Self.name)'")
    #expect(try await registered(mysql) == Self.everything)
    async let used = mysql.query("SELECT SLEEP(5), keyring_service_status()")
    let isRunning = try await eventually {
      try await mysql.query("SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'")
        == "1"
    }
    #expect(isRunning)
    for _ in 0..<3 {
      #expect(try await mysql.refusal("UNINSTALL COMPONENT 'file://\(Self.name)'") != nil)
      #expect(try await registered(mysql) == Self.everything)
    }
    #expect(try await used.contains(cmk))
    #expect(try await registered(mysql) == Self.everything)
    #expect(try await mysql.query("SELECT keyring_service_status()").contains(cmk))
    try await mysql.query("UNINSTALL COMPONENT 'file://\(Self.name)'")
    #expect(try await registered(mysql) == [])
    await mysql.stop()
    await server.shutdown()
  }

  /// A copy that has other names but one is in the way: nothing stays of the attempt, and the next one succeeds.
  @Test(arguments: functions) func whatFailsHalfwayLeavesNothing(_ function: String) async throws {
    let (server, mysql, cmk) = try await acme()
    var bytes = try Data(contentsOf: URL(filePath: mysql.folder("plugin/\(Self.name).so")))
    let others = Self.functions.filter { $0 != function }
    for name in [Self.name, "KEYRING_SERVICE_ADMIN"] + others {
      let other = Data((name.dropLast() + "X").utf8)
      while let range = bytes.range(of: Data(name.utf8)) { bytes.replaceSubrange(range, with: other) }
    }
    let copy = "\(Self.name.dropLast())X"
    try bytes.write(to: URL(filePath: mysql.folder("plugin/\(copy).so")))
    try await mysql.start()
    try await mysql.query("INSTALL COMPONENT 'file://\(copy)'")
    let before = try await registered(mysql)
    #expect(before.contains(function) && before.contains("file://\(copy)"))
    let refusal = try await mysql.refusal("INSTALL COMPONENT 'file://\(Self.name)'")
    #expect(refusal != nil)
    #expect(try await mysql.server.says("\(Self.name) is not installed: its functions cannot be registered"))
    #expect(try await registered(mysql) == before)
    try await mysql.query("UNINSTALL COMPONENT 'file://\(copy)'")
    #expect(try await registered(mysql) == [])
    try await mysql.query("INSTALL COMPONENT 'file://\(Self.name)'")
    #expect(try await registered(mysql) == Self.everything)
    #expect(try await mysql.query("SELECT @@global.\(Self.name).cmk_id") == cmk)
    await mysql.stop()
    await server.shutdown()
  }

  // MARK: The variable

  private static let variable = "\(name).cmk_id"

  /// Which CMK keyringd has in force.
  private func inForce(_ server: TestServer) async throws -> String {
    let admin = try server.client(.serviceAdmin)
    guard case .variablesList(let variables) = try await admin.call(.admin(.variablesList("acme"))) else {
      throw UnexpectedReply()
    }
    await admin.close()
    return variables.first { $0.name == "cmk_id" }?.value ?? ""
  }

  private func makeCMK(_ server: TestServer) async throws -> String {
    let admin = try server.client(.serviceAdmin)
    let made = try await admin.makeCMK("acme")
    await admin.close()
    return made
  }

  /// mysqld comes up while keyringd is away. What SET PERSIST left here is never sent to keyringd: somebody may have set another since.
  @Test func itComesUpWithoutKeyringd() async throws {
    let (server, mysql, first) = try await acme(timeout: 1000)
    try await mysql.start()
    try await mysql.query("INSTALL COMPONENT 'file://\(Self.name)'")
    let second = try await makeCMK(server)
    try await mysql.query("SET PERSIST \(Self.variable) = '\(second)'")
    await server.shutdown()
    try await mysql.restart()
    #expect(try await mysql.server.says("\(Self.name) is there all the same"))
    #expect(try await mysql.query("SELECT @@global.\(Self.variable)") == "NULL")
    #expect(try !mysql.server.log.contains("Configuring persisted options failed"))
    let unknown = try await mysql.query("SELECT keyring_service_status()")
    #expect(unknown.contains(#""state":"unknown","reason":"UNREACHABLE"#), "\(unknown)")
    #expect(try await mysql.refusal("SET PERSIST \(Self.variable) = '\(first)'")?.number == 1231)
    let again = try await TestServer(pki: server.pki, data: server.data, port: server.port)
    let admin = try again.client(.serviceAdmin)
    _ = try await admin.call(
      .admin(.variablesSet(tenant: "acme", name: "cmk_id", value: first, .persist))
    )
    await admin.close()
    // Without a restart of mysqld.
    #expect(try await mysql.query("SELECT keyring_service_status()").contains(first))
    #expect(try await mysql.query("SELECT @@global.\(Self.variable)") == first)
    #expect(try await mysql.query("SELECT keyring_aws_rotate_cmk()") == "1")
    try await mysql.restart()
    #expect(
      try await mysql.server.says(
        "is \(second) in the configuration of this database server, and \(first) is in force"
      )
    )
    #expect(try await inForce(again) == first)
    try await mysql.query("SET PERSIST \(Self.variable) = '\(second)'")
    #expect(try await inForce(again) == second)
    // It finds what it left in mysqld-auto.cnf.
    try await mysql.query("UNINSTALL COMPONENT 'file://\(Self.name)'")
    try await mysql.query("INSTALL COMPONENT 'file://\(Self.name)'")
    #expect(try await mysql.query("SELECT @@global.\(Self.variable)") == second)
    #expect(try await inForce(again) == second)
    for said in ["refused", "Configuring persisted options failed"] {
      #expect(try !mysql.server.log.contains(said))
    }
    await mysql.stop()
    await again.shutdown()
  }

  /// What MySQL and keyringd could take for different things is refused, and nothing has changed.
  @Test func onlyWhatIsClearIsSet() async throws {
    let (server, mysql, first) = try await acme()
    try await mysql.start()
    try await mysql.query("INSTALL COMPONENT 'file://\(Self.name)'")
    let second = try await makeCMK(server)
    let value = "\(Self.variable) = '\(second)'"
    for refused in [
      "SET GLOBAL \(value), GLOBAL max_connections = 100", "SET PERSIST \(value), @a = 1",
      "SET @a = 1, GLOBAL \(value)", "SET GLOBAL \(Self.variable) = ''",
      "SET GLOBAL \(Self.variable) = NULL", "SET GLOBAL \(Self.variable) = 'DEFAULT'",
      "SET GLOBAL \(Self.variable) = 'local-none\\nx'",
      "SET GLOBAL \(Self.variable) = REPEAT('x', 3000)", "SET PERSIST \(Self.variable) = 'local-none'",
    ] {
      #expect(try await mysql.refusal(refused)?.number == 1231, "\(refused)")
      #expect(try await mysql.query("SELECT @@global.\(Self.variable)") == first, "\(refused)")
    }
    #expect(try await mysql.refusal("SET SESSION \(value)")?.number == 1229)
    for refused in ["5", "DEFAULT"] {
      #expect(try await mysql.refusal("SET GLOBAL \(Self.variable) = \(refused)") != nil)
    }
    #expect(try await inForce(server) == first)
    // No line of the log is another's.
    #expect(try !mysql.server.log.contains("\nx"))
    let cmks = [second, first]
    for (index, form) in [
      "/* c */ set @@GLOBAL.\(Self.variable) := 'CMK' -- c",
      "SET global `\(Self.name)`.`cmk_id` = CONCAT('CMK', '')",
      "SET PERSIST \(Self.variable) = 'CMK';",
    ].enumerated() {
      try await mysql.query(form.replacing("CMK", with: cmks[index % 2]))
      #expect(try await inForce(server) == cmks[index % 2], "\(form)")
      #expect(try await mysql.query("SELECT @@global.\(Self.variable)") == cmks[index % 2])
    }
    await mysql.stop()
    await server.shutdown()
  }

  // MARK: The functions

  /// No arguments; EXPLAIN and a column of no rows do nothing; no privilege, no answer.
  @Test func whatIsAskedWrongly() async throws {
    let (server, mysql, _) = try await acme()
    try await mysql.start()
    try await mysql.query("INSTALL COMPONENT 'file://\(Self.name)'")
    for function in Self.functions {
      #expect(try await mysql.refusal("SELECT \(function)(1)")?.number == 1123)
    }
    try await mysql.query("EXPLAIN SELECT keyring_aws_rotate_cmk(), keyring_aws_rotate_keys()")
    try await mysql.query("SELECT keyring_aws_rotate_cmk() FROM mysql.user WHERE user = 'nobody'")
    #expect(try !mysql.server.log.contains("the KMS has rotated"))
    try await mysql.query("CREATE USER a@localhost; CREATE DATABASE d")
    for (index, function) in Self.functions.enumerated() {
      try await mysql.query(
        "CREATE DEFINER=a@localhost PROCEDURE d.p\(index)() SQL SECURITY DEFINER SELECT \(function)()"
      )
      try await mysql.query("GRANT EXECUTE ON PROCEDURE d.p\(index) TO a@localhost")
      #expect(try await mysql.refusal("CALL d.p\(index)()")?.number == 1227, "\(function)")
    }
    // A value of its own for each row and session.
    let many = try await mysql.rows(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
        + "SELECT COUNT(*), MIN(JSON_VALUE(s, '$.tenant')) FROM (SELECT keyring_service_status() AS s FROM n) AS t"
    )
    #expect(many == [["20", "acme"]])
    await withTaskGroup(of: String.self) { group in
      for _ in 0..<8 {
        group.addTask {
          do { return try await mysql.query("SELECT keyring_service_status()") } catch { return "\(error)" }
        }
      }
      for await status in group { #expect(status.contains("acme"), "\(status)") }
    }
    await mysql.stop()
    await server.shutdown()
  }
}
