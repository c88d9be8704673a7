import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// A PostgreSQL whose server key is encrypted under a passphrase that keyring keeps: `ssl_passphrase_command`.
@Suite struct PostgreSQLTests {
  /// A PostgreSQL with an encrypted server key, and the keyring with its passphrase.
  private struct Fixture {
    let daemon: TestDaemon
    let postgresql: RunningPostgreSQL
    let authorityFile: String

    init() async throws {
      daemon = try await TestDaemon()
      try await daemon.makeTenant("acme")
      let client = try daemon.instance("acme", "pg1")
      let passphrase = try await DatabaseFolder.shell("openssl rand -hex 24")
      _ = try await client.call(.store(.own("pg-passphrase"), passphrase))
      await client.close()
      postgresql = try await RunningPostgreSQL()
      authorityFile = daemon.pki.directory("ca.crt")
      try await postgresql.give(
        copyOf: TestProgram(product: "keyringctl").path,
        as: "keyringctl"
      )
      for (name, file) in [("tenant-acme-instance-pg1", "pg1"), ("server", "server")] {
        try await postgresql.give(copyOf: daemon.pki.directory("\(name).crt"), as: "\(file).crt")
        if file == "pg1" {
          try await postgresql.give(copyOf: daemon.pki.directory("\(name).key"), as: "pg1.key")
        }
      }
      try await postgresql.give(copyOf: authorityFile, as: "ca.crt")
      try daemon.pki.directory.write("passphrase", passphrase)
      let encrypted = try await DatabaseFolder.shell(
        "openssl pkey -in \"$1\" -aes256 -passout \"file:$2\"",
        [daemon.pki.directory("server.key"), daemon.pki.directory("passphrase")]
      )
      try #require(encrypted.contains("BEGIN ENCRYPTED PRIVATE KEY"))
      try await postgresql.give("server.key", encrypted + "\n")
      try await postgresql.configure([
        "ssl = on", "ssl_cert_file = '\(postgresql.folder("server.crt"))'",
        "ssl_key_file = '\(postgresql.folder("server.key"))'", "ssl_passphrase_command_supports_reload = on",
        "ssl_passphrase_command = '\(command("pg-passphrase"))'",
      ])
    }

    /// As docs/DATABASES.md writes it.
    func command(_ key: String) -> String {
      let folder = postgresql.folder
      return "\(folder("keyringctl")) key fetch \(key) --format raw --server localhost:\(daemon.port) "
        + "--cert \(folder("pg1.crt")) --key \(folder("pg1.key")) --ca \(folder("ca.crt"))"
    }

    /// The certificate that a client is shown, by its serial number.
    func serial() async throws -> String {
      try await DatabaseFolder.shell(
        "openssl s_client -starttls postgres -connect 127.0.0.1:\"$1\" </dev/null 2>/dev/null | openssl x509 -noout -serial",
        ["\(postgresql.port)"]
      )
    }
  }

  @Test func itsServerKeyIsOpenedWithAPassphraseOfTheKeyring() async throws {
    let fixture = try await Fixture()
    let postgresql = fixture.postgresql
    try await postgresql.start()
    let sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    #expect(try await postgresql.queryOverTLS(sql, authorityFile: fixture.authorityFile) == "TLSv1.3")
    // A renewed certificate, its key encrypted under the same passphrase, is taken at a reload, which runs the command again.
    let first = try await fixture.serial()
    try fixture.daemon.pki.issue("renewed", .server(hosts: ["localhost", "127.0.0.1"]))
    let pki = fixture.daemon.pki.directory
    let encrypted = try await DatabaseFolder.shell(
      "openssl pkey -in \"$1\" -aes256 -passout \"file:$2\"",
      [pki("renewed.key"), pki("passphrase")]
    )
    try await postgresql.give("server.key", encrypted + "\n")
    try await postgresql.give(copyOf: pki("renewed.crt"), as: "server.crt")
    postgresql.reload()
    #expect(try await eventually { try await fixture.serial() != first })
    #expect(try await postgresql.queryOverTLS(sql, authorityFile: fixture.authorityFile) == "TLSv1.3")
    await postgresql.stop()
    await fixture.daemon.shutdown()
  }

  @Test func withoutKeyringdItDoesNotStartButGoesOn() async throws {
    let fixture = try await Fixture()
    let postgresql = fixture.postgresql
    try await postgresql.start()
    await fixture.daemon.shutdown()
    // At a reload it keeps the key that it has.
    postgresql.reload()
    #expect(try await postgresql.server.says("SSL configuration was not reloaded"))
    #expect(try postgresql.log.contains("keyringctl: "))
    #expect(try await postgresql.queryOverTLS("SELECT 1", authorityFile: fixture.authorityFile) == "1")
    await postgresql.stop()
    // At a start it has none.
    let log = try await postgresql.server.failedStart()
    #expect(log.contains("keyringctl: "))
    #expect(log.contains("FATAL"))
    // keyringd is back, and so is it.
    let daemon = try await TestDaemon(pki: fixture.daemon.pki, data: fixture.daemon.data)
    try await postgresql.configure([
      "ssl_passphrase_command = '\(fixture.command("pg-passphrase").replacing("localhost:\(fixture.daemon.port)", with: "localhost:\(daemon.port)"))'"
    ])
    try await postgresql.start()
    #expect(try await postgresql.queryOverTLS("SELECT 1", authorityFile: fixture.authorityFile) == "1")
    await postgresql.stop()
    await daemon.shutdown()
  }

  @Test func anAbsentPassphraseIsNoPassphrase() async throws {
    let fixture = try await Fixture()
    try await fixture.postgresql.configure(["ssl_passphrase_command = '\(fixture.command("another"))'"])
    let log = try await fixture.postgresql.server.failedStart()
    #expect(log.contains("keyringctl: there is no such key"))
    #expect(log.contains("FATAL"))
    await fixture.daemon.shutdown()
  }
}
