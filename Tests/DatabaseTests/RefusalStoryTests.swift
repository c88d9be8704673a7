import Foundation
import KeyringTestSupport
import Testing

/// keyringd answers, and the answer is no: what a database of each kind says, what of it goes on, and how it recovers.
@Suite(.timeLimit(.minutes(10))) struct RefusalStoryTests {
  /// Why keyringd says no.
  private struct Cause: Sendable {
    let name: String
    /// What the database's log has of it.
    let reason: String
    /// And later in the line.
    var more = ""
    let begin: @Sendable (DatabaseFleet) async throws -> Void
    let end: @Sendable (DatabaseFleet) async throws -> Void
  }

  private static let instances = ["db1", "maria1"]

  private static let causes = [
    Cause(name: "locked", reason: "TENANT_LOCKED: locked: an administrator locked the tenant") { fleet in
      try await fleet.ctl("tenant lock acme")
    } end: { fleet in
      try await fleet.ctl("tenant unlock acme")
    },
    Cause(name: "denied", reason: "TENANT_LOCKED: locked: CMK local-", more: " is disabled") { fleet in
      try await fleet.ctl("cmk disable acme \(try await fleet.cmk("acme"))")
    } end: { fleet in
      try await fleet.ctl("cmk enable acme \(try await fleet.cmk("acme"))")
      // Else the KMS is asked again within half a minute.
      try await fleet.ctl("tenant reload acme")
    },
    Cause(name: "revoked", reason: "FORBIDDEN: this certificate may not do this") { fleet in
      for instance in instances { try await fleet.ctl("instance revoke acme \(instance)") }
    } end: { fleet in
      for instance in instances { try await fleet.ctl("instance add acme \(instance)") }
      try fleet.renewCertificates(instances.map { "acme/\($0)" })
    },
  ]

  /// The line of a log that says why, of the database's own form.
  private func line(_ log: String, _ fleet: DatabaseFleet, _ instance: String, _ cause: Cause) -> Substring? {
    let says =
      "keyring localhost:\(fleet.daemon.port), tenant acme, instance \(instance): \(cause.reason)"
    return log.split(separator: "\n").first {
      $0.contains("[ERROR]") && $0.contains(says) && (cause.more.isEmpty || $0.contains(cause.more))
    }
  }

  private func said(
    _ database: any RunningDatabase,
    _ fleet: DatabaseFleet,
    _ instance: String,
    _ cause: Cause
  )
    async throws
  {
    let isSaid = try await eventually { line(try database.log, fleet, instance, cause) != nil }
    let log = isSaid ? "" : try database.log
    #expect(isSaid, "\(instance), \(cause.name): \(log)")
  }

  @Test func eachDatabaseSaysWhyAndRecovers() async throws {
    let fleet = try await DatabaseFleet(["acme": Self.instances])
    // The KMS is asked at each call, so that what it says counts at once.
    for name in ["outage_grace", "wrapping_key_ttl"] {
      try await fleet.ctl("set persist \(name) 0 --tenant acme")
    }
    let mysql = try await RunningMySQL.started(
      fleet.mysql("acme/db1", more: #""cache_ms": 0, "load_wait_ms": 10000"#),
      options: ["default_table_encryption=ON"]
    )
    try await mysql.query("CREATE DATABASE d; CREATE TABLE d.open (a INT PRIMARY KEY)")
    try await mysql.query("CREATE DATABASE p ENCRYPTION='N'; CREATE TABLE p.plain (a INT)")
    try await fleet.ctl("key generate mariadb/1", as: "acme/maria1")
    let mariadb = try await RunningMariaDB.started(
      fleet.mariadb("acme/maria1", more: ["keyring_key_management_refresh=1"]),
      options: DatabaseFleet.mariadbEncryptsAll
    )
    try await mariadb.query("CREATE DATABASE d; CREATE TABLE d.open (a INT PRIMARY KEY)")
    for (number, cause) in Self.causes.enumerated() {
      try await cause.begin(fleet)
      try await runningMySQL(mysql, fleet, cause, number)
      try await runningMariaDB(mariadb, fleet, cause, number)
      try await cause.end(fleet)
      #expect(try await mariadb.server.says("instance maria1: answers again"), "\(cause.name)")
      try await mysql.query("CREATE TABLE d.after\(number) (a INT)")
      #expect(try await mysql.server.says("instance db1: answers again"), "\(cause.name)")
      try await started(mysql, mariadb, fleet, cause, number)
    }
    for database in [mysql, mariadb] as [any RunningDatabase] {
      #expect(try await database.query("SELECT COUNT(*) FROM d.open") == "\(2 * Self.causes.count)")
      await database.stop()
      #expect(database.server.process?.status == 0)
    }
    await fleet.keyringdEnds()
  }

  /// What needs a key is refused; what is open goes on.
  private func runningMySQL(_ mysql: RunningMySQL, _ fleet: DatabaseFleet, _ cause: Cause, _ number: Int)
    async throws
  {
    #expect(try await mysql.refusal("CREATE TABLE d.refused (a INT)")?.number == 3185, "\(cause.name)")
    #expect(try await mysql.refusal("ALTER INSTANCE ROTATE INNODB MASTER KEY")?.number == 3185)
    // Whether there is a key of some name is answered without the KMS, and more is not asked at a RELOAD.
    let reload = try await mysql.refusal("ALTER INSTANCE RELOAD KEYRING")
    #expect(reload?.number == (cause.name == "denied" ? nil : 4035), "\(cause.name)")
    try await mysql.query("INSERT INTO d.open VALUES (\(2 * number))")
    try await said(mysql, fleet, "db1", cause)
  }

  /// Everything goes on with the keys that it has; others it does not get.
  private func runningMariaDB(
    _ mariadb: RunningMariaDB,
    _ fleet: DatabaseFleet,
    _ cause: Cause,
    _ number: Int
  )
    async throws
  {
    try await said(mariadb, fleet, "maria1", cause)
    try await mariadb.query("INSERT INTO d.open VALUES (\(2 * number)); CREATE TABLE d.made\(number) (a INT)")
    let other = "CREATE TABLE d.other (a INT) ENCRYPTED=YES ENCRYPTION_KEY_ID=7"
    #expect(try await mariadb.refusal(other) != nil, "\(cause.name)")
  }

  /// Both are started while keyringd says no.
  private func started(
    _ mysql: RunningMySQL,
    _ mariadb: RunningMariaDB,
    _ fleet: DatabaseFleet,
    _ cause: Cause,
    _ number: Int
  ) async throws {
    await mysql.stop()
    await mariadb.stop()
    try await cause.begin(fleet)
    // An answer is an answer: nothing waits for another one.
    try await mysql.start()
    try await said(mysql, fleet, "db1", cause)
    #expect(try await mysql.query("SELECT COUNT(*) FROM p.plain") == "0")
    #expect(try await mysql.refusal("SELECT * FROM d.open")?.number == 3185)
    let log = try await mariadb.server.failedStart()
    #expect(line(log, fleet, "maria1", cause) != nil, "\(log)")
    #expect(mariadb.server.process?.status == 1 && mariadb.server.process?.isSignal == false)
    try await cause.end(fleet)
    // What nobody has touched meanwhile opens.
    #expect(try await mysql.query("SELECT COUNT(*) FROM d.after\(number)") == "0")
    #expect(try await mysql.server.says("answers again"))
    try await mysql.restart()
    try await mariadb.start()
    for database in [mysql, mariadb] as [any RunningDatabase] {
      #expect(try await database.query("SELECT COUNT(*) FROM d.open") == "\(2 * number + 1)", "\(cause.name)")
      try await database.query("INSERT INTO d.open VALUES (\(2 * number + 1))")
    }
  }
}
