import Foundation
import KeyringTestSupport
import Testing

/// The reason why keyring is there: several databases of two kinds and two tenants, under write load, while everything that can change
/// under them changes.
@Suite(.serialized) struct DatabaseFleetTests {
  /// MySQL db1 and db2, MariaDB maria1: of acme; another maria1: of globex.
  private struct Fleet {
    static let instances = ["acme/db1", "acme/db2", "acme/maria1", "globex/maria1"]
    let keyring: DatabaseFleet
    let mysql: [RunningMySQL]
    let mariadb: [RunningMariaDB]
    var databases: [any RunningDatabase] { mysql + mariadb }

    init() async throws {
      keyring = try await DatabaseFleet(["acme": ["db1", "db2", "maria1"], "globex": ["maria1"]])
      var mysql: [RunningMySQL] = []
      for name in ["acme/db1", "acme/db2"] {
        mysql.append(try await .started(keyring.mysql(name), options: RunningMySQL.encryptsAll))
      }
      var mariadb: [RunningMariaDB] = []
      for name in ["acme/maria1", "globex/maria1"] {
        try await keyring.ctl("key generate mariadb/1", as: name)
        mariadb.append(try await .started(keyring.mariadb(name), options: RunningMariaDB.encryptsAll))
      }
      (self.mysql, self.mariadb) = (mysql, mariadb)
    }

    /// The material of a key, as hexadecimal digits; nil where there is none.
    func key(_ id: String, of instance: String) async throws -> String? {
      let outcome = try await keyring.attempt("key fetch \(id)", as: instance)
      if outcome.status == 3 { return nil }
      #expect(outcome.status == 0, "\(outcome.error)")
      return outcome.text
    }

    func stop() async {
      for database in databases { await database.stop() }
      await keyring.keyringdEnds()
    }
  }

  @Test func everythingChangesUnderFourDatabasesThatAreWritten() async throws {
    let fleet = try await Fleet()
    let marker = "marker-\(UUID().uuidString)"
    for database in fleet.databases {
      try await database.query(
        "CREATE DATABASE d; CREATE TABLE d.secret (a TEXT) ENGINE=InnoDB; INSERT INTO d.secret VALUES ('\(marker)')"
      )
    }
    try await isolated(fleet)
    var loads: [WriteLoad] = []
    for (name, database) in zip(Fleet.instances, fleet.databases) {
      loads.append(try await WriteLoad(name, database))
    }
    for _ in 0..<(DatabaseFleet.isLong ? 3 : 1) { try await changes(fleet, loads) }
    // Every one at once, with the load on it, as a power cut would.
    for load in loads { try await load.goesOn("everything") }
    for database in fleet.databases { await database.kill() }
    for load in loads { await load.stop() }
    for (name, database) in zip(Fleet.instances, fleet.databases) {
      try await database.start()
      #expect(try await database.query("SELECT a FROM d.secret") == marker, "\(name)")
    }
    for load in loads { try await load.verify() }
    // Nor after an orderly restart.
    for database in fleet.databases { try await database.restart() }
    for load in loads { try await load.verify() }
    let rows = try loads.map { "\($0.name)=\(try $0.count())" }.joined(separator: " ")
    print("databases: acknowledged rows, all there: \(rows)")
    await fleet.stop()
    for (name, database) in zip(Fleet.instances, fleet.databases) {
      #expect(try database.server.files(containing: marker) == [], "\(name)")
      #expect(database.server.process?.status == 0, "\(name)")
    }
  }

  /// An instance's keys are its own, in one tenant and in two.
  private func isolated(_ fleet: Fleet) async throws {
    var lists: [Set<Substring>] = []
    for name in ["acme/db1", "acme/db2"] {
      let list = try await fleet.keyring.ctl("key list", as: name)
      let keys = Set(list.split(separator: "\n").dropFirst().compactMap { $0.split(separator: " ").first })
      #expect(keys.contains { $0.hasPrefix("INNODBKey-") }, "\(name): \(list)")
      lists.append(keys)
    }
    // InnoDB names its keys by server; those have no key of that name in the other instance.
    for key in lists[0] where key.hasPrefix("INNODBKey-") {
      #expect(!lists[1].contains(key))
      #expect(try await fleet.key(String(key), of: "acme/db1") != nil)
      #expect(try await fleet.key(String(key), of: "acme/db2") == nil)
    }
    let shown = try await fleet.mysql[1].query("SELECT key_id FROM performance_schema.keyring_keys")
    #expect(Set(shown.split(separator: "\n")) == lists[1])
    // MariaDB's have the same name everywhere, and are others.
    let keys = try await [
      fleet.key("mariadb/1", of: "acme/maria1"), fleet.key("mariadb/1", of: "globex/maria1"),
    ]
    #expect(keys[0] != nil && keys[1] != nil && keys[0] != keys[1])
    #expect(try await fleet.key("mariadb/1", of: "acme/db1") == nil)
  }

  /// What an operator does, and what happens to him; after each the load goes on.
  private func changes(_ fleet: Fleet, _ loads: [WriteLoad]) async throws {
    let keyring = fleet.keyring
    func step(_ what: String, _ body: () async throws -> Void) async throws {
      try await body()
      for load in loads { try await load.goesOn(what) }
    }
    try await step("the beginning") {}
    for tenant in ["acme", "globex"] {
      try await step("rotate-cmk") { try await keyring.ctl("rotate-cmk \(tenant)") }
      let cmk = try await keyring.newCMK(tenant)
      try await step("set global cmk_id") {
        try await keyring.ctl("set global cmk_id \(cmk) --tenant \(tenant)")
      }
      try await step("set persist cmk_id") {
        try await keyring.ctl("set persist cmk_id \(cmk) --tenant \(tenant)")
      }
      try await step("rotate-keys") { try await keyring.ctl("rotate-keys \(tenant)") }
    }
    try await step("rotation of the databases' own keys") { try await rotateDatabaseKeys(fleet) }
    try await step("a restart of keyringd") {
      await keyring.keyringdEnds()
      try await keyring.keyringdComesBack()
    }
    try await step("a crash of keyringd") {
      await keyring.keyringdEnds(by: SIGKILL)
      try await keyring.keyringdComesBack()
    }
    try await step("renewed certificates") {
      try keyring.renewCertificates(Fleet.instances)
      try await keyring.ctl("reload")
      try await rotateDatabaseKeys(fleet)
    }
    await keyring.keyringdEnds()
    try await Task.sleep(for: .seconds(DatabaseFleet.isLong ? 60 : 5))
    for load in loads { try await load.goesOn("an outage of keyringd") }
    try await step("its end") { try await keyring.keyringdComesBack() }
    try await step("rotation after it") { try await rotateDatabaseKeys(fleet) }
  }

  /// MySQL's master keys, and MariaDB's key, get new versions.
  private func rotateDatabaseKeys(_ fleet: Fleet) async throws {
    for mysql in fleet.mysql {
      try await mysql.query("ALTER INSTANCE ROTATE INNODB MASTER KEY; ALTER INSTANCE RELOAD KEYRING")
      try await mysql.query("ALTER INSTANCE ROTATE BINLOG MASTER KEY; FLUSH BINARY LOGS")
    }
    for name in ["acme/maria1", "globex/maria1"] {
      try await fleet.keyring.ctl("key rotate mariadb/1", as: name)
    }
  }
}
