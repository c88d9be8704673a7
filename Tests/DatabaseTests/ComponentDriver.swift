import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport

/// component_keyring_service.so in a process that plays mysqld's part: Programs/component-driver.c.
struct ComponentDriver {
  /// With the component's configuration: where the .so would be.
  let folder: TestDirectory
  private let build: String

  /// Builds what is missing.
  init(_ sanitizer: CClients.Sanitizer? = nil) async throws {
    folder = try TestDirectory()
    build = try await CClients.built(sanitizer)
    let make = [
      "\(CClients.top)/.build/c.lock", "make", "-s", "-C", "\(CClients.top)/Sources/Clients",
      "SANITIZE=\(sanitizer?.rawValue ?? "")", "mysql-component-driver",
    ]
    let outcome = try await TestProgram(path: "/usr/bin/flock").run(make)
    guard outcome.status == 0 else { throw NotBuilt(description: outcome.error) }
  }

  /// The program does not build.
  struct NotBuilt: Error, CustomStringConvertible {
    let description: String
  }

  /// The shared object.
  var component: String { "\(build)/component_keyring_service.so" }

  /// Writes the configuration beside the component: of an instance of acme, and with more members of the JSON object.
  func configure(_ server: some TestEndpoint, instance: String = "db1", port: Int? = nil, _ more: String...)
    throws
  {
    try configure(pki: server.pki, port: port ?? server.port, instance: instance, more)
  }

  /// The same for a server that there is none of (yet).
  func configure(pki: TestPKI, port: Int, tenant: String = "acme", instance: String = "db1", _ more: [String])
    throws
  {
    let files = try pki.client(.instance(TenantName(tenant), InstanceName(instance)))
    let members = [
      #""servers": "localhost:\#(port)""#, #""certificate": "\#(files.certificateFile)""#,
      #""key": "\#(files.privateKeyFile)""#, #""ca": "\#(files.authorityFile)""#,
    ]
    try write("{\((members + more).joined(separator: ", "))}")
  }

  /// Writes a configuration of any kind.
  func write(_ text: String) throws { try folder.write("component_keyring_service.cnf", text) }

  /// The command that loads it.
  var load: String { "load \(folder.path)/ -" }

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
    return Answers(try await TestProgram(path: "\(build)/component-driver").run([component], input: input))
  }

  /// The same in which `meanwhile` runs when the process has come to `pause`: between two lists of commands.
  func run(_ before: [String], pause meanwhile: () async throws -> Void, _ after: [String]) async throws
    -> Answers
  {
    let (reached, goOn) = (folder("reached-\(UUID())"), folder("go-on-\(UUID())"))
    async let answers = run(before + ["touch \(reached)", "await \(goOn)"] + after)
    do {
      // The process goes on in any case: else nobody would end it.
      defer { _ = FileManager.default.createFile(atPath: goOn, contents: nil) }
      guard try await eventually({ FileManager.default.fileExists(atPath: reached) }) else {
        throw NotReached()
      }
      try await meanwhile()
    }
    return try await answers
  }

  /// The process ended or hung before the pause.
  struct NotReached: Error {}
}
