import Foundation
public import KeyringTestSupport

/// PostgreSQL 15 of the system, in a folder of a test's own.
///
/// It refuses to run as root: a test that does runs it, and what it runs, as the user `postgres`, to whom the folder then belongs.
public final class RunningPostgreSQL: RunningDatabase {
  /// The server and its client.
  public let server: DatabaseProcess
  /// Its folder: `data`, and what a test puts there.
  public var folder: TestDirectory { server.folder }
  /// Where it listens on loopback.
  public let port: Int
  /// Becomes the user that it runs as; nothing where that is the test's own.
  public static let wrapper =
    getuid() == 0 ? ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] : []
  private static let programs = "/usr/lib/postgresql/15/bin"

  /// Makes one, and starts nothing; `options` are lines of postgresql.conf.
  public init(options: [String] = []) async throws {
    let folder = try TestDirectory()
    port = try await DatabaseFolder.freePort()
    // Its socket is in a folder of its user's own.
    let sockets = try await DatabaseFolder.forSocket(folder) + "/run"
    let commands = DatabaseProcess.Commands(
      server: Self.wrapper + ["\(Self.programs)/postgres", "-D", folder("data")],
      client: [
        "/usr/bin/psql", "-X", "-U", "postgres", "-h", sockets, "-p", "\(port)", "-d", "postgres", "-A",
        "-t", "-q", "-v", "ON_ERROR_STOP=1", "-F", "\t", "-c",
      ],
      readyLine: "database system is ready to accept connections",
      stopSignal: SIGINT  // its fast shutdown: SIGTERM waits for every session
    )
    server = DatabaseProcess(folder: folder, commands: commands)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: folder.path)
    for path in [folder("data"), sockets] {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
      try await handOver(path)
    }
    let initialise = [
      "\(Self.programs)/initdb", "-D", folder("data"), "-U", "postgres", "-A", "trust", "--no-sync",
    ]
    try await DatabaseFolder.shell("\"$@\" >&2", Self.wrapper + initialise)
    let lines =
      [
        "listen_addresses = '127.0.0.1'", "port = \(port)", "unix_socket_directories = '\(sockets)'",
        "shared_buffers = 16MB", "max_connections = 20", "logging_collector = off",
      ] + options
    try await configure(lines)
  }

  /// Adds lines to postgresql.conf: in force at the next start, or at a reload.
  public func configure(_ lines: [String]) async throws {
    let text = lines.map { "\($0)\n" }.joined()
    try await DatabaseFolder.shell("printf %s \"$1\" >>\"$2\"", [text, folder("data/postgresql.conf")])
  }

  /// Has it read its configuration and certificates again.
  public func reload() { server.process?.signal(SIGHUP) }

  /// Writes a file of mode 0600 that it may read; answers its path.
  @discardableResult
  public func give(_ name: String, _ text: String) async throws -> String {
    try folder.write(name, text)
    try await handOver(folder(name))
    return folder(name)
  }

  /// Copies a file, with its mode, that it may read; answers its path.
  @discardableResult
  public func give(copyOf path: String, as name: String) async throws -> String {
    try await DatabaseFolder.shell("cp -p --reflink=auto \"$1\" \"$2\"", [path, folder(name)])
    try await handOver(folder(name))
    return folder(name)
  }

  private func handOver(_ path: String) async throws {
    if !Self.wrapper.isEmpty { try await DatabaseFolder.shell("chown -R postgres:postgres \"$1\"", [path]) }
  }

  /// Asks over TLS on loopback, as psql's `sslmode=verify-ca` with this CA does.
  public func queryOverTLS(_ sql: String, authorityFile: String) async throws -> String {
    let place =
      "host=127.0.0.1 port=\(port) user=postgres dbname=postgres sslmode=verify-ca sslrootcert=\(authorityFile)"
    let outcome = try await TestProgram(path: "/usr/bin/psql").run(["-X", "-A", "-t", "-q", "-c", sql, place])
    guard outcome.status == 0 else { throw SQLError(outcome.error) }
    return outcome.text.trimmingCharacters(in: .newlines)
  }
}
