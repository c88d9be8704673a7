import Foundation
import KeyringClient
import KeyringCore
import KeyringTestSupport
import TLSTransport
import WireProtocol

/// Very many tenants on one server.
struct Scale {
  private static let keysEach = 20
  /// At one time: each takes three descriptors of keyringd's.
  private static let descriptorsEach = 3
  private static let descriptorsReserved = 2000

  private let bench: Bench
  private let tenants: AWSTenants
  private let kms: ScriptedKMS
  private var decryptions: Int { kms.calls.count }

  /// Locked memory for all of them would need a limit that few shells have: what is measured here is memory and time, not its protection.
  private static func configuration(idleClose: String) -> [String] {
    [
      "allowed_endpoints: [127.0.0.1]", "secure_memory_bytes: 67108864", "allow_unlocked_memory: true",
      "log_level: error", "idle_close: \(idleClose)",
      "limits: {connections: 1000, unauthenticated_connections: 1000, connections_per_tenant: 1000, open_tenants: 100000}",
    ]
  }

  init(_ bench: Bench, tenants count: Int) async throws {
    self.bench = bench
    tenants = AWSTenants("tenant", count)
    kms = try await ScriptedKMS()
    bench.startAnew()
    let kms = self.kms
    try tenants.put(in: bench) { _ in kms }
    let target = try bench.startServer(Self.configuration(idleClose: "5s"))
    try await forEach(tenants.names, target) { client in
      for start in stride(from: 0, to: Self.keysEach, by: 20) {
        let changes = (start..<min(start + 20, Self.keysEach)).map { index in
          let id =
            index == 0 ? Target.keyName : KeyName(scope: .shared, owner: [], keyID: Array("k\(index)".utf8))
          return Change.generate(id, type: "AES", length: 32)
        }
        _ = try await client.call(.transact(changes))
      }
    }
    bench.stopServer()
  }

