import Foundation
import KeyringClient
import KeyringCore
import KeyringTestSupport
import WireProtocol

/// Many tenants of AWS, one of them with a KMS of its own that answers, or accepts and never answers. All fetch as fast as they can; in the
/// second case that one generates keys too: what refusing them costs counts against it, and what making them costs is not in the baseline.
struct Isolation {
  private static let writers = 64
  private static let writePause = Duration.milliseconds(250)
  private static let writeDeadline = Duration.seconds(10)
  /// Small, so that its wrapping key is due in each run.
  private static let lines = ["wrapping_key_ttl: 2s", "outage_grace: 24h"]

  private let bench: Bench
  private let tenants = AWSTenants("tenant", 64)
  private let ownKMS: ScriptedKMS
  private let target: Target

  /// One run of all of them.
  struct Run {
    let others: Measured
    let reads: Measured
    let writes: Tally
    let longestWrite: Double

    /// Without CPU: both loads have the same server.
    var line: String {
      String(
        format:
          "others %llu fetches, p50 %.2f ms, p99 %.2f ms; its own %llu, p99 %.2f ms, longest %.2f s; its writes: %@, longest %.2f s",
        others.requests,
        others.milliseconds(50),
        others.milliseconds99,
        reads.requests,
        reads.milliseconds99,
        reads.milliseconds(100) / 1000,
        writes.total == 0 ? "none" : "\(writes)",
        longestWrite
      )
    }
  }

  private var trouble: String { tenants.names[0] }

  init(_ bench: Bench) async throws {
    self.bench = bench
    let (shared, own) = (try await ScriptedKMS(), try await ScriptedKMS())
    ownKMS = own
    bench.startAnew()
    let first = tenants.names[0]
    try tenants.put(in: bench) {
      $0 == first ? own : shared
    } lines: {
      $0 == first ? Self.lines : []
    }
    target = try bench.startServer(AWSTenants.configuration)
    try await tenants.generateKeys(bench, target)
  }

  /// Without the black hole, its KMS in order since a moment ago.
  func baseline(seconds: Double) async throws -> Run {
    ownKMS.behave(.normal)
    let client = try target.client(bench.files(trouble), attempts: 1)
    let end = ContinuousClock.now + .seconds(60)
    while true {
      do {
        _ = try await client.call(Self.write())
        break
      } catch {
        guard ContinuousClock.now < end else { throw error }
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    await client.close()
    return try await run(seconds, writers: 0)
  }

  /// With it.
  func blackHole(seconds: Double) async throws -> Run {
    ownKMS.behave(.silence)
    let run = try await self.run(seconds, writers: Self.writers)
    let definite = run.writes["KMS_UNREACHABLE"] + run.writes["THROTTLED"]
    guard definite == run.writes.total, definite > 0 else {
      throw BenchError(description: "writes were not all refused, with a definite error: \(run.writes)")
    }
    return run
  }

  private func run(_ seconds: Double, writers: Int) async throws -> Run {
    let (target, files) = (self.target, bench.files(trouble))
    let identities = tenants.names.dropFirst().map { bench.files($0) }
    async let writes = Self.writes(target, files, seconds, writers)
    async let reads = onThread {
      try target.measure(as: [files], connections: 4, depth: 1, seconds: seconds, stores: 0)
    }
    let others = try await onThread {
      let count = Int32(identities.count)
      return try target.measure(as: identities, connections: count, depth: 1, seconds: seconds, stores: 0)
    }
    let run = try await Run(others: others, reads: reads, writes: writes.0, longestWrite: writes.1)
    guard run.others.errors + run.reads.errors == 0 else {
      throw BenchError(
        description: "fetches failed: \(run.others.errors) of the others, \(run.reads.errors) of its own"
      )
    }
    return run
  }

  private static func write() -> Call {
    let name = KeyName(scope: .shared, owner: [], keyID: Array(UUID().uuidString.utf8))
    return .change(.generate(name, type: "AES", length: 32))
  }

  /// What became of its writes, and the longest of them in seconds.
  private static func writes(
    _ target: Target,
    _ files: Files,
    _ seconds: Double,
    _ writers: Int
  ) async throws -> (Tally, Double) {
    let client = try target.client(files, attempts: 1)
    let end = ContinuousClock.now + .seconds(seconds)
    let result = try await withThrowingTaskGroup(of: (Tally, Double).self) { group in
      for _ in 0..<writers { group.addTask { try await write(client, until: end) } }
      return try await group.reduce(into: (Tally(), 0.0)) { sum, one in
        sum.0.add(one.0)
        sum.1 = max(sum.1, one.1)
      }
    }
    await client.close()
    return result
  }

  private static func write(
    _ client: KeyringClient,
    until end: ContinuousClock.Instant
  ) async throws -> (Tally, Double) {
    var tally = Tally()
    var longest = 0.0
    while ContinuousClock.now < end {
      let start = ContinuousClock.now
      do throws(KeyringClientError) {
        _ = try await client.call(write(), timeout: writeDeadline)
        tally.add("made")
      } catch {
        tally.add(error.kind)
      }
      longest = max(longest, keyringbench.seconds(since: start))
      try await Task.sleep(for: writePause)
    }
    return (tally, longest)
  }
}

/// Runs what blocks on a thread of its own: not on one of Swift's few.
func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
  }
}

extension Compare {
  /// What the others notice of one tenant's KMS that accepts and never answers: without and with by turns.
  func isolation(_ bench: Bench) async throws {
    let isolation = try await Isolation(bench)
    var (ratios, without, with): ([Double], [Double], [Double]) = ([], [], [])
    var (reads, writes): (UInt64, Tally) = (0, Tally())
    for _ in 0..<rounds {
      let still = try await isolation.baseline(seconds: seconds)
      let hole = try await isolation.blackHole(seconds: seconds)
      without.append(still.others.milliseconds99)
      with.append(hole.others.milliseconds99)
      ratios.append(hole.others.milliseconds99 / still.others.milliseconds99)
      reads += hole.reads.requests
      writes.add(hole.writes)
      print("its KMS answers: \(still.line)\n  never answers: \(hole.line)")
    }
    print(
      String(
        format:
          "\n64 tenants of AWS, one with a KMS that never answers: p99 of the others' fetches %.3f ms, without %.3f ms, ratio %.2f (target: 1.2, or 5 ms more); its own reads: %llu, all served; its writes, all refused: %@",
        median(with),
        median(without),
        median(ratios),
        reads,
        "\(writes)"
      )
    )
  }
}
