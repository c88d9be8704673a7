import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// component_keyring_service_admin in a real mysqld: rotation and the CMK from SQL.
@Suite(.timeLimit(.minutes(10))) struct MySQLAdminTests {
  private let variable = "component_keyring_service_admin.cmk_id"

  private func keyringctl(_ files: TLSConfiguration, _ port: Int, _ arguments: [String]) async throws
    -> String
  {
    let outcome = try await TestProgram(product: "keyringctl").run(
      arguments,
      environment: [
        "KEYRING_SERVER": "localhost:\(port)", "KEYRING_CERT": files.certificateFile,
        "KEYRING_KEY": files.privateKeyFile, "KEYRING_CA": files.authorityFile,
      ]
    )
    #expect(outcome.status == 0, "\(outcome.error)")
    return outcome.text
  }

  /// The CMK that keyringd has in force.
  private func inForce(_ files: TLSConfiguration, _ port: Int) async throws -> String {
    let text = try await keyringctl(files, port, ["variables", "--tenant", "acme"])
    return text.split(separator: "\n").first { $0.contains("cmk_id") }.map(String.init) ?? ""
  }

  /// A MySQL without a keyring of its own, with the component installed under a tenant administrator's certificate.
  private func installed(_ files: TLSConfiguration, _ port: Int) async throws -> RunningMySQL {
    let mysql = try await RunningMySQL(.none)
    try mysql.configure(
      "component_keyring_service_admin",
      #"{"servers": "localhost:\#(port)", "certificate": "\#(files.certificateFile)", "key": "\#(files.privateKeyFile)", "ca": "\#(files.authorityFile)", "timeout_ms": 5000}"#
    )
    try await mysql.start()
    try await mysql.query("INSTALL COMPONENT 'file://component_keyring_service_admin'")
    return mysql
  }

  @Test func rotationAndTheCMKFromSQL() async throws {
    let server = try await TestServer()
    let first = try await server.makeTenant("acme")
    let files = try server.pki.client(.tenantAdmin(TenantName("acme")))
    let mysql = try await installed(files, server.port)
    #expect(try await mysql.query("SELECT @@global.\(variable)") == first)
    // As root, who has SUPER; somebody without the privilege may do none of it.
    #expect(try await mysql.query("SELECT keyring_aws_rotate_cmk(), keyring_aws_rotate_keys()") == "1\t1")
    let status = try await mysql.query("SELECT keyring_service_status()")
    #expect(status.contains("acme") && status.contains("ready") && status.contains(first))
    let made = try await keyringctl(files, server.port, ["cmk", "create", "acme"])
    let second = try #require(made.firstMatch(of: /local-[0-9a-f]+/).map { String($0.0) })
    #expect(second != first)
    try await mysql.query("SET GLOBAL \(variable) = '\(second)'")
    #expect(try await mysql.query("SELECT @@global.\(variable)") == second)
    #expect(try await inForce(files, server.port).contains(second))
    // Not persisted: keyringd refuses rotate-keys, with the reason.
    let transient = try await mysql.refusal("SELECT keyring_aws_rotate_keys()")
    #expect(transient?.number == 3198 && transient?.description.contains("CMK_TRANSIENT") == true)
    #expect(try await mysql.refusal("SET GLOBAL \(variable) = 'local-none'")?.number == 1231)
    #expect(try await mysql.query("SELECT @@global.\(variable)") == second)
    #expect(try await inForce(files, server.port).contains(second))
    try await mysql.query("SET PERSIST \(variable) = '\(second)'")
    #expect(try await mysql.query("SELECT keyring_aws_rotate_keys()") == "1")
    #expect(try await mysql.refusal("SELECT keyring_aws_rotate_keys(1)")?.number == 1123)
    await server.shutdown()
    let away = try await mysql.refusal("SELECT keyring_aws_rotate_cmk()")
    #expect(away?.number == 3198 && away?.description.contains("UNREACHABLE") == true)
    #expect(try await mysql.refusal("SET GLOBAL \(variable) = '\(first)'")?.number == 1231)
    // It comes up without keyringd, too, and with what was persisted.
    try await mysql.restart()
    #expect(try await mysql.query("SELECT 1") == "1")
    try await mysql.query("UNINSTALL COMPONENT 'file://component_keyring_service_admin'")
    #expect(try await mysql.refusal("SELECT keyring_aws_rotate_cmk()") != nil)
    await mysql.stop()
  }

  /// SYSTEM_VARIABLES_ADMIN alone does not do; the privilege of the component does.
  @Test func thePrivilegeIsNeeded() async throws {
    let server = try await TestServer()
    let first = try await server.makeTenant("acme")
    let files = try server.pki.client(.tenantAdmin(TenantName("acme")))
    let mysql = try await installed(files, server.port)
    try await mysql.query(
      "CREATE USER a@localhost; GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO a@localhost; CREATE DATABASE d"
    )
    // A definer's rights are the routine's: root calls as `a`.
    let calls = [
      "SELECT keyring_aws_rotate_cmk()", "SELECT keyring_aws_rotate_keys()",
      "SET GLOBAL \(variable) = '\(first)'",
    ]
    for (index, call) in calls.enumerated() {
      try await mysql.query("CREATE DEFINER=a@localhost PROCEDURE d.p\(index)() SQL SECURITY DEFINER \(call)")
      try await mysql.query("GRANT EXECUTE ON PROCEDURE d.p\(index) TO a@localhost")
      #expect(try await mysql.refusal("CALL d.p\(index)()")?.number == 1227, "\(call)")
    }
    try await mysql.query("GRANT KEYRING_SERVICE_ADMIN ON *.* TO a@localhost")
    #expect(try await mysql.query("CALL d.p0()") == "1")
    await mysql.stop()
    await server.shutdown()
  }
}
