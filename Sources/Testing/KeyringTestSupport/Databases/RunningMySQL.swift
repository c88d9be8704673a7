internal import Foundation

/// MySQL 9.7 as Tests/install-mysql unpacks it, in a folder of a test's own, run with its own loader.
public final class RunningMySQL: RunningDatabase {
  /// Where its keys are.
  public enum Keyring: Sendable {
    /// Nowhere: nothing can be encrypted.
    case none
    /// MySQL's own component_keyring_file.
    case file
    /// component_keyring_service; its configuration (JSON), which is written beside the library.
    case service(configuration: String)
  }

  /// The server and its client.
  public let server: DatabaseProcess
  /// The socket that it listens on.
  public let socket: String
  /// Where it listens on loopback; nil where it does not.
  public let port: Int?
  /// Its folder: `bin` (mysqld and its manifest), `plugin`, `data`, `my.cnf`.
  public var folder: TestDirectory { server.folder }
  /// What is in front of every program of this MySQL: its loader.
  public let loader: [String]
  /// Where it is unpacked.
  public let root: String

  /// Options that have it encrypt everything that it can.
  public static let encryptsAll = [
    "default_table_encryption=ON", "innodb_redo_log_encrypt=ON", "innodb_undo_log_encrypt=ON",
    "binlog_encryption=ON",
  ]

  /// Makes one, and starts nothing.
  ///
  /// - Parameters:
  ///   - keyring: loaded by the manifest.
  ///   - options: lines of my.cnf; later ones win.
  ///   - isNetworked: whether it listens on loopback, which replication needs. Then give it a `server_id`.
  public init(_ keyring: Keyring, options: [String] = [], isNetworked: Bool = false) async throws {
    root = try await DatabaseFolder.shell("\(CClients.top)/Tests/install-mysql")
    let folder = try TestDirectory()
    let libraries = "\(root)/usr/lib/\(try await DatabaseFolder.shell("uname -m"))-linux-gnu"
    loader = [
      try await DatabaseFolder.shell("ls \"$1\"/ld-linux-*.so.*", [libraries]), "--library-path", libraries,
    ]
    port = isNetworked ? try await DatabaseFolder.freePort() : nil
    socket = "\(try await DatabaseFolder.forSocket(folder))/s"
    let built = try await CClients.built()
    try await DatabaseFolder.shell(
      """
      mkdir "$1/bin" "$1/plugin" "$1/tmp"
      ln -s "$2/usr/sbin/mysqld" "$1/bin/mysqld"
      ln -s "$2"/usr/lib/mysql/plugin/*.so "$1/plugin/"
      for library in "$3"/component_*.so; do [ ! -e "$library" ] || ln -sf "$library" "$1/plugin/"; done
      """,
      [folder.path, root, built]
    )
    let network = port.map { ["bind_address=127.0.0.1", "port=\($0)"] } ?? ["skip_networking"]
    let lines = Self.base(root, folder.path) + ["socket=\(socket)"] + network + options
    try folder.write("my.cnf", "[mysqld]\n" + lines.joined(separator: "\n") + "\n")
    server = DatabaseProcess(
      folder: folder,
      commands: DatabaseProcess.Commands(
        server: loader + [folder("bin/mysqld"), "--defaults-file=\(folder("my.cnf"))"],
        client: loader + [
          "\(root)/usr/bin/mysql", "--no-defaults", "-uroot", "-S", socket, "-N", "-B", "-n", "-e",
        ],
        readyLine: "ready for connections"
      )
    )
    try await initialise()
    try use(keyring)
  }

  /// Makes one and starts it.
  public static func started(
    _ keyring: Keyring,
    options: [String] = [],
    isNetworked: Bool = false
  ) async throws -> RunningMySQL {
    let mysql = try await RunningMySQL(keyring, options: options, isNetworked: isNetworked)
    try await mysql.start()
    return mysql
  }

  /// What every one is started with: small, so that several fit beside each other.
  private static func base(_ root: String, _ folder: String) -> [String] {
    [
      "basedir=\(root)/usr", "datadir=\(folder)/data", "plugin_dir=\(folder)/plugin",
      "lc_messages_dir=\(root)/usr/share/mysql", "character_sets_dir=\(root)/usr/share/mysql/charsets",
      "pid_file=\(folder)/pid", "tmpdir=\(folder)/tmp", "secure_file_priv=", "mysqlx=OFF",
      "innodb_buffer_pool_size=32M", "innodb_redo_log_capacity=16M", "innodb_log_buffer_size=1M",
      "innodb_use_native_aio=OFF", "max_connections=40", "table_open_cache=400",
    ] + (getuid() == 0 ? ["user=root"] : [])
  }

  private func initialise() async throws {
    // Its own UUID is made at the first start.
    let script =
      "\"$@\" --initialize-insecure && rm -f DATA/auto.cnf"
    try await DatabaseFolder.copyData(
      "mysql-9.7",
      to: folder("data"),
      initialise: [
        "/bin/sh", "-c", script, "sh",
      ] + loader + [
        "\(root)/usr/sbin/mysqld", "--no-defaults", "--datadir=DATA", "--basedir=\(root)/usr",
        "--lc-messages-dir=\(root)/usr/share/mysql", "--innodb-redo-log-capacity=16M",
        "--innodb-buffer-pool-size=32M", "--innodb-use-native-aio=OFF",
      ] + (getuid() == 0 ? ["--user=root"] : [])
    )
  }

  /// Writes the manifest and the configuration of a keyring: in force at the next start.
  public func use(_ keyring: Keyring) throws {
    switch keyring {
    case .none:
      if FileManager.default.fileExists(atPath: folder("bin/mysqld.my")) {
        try FileManager.default.removeItem(atPath: folder("bin/mysqld.my"))
      }
    case .file:
      try manifest("component_keyring_file")
      try configure("component_keyring_file", #"{"path": "\#(folder("keys"))", "read_only": false}"#)
    case .service(let configuration):
      try manifest("component_keyring_service")
      try configure("component_keyring_service", configuration)
    }
  }

  /// Has a component loaded before InnoDB begins.
  public func manifest(_ component: String) throws {
    try folder.write("bin/mysqld.my", #"{"components": "file://\#(component)"}"#)
  }

  /// Writes a component's configuration beside its library.
  public func configure(_ component: String, _ json: String) throws {
    try folder.write("plugin/\(component).cnf", json)
  }

  /// Runs another program of this MySQL, such as mysql_migrate_keyring.
  public func run(_ program: String, _ arguments: [String]) async throws -> TestProgram.Outcome {
    try await TestProgram(path: loader[0]).run(
      loader.dropFirst() + ["\(root)/usr/bin/\(program)"] + arguments
    )
  }
}
