import ArgumentParser
import CBenchmark
import Foundation

/// The whole table, in one run.
struct Compare: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures floors and keyringd by turns, and prints a Markdown table."
  )
  @Option(name: .long, help: "The keyringd to measure.")
  var keyringd = ".build/release/keyringd"
  @Option(name: .long, help: "The keyringctl that takes backups.")
  var keyringctl = ".build/release/keyringctl"
  @Option(name: .long, help: "Seconds of each measurement.")
  var seconds = 4.0
  @Option(
    name: .long,
    help: "Measurements of each kind, by turns; medians, and the median of each round's ratio, are printed."
  )
  var rounds = 3
  @Option(name: .long, help: "Keys of the large keyring.")
  var keys = 100_000
  @Option(
    name: .long,
    help: "Tenants whose KMS is down when keyringd starts, and of a fleet that is onboarded."
  )
  var tenants = 1000
  @Option(name: .long, help: "Connections that are silent, or send a byte a second.")
  var slow = 2000

  @Option(name: .long, help: "Tenants of one server.")
  var fleet = 10_000

  @Option(name: .long, parsing: .upToNextOption, help: "Measure these parts only.")
  var only = Part.allCases

  enum Part: String, CaseIterable, ExpressibleByArgument {
    case fetches, handshakes, stores, size, rotation, backup, isolation, outage, limits, scale, apply
    case slowClients = "slowclients"
    case awsRotation = "aws-rotation"
  }

  func run() async throws {
    bench_pin(1)
    bench_raise_descriptors()
    let bench = try await Bench(keyringd: keyringd)
    defer { bench.stop() }
    if only.contains(.fetches) || only.contains(.handshakes) { try await floors(bench) }
    if only.contains(.stores) { try await stores(bench, try await bench.serve()) }
    if only.contains(.size) { try await largeKeyring(bench) }
    if only.contains(.rotation) { try await rotation(bench) }
    if only.contains(.backup) { try await backup(bench) }
    if only.contains(.isolation) { try await isolation(bench) }
    if only.contains(.limits) { try await limits(bench) }
    if only.contains(.slowClients) { try await slowClients(bench) }
    if only.contains(.outage) { try await outage(bench) }
    if only.contains(.apply) { try await apply(bench) }
    if only.contains(.scale) { try await scale(bench) }
    if only.contains(.awsRotation) { try await awsRotation(bench) }
  }

  private func floors(_ bench: Bench) async throws {
    let plain = try bench.floor(good: false)
    let good = try bench.floor(good: true)
    let server = try await bench.serve()
    print("| what | plain floor | good floor | keyringd | to plain | to good | target |")
    print("|---|---|---|---|---|---|---|")
    for (depth, target) in [(1, "good 1.4"), (16, "plain 2.0, good 3.0")] as [(Int32, String)]
    where only.contains(.fetches) {
      let costs = try byTurns([plain, good, server]) {
        let measured = try $0.measure(connections: 64, depth: depth, seconds: seconds, stores: 0)
        guard measured.errors == 0 else { throw BenchError(description: "\(measured.errors) fetches failed") }
        return measured.microsecondsCPU
      }
      row("Fetch, 64 connections, depth \(depth), us of server CPU", costs, target)
    }
    guard only.contains(.handshakes) else { return }
    let handshakes = try byTurns([plain, good, server]) { try $0.handshake(seconds: seconds) }
    row("mTLS handshake, us of server CPU", handshakes, "good 1.15")
  }

  /// The targets' values, a list a target, one value a round.
  private func byTurns(_ targets: [Target], _ measure: (Target) throws -> Double) throws -> [[Double]] {
    var values = targets.map { _ in [Double]() }
    for _ in 0..<rounds {
      for (index, target) in targets.enumerated() { values[index].append(try measure(target)) }
    }
    return values
  }

  /// The median of each round's ratio: what disturbs a machine disturbs the neighbours in time alike.
  func ratio(_ values: [Double], to others: [Double]) -> Double {
    median(zip(values, others).map { $0 / $1 })
  }

  private func row(_ what: String, _ values: [[Double]], _ target: String) {
    print(
      String(
        format: "| %@ | %.2f | %.2f | %.2f | %.2f | %.2f | %@ |",
        what,
        median(values[0]),
        median(values[1]),
        median(values[2]),
        ratio(values[2], to: values[0]),
        ratio(values[2], to: values[1]),
        target
      )
    )
  }

  /// Durable stores into one tenant against the fdatasyncs of the same disk, by turns.
  private func stores(_ bench: Bench, _ server: Target) async throws {
    var ratios: [Double] = []
    var first: UInt32 = 1
    for _ in 0..<rounds {
      let syncs = unsafe Double(bench_fdatasyncs(bench.directory, 700, seconds)) / seconds
      var target = server
      target.firstStore = first
      let measured = try target.measure(connections: 64, depth: 1, seconds: seconds, stores: 100)
      guard measured.errors == 0 else { throw BenchError(description: "\(measured.errors) stores failed") }
      first += UInt32(measured.requests) + 128
      ratios.append(Double(measured.requests) / measured.seconds / syncs)
      print("\(String(format: "fdatasync %.0f/s;", syncs)) stores: \(measured.line)\n")
    }
    print(
      String(
        format:
          "\nDurable stores a second, 64 connections, depth 1, to the disk's fdatasyncs a second: %.2f (target: at least 2)",
        median(ratios)
      )
    )
  }

  /// What a keyring's size costs: opening it, and storing into it.
  private func largeKeyring(_ bench: Bench) async throws {
    var server = try await bench.serve()
    let small = try storeCost(&server)
    try await bench.fill(keys, server)
    let large = try storeCost(&server)
    print(
      String(
        format: "\nA store at 100 keys: %.1f us of server CPU; at %d keys: %.1f; ratio %.2f (target: 1.2)",
        small,
        keys,
        large,
        large / small
      )
    )
    bench.stopServer()
    let opening = try await bench.openingSeconds()
    print(
      String(
        format:
          "\nOpening a keyring of %d keys, from the first call's sending to its answer: %.2f s (target: 1)",
        keys,
        opening
      )
    )
  }

  private func storeCost(_ server: inout Target) throws -> Double {
    var costs: [Double] = []
    for _ in 0..<rounds {
      server.firstStore += 10_000_000
      costs.append(
        try server.measure(connections: 8, depth: 1, seconds: min(seconds, 1), stores: 100).microsecondsCPU
      )
    }
    return median(costs)
  }

  /// What rotate-keys of a large keyring takes, and what a reader notices of it: idle and rotating by turns. One reader at a time, so that the
  /// server's one core is not full without the rotation.
  private func rotation(_ bench: Bench) async throws {
    let server = try await bench.serve()
    try await bench.fill(keys, server)
    let admin = bench.files("admin")
    var (took, ratios, idle, during): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
    for round in 0...rounds {
      let still = try server.measure(connections: 1, depth: 1, seconds: max(took.last ?? 1, 0.5), stores: 0)
      async let rotation = server.rotateKeys(admin, keys: keys)
      let busy = try server.measure(connections: 1, depth: 1, seconds: max(took.last ?? 1, 0.5), stores: 0)
      took.append(try await rotation)
      guard round > 0 else { continue }  // the first tells how long to measure
      guard still.errors + busy.errors == 0 else { throw BenchError(description: "fetches failed") }
      idle.append(still.milliseconds99)
      during.append(busy.milliseconds99)
      ratios.append(busy.milliseconds99 / still.milliseconds99)
      print(
        "rotate-keys \(String(format: "%.2f s;", took[round])) idle: \(still.line); rotating: \(busy.line)\n"
      )
    }
    print(
      String(
        format:
          "\nrotate-keys of %d keys: %.2f s (target: 2); fetches of 1 connection: p99 %.3f ms idle, %.3f ms meanwhile, ratio %.2f (target: 2, or 5 ms more)",
        keys,
        median(Array(took.dropFirst())),
        median(idle),
        median(during),
        median(ratios)
      )
    )
  }

  /// What a backup of a large keyring takes while writes go on, and what writers notice of it: without and with by turns.
  private func backup(_ bench: Bench) async throws {
    var server = try await bench.serve()
    try await bench.fill(keys, server)
    let administrator = bench.files("admin")
    var (took, ratios, alone, during): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
    for round in 0...rounds {
      func stores() throws -> Measured {
        server.firstStore += 1_000_000
        return try server.measure(connections: 8, depth: 1, seconds: max(took.last ?? 1, 0.5), stores: 100)
      }
      let still = try stores()
      let (target, program, file) = (server, keyringctl, "\(bench.directory)/backup-\(round)")
      async let backup = target.backup(administrator, program, file)
      let busy = try stores()
      took.append(try await backup)
      guard round > 0 else { continue }  // the first tells how long to measure
      guard still.errors + busy.errors == 0 else { throw BenchError(description: "stores failed") }
      alone.append(still.milliseconds99)
      during.append(busy.milliseconds99)
      ratios.append(Double(busy.requests) / busy.seconds / (Double(still.requests) / still.seconds))
      print("backup \(String(format: "%.2f s;", took[round])) without: \(still.line); with: \(busy.line)\n")
    }
    print(
      String(
        format:
          "\nBackup of %d keys while 8 connections store: %.2f s; stores meanwhile %.2f of those without, p99 %.3f ms to %.3f",
        keys,
        median(Array(took.dropFirst())),
        median(ratios),
        median(during),
        median(alone)
      )
    )
  }
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
