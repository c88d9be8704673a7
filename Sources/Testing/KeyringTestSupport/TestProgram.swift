public import Foundation
internal import Glibc

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
    let process = Process()
    process.executableURL = URL(filePath: path)
    process.arguments = arguments
    let kept = [
      "PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin", "HOME": "/nonexistent",
    ]
    process.environment = kept.merging(environment) { $1 }
    if let directory { process.currentDirectoryURL = URL(filePath: directory) }
    for path in [output, error] where path != "/dev/null" {
      guard FileManager.default.createFile(atPath: path, contents: nil) else { throw NotBuilt(path: path) }
    }
    process.standardInput = FileHandle(forReadingAtPath: input)
    process.standardOutput = FileHandle(forWritingAtPath: output)
    process.standardError = FileHandle(forWritingAtPath: error)
    return try TestProcess(process)
  }
}

/// A process that a test started, and ends by its id.
public final class TestProcess: @unchecked Sendable {
  // SAFETY: @unchecked Sendable because Foundation's Process locks its state.
  private let process: Process
  private let end: AsyncStream<Void>

  init(_ process: Process) throws {
    self.process = process
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
    end = stream
    process.terminationHandler = { _ in continuation.finish() }
    try process.run()
  }

  deinit { if process.isRunning { signal(SIGKILL) } }

  /// Its id.
  public var id: Int32 { process.processIdentifier }
  /// False once it ended.
  public var isRunning: Bool { process.isRunning }
  /// The exit status, or the number of the signal that ended it; once it ended.
  public var status: Int32 { process.terminationStatus }
  /// True where a signal ended it.
  public var isSignal: Bool { process.terminationReason == .uncaughtSignal }

  /// Sends it a signal.
  public func signal(_ number: Int32) { kill(id, number) }

  /// Waits for its end.
  public func ended() async { for await _ in end {} }
}
