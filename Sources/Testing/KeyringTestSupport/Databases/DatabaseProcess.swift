internal import Foundation
internal import Synchronization

/// A database server as a process of a test's own, and its client: what is alike in MySQL, MariaDB and PostgreSQL.
///
/// Everything of it is in one folder. It listens on a socket there, and on loopback where it is told a port.
public final class DatabaseProcess: Sendable {
  /// How one is started and asked.
  public struct Commands: Sendable {
    /// Starts it in the foreground, with its log on standard error.
    public var server: [String]
    /// Ends with the option that takes a statement.
    public var client: [String]
    /// What it says when it is ready.
    public var readyLine: String
    /// Ends it in good order.
    public var stopSignal: Int32 = SIGTERM
    /// For both.
    public var environment: [String: String] = [:]
  }

  /// It ended instead of becoming ready.
  public struct NotReady: Error, CustomStringConvertible {
    /// What it said.
    public let description: String
  }

  private struct State {
    var process: TestProcess?
    var starts = 0
  }

  /// Where everything of it is.
  public let folder: TestDirectory
  private let commands: Commands
  private let state = Mutex(State())

  /// Nothing is started yet.
  public init(folder: TestDirectory, commands: Commands) {
    (self.folder, self.commands) = (folder, commands)
  }

  // Nothing goes on running without its test.
  deinit { state.withLock { $0.process?.signal(SIGKILL) } }

  /// What it says when it is ready.
  public var readyLine: String { commands.readyLine }
  /// The process that was started last.
  public var process: TestProcess? { state.withLock { $0.process } }
  /// False before it was started, and after it ended.
  public var isRunning: Bool { process?.isRunning ?? false }

  /// What it said since it was started last.
  public var log: String {
    get throws { try String(contentsOfFile: folder("log-\(state.withLock { $0.starts })"), encoding: .utf8) }
  }

  /// Starts it and waits until it is ready; throws NotReady where it ends instead.
  public func start() async throws {
    let process = try launch()
    while true {
      let isRunning = process.isRunning  // before the log is read: what it said last is in it
      let text = try log
      if text.contains(commands.readyLine) { return }
      guard isRunning else { throw NotReady(description: text) }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Starts it and waits for nothing.
  @discardableResult
  public func launch() throws -> TestProcess {
    try state.withLock { state in
      state.starts += 1
      let process = try TestProgram(path: commands.server[0]).start(
        Array(commands.server.dropFirst()),
        environment: commands.environment,
        directory: "/",
        output: folder("output-\(state.starts)"),
        error: folder("log-\(state.starts)")
      )
      state.process = process
      return process
    }
  }

  /// Starts one that is expected to give up by itself; answers its log.
  public func failedStart() async throws -> String {
    let process = try launch()
    await process.ended()
    return try log
  }

  /// Ends it in good order.
  public func stop() async {
    process?.signal(commands.stopSignal)
    await process?.ended()
  }

  /// Ends it as a power cut would, but for what the kernel holds.
  public func kill() async {
    process?.signal(SIGKILL)
    await process?.ended()
  }

  /// Ends it in good order and starts it again.
  public func restart() async throws {
    await stop()
    try await start()
  }

  /// Runs statements through the client of the same release, and answers what they printed: a line a row, tabs between columns.
  ///
  /// Throws SQLError with the number, where the server refuses one.
  @discardableResult
  public func query(_ sql: String) async throws -> String {
    let command = commands.client + [sql]
    let outcome = try await TestProgram(path: command[0]).run(
      Array(command.dropFirst()),
      environment: commands.environment
    )
    guard outcome.status == 0, !outcome.isSignal else { throw SQLError(outcome.error) }
    return outcome.text.trimmingCharacters(in: .newlines)
  }

  /// What statements printed, by row and column.
  public func rows(_ sql: String) async throws -> [[String]] {
    try await query(sql).split(separator: "\n", omittingEmptySubsequences: true).map { row in
      row.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
    }
  }

  /// Why a statement is refused; nil where it is not.
  public func refusal(_ sql: String) async throws -> SQLError? {
    do {
      try await query(sql)
      return nil
    } catch let error as SQLError {
      return error
    }
  }

  /// Starts a client that executes a file of statements, each answer written as it comes, up to the first failure.
  public func startClient(input: String, output: String, error: String) throws -> TestProcess {
    // Without the option that takes a statement.
    let command = commands.client.dropLast()
    return try TestProgram(path: command[0]).start(
      Array(command.dropFirst()),
      environment: commands.environment,
      input: input,
      output: output,
      error: error
    )
  }

  /// Waits until the log of the present run says something; false where it does not.
  public func says(_ text: String, within most: Duration = .seconds(30)) async throws -> Bool {
    try await eventually(within: most) { try log.contains(text) }
  }

  /// Files under a folder of it (`data`) that contain these bytes, by path in that folder.
  public func files(in name: String = "data", containing marker: String) throws -> [String] {
    let bytes = Data(marker.utf8)
    let names = FileManager.default.enumerator(atPath: folder(name))?.compactMap { $0 as? String } ?? []
    return try names.filter { file in
      let path = folder("\(name)/\(file)")
      var isFolder: ObjCBool = false
      // Sockets and folders have no content.
      guard unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), !isFolder.boolValue,
        try FileManager.default.attributesOfItem(atPath: path)[.type] as? FileAttributeType == .typeRegular
      else { return false }
      return try Data(contentsOf: URL(filePath: path), options: .alwaysMapped).range(of: bytes) != nil
    }.sorted()
  }
}

/// What a database server answered instead of doing it.
public struct SQLError: Error, CustomStringConvertible {
  /// MySQL's and MariaDB's number; 0 where the client says none (2002 and so on are the client's own: no connection).
  public let number: Int
  /// What it said.
  public let description: String

