import Foundation
import KeyringTestSupport
import Testing

/// Two MySQL servers of one tenant: one replicates the other.
@Suite(.serialized, .timeLimit(.minutes(10))) struct ReplicationTests {
  private static let marker = "marker-\(UUID().uuidString)"

  private func started(_ keyring: RunningMySQL.Keyring, id: Int) async throws -> RunningMySQL {
    try await RunningMySQL.started(
      keyring,
      options: RunningMySQL.encryptsAll + [
        "server_id=\(id)", "gtid_mode=ON", "enforce_gtid_consistency=ON", "relay_log=relay",
      ],
      isNetworked: true
    )
  }

  private func keys(_ instance: String, _ keyring: DatabaseFleet) async throws -> Set<Substring> {
    let list = try await keyring.ctl("key list", as: instance)
    return Set(list.split(separator: "\n").dropFirst().compactMap { $0.split(separator: " ").first })
  }

  /// Binary and relay logs are encrypted, each under its own server's keys; the rows arrive all the same, also after restarts, rotations and an
  /// outage of keyringd.
  @Test func aReplicaHasKeysOfItsOwn() async throws {
    let keyring = try await DatabaseFleet(["acme": ["db1", "db2"]])
    let source = try await started(keyring.mysql("acme/db1"), id: 1)
    let replica = try await started(keyring.mysql("acme/db2"), id: 2)
    let port = try #require(source.port)
    try await source.query(
      "CREATE USER r@'127.0.0.1' IDENTIFIED BY 'r'; GRANT REPLICATION SLAVE ON *.* TO r@'127.0.0.1'; CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b TEXT); INSERT INTO d.t VALUES (1, '\(Self.marker)')"
    )
    try await replica.query(
      "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=\(port), SOURCE_USER='r', SOURCE_PASSWORD='r', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1; START REPLICA"
    )
    func arrives(_ rows: Int, _ what: String) async throws {
      let isThere = try await eventually {
        do {
          return try await replica.query("SELECT COUNT(*) FROM d.t") == "\(rows)"
        } catch is SQLError {
          return false  // before the first event the table is not there
        }
      }
      guard !isThere else { return }
      let status = try await replica.query("SHOW REPLICA STATUS")
      Issue.record("\(what): \(status) \(try replica.log.suffix(2000))")
    }
    try await arrives(1, "the first row")
    for mysql in [source, replica] {
      try await mysql.query(
        "ALTER INSTANCE ROTATE BINLOG MASTER KEY; ALTER INSTANCE ROTATE INNODB MASTER KEY"
      )
    }
    try await keyring.ctl("rotate-keys acme")
    try await source.query("INSERT INTO d.t VALUES (2, '\(Self.marker)')")
    try await arrives(2, "rotations")
    // What was written while the replica was away is in logs of the source that only the source can read.
    await replica.stop()
    try await source.query("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (3, '\(Self.marker)')")
    try await source.restart()
    try await replica.start()
    try await arrives(3, "restarts")
    await keyring.keyringdEnds()
    try await source.query("INSERT INTO d.t VALUES (4, '\(Self.marker)')")
    try await arrives(4, "an outage")
    try await keyring.keyringdComesBack()
    try await source.query("FLUSH BINARY LOGS; INSERT INTO d.t VALUES (5, '\(Self.marker)')")
    try await arrives(5, "its end")
    let (of1, of2) = (try await keys("acme/db1", keyring), try await keys("acme/db2", keyring))
    #expect(
      of1.contains { $0.hasPrefix("MySQLReplicationKey_") }
        && of2.contains { $0.hasPrefix("MySQLReplicationKey_") }
    )
    for key in of1 where key.contains("-") { #expect(!of2.contains(key)) }
    for mysql in [replica, source] {
      await mysql.stop()
      #expect(try mysql.server.files(containing: Self.marker) == [])
    }
    await keyring.keyringdEnds()
  }
}
