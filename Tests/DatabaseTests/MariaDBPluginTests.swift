import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// keyring_key_management in a real mariadbd.
@Suite(.timeLimit(.minutes(10))) struct MariaDBPluginTests {
  private static let marker = "marker-5f0c2a7e-in-the-clear"
  private static let everything = [
    "innodb_encrypt_tables=FORCE", "innodb_encrypt_log=ON", "innodb_encryption_threads=2",
    "innodb_encryption_rotate_key_age=1", "encrypt_tmp_files=ON", "aria_encrypt_tables=ON",
    "encrypt_binlog=ON",
    "log_bin=binlog", "server_id=1",
  ]

  private func options(_ files: TLSConfiguration, _ port: Int, _ more: [String] = []) -> [String] {
    [
      "servers=localhost:\(port)", "certificate=\(files.certificateFile)", "key=\(files.privateKeyFile)",
      "ca=\(files.authorityFile)", "refresh=1", "wait=1",
    ].map { "keyring_key_management_\($0)" } + more
  }

  private func keyringctl(_ files: TLSConfiguration, _ port: Int, _ arguments: [String]) async throws {
    let outcome = try await TestProgram(product: "keyringctl").run(
      arguments,
      environment: [
        "KEYRING_SERVER": "localhost:\(port)", "KEYRING_CERT": files.certificateFile,
        "KEYRING_KEY": files.privateKeyFile, "KEYRING_CA": files.authorityFile,
      ]
    )
    #expect(outcome.status == 0, "\(outcome.error)")
  }

  private func shown(_ mariadb: RunningMariaDB, _ name: String) async throws -> String {
    try await mariadb.rows("SHOW GLOBAL STATUS LIKE 'keyring_key_management_\(name)'").first?.last ?? ""
  }

  /// Everything encrypted: made, restarted, killed, rotated, and nothing of it in the files.
  @Test func everythingEncrypted() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let mariadb = try await RunningMariaDB(
      .service(options: options(files, server.port, ["keyring_key_management_create=ON"])),
      options: Self.everything
    )
    try await mariadb.start()
    try await mariadb.query("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")
    try await mariadb.query("USE d; INSERT INTO d.t SELECT seq, '\(Self.marker)' FROM seq_1_to_2000")
    try await mariadb.restart()
    #expect(try await mariadb.query("SELECT COUNT(*) FROM d.t WHERE b = '\(Self.marker)'") == "2000")
    try await mariadb.query("INSERT INTO d.t VALUES (5000, 'last')")
    await mariadb.kill()
    try await mariadb.start()
    #expect(try await mariadb.query("SELECT COUNT(*), MAX(a) FROM d.t") == "2001\t5000")
    // MariaDB encrypts pages anew whose version plus innodb_encryption_rotate_key_age is behind the newest one.
    try await keyringctl(files, server.port, ["key", "rotate", "mariadb/1"])
    try await keyringctl(files, server.port, ["key", "rotate", "mariadb/1"])
    #expect(try await eventually { try await self.shown(mariadb, "versions") != "1" })
    let rotated = try await eventually(within: .seconds(60)) {
      try await mariadb.query(
        "SELECT MIN(MIN_KEY_VERSION) FROM information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE NAME = 'd/t'"
      ) == "3"
    }
    #expect(rotated, "pages are encrypted anew under the new version")
    try await mariadb.restart()
    #expect(try await mariadb.query("SELECT COUNT(*) FROM d.t") == "2001")
    await mariadb.stop()
    #expect(try mariadb.server.files(containing: Self.marker).isEmpty)
    await server.shutdown()
  }

  /// A server that runs goes on without keyringd, and says so; one that starts does not start, and says why.
  @Test func keyringdIsAway() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    try await keyringctl(
      files,
      server.port,
      ["key", "generate", "mariadb/1", "--type", "AES", "--length", "32"]
    )
    let mariadb = try await RunningMariaDB(
      .service(options: options(files, server.port)),
      options: ["innodb_encrypt_tables=FORCE", "innodb_encrypt_log=ON"]
    )
    try await mariadb.start()
    try await mariadb.query("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB")
    let (port, pki, data) = (server.port, server.pki, server.data)
    await server.shutdown()
    let names = "keyring localhost:\(port), tenant acme, instance db1: UNREACHABLE"
    #expect(try await mariadb.server.says(names))
    try await mariadb.query("USE d; INSERT INTO d.t SELECT seq, 'x' FROM seq_1_to_2000; FLUSH TABLES")
    await mariadb.stop()
    #expect(try await mariadb.server.failedStart().contains(names))
    let again = try await TestServer(pki: pki, data: data, port: port)
    try await mariadb.start()
    #expect(try await mariadb.query("SELECT COUNT(*) FROM d.t") == "2000")
    await mariadb.stop()
    await again.shutdown()
  }

  /// A key that MariaDB would abort on is refused before it reaches it, and so is a key that is not there.
  @Test func whatCannotBeUsedIsNamed() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme", profile: "any")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let mariadb = try await RunningMariaDB(
      .service(options: options(files, server.port)),
      options: ["innodb_encrypt_tables=FORCE"]
    )
    #expect(try await mariadb.server.failedStart().contains("keyringctl key generate mariadb/1"))
    try await keyringctl(
      files,
      server.port,
      ["key", "generate", "mariadb/1", "--type", "AES", "--length", "33"]
    )
    let length = try await mariadb.server.failedStart()
    #expect(length.contains("LENGTH_INVALID: key mariadb/1"), "\(length)")
    await server.shutdown()
  }

  /// Tables whose keys InnoDB has not asked for yet are opened while keyringd is away. Without an answer it would call them corrupted
  /// until it is restarted, and advise to drop them.
  @Test func tablesAreOpenedWhileKeyringdIsAway() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    for id in [1, 5] {
      try await keyringctl(
        files,
        server.port,
        ["key", "generate", "mariadb/\(id)", "--type", "AES", "--length", "32"]
      )
    }
    try await keyringctl(files, server.port, ["key", "rotate", "mariadb/1"])
    let mariadb = try await RunningMariaDB(
      .service(options: options(files, server.port)),
      options: [
        "innodb_encrypt_tables=ON", "innodb_encryption_threads=0", "innodb_buffer_pool_load_at_startup=OFF",
      ]
    )
    try await mariadb.start()
    try await mariadb.query("CREATE DATABASE d; CREATE TABLE d.old (a INT) ENGINE=InnoDB ENCRYPTED=YES")
    try await mariadb.query("CREATE TABLE d.five (a INT) ENGINE=InnoDB ENCRYPTED=YES ENCRYPTION_KEY_ID=5")
    try await mariadb.query(
      "USE d; INSERT INTO five VALUES (1); INSERT INTO old SELECT seq FROM seq_1_to_20000"
    )
    await mariadb.stop()
    // Its root page is then under the third version, its leaves still under the second.
    try await keyringctl(files, server.port, ["key", "rotate", "mariadb/1"])
    try await mariadb.start()
    try await mariadb.query("USE d; INSERT INTO old SELECT seq FROM seq_1_to_20000")
    try await mariadb.restart()
    let port = server.port
    await server.shutdown()
    #expect(
      try await mariadb.server.says("keyring localhost:\(port), tenant acme, instance db1: UNREACHABLE")
    )
    #expect(try await mariadb.query("SELECT COUNT(*) FROM d.old") == "40000")
    #expect(try await mariadb.query("SELECT COUNT(*) FROM d.five") == "1")
    await mariadb.stop()
  }

  /// mariadbd takes SIGTERM only when it has started; a start that waits for keyringd does not wait on.
  @Test func aStartThatWaitsEndsWhenItIsTold() async throws {
    let pki = try TestPKI()
    let files = try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    // Port 1 of loopback: nobody listens there.
    let mariadb = try await RunningMariaDB(
      .service(
        options: options(files, 1, ["keyring_key_management_wait=3600", "keyring_key_management_timeout=1"])
      )
    )
    let process = try mariadb.server.launch()
    #expect(try await mariadb.server.says("waits for at most 3600 s"))
    process.signal(SIGTERM)
    #expect(try await eventually { !process.isRunning })
    #expect(try mariadb.server.log.contains("the server is told to end"))
    await mariadb.kill()
  }
}
