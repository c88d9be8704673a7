import CBenchmark
import Foundation
import Histogram
import KeyringClient
import KeyringCore
import SecureMemory
import WireProtocol

struct BenchError: Error, CustomStringConvertible {
  let description: String
}

/// What one run came to.
struct Measured {
  let requests: UInt64
  let errors: UInt64
  let seconds: Double
  let microsecondsCPU: Double
  let latencies: Histogram<UInt64>

  func milliseconds(_ percentile: Double) -> Double {
    Double(latencies.valueAtPercentile(percentile)) / 1e6
  }

  var milliseconds99: Double { milliseconds(99) }

  var line: String {
    String(
      format:
        "%.0f requests/s, %.2f us of server CPU each, p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, %llu errors",
      Double(requests) / seconds,
      microsecondsCPU,
      milliseconds(50),
      milliseconds(99),
      milliseconds(99.9),
      errors
    )
  }
}

/// A server to measure.
struct Target {
  let host: String
  let port: Int32
  var files: Files
  let pid: Int32
  var firstStore: UInt32 = 0

  /// The shared key `bench`.
  static let keyName = KeyName(scope: .shared, owner: [], keyID: Array("bench".utf8))

  /// The frame of its fetch, with a request id of five bytes.
  static let fetchFrame = frame(.fetch(keyName, version: 0))

  /// 32 bytes, nobody's secret.
  static func keyValue() throws -> Secret {
    try unsafe Secret(count: 32) { room in
      for index in 0..<32 { unsafe room[index] = UInt8(index) }
    }
  }

  static func frame(_ call: Call) -> [UInt8] {
    var buffer = WipedBuffer()
    RequestEncoder.appendFrame(Request(id: 1 << 28, call: call), to: &buffer)
    return unsafe buffer.withUnsafeBytes { unsafe Array($0) }
  }

  /// - Parameters:
  ///   - identities: who connects, in turn; nil: whose target it is.
  ///   - requestsPerSecond: of all connections; 0: as fast as replies come.
  func measure(
    as identities: [Files]? = nil,
    connections: Int32,
    depth: Int32,
    seconds: Double,
    stores: Int32,
    requestsPerSecond: Double = 0
  ) throws -> Measured {
    let name = KeyName(scope: .shared, owner: [], keyID: Array("k-00000000".utf8))
    let store = Self.frame(.change(.store(name, type: "AES", value: try Self.keyValue())))
    guard let digits = store.firstRange(of: Array("00000000".utf8))?.lowerBound else {
      throw BenchError(description: "no digits")
    }
    let fetch = Self.fetchFrame
    var latencies = [UInt64](repeating: 0, count: 4_000_000)
    var result = unsafe bench_load_result()
    let before = bench_cpu_seconds(pid)
    // SAFETY: every pointer lives for the call; the result's array is as long as it says.
    let status = unsafe withFiles(identities ?? [files]) { files in
      unsafe host.withCString { host in
        unsafe latencies.withUnsafeMutableBufferPointer { latencies in
          unsafe fetch.withUnsafeBufferPointer { fetch in
            unsafe store.withUnsafeBufferPointer { store in
              var options = unsafe bench_load_options(
                host: host,
                port: port,
                identities: files.baseAddress,
                identities_count: Int32(files.count),
                connections: connections,
                depth: depth,
                seconds: seconds,
                fetch: fetch.baseAddress,
                fetch_bytes: fetch.count,
                store: store.baseAddress,
                store_bytes: store.count,
                store_digits_at: digits,
                store_percent: stores,
                first_store: firstStore,
                requests_per_second: requestsPerSecond
              )
              unsafe result.latencies = latencies.baseAddress
              unsafe result.latencies_max = latencies.count
              return unsafe bench_load(&options, &result)
            }
          }
        }
      }
    }
    guard status == 0 else { throw BenchError(description: "the load failed") }
    let cpu = bench_cpu_seconds(pid) - before
    var histogram = Histogram<UInt64>(
      highestTrackableValue: 60_000_000_000,
      numberOfSignificantValueDigits: .three
    )
    for latency in latencies.prefix(unsafe result.latencies_count) { histogram.record(max(1, latency)) }
    return unsafe Measured(
      requests: result.requests,
      errors: result.errors,
      seconds: result.seconds,
      microsecondsCPU: cpu / Double(result.requests) * 1e6,
      latencies: histogram
    )
  }

  /// CPU microseconds of the server for one handshake.
  func handshake(seconds: Double) throws -> Double {
    let before = bench_cpu_seconds(pid)
    let count = unsafe withFiles(files.certificate, files.privateKey, files.authority) {
      unsafe bench_handshakes(host, port, $0, seconds)
    }
    guard count > 0 else { throw BenchError(description: "handshakes failed") }
    return (bench_cpu_seconds(pid) - before) / Double(count) * 1e6
  }

  /// - Parameter attempts: of each call, at most.
  func client(_ files: Files, attempts: Int = 5) throws -> KeyringClient {
    var configuration = KeyringClientConfiguration(
      host: host,
      port: Int(port),
      certificateFile: files.certificate,
      privateKeyFile: files.privateKey,
      authorityFile: files.authority
    )
    configuration.attempts = attempts
    return try KeyringClient(configuration)
  }

  /// Generates the shared key `bench` of the tenant whose instance it is.
  func generateKey(_ files: Files) async throws {
    let instance = try client(files)
    _ = try await instance.call(.change(.generate(Self.keyName, type: "AES", length: 32)))
    await instance.close()
  }

  /// Seconds of a rotate-keys.
  ///
  /// - Parameters:
  ///   - files: an administrator's.
  ///   - keys: how many there are at least.
  func rotateKeys(_ files: Files, of tenant: String = "bench", keys: Int) async throws -> Double {
    let admin = try client(files)
    let start = ProcessInfo.processInfo.systemUptime
    let call = Call.admin(.rotateKeys(tenant, allowTransient: true))
    guard case .rotateKeys(let report) = try await admin.call(call, timeout: .seconds(60)).result,
      report.recordsElsewhere == 0, report.records >= keys
    else { throw BenchError(description: "the keys were not rotated") }
    let seconds = ProcessInfo.processInfo.systemUptime - start
    await admin.close()
    return seconds
  }

  /// Seconds of a backup.
  ///
  /// - Parameters:
  ///   - files: an administrator's.
  ///   - program: keyringctl.
  ///   - file: that it makes.
  func backup(_ files: Files, _ program: String, _ file: String) async throws -> Double {
    let process = Process()
    process.executableURL = URL(filePath: program)
    process.arguments =
      ["backup", "bench", file, "--server", "127.0.0.1:\(port)", "--cert", files.certificate]
      + ["--key", files.privateKey, "--ca", files.authority]
    process.standardOutput = FileHandle.nullDevice
    let start = ProcessInfo.processInfo.systemUptime
    try process.run()
    while process.isRunning { try await Task.sleep(for: .milliseconds(2)) }
    guard process.terminationStatus == 0 else { throw BenchError(description: "the backup failed") }
    return ProcessInfo.processInfo.systemUptime - start
  }
}