  /// Runs `body` as an instance of each, a few at a time.
  private func forEach(
    _ names: [String],
    _ target: Target,
    _ body: @escaping @Sendable (KeyringClient) async throws -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (index, name) in names.enumerated() {
        if index >= 16 { try await group.next() }
        let files = bench.files(name)
        group.addTask {
          let client = try target.client(files)
          try await body(client)
          await client.close()
        }
      }
      try await group.waitForAll()
    }
  }

  /// Fetches the first key of each.
  private func fetch(_ names: [String], _ target: Target) async throws {
    try await forEach(names, target) { client in
      guard case .fetch(.some) = try await client.call(.fetch(Target.keyName, version: 0)).result else {
        throw BenchError(description: "a key is not there")
      }
    }
  }

  /// KiB of resident memory.
  private func resident(_ target: Target) throws -> Double {
    let status = try String(contentsOfFile: "/proc/\(target.pid)/status", encoding: .utf8)
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
      let number = line.split(whereSeparator: { !$0.isNumber }).first.flatMap({ Double($0) })
    else { throw BenchError(description: "no VmRSS") }
    return number
  }

  private func states(_ admin: KeyringClient) async throws -> [TenantState: UInt32] {
    guard case .service(let status) = try await admin.call(.admin(.status(""))).result else {
      throw BenchError(description: "no status")
    }
    return Dictionary(uniqueKeysWithValues: status.states.map { ($0.0, $0.1) })
  }

  private func list(_ admin: KeyringClient) async throws -> Int {
    var (count, after, isMore) = (0, "", true)
    while isMore {
      guard
        case .tenantList(let page, let more) = try await admin.call(
          .admin(.tenantList(pageSize: 500, after: after))
        ).result
      else { throw BenchError(description: "no list") }
      count += page.count
      (after, isMore) = (page.last?.tenant ?? "", more)
    }
    return count
  }

  /// Prints what each step took.
  func run(seconds: Double, rounds: Int, median: ([Double]) -> Double) async throws {
    let before = decryptions
    let start = ContinuousClock.now
    var target = try bench.startServer(Self.configuration(idleClose: "1h"))
    let ready = keyringbench.seconds(since: start)
    let admin = try target.client(bench.files("admin"))
    // The first of everything is not a tenant's.
    try await fetch([tenants.names[0]], target)
    _ = try await states(admin)
    let empty = try resident(target)
    let asked = decryptions - before
    let began = ContinuousClock.now
    let listed = try await list(admin)
    let listing = keyringbench.seconds(since: began)
    let states = try await self.states(admin)
    let known = try resident(target)
    print(
      String(
        format:
          "\n%d tenants of %d keys: ready after %.2f s (target: 2), KMS calls until then 0, with the first fetch %d; all listed in %.2f s; %.1f KiB each of resident memory when never opened (target: 16)",
        listed,
        Self.keysEach,
        ready,
        asked,
        listing,
        (known - empty) / Double(listed)
      )
    )
    guard states[.cold] == UInt32(listed - 1), asked == 1 else {
      throw BenchError(
        description: "tenants were opened for being listed, or the KMS was asked: \(states), \(asked)"
      )
    }
    target.files = bench.files(tenants.names[0])
    let most = (Self.descriptorsMax - Self.descriptorsReserved) / Self.descriptorsEach
    let opened = Array(tenants.names.prefix(min(most, tenants.names.count)))
    var alone: [Double] = []
    for _ in 0..<rounds { alone.append(try cost(target, seconds)) }
    try await fetch(opened, target)
    let open = try resident(target)
    print(
      String(
        format: "%d of them open: %.1f KiB each of resident memory (target: 64)",
        opened.count,
        (open - known) / Double(opened.count)
      )
    )
    var among: [Double] = []
    for _ in 0..<rounds { among.append(try cost(target, seconds)) }
    print(
      String(
        format:
          "A fetch with %d open tenants: %.2f us of server CPU, with one: %.2f, ratio %.2f (target: 1.2)",
        opened.count,
        median(among),
        median(alone),
        median(among) / median(alone)
      )
    )
    let spread = try spreadCost(opened, target, seconds, rounds, median)
    print(spread)
    await admin.close()
    bench.stopServer()
    try await idle(opened)
  }

  private func cost(_ target: Target, _ seconds: Double) throws -> Double {
    let measured = try target.measure(connections: 64, depth: 1, seconds: seconds, stores: 0)
    guard measured.errors == 0 else { throw BenchError(description: "\(measured.errors) fetches failed") }
    return measured.microsecondsCPU
  }

  /// Connections of one tenant, and of as many tenants as connections.
  private func spreadCost(
    _ opened: [String],
    _ target: Target,
    _ seconds: Double,
    _ rounds: Int,
    _ median: ([Double]) -> Double
  ) throws -> String {
    let count = min(500, opened.count)
    let one = [bench.files(opened[0])]
    let many = opened.suffix(count).map { bench.files($0) }
    var (ofOne, ofMany): ([Double], [Double]) = ([], [])
    for _ in 0..<rounds {
      for identities in [one, many] {
        let measured = try target.measure(
          as: identities,
          connections: Int32(count),
          depth: 1,
          seconds: seconds,
          stores: 0
        )
        guard measured.errors == 0 else { throw BenchError(description: "\(measured.errors) fetches failed") }
        if identities.count == 1 {
          ofOne.append(measured.microsecondsCPU)
        } else {
          ofMany.append(measured.microsecondsCPU)
        }
      }
    }
    return String(
      format:
        "%d connections of as many of those tenants: %.2f us of server CPU a fetch; of one: %.2f, ratio %.2f",
      count,
      median(ofMany),
      median(ofOne),
      median(zip(ofMany, ofOne).map { $0 / $1 })
    )
  }

  /// What is left of tenants that nobody uses any more.
  private func idle(_ names: [String]) async throws {
    let target = try bench.startServer(Self.configuration(idleClose: "5s"))
    let admin = try target.client(bench.files("admin"))
    try await fetch([names[0]], target)
    let before = try resident(target)
    let start = ContinuousClock.now
    try await fetch(names, target)
    let opening = keyringbench.seconds(since: start)
    while try await states(admin)[.ready] != nil { try await Task.sleep(for: .milliseconds(200)) }
    try await Task.sleep(for: .seconds(1))
    let after = try resident(target)
    print(
      String(
        format:
          "Opened one after the other in %.1f s, and all closed again because nobody used them for 5 s: %.1f KiB each of resident memory",
        opening,
        (after - before) / Double(names.count)
      )
    )
    await admin.close()
  }

  /// Of a process that this one starts.
  private static var descriptorsMax: Int {
    var limit = rlimit()
    // SAFETY: the structure lives for the call.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
    return Int(clamping: limit.rlim_max)
  }

  /// Ends its KMS.
  func end() async throws { try await kms.shutdown() }
}

extension Compare {
  /// Ten thousand tenants on one server: starting, memory, the cost of a fetch.
  func scale(_ bench: Bench) async throws {
    let scale = try await Scale(bench, tenants: fleet)
    try await scale.run(seconds: seconds, rounds: rounds) { median($0) }
    bench.stopServer()
    try await scale.end()
  }
}