  init(_ text: String) {
    description = text.trimmingCharacters(in: .newlines)
    number = text.firstMatch(of: /ERROR (\d+)/).flatMap { Int($0.1) } ?? 0
  }
}

/// A database server of a test, of any kind.
public protocol RunningDatabase: Sendable {
  /// The server and its client.
  var server: DatabaseProcess { get }
}

extension RunningDatabase {
  /// What it said since it was started last.
  public var log: String { get throws { try server.log } }
  /// Runs statements; answers what they printed.
  @discardableResult
  public func query(_ sql: String) async throws -> String { try await server.query(sql) }
  /// What statements printed, by row and column.
  public func rows(_ sql: String) async throws -> [[String]] { try await server.rows(sql) }
  /// Why a statement is refused; nil where it is not.
  public func refusal(_ sql: String) async throws -> SQLError? { try await server.refusal(sql) }
  /// Ends it in good order.
  public func stop() async { await server.stop() }
  /// Starts it and waits until it is ready.
  public func start() async throws { try await server.start() }
  /// Ends it in good order and starts it again.
  public func restart() async throws { try await server.restart() }
  /// Ends it with SIGKILL.
  public func kill() async { await server.kill() }
}

/// Where a server's folder and socket are, and what is copied there.
public enum DatabaseFolder {
  /// Runs a shell command, whose arguments are `$1` and so on; throws what it says where it fails.
  @discardableResult
  public static func shell(_ script: String, _ arguments: [String] = []) async throws -> String {
    let outcome = try await TestProgram(path: "/bin/sh").run(["-ec", script, "sh"] + arguments)
    guard outcome.status == 0 else {
      throw DatabaseProcess.NotReady(description: outcome.text + outcome.error)
    }
    return outcome.text.trimmingCharacters(in: .newlines)
  }

  /// Copies a data directory that is initialised once, by whoever comes first, into `.build`.
  ///
  /// - Parameters:
  ///   - name: of what is initialised: another one for other options.
  ///   - destination: must not exist.
  ///   - initialise: a command; `DATA` in it is the folder to be made.
  public static func copyData(_ name: String, to destination: String, initialise: [String]) async throws {
    let kept = "\(CClients.top)/.build/databases/\(name)"
    let script = """
      kept=$1; to=$2; shift 2
      mkdir -p "${kept%/*}"
      exec 9>"$kept.lock"; flock 9
      if [ ! -e "$kept" ]; then rm -rf "$kept.new"; "$@" >"$kept.log" 2>&1 || { cat "$kept.log"; exit 1; }; mv "$kept.new" "$kept"; fi
      cp -a --reflink=auto "$kept" "$to"
      """
    let command = initialise.map { $0.replacing("DATA", with: "\(kept).new") }
    let outcome = try await TestProgram(path: "/bin/sh").run(
      ["-ec", script, "sh", kept, destination] + command
    )
    guard outcome.status == 0 else {
      throw DatabaseProcess.NotReady(description: outcome.text + outcome.error)
    }
  }

  /// A path for a socket: the kernel takes 107 bytes, and a test's folder may be longer.
  ///
  /// - Returns: a folder that is `folder`, or a new one directly in /tmp.
  public static func forSocket(_ folder: TestDirectory) async throws -> String {
    if folder.path.utf8.count < 80 { return folder.path }
    return try await shell("mktemp -d /tmp/keyring-socket-XXXXXX")
  }

  /// A TCP port on loopback that nobody has now.
  public static func freePort() async throws -> Int {
    let text = try await shell(
      "python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", 0)); print(s.getsockname()[1])'"
    )
    guard let port = Int(text) else { throw DatabaseProcess.NotReady(description: text) }
    return port
  }
}
