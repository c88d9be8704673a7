import Foundation
import KeyringClient
import KeyringTestSupport
import Synchronization
import WireProtocol

/// Many tenants of AWS whose server starts while their KMS is down.
struct Outage {
  private let bench: Bench
  private let tenants: AWSTenants
  private let cmks: [String]
  private var kms: ScriptedKMS

  /// When each was served, and what was answered before.
  private struct Progress {
    var refused = Tally()
    var refusedTenants: Set<String> = []
    var servedAt: [String: ContinuousClock.Instant] = [:]
  }
  private let progress = SharedProgress()

  private final class SharedProgress: Sendable {
    let state = Mutex(Progress())
  }

  struct Result {
    let secondsToReady: Double
    let refused: Tally
    let decryptions: Int
    let otherCalls: Int
    let secondsToLast: Double
    let secondsToHalf: Double
  }

  init(_ bench: Bench, tenants count: Int) async throws {
    self.bench = bench
    tenants = AWSTenants("tenant", count)
    kms = try await Self.startKMS()
    bench.startAnew()
    let kms = self.kms
    cmks = try tenants.put(in: bench, { _ in kms })
    try await tenants.generateKeys(bench, try bench.startServer(AWSTenants.configuration))
    bench.stopServer()
    try await kms.shutdown()
  }

  /// On a port that no client's connection is given: one that connects to itself would take it while it is free.
  private static func startKMS() async throws -> ScriptedKMS {
    for _ in 0..<50 {
      do {
        return try await ScriptedKMS(port: .random(in: 20_000..<32_000))
      } catch {
        continue  // taken
      }
    }
    throw BenchError(description: "no free port for the KMS")
  }

  private var port: Int { kms.endpoint.split(separator: ":").last.flatMap { Int($0) } ?? 0 }

  /// - Parameter seconds: of the outage with all calling.
  mutating func run(outage seconds: Double) async throws -> Result {
    let start = ContinuousClock.now
    let target = try bench.startServer(AWSTenants.configuration)
    let ready = keyringbench.seconds(since: start)
    return try await withThrowingTaskGroup(of: Void.self) { group in
      for name in tenants.names {
        let client = try target.client(bench.files(name), attempts: 1)
        let progress = self.progress
        group.addTask { try await Self.call(client, name, progress) }
      }
      try await untilAllRefused(&group)
      try await Task.sleep(for: .seconds(seconds))
      let refused = progress.state.withLock { $0.refused }
      let back = ContinuousClock.now
      kms = try await ScriptedKMS(port: port, keys: cmks)
      try await group.waitForAll()
      return try result(ready, refused, back)
    }
  }

  private func untilAllRefused(_ group: inout ThrowingTaskGroup<Void, any Error>) async throws {
    let end = ContinuousClock.now + .seconds(120)
    while progress.state.withLock({ $0.refusedTenants.count }) < tenants.names.count {
      guard ContinuousClock.now < end else {
        throw BenchError(description: "not every tenant was answered while its KMS was down")
      }
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  /// Fetches until it is served. Anything but KMS_UNREACHABLE, and above all "absent", is a failure.
  private static func call(_ client: KeyringClient, _ name: String, _ progress: SharedProgress) async throws {
    while true {
      do throws(KeyringClientError) {
        guard case .fetch(let key) = try await client.call(.fetch(Target.keyName, version: 0)).result,
          key != nil
        else { throw .wire("\(name): the key was said to be absent") }
        progress.state.withLock { $0.servedAt[name] = .now }
        break
      } catch {
        guard case .refused(let status) = error, status.reason == .kmsUnreachable else { throw error }
        progress.state.withLock { state in
          state.refused.add(error.kind)
          state.refusedTenants.insert(name)
        }
      }
      try await Task.sleep(for: .milliseconds(Int.random(in: 250..<750)))
    }
    await client.close()
  }

  private func result(
    _ ready: Double,
    _ refused: Tally,
    _ back: ContinuousClock.Instant
  ) throws -> Result {
    let calls = kms.calls
    let decryptions = calls.filter { $0.operation == "Decrypt" }
    guard Set(decryptions.map(\.keyID)).count == tenants.names.count else {
      throw BenchError(description: "not every tenant's wrapping key was decrypted")
    }
    let took = progress.state.withLock { $0.servedAt.values }.map { ($0 - back) / .seconds(1) }.sorted()
    guard let last = took.last, let first = took.first, first > 0 else {
      throw BenchError(description: "a tenant was served while its KMS was down")
    }
    return Result(
      secondsToReady: ready,
      refused: refused,
      decryptions: decryptions.count,
      otherCalls: calls.count - decryptions.count,
      secondsToLast: last,
      secondsToHalf: took[took.count / 2]
    )
  }

  /// Ends its KMS.
  func end() async throws { try await kms.shutdown() }
}

extension Compare {
  /// A server of many tenants that starts while their KMS is down, and the KMS's return.
  func outage(_ bench: Bench) async throws {
    var outage = try await Outage(bench, tenants: tenants)
    let result = try await outage.run(outage: max(seconds, 10))
    bench.stopServer()
    try await outage.end()
    print(
      String(
        format:
          "\n%d tenants of AWS, KMS down: ready after %.2f s; then answered: %@; KMS back: %d Decrypt, %d other calls (target: one a tenant); half of them served after %.2f s, the last after %.2f s (target: 30)",
        tenants,
        result.secondsToReady,
        "\(result.refused)",
        result.decryptions,
        result.otherCalls,
        result.secondsToHalf,
        result.secondsToLast
      )
    )
  }
}
