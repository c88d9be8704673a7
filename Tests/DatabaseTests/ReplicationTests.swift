import Foundation
import KeyringTestSupport
import Testing

/// Two MySQL servers of one tenant: what one has, the other gets by replication, and never by its keys.
@Suite(.timeLimit(.minutes(10))) struct ReplicationTests {
  private static let replicated =
    DatabaseFleet.mysqlEncryptsAll + ["gtid_mode=ON", "enforce_gtid_consistency=ON", "relay_log=relay"]

  /// The names of an instance's keys, as its certificate sees them.
  private func keys(_ fleet: DatabaseFleet, _ instance: String) async throws -> Set<Substring> {
    let list = try await fleet.ctl("key list", as: instance)
    return Set(list.split(separator: "\n").dropFirst().compactMap { $0.split(separator: " ").first })
  }

  /// Waits until the replica has so many rows.
  private func arrives(_ count: Int, _ replica: RunningMySQL, _ location: SourceLocation = #_sourceLocation)
    async throws
  {
    let isThere = try await eventually(within: .seconds(60)) {
      guard try await replica.refusal("SELECT 1 FROM d.t LIMIT 1") == nil else { return false }
      return try await replica.query("SELECT COUNT(*) FROM d.t") == "\(count)"
    }
    let status = isThere ? "" : try await replica.query("SHOW REPLICA STATUS\\G")
    #expect(isThere, "\(status)", sourceLocation: location)
  }

  @Test func rowsArriveAndKeysDoNot() async throws {
    let fleet = try await DatabaseFleet(["acme": ["db1", "db2"]])
    var servers: [RunningMySQL] = []
    for id in 1...2 {
      let options = Self.replicated + ["server_id=\(id)"]
      servers.append(
        try await .started(fleet.mysql("acme/db\(id)"), options: options, isNetworked: true)
      )
    }
    let (source, replica) = (servers[0], servers[1])
    let marker = "marker-\(UUID().uuidString)"
    try await source.query(
      "CREATE USER repl@localhost IDENTIFIED BY 'p'; GRANT REPLICATION SLAVE ON *.* TO repl@localhost"
    )
    try await source.query(
      "CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT); INSERT INTO d.t VALUES (1, '\(marker)')"
    )
    let port = try #require(source.port)
    try await replica.query(
      """
      CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=\(port), SOURCE_USER='repl', SOURCE_PASSWORD='p',
      SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1; START REPLICA
      """
    )
    try await arrives(1, replica)
    // The relay log is left unread across a restart of the replica, in a file that only its own key opens.
    try await replica.query("STOP REPLICA SQL_THREAD")
    try await source.query("INSERT INTO d.t VALUES (2, '\(marker)')")
    let position = try await source.query("SELECT @@global.gtid_executed")
    let isRelayed = try await eventually {
      try await replica.query(
        "SELECT GTID_SUBSET('\(position)', CONCAT(RECEIVED_TRANSACTION_SET, ',', @@global.gtid_executed)) FROM performance_schema.replication_connection_status"
      ) == "1"
    }
    #expect(isRelayed)
    #expect(try replica.server.files(containing: marker) == [])
    try await replica.restart()
    try await arrives(2, replica)
    try await rotated(source, replica, marker)
    // A crash of each.
    await replica.kill()
    try await source.query("INSERT INTO d.t VALUES (5, '\(marker)')")
    try await replica.start()
    try await arrives(5, replica)
    await source.kill()
    try await source.start()
    try await source.query("INSERT INTO d.t VALUES (6, '\(marker)')")
    try await arrives(6, replica)
    try await apart(fleet, servers)
    for server in servers {
      #expect(try await server.query("SELECT COUNT(*) FROM d.t WHERE b = '\(marker)'") == "6")
      await server.stop()
      #expect(server.server.process?.status == 0)
      #expect(try server.server.files(containing: marker) == [])
    }
    await fleet.keyringdEnds()
  }

  /// New master keys on both while rows flow, and new logs under them.
  private func rotated(_ source: RunningMySQL, _ replica: RunningMySQL, _ marker: String) async throws {
    try await source.query("ALTER INSTANCE ROTATE BINLOG MASTER KEY; INSERT INTO d.t VALUES (3, '\(marker)')")
    try await replica.query("ALTER INSTANCE ROTATE BINLOG MASTER KEY; FLUSH RELAY LOGS")
    try await source.query("ALTER INSTANCE ROTATE INNODB MASTER KEY; INSERT INTO d.t VALUES (4, '\(marker)')")
    try await replica.query("ALTER INSTANCE ROTATE INNODB MASTER KEY")
    try await arrives(4, replica)
    for server in [source, replica] {
      let logs = try await server.rows("SHOW BINARY LOGS")
      #expect(!logs.isEmpty && logs.allSatisfy { $0.last == "Yes" }, "\(logs)")
      let names = try FileManager.default.contentsOfDirectory(atPath: server.folder("data"))
      let files = names.filter { $0.wholeMatch(of: /(binlog|relay)\.\d+/) != nil }
      #expect(!files.isEmpty)
      for file in files {
        // An encrypted one begins so, where a readable one has FE.
        let head = try Data(contentsOf: URL(filePath: server.folder("data/\(file)"))).prefix(4)
        #expect(Array(head) == [0xFD] + Array("bin".utf8), "\(file)")
      }
    }
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: replica.folder("data")).contains {
        $0.hasPrefix("relay.0")
      }
    )
  }

  /// Each has keys of its own for everything, which the other's certificate neither sees nor fetches.
  private func apart(_ fleet: DatabaseFleet, _ servers: [RunningMySQL]) async throws {
    let lists = try await [keys(fleet, "acme/db1"), keys(fleet, "acme/db2")]
    for (index, server) in servers.enumerated() {
      let (own, other) = (lists[index], lists[1 - index])
      let uuid = try await server.query("SELECT @@server_uuid")
      for prefix in ["INNODBKey-\(uuid)-", "MySQLReplicationKey_\(uuid)"] {
        let names = own.filter { $0.hasPrefix(prefix) }
        #expect(!names.isEmpty, "\(own)")
        #expect(!other.contains { $0.contains(uuid) }, "\(other)")
        for name in names {
          #expect(try await fleet.attempt("key fetch \(name)", as: "acme/db\(index + 1)").status == 0)
          #expect(try await fleet.attempt("key fetch \(name)", as: "acme/db\(2 - index)").status == 3)
        }
      }
      let shown = try await server.query("SELECT key_id FROM performance_schema.keyring_keys")
      // That table cuts names, also those of MySQL's own keyring.
      #expect(Set(shown.split(separator: "\n")) == Set(own.map { $0.prefix(64) }))
    }
  }
}
