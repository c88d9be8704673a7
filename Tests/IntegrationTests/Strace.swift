import Foundation
import KeyringTestSupport

/// Makes system calls of a running keyringd on one file or directory fail, and no other (strace(1), `--inject`). Root only: nobody else may attach.
enum Strace {
  struct Failure: Error, CustomStringConvertible { let description: String }

  /// Attaches; what is injected is injected when this returns, and until the answered process ends.
  ///
  /// - Parameters:
  ///   - path: absolute.
  ///   - injection: `error=EIO`, `signal=KILL:when=1`.
  static func attach(to daemon: TestDaemon, _ path: String, _ call: String, _ injection: String) async throws
    -> TestProcess
  {
    let said = daemon.data("strace.log")
    let strace = try TestProgram(path: "/usr/bin/strace").start(
      [
        "--follow-forks", "--trace-path=\(path)", "--trace=\(call)", "--inject=\(call):\(injection)",
        "--output=\(daemon.data("trace"))", "--attach=\(daemon.process.id)",
      ],
      environment: [:],
      error: said
    )
    while try !String(contentsOfFile: said, encoding: .utf8).contains("attached") {
      guard strace.isRunning else {
        throw Failure(description: try String(contentsOfFile: said, encoding: .utf8))
      }
      try await Task.sleep(for: .milliseconds(5))
    }
    return strace
  }
}
