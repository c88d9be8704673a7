import Foundation
import KeyringTestSupport
import Testing

/// keyringd is there and says no: what MySQL and MariaDB say of it in their logs, that neither ends, and that both recover.
@Suite(.serialized, .timeLimit(.minutes(10))) struct RefusalStoryTests {
  /// What an operator, or the KMS, does to a tenant with db1 (MySQL) and maria1 (MariaDB), and what takes it back.
  struct Refusal: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let reason: String
    let refuse: [String]
    let allow: [String]
  }

  static let refusals = [
    Refusal(
      testDescription: "locked",
      reason: "TENANT_LOCKED: locked: an administrator locked the tenant",
      refuse: ["tenant lock acme"],
      allow: ["tenant unlock acme"]
    ),
    Refusal(
      testDescription: "KMS denied",
      reason: "TENANT_LOCKED: locked: CMK CMK is disabled",
      refuse: ["cmk disable acme CMK"],
      allow: ["cmk enable acme CMK", "tenant reload acme"]
    ),
    Refusal(
      testDescription: "revoked",
      reason: "FORBIDDEN",
      refuse: ["instance revoke acme db1", "instance revoke acme maria1"],
      allow: ["instance add acme db1", "instance add acme maria1"]
    ),
    Refusal(
      testDescription: "disabled",
      reason: "TENANT_DISABLED",
      refuse: ["tenant disable acme"],
      allow: ["tenant enable acme"]
    ),
  ]

  private let create = "CREATE TABLE d.created (a INT) ENCRYPTION='Y'"

  @Test(arguments: refusals) func theLogsSayWho(_ refusal: Refusal) async throws {
    let keyring = try await DatabaseFleet(["acme": ["db1", "maria1"]])
    let cmk = try await keyring.cmk("acme")
    // A CMK that is disabled is noticed when the KMS is asked again: each time.
    for variable in ["outage_grace", "wrapping_key_ttl"] {
      try await keyring.ctl("set global \(variable) 0 --tenant acme")
    }
    try await keyring.ctl("key generate mariadb/1", as: "acme/maria1")
    let mysql = try await RunningMySQL.started(
      keyring.mysql("acme/db1", more: #""cache_ms": 0, "load_wait_ms": 200"#)
    )
    let mariadb = try await RunningMariaDB.started(
      keyring.mariadb(
        "acme/maria1",
        more: ["keyring_key_management_refresh=1", "keyring_key_management_wait=1"]
      ),
      options: RunningMariaDB.encryptsAll
    )
    try await mysql.query(
      "CREATE DATABASE d; CREATE TABLE d.open (a INT PRIMARY KEY) ENCRYPTION='Y'; INSERT INTO d.open VALUES (1)"
    )
    try await mariadb.query("CREATE DATABASE d; CREATE TABLE d.open (a INT PRIMARY KEY) ENGINE=InnoDB")
    for command in refusal.refuse {
      try await keyring.ctl(command.replacing(" CMK", with: " \(cmk)"))
    }
    try await refused(refusal.reason.replacing("CMK CMK", with: "CMK \(cmk)"), keyring, mysql, mariadb)
    for command in refusal.allow {
      try await keyring.ctl(command.replacing(" CMK", with: " \(cmk)"))
    }
    if refusal.testDescription == "revoked" {
      // The old ones stay refused.
      try keyring.renewCertificates(["acme/db1", "acme/maria1"])
    }
    // By themselves, nothing is restarted but what ended.
    #expect(try await eventually { try await mysql.refusal(create) == nil })
    #expect(try await mysql.query("SELECT a FROM d.open ORDER BY a") == "1\n2")
    try await mariadb.start()
    #expect(try await mariadb.query("SELECT COUNT(*) FROM d.open") == "3000")
    for database in [mysql, mariadb] as [any RunningDatabase] {
      await database.stop()
      #expect(database.server.process?.status == 0)
    }
    await keyring.keyringdEnds()
  }

  private func refused(
    _ reason: String,
    _ keyring: DatabaseFleet,
    _ mysql: RunningMySQL,
    _ mariadb: RunningMariaDB
  ) async throws {
    func who(_ instance: String) -> String {
      "keyring localhost:\(keyring.daemon.port), tenant acme, instance \(instance): \(reason)"
    }
    // MySQL: what needs a key is refused, what is open goes on.
    #expect(try await eventually { try await mysql.refusal(create)?.number == 3185 })
    #expect(try await mysql.refusal("ALTER INSTANCE ROTATE INNODB MASTER KEY")?.number == 3185)
    // What keyringd answers all the same, that a key is absent or which there are, ends nothing.
    _ = try await mysql.query("SELECT COUNT(*) FROM performance_schema.keyring_keys")
    #expect(try !mysql.log.contains("answers again"))
    // Which asks for no key: where the KMS alone refuses, keyringd answers it.
    let reload = try await mysql.refusal("ALTER INSTANCE RELOAD KEYRING")
    #expect(reload?.number == (reason.contains("CMK") ? nil : 4035))
    try await mysql.query("INSERT INTO d.open VALUES (2)")
    let log = try mysql.log
    let line = log.split(separator: "\n").first { $0.contains(who("db1")) }
    #expect(line?.contains("[ERROR]") == true, "\(log.suffix(1000))")
    // MariaDB: it goes on with what it knows, and does not start again.
    #expect(try await mariadb.server.says(who("maria1")))
    try await mariadb.query("USE d; INSERT INTO d.open SELECT seq FROM seq_1_to_3000; FLUSH TABLES")
    await mariadb.stop()
    let said = try await mariadb.server.failedStart().split(separator: "\n").first {
      $0.contains(who("maria1"))
    }
    #expect(said?.contains("[ERROR]") == true && said?.contains("encrypted tables cannot be opened") == true)
  }
}
