import Foundation

extension Compare {
  /// Onboarding a fleet of the local provider by `keyringctl tenant apply`, what a second run costs, and one tenant by itself.
  func apply(_ bench: Bench) async throws {
    var (fleet, again, single): ([Double], [Double], [Double]) = ([], [], [])
    let file = "\(bench.directory)/tenants.yaml"
    let names = (0..<tenants).map { "  - {name: t\($0), instances: any}\n" }
    try ("tenants:\n" + names.joined()).write(toFile: file, atomically: true, encoding: .utf8)
    for round in 0..<rounds {
      bench.startAnew()
      let target = try bench.startServer()
      fleet.append(try await run(["tenant", "apply", "-f", file, "--yes"], bench, target))
      again.append(try await run(["tenant", "apply", "-f", file, "--yes"], bench, target))
      single.append(try await run(["tenant", "create", "single-\(round)", "--any-instance"], bench, target))
    }
    print(
      String(
        format:
          "\n`tenant apply` of %d local tenants: %.2f s (target: 3 for 1,000); the same again: %.2f s; one `tenant create`: %.3f s (medians of %d, the program's start included)",
        tenants,
        median(fleet),
        median(again),
        median(single),
        rounds
      )
    )
  }

  /// Seconds of keyringctl as the service's administrator.
  private func run(_ arguments: [String], _ bench: Bench, _ target: Target) async throws -> Double {
    let files = bench.files("admin")
    let process = Process()
    process.executableURL = URL(filePath: keyringctl)
    process.arguments =
      arguments + ["--server", "127.0.0.1:\(target.port)", "--cert", files.certificate]
      + ["--key", files.privateKey, "--ca", files.authority]
    process.standardOutput = FileHandle.nullDevice
    let start = ContinuousClock.now
    try process.run()
    while process.isRunning { try await Task.sleep(for: .milliseconds(2)) }
    guard process.terminationStatus == 0 else {
      throw BenchError(description: "keyringctl \(arguments.joined(separator: " ")) failed")
    }
    return keyringbench.seconds(since: start)
  }
}
