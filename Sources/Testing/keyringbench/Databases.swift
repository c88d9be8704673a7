import ArgumentParser
import CBenchmark
import Foundation
import KeyringClient
import KeyringTestSupport
import WireProtocol

/// Database servers whose keys are keyringd's, by turns with the same servers with their own file keyrings.
struct Databases: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Measures MySQL and MariaDB with keyringd against their own file keyrings, and prints a Markdown table.",
    discussion: """
      Of each kind three servers are made, with everything encrypted that can be: two with the database's own keyring in a
      file, one with keyringd's. They are measured by turns. The second file keyring is a control: its ratio to the first is
      what the machine's noise does to a ratio. Needs MySQL 9.7 (Tests/install-mysql), MariaDB 10.11 and sysbench.

        keyringbench databases --rounds 9
      """
  )
  @Option(name: .long, help: "The keyringd to measure with.")
  var keyringd = ".build/release/keyringd"
  @Option(name: .long, help: "Measurements of each server, by turns.")
  var rounds = 9
  @Option(name: .long, help: "Encrypted tables of each server.")
  var tables = 1000
  @Option(name: .long, help: "Transactions of the write load in each measurement.")
  var transactions = 4000
  @Option(name: .long, parsing: .upToNextOption, help: "Measure these databases only.")
  var only = Kind.allCases

  enum Kind: String, CaseIterable, ExpressibleByArgument {
    case mysql, mariadb
  }

  func validate() throws {
    guard rounds > 0, tables > 0, transactions > 0 else { throw ValidationError("nothing to measure") }
  }

  func run() async throws {
    bench_pin(1)
    let bench = try await Bench(keyringd: keyringd)
    defer { bench.stop() }
    let target = try await bench.serve()
    let admin = try target.client(bench.files("admin"))
    print("| what | own keyring | keyringd | ratio | the same without keyringd | limit | calls to keyringd |")
    print("|---|---|---|---|---|---|---|")
    for kind in only {
      var candidates: [DatabaseCandidate] = []
      for isOurs in [false, true, false] {
        let candidate = try await DatabaseCandidate(kind, isOurs ? target : nil)
        try await candidate.fill(tables)
        candidates.append(candidate)
      }
      let trial = DatabaseTrial(kind: kind, candidates: candidates, rounds: rounds, admin: admin)
      try await trial.starts(tables)
      try await trial.load(transactions)
      if kind == .mysql { try await trial.rotations(tables) }
      for candidate in candidates { await candidate.database.stop() }
    }
    await admin.close()
  }
}

/// One database server that is measured.
struct DatabaseCandidate {
  let database: any RunningDatabase
  private let socket: String

  /// Nothing of it runs yet.
  ///
  /// - Parameter target: the keyringd that has its keys; nil for the database's own keyring in a file.
  init(_ kind: Databases.Kind, _ target: Target?) async throws {
    switch kind {
    case .mysql:
      let keyring = target.map { RunningMySQL.Keyring.service(configuration: Self.json($0)) } ?? .file
      let mysql = try await RunningMySQL(keyring, options: RunningMySQL.encryptsAll)
      (database, socket) = (mysql, mysql.socket)
    case .mariadb:
      let keyring =
        target.map { RunningMariaDB.Keyring.service(options: Self.options($0)) } ?? .file(ids: [1, 2])
      let mariadb = try await RunningMariaDB(keyring, options: RunningMariaDB.encryptsAll)
      (database, socket) = (mariadb, mariadb.socket)
    }
  }

  // With the defaults of everything that has one.

  private static func json(_ target: Target) -> String {
    """
    {"servers": ["\(target.host):\(target.port)"], "certificate": "\(target.files.certificate)", "key": "\(target.files.privateKey)",
     "ca": "\(target.files.authority)"}
    """
  }

  private static func options(_ target: Target) -> [String] {
    [
      "servers=\(target.host):\(target.port)", "certificate=\(target.files.certificate)",
      "key=\(target.files.privateKey)", "ca=\(target.files.authority)", "create=ON",
    ].map { "keyring_key_management_\($0)" }
  }

  /// Makes tables and ends it.
  func fill(_ tables: Int) async throws {
    try await database.start()
    try await database.query("CREATE DATABASE d; CREATE DATABASE sbtest")
    for first in stride(from: 0, to: tables, by: 250) {
      let statements = (first..<min(first + 250, tables)).map {
        "CREATE TABLE d.t\($0) (a INT PRIMARY KEY) ENGINE=InnoDB"
      }
      try await database.query(statements.joined(separator: ";"))
    }
    try await sysbench("prepare", [])
    await database.stop()
  }

  /// Seconds from the program's start until it says that it is ready.
  func secondsToStart() async throws -> Double {
    let start = ContinuousClock.now
    try database.server.launch()
    while try !database.log.contains(database.server.readyLine) {
      guard database.server.isRunning else { throw BenchError(description: try database.log) }
      try await Task.sleep(for: .milliseconds(3))
    }
    return seconds(since: start)
  }

