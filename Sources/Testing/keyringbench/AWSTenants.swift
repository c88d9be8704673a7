import Foundation
import KeyringClient
import KeyringTestSupport
import WireProtocol

/// Tenants of AWS on a server of their own, and whose certificates their instances have.
struct AWSTenants {
  let names: [String]
  /// The server's, for many tenants: about 2 KiB of locked memory for each wrapping key held.
  static let configuration = [
    "allowed_endpoints: [127.0.0.1]", "secure_memory_bytes: 33554432", "log_level: error",
    "limits: {connections: 4000, unauthenticated_connections: 1000, connections_per_tenant: 1000}",
  ]

  /// - Parameters:
  ///   - prefix: of their names, a number follows.
  ///   - count: how many.
  init(_ prefix: String, _ count: Int) { names = (0..<count).map { "\(prefix)-\($0)" } }

  /// Puts their folders before a server that starts, and issues certificates, each into files of the tenant's name.
  ///
  /// - Parameters:
  ///   - kms: where a tenant's CMK is made.
  ///   - lines: more of a tenant's file.
  ///   - limits: the rest of it; none are measured unless it says so.
  /// - Returns: the CMKs' ids.
  @discardableResult
  func put(
    in bench: Bench,
    _ kms: (String) -> ScriptedKMS,
    lines: (String) -> [String] = { _ in [] },
    limits: (String) -> [String] = { _ in ["limits: {requests_per_second: 0, writes_per_second: 0}"] }
  ) throws -> [String] {
    try names.map { name in
      let (place, cmk) = (kms(name), UUID().uuidString.lowercased())
      var tenant = AWSTenant(
        cmkID: place.makeKey(cmk),
        endpoint: place.endpoint,
        lines: lines(name) + limits(name)
      )
      tenant.name = name
      try tenant.put(in: bench.tenantsDirectory)
      try bench.issueInstance(name, of: name)
      return cmk
    }
  }

  /// Generates the shared key `bench` of each, a few at a time.
  func generateKeys(_ bench: Bench, _ target: Target) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (index, name) in names.enumerated() {
        if index >= 16 { try await group.next() }
        let files = bench.files(name)
        group.addTask { try await target.generateKey(files) }
      }
      try await group.waitForAll()
    }
  }
}

/// How often what happened.
struct Tally: CustomStringConvertible {
  private(set) var counts: [String: Int] = [:]

  mutating func add(_ what: String, _ count: Int = 1) { counts[what, default: 0] += count }

  mutating func add(_ other: Tally) {
    for (what, count) in other.counts { add(what, count) }
  }

  subscript(what: String) -> Int { counts[what, default: 0] }

  var total: Int { counts.values.reduce(0, +) }

  var description: String {
    counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
  }
}

extension KeyringClientError {
  /// The reason's name, where the server said one.
  var kind: String {
    switch self {
    case .refused(let status): status.reason.name
    case .configuration, .connection, .timeout, .wire: "no answer (\(self))"
    }
  }
}

/// Seconds since some moment.
func seconds(since start: ContinuousClock.Instant) -> Double {
  (ContinuousClock.now - start) / .seconds(1)
}
