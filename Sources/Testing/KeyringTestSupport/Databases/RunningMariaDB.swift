internal import Foundation

/// MariaDB 10.11 of the system, in a folder of a test's own.
public final class RunningMariaDB: RunningDatabase {
  /// Where its keys are.
  public enum Keyring: Sendable {
    /// Nowhere: nothing can be encrypted.
    case none
    /// MariaDB's own file_key_management, with these key ids.
    case file(ids: [Int])
    /// keyring_key_management; its options, such as `keyring_key_management_servers=...`.
    case service(options: [String])
  }

  /// The server and its client.
  public let server: DatabaseProcess
  /// The socket that it listens on.
  public let socket: String
  /// Where it listens on loopback; nil where it does not.
  public let port: Int?
  /// Its folder: `plugin`, `data`, `my.cnf`.
  public var folder: TestDirectory { server.folder }
  private let lines: [String]

  /// Options that have it encrypt everything that it can.
  public static let encryptsAll = [
    "innodb_encrypt_tables=ON", "innodb_encrypt_log=ON", "innodb_encryption_threads=1",
    "innodb_encryption_rotate_key_age=1", "encrypt_tmp_files=ON", "encrypt_binlog=ON", "log_bin=binlog",
    "aria_encrypt_tables=ON", "innodb_encrypt_temporary_tables=ON",
  ]

  /// Makes one, and starts nothing.
  ///
  /// - Parameters:
  ///   - keyring: loaded at the start, and required.
  ///   - options: lines of my.cnf; later ones win.
  ///   - isNetworked: whether it listens on loopback.
  public init(_ keyring: Keyring, options: [String] = [], isNetworked: Bool = false) async throws {
    let plugins = try await DatabaseFolder.shell("\(CClients.top)/Tests/install-mariadb-plugins")
    let folder = try TestDirectory()
    port = isNetworked ? try await DatabaseFolder.freePort() : nil
    socket = "\(try await DatabaseFolder.forSocket(folder))/s"
    let built = try await CClients.built()
    try await DatabaseFolder.shell(
      """
      mkdir "$1/plugin" "$1/tmp"
      ln -s "$2"/*.so "$1/plugin/"
      for library in "$3"/keyring_*.so; do [ ! -e "$library" ] || ln -sf "$library" "$1/plugin/"; done
      """,
      [folder.path, plugins, built]
    )
    let network = port.map { ["bind_address=127.0.0.1", "port=\($0)"] } ?? ["skip_networking"]
    lines = Self.base(folder.path) + ["socket=\(socket)"] + network + options
    server = DatabaseProcess(
      folder: folder,
      commands: DatabaseProcess.Commands(
        server: ["/usr/sbin/mariadbd", "--defaults-file=\(folder("my.cnf"))"],
        client: [
          "/usr/bin/mariadb", "--no-defaults", "-uroot", "-S", socket, "-N", "-B", "-n", "-e",
        ],
        readyLine: "ready for connections"
      )
    )
    try await DatabaseFolder.copyData(
      "mariadb-10.11",
      to: folder("data"),
      initialise: [
        "mariadb-install-db", "--no-defaults", "--datadir=DATA", "--basedir=/usr", "--skip-test-db",
        "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M",
      ] + (getuid() == 0 ? ["--user=root"] : [])
    )
    try use(keyring)
  }

  /// Makes one and starts it.
  public static func started(
    _ keyring: Keyring,
    options: [String] = [],
    isNetworked: Bool = false
  ) async throws -> RunningMariaDB {
    let mariadb = try await RunningMariaDB(keyring, options: options, isNetworked: isNetworked)
    try await mariadb.start()
    return mariadb
  }

  /// What every one is started with: small, so that several fit beside each other.
  private static func base(_ folder: String) -> [String] {
    [
      "basedir=/usr", "datadir=\(folder)/data", "plugin_dir=\(folder)/plugin", "pid_file=\(folder)/pid",
      "tmpdir=\(folder)/tmp", "plugin_maturity=experimental", "innodb_buffer_pool_size=32M",
      "innodb_log_file_size=16M", "innodb_log_buffer_size=2M", "innodb_use_native_aio=OFF",
      "key_buffer_size=1M", "aria_pagecache_buffer_size=8M", "max_connections=40", "table_open_cache=400",
    ] + (getuid() == 0 ? ["user=root"] : [])
  }

  /// Writes my.cnf with a keyring: in force at the next start.
  public func use(_ keyring: Keyring) throws {
    var own: [String] = []
    switch keyring {
    case .none: break
    case .file(let ids):
      // Any digits: keys of a test.
      let keys = ids.map { id in
        "\(id);\(String(String(repeating: String(format: "%08x", id), count: 8)))"
      }
      try folder.write("keys", keys.joined(separator: "\n") + "\n")
      own = [
        "plugin_load_add=file_key_management", "file_key_management=FORCE_PLUS_PERMANENT",
        "file_key_management_filename=\(folder("keys"))",
      ]
    case .service(let options):
      own =
        ["plugin_load_add=keyring_key_management", "keyring_key_management=FORCE_PLUS_PERMANENT"] + options
    }
    try folder.write("my.cnf", "[mariadbd]\n" + (own + lines).joined(separator: "\n") + "\n")
  }
}