  /// CPU seconds that the server has used.
  private func secondsOfCPU() throws -> Double {
    guard let process = database.server.process else { throw BenchError(description: "not started") }
    let text = try String(contentsOfFile: "/proc/\(process.id)/stat", encoding: .utf8)
    // The name may have blanks: what follows its end is the third field, of which utime and stime are the 14th and 15th.
    let fields = text.suffix(from: text.lastIndex(of: ")") ?? text.startIndex).split(separator: " ")
    guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else {
      throw BenchError(description: text)
    }
    return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// The server's CPU seconds for this many write transactions, on four tables of 10,000 rows.
  func secondsOfCPU(_ transactions: Int) async throws -> Double {
    let before = try secondsOfCPU()
    try await sysbench("run", ["--events=\(transactions)", "--time=0", "--threads=4"])
    return try secondsOfCPU() - before
  }

  private func sysbench(_ command: String, _ arguments: [String]) async throws {
    let outcome = try await TestProgram(path: "/usr/bin/sysbench").run(
      [
        "oltp_write_only", "--db-driver=mysql", "--mysql-socket=\(socket)", "--mysql-user=root",
        "--mysql-db=sbtest", "--tables=4", "--table-size=10000", "--rand-seed=1",
      ] + arguments + [command]
    )
    guard outcome.status == 0, !outcome.isSignal else {
      throw BenchError(description: "sysbench: \(outcome.text)\(outcome.error)")
    }
  }
}

/// The measurements of one kind: own keyring, keyringd's, own keyring again.
struct DatabaseTrial {
  let kind: Databases.Kind
  let candidates: [DatabaseCandidate]
  let rounds: Int
  let admin: KeyringClient

  /// From the program's start to its ready line, after an orderly end; the files are in the page cache.
  func starts(_ tables: Int) async throws {
    try await byTurns("start, \(tables) encrypted tables, s", limit: 1.1) { candidate in
      let seconds = try await candidate.secondsToStart()
      await candidate.database.stop()
      return seconds
    }
  }

  /// All of them run meanwhile, and all but one wait.
  func load(_ transactions: Int) async throws {
    for candidate in candidates {
      try await candidate.database.start()
      _ = try await candidate.secondsOfCPU(transactions)  // what is done once is done
    }
    try await byTurns("\(transactions) write transactions, s of the server's CPU", limit: 1.02) {
      try await $0.secondsOfCPU(transactions)
    }
  }

  /// Of five in one connection, one.
  func rotations(_ tables: Int) async throws {
    let statements = Array(repeating: "ALTER INSTANCE ROTATE INNODB MASTER KEY", count: 5)
    try await byTurns("5 times ROTATE INNODB MASTER KEY, \(tables) tablespaces, s", limit: 1.5) { candidate in
      let start = ContinuousClock.now
      try await candidate.database.query(statements.joined(separator: ";"))
      return seconds(since: start)
    }
  }

  private func calls() async throws -> UInt64 {
    guard case .service(let status) = try await admin.call(.admin(.status(""))).result else {
      throw BenchError(description: "the server says no status")
    }
    return status.calls
  }

  /// Prints a row. In each round the order is another one, so that none is always behind the same.
  private func byTurns(
    _ what: String,
    limit: Double,
    _ measure: (DatabaseCandidate) async throws -> Double
  ) async throws {
    var (values, asked) = (candidates.map { _ in [Double]() }, [Double]())
    for round in 0..<rounds {
      for turn in candidates.indices {
        let index = (round + turn) % candidates.count
        let before = try await calls()
        values[index].append(try await measure(candidates[index]))
        // The call that asks is counted by the next one.
        if index == 1 { asked.append(Double(try await calls() - before - 1)) }
      }
    }
    let ours = zip(values[1], zip(values[0], values[2])).map { $0 * 2 / ($1.0 + $1.1) }
    let control = zip(values[2], values[0]).map { $0 / $1 }
    print(
      String(
        format: "| %@: %@ | %.3f | %.3f | %@ | %@ | %.2f | %.0f |",
        "\(kind)",
        what,
        median(values[0] + values[2]),
        median(values[1]),
        Self.shown(ours),
        Self.shown(control),
        limit,
        median(asked)
      )
    )
    fflush(nil)
  }

  /// The median of the rounds' ratios, and between which half of them lie.
  private static func shown(_ ratios: [Double]) -> String {
    let sorted = ratios.sorted()
    let quarter = sorted.count / 4
    return String(
      format: "%.3f (%.3f to %.3f)",
      median(ratios),
      sorted[quarter],
      sorted[sorted.count - 1 - quarter]
    )
  }
}
