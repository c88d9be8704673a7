public import Foundation
internal import Glibc
internal import Synchronization

/// A program of this package as a process of its own: what is built beside the tests.
public struct TestProgram: Sendable {
  /// What it said and how it ended.
  public struct Outcome: Sendable {
    /// The exit status, or the number of the signal that ended it.
    public let status: Int32
    /// True where a signal ended it.
    public let isSignal: Bool
    /// What it wrote.
    public let output: Data
    /// What it wrote to standard error.
    public let error: String

    /// The output as text.
    public var text: String { String(decoding: output, as: UTF8.self) }
    /// Lines of standard error.
    public var errorLines: [Substring] { error.split(separator: "\n") }
  }

  /// Where it is.
  public let path: String

  /// A program of the package, by the name of its product.
  public init(product: String) throws {
    // The tests' own executable lies in the same folder.
    path =
      try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
      .split(separator: "/").dropLast().reduce(into: "") { $0 += "/\($1)" } + "/\(product)"
    guard FileManager.default.isExecutableFile(atPath: path) else { throw NotBuilt(path: path) }
  }

  /// A program of the system.
  public init(path: String) { self.path = path }

  /// It is not there: `swift build --build-tests` makes it.
  public struct NotBuilt: Error {
    /// Where it was looked for.
    public let path: String
  }

  /// Runs it to its end, on a thread of its own: nothing of Swift's waits.
  ///
  /// - Parameters:
  ///   - environment: all of it, but for PATH and HOME (a folder that is not there), which it gets in any case.
  ///   - input: its standard input.
  public func run(
    _ arguments: [String],
    environment: [String: String] = [:],
    input: Data = Data()
  ) async throws -> Outcome {
    let folder = try TestDirectory()
    try input.write(to: URL(filePath: folder("in")))
    let process = try start(
      arguments,
      environment: environment,
      input: folder("in"),
      output: folder("out"),
      error: folder("err")
    )
    await process.ended()
    return Outcome(
      status: process.status,
      isSignal: process.isSignal,
      output: try Data(contentsOf: URL(filePath: folder("out"))),
      error: try String(contentsOfFile: folder("err"), encoding: .utf8)
    )
  }

  /// Starts it; paths say where its standard streams are.
  public func start(
    _ arguments: [String],
    environment: [String: String],
    directory: String? = nil,
    input: String = "/dev/null",
    output: String = "/dev/null",
    error: String
  ) throws -> TestProcess {
    for path in [output, error] where path != "/dev/null" {
      guard FileManager.default.createFile(atPath: path, contents: nil) else { throw NotBuilt(path: path) }
    }
    let kept = [
      "PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin", "HOME": "/nonexistent",
    ]
    let variables = kept.merging(environment) { $1 }.map { "\($0)=\($1)" }
    let command = (directory.map { ["/usr/bin/env", "--chdir=\($0)"] } ?? []) + [path] + arguments
    return try TestProcess(Spawn(input, output, error), command, variables)
  }
}

/// How a process begins: with files as its standard streams, no other descriptor, and no signal blocked or ignored, as Foundation's
/// Process would hand them down from the thread that starts it.
@safe
private struct Spawn: ~Copyable {
  private var actions = unsafe posix_spawn_file_actions_t()
  private var attributes = posix_spawnattr_t()

  init(_ input: String, _ output: String, _ error: String) {
    // SAFETY: both are initialized here, and destroyed in deinit; paths are copied.
    unsafe posix_spawn_file_actions_init(&actions)
    unsafe posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY, 0)
    unsafe posix_spawn_file_actions_addopen(&actions, 2, error, O_WRONLY | O_APPEND, 0)
    // The sockets of servers in this process are not for others; more may be opened meanwhile, and closing what is closed is no error.
    let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    for descriptor in 3..<(open.compactMap { Int32($0) }.max() ?? 0) + 256 {
      unsafe posix_spawn_file_actions_addclose(&actions, descriptor)
    }
    unsafe posix_spawnattr_init(&attributes)
    var none = sigset_t()
    var all = sigset_t()
    unsafe sigemptyset(&none)
    unsafe sigfillset(&all)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setsigdefault(&attributes, &all)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
  }

  deinit {
    var (actions, attributes) = unsafe (actions, attributes)
    unsafe posix_spawn_file_actions_destroy(&actions)
    unsafe posix_spawnattr_destroy(&attributes)
  }

  /// Starts it.
  borrowing func start(_ arguments: [String], _ environment: [String]) throws -> pid_t {
    // SAFETY: both lists end with nil and are freed after the call, which copies them.
    let lists = unsafe [arguments, environment].map { list in
      unsafe list.map { unsafe strdup($0) } + [nil]
    }
    defer { unsafe lists.forEach { unsafe $0.forEach { unsafe free($0) } } }
    var (id, actions, attributes) = unsafe (pid_t(), actions, attributes)
    let failure = unsafe posix_spawn(&id, arguments[0], &actions, &attributes, lists[0], lists[1])
    guard failure == 0 else { throw POSIXError(POSIXErrorCode(rawValue: failure) ?? .EINVAL) }
    return id
  }
}

/// A process that a test started, and ends by its id.
public final class TestProcess: Sendable {
  /// Its id.
  public let id: Int32
  private let waitStatus = Mutex<Int32?>(nil)
  private let end: AsyncStream<Void>

  fileprivate init(_ spawn: consuming Spawn, _ arguments: [String], _ environment: [String]) throws {
    id = try spawn.start(arguments, environment)
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
    end = stream
    // The thread holds the process until it ended: its id is nobody else's before.
    Thread.detachNewThread {
      var status: Int32 = 0
      while unsafe waitpid(self.id, &status, 0) < 0, errno == EINTR {}
      self.waitStatus.withLock { $0 = status }
      continuation.finish()
    }
  }

  /// False once it ended.
  public var isRunning: Bool { waitStatus.withLock { $0 == nil } }
  /// The exit status, or the number of the signal that ended it; -1 while it runs.
  public var status: Int32 {
    waitStatus.withLock { status in status.map { $0 & 0x7f == 0 ? $0 >> 8 & 0xff : $0 & 0x7f } ?? -1 }
  }
  /// True where a signal ended it.
  public var isSignal: Bool { waitStatus.withLock { status in status.map { $0 & 0x7f != 0 } ?? false } }

  /// Sends it a signal, unless it ended.
  public func signal(_ number: Int32) {
    if isRunning { kill(id, number) }
  }

  /// Waits for its end.
  public func ended() async { for await _ in end {} }
}
