import CBenchmark
import Foundation
import KeyringClient
import KeyringTestSupport
import Synchronization
import WireProtocol

/// Many tenants that fetch at a steady rate, and one that offers fifty times what its limit lets pass.
struct NoisyTenant {
  private static let limit = 200
  private static let offered = 50.0 * Double(limit)
  private static let others = 5000.0

  private let bench: Bench
  private let tenants = AWSTenants("tenant", 64)
  private let target: Target
  private var noisy: String { tenants.names[0] }

  init(_ bench: Bench) async throws {
    self.bench = bench
    let kms = try await ScriptedKMS()
    bench.startAnew()
    let first = tenants.names[0]
    try tenants.put(in: bench) { _ in
      kms
    } limits: {
      $0 == first ? ["limits: {requests_per_second: \(Self.limit)}"] : []
    }
    target = try bench.startServer(AWSTenants.configuration)
    try await tenants.generateKeys(bench, target)
  }

  func run(isNoisy: Bool, seconds: Double) async throws -> (others: Measured, noisy: Measured?) {
    let (target, files) = (self.target, bench.files(noisy))
    let identities = tenants.names.dropFirst().map { bench.files($0) }
    async let noisy = onThread {
      guard isNoisy else { return Measured?.none }
      return try target.measure(
        as: [files],
        connections: 8,
        depth: 64,
        seconds: seconds,
        stores: 0,
        requestsPerSecond: Self.offered
      )
    }
    let others = try await onThread {
      try target.measure(
        as: identities,
        connections: Int32(identities.count),
        depth: 16,
        seconds: seconds,
        stores: 0,
        requestsPerSecond: Self.others
      )
    }
    guard others.errors == 0 else {
      throw BenchError(description: "\(others.errors) fetches of the others failed")
    }
    return (others, try await noisy)
  }

  /// The noisy tenant was really held to its limit, and offered what it was to offer.
  func check(_ noisy: Measured) throws {
    let passed = Double(noisy.requests - noisy.errors) / noisy.seconds
    let offered = Double(noisy.requests) / noisy.seconds
    guard passed <= 1.1 * Double(Self.limit) + Double(Self.limit) / noisy.seconds,
      offered >= 0.8 * Self.offered
    else {
      throw BenchError(
        description: String(format: "the noisy tenant offered %.0f/s, and %.0f/s passed", offered, passed)
      )
    }
  }
}

extension Compare {
  /// What the others notice of a tenant at fifty times its limit: without and with by turns.
  func limits(_ bench: Bench) async throws {
    let scenario = try await NoisyTenant(bench)
    var (ratios, without, with, refused): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
    for _ in 0..<rounds {
      let still = try await scenario.run(isNoisy: false, seconds: seconds).others
      let (others, measured) = try await scenario.run(isNoisy: true, seconds: seconds)
      guard let noisy = measured else { throw BenchError(description: "it was not noisy") }
      try scenario.check(noisy)
      without.append(still.milliseconds99)
      with.append(others.milliseconds99)
      ratios.append(others.milliseconds99 / still.milliseconds99)
      refused.append(noisy.milliseconds99)
      print("without: \(still.line)\n  with: \(others.line)\n  the noisy tenant: \(noisy.line)")
    }
    print(
      String(
        format:
          "\n64 tenants, one at 50 times its limit: p99 of the others' fetches %.3f ms, without %.3f ms, ratio %.2f (target: 1.2, or 5 ms more); its own answers, refusals nearly all, p99 %.3f ms (target: 5)",
        median(with),
        median(without),
        median(ratios),
        median(refused)
      )
    )
  }

  /// What a good client notices of sockets that are silent or send a byte a second, and when those are closed.
  func slowClients(_ bench: Bench) async throws {
    bench.startAnew()
    let limits = "limits: {connections: \(2 * slow + 100), unauthenticated_connections: \(slow + 100)"
    let server = try await bench.createTenant(
      try bench.startServer([limits + ", connections_per_tenant: \(slow + 100)}"])
    )
    let steady = { @Sendable [seconds] in
      try server.measure(connections: 8, depth: 4, seconds: seconds, stores: 0, requestsPerSecond: 2000)
    }
    var (ratios, without, with, lived): ([Double], [Double], [Double], [Double]) = ([], [], [], [])
    for _ in 0..<rounds {
      let still = try await onThread(steady)
      let (count, files) = (Int32(slow), server.files)
      let areOpen = Flag()
      async let result = onThread { try Self.open(count, server, files, areOpen) }
      while !areOpen.isSet { try await Task.sleep(for: .milliseconds(5)) }
      let busy = try await onThread(steady)
      let slowed = try await result
      guard still.errors + busy.errors == 0 else { throw BenchError(description: "fetches failed") }
      guard slowed.closed == count else {
        throw BenchError(description: "of \(count) slow clients \(slowed.closed) were closed")
      }
      without.append(still.milliseconds99)
      with.append(busy.milliseconds99)
      ratios.append(busy.milliseconds99 / still.milliseconds99)
      lived.append(slowed.longest_seconds)
      print("without: \(still.line)\n  with: \(busy.line)")
    }
    print(
      String(
        format:
          "\n%d sockets, silent or a byte a second: p99 of a good client %.3f ms, without %.3f ms, ratio %.2f (target: 2); all were closed, the last %.1f s after it connected (deadlines: 5 s for a handshake, 10 s for a frame)",
        slow,
        median(with),
        median(without),
        median(ratios),
        lived.max() ?? 0
      )
    )
  }

  private final class Flag: Sendable {
    private let value = Atomic(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
  }

  private static func open(
    _ count: Int32,
    _ server: Target,
    _ files: Files,
    _ areOpen: Flag
  ) throws -> bench_slow_result {
    var result = bench_slow_result()
    defer { areOpen.set() }
    // SAFETY: the flag is retained by the caller for longer than the call, and the callback is made within it.
    let status = unsafe withFiles(files.certificate, files.privateKey, files.authority) { files in
      unsafe bench_slow_clients(
        server.host,
        server.port,
        files,
        count,
        30,
        { flag in
          guard let flag = unsafe flag else { return }
          unsafe Unmanaged<Flag>.fromOpaque(flag).takeUnretainedValue().set()
        },
        Unmanaged.passUnretained(areOpen).toOpaque(),
        &result
      )
    }
    guard status == 0 else { throw BenchError(description: "the slow clients did not connect") }
    return result
  }
}
