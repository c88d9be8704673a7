import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// component_keyring_service_admin comes and goes in a real mysqld, also where something is in the way.
@Suite(.timeLimit(.minutes(5))) struct MySQLAdminInstallationTests {
  private static let name = "component_keyring_service_admin"
  private static let functions = [
    "keyring_aws_rotate_cmk", "keyring_aws_rotate_keys", "keyring_service_status",
  ]

  private func acme() async throws -> (TestServer, RunningMySQL, String) {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let files = try server.pki.client(.tenantAdmin(TenantName("acme")))
    let mysql = try await RunningMySQL(.none)
    let members = [
      #""servers": "localhost:\#(server.port)""#, #""certificate": "\#(files.certificateFile)""#,
      #""key": "\#(files.privateKeyFile)""#, #""ca": "\#(files.authorityFile)""#, #""timeout_ms": 5000"#,
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
}
