import Foundation
import KeyringTestSupport

/// A program that plays a database server's part for a library of ours: it is given commands, a line each, and answers.
struct DriverProcess {
  /// The program.
  let program: String
  /// What it loads.
  let library: String
  /// For the files that it is told to make and to wait for.
  let folder: TestDirectory
  /// RLIMIT_MEMLOCK in bytes; nil for this process's own.
  var lockedBytes: Int?

  /// What the commands printed.
  struct Answers {
    /// One a command, its lines.
    var answers: [[String]] = []
    /// Lines of the error log: the severity and the text.
    var log: [String] = []
    /// How the process ended.
    let outcome: TestProgram.Outcome

    init(_ outcome: TestProgram.Outcome) {
      self.outcome = outcome
      var answer: [String] = []
      for line in outcome.text.split(separator: "\n", omittingEmptySubsequences: false) {
        if line == "." {
          answers.append(answer)
          answer = []
        } else if line.hasPrefix("log ") {
          log.append(String(line.dropFirst(4)))
        } else {
          answer.append(String(line))
        }
      }
    }

    /// The first line of each answer.
    var first: [String] { answers.map { $0.first ?? "" } }
  }

  /// Gives the commands to a new process, and waits for its end.
  func run(_ commands: [String]) async throws -> Answers {
    let input = Data((commands.joined(separator: "\n") + "\n").utf8)
    let limit = lockedBytes.map { ["/usr/bin/prlimit", "--memlock=\($0):\($0)"] } ?? []
    let command = limit + [program, library]
    return Answers(try await TestProgram(path: command[0]).run(Array(command.dropFirst()), input: input))
  }

  /// The same in which `meanwhile` runs when the process has come to `pause`: between two lists of commands.
  func run(_ before: [String], pause meanwhile: @escaping () async throws -> Void, _ after: [String])
    async throws -> Answers
  {
    try await run([.give(before), .pause(meanwhile), .give(after)])
  }

  /// What happens in turn.
  enum Step {
    /// The process is given commands.
    case give([String])
    /// The process stands still while the test does something; two commands more, and answers, for it.
    case pause(() async throws -> Void)
  }

  /// Commands, with any number of pauses between them.
  func run(_ steps: [Step]) async throws -> Answers {
    let mark = UUID()
    var commands: [String] = []
    var pauses: [(reached: String, goOn: String, run: () async throws -> Void)] = []
    for step in steps {
      switch step {
      case .give(let more): commands += more
      case .pause(let run):
        let number = pauses.count
        let pause = (folder("reached-\(mark)-\(number)"), folder("go-on-\(mark)-\(number)"), run)
        commands += ["touch \(pause.0)", "await \(pause.1)"]
        pauses.append(pause)
      }
    }
    async let answers = run(commands)
    do {
      // The process goes on in any case: else nobody would end it.
      defer { for pause in pauses { _ = FileManager.default.createFile(atPath: pause.goOn, contents: nil) } }
      for pause in pauses {
        guard try await eventually({ FileManager.default.fileExists(atPath: pause.reached) }) else {
          throw NotReached()
        }
        try await pause.run()
        _ = FileManager.default.createFile(atPath: pause.goOn, contents: nil)
      }
    }
    return try await answers
  }

  /// The process ended or hung before the pause.
  struct NotReached: Error {}
}
