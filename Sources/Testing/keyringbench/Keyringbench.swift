import ArgumentParser
import CBenchmark
import Foundation

@main
struct Keyringbench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keyringbench",
    abstract: "Measures keyringd against C floors that do the same TLS and AES work, in one run.",
    discussion: """
      Rates differ by half from run to run on shared machines; CPU per request agrees within a few percent, so that the
      table judges by that. Server and load are pinned to one core each; keyringd has one event loop.

        keyringbench compare --keyringd .build/release/keyringd --seconds 4
      """,
    subcommands: [Compare.self, Databases.self, Load.self, Floor.self]
  )
}

/// Runs a floor until it is killed.
struct Floor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a floor server on loopback; prints its port."
  )
  @Flag(name: .long, help: "The good floor; otherwise the plain one.")
  var good = false
  @Option(name: .long) var cert: String
  @Option(name: .customLong("key")) var privateKey: String
  @Option(name: .long) var ca: String
  @Option(name: .long, help: "Bytes of a reply's frame.")
  var replyBytes = 64
  @Option(name: .long) var core = 0

  func run() throws {
    bench_pin(Int32(core))
    let status = unsafe withFiles(cert, privateKey, ca) { files in
      unsafe bench_floor(files, good ? 1 : 0, replyBytes) { port in
        print("port \(port)")
        fflush(nil)
      }
    }
    throw ExitCode(status)
  }
}

/// Drives any server.
struct Load: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Drives a keyringd, and prints throughput, latencies and its CPU per request."
  )
  @Option(name: .long) var host = "127.0.0.1"
  @Option(name: .long) var port: Int32
  @Option(name: .long) var cert: String
  @Option(name: .customLong("key")) var privateKey: String
  @Option(name: .long) var ca: String
  @Option(name: .long) var connections: Int32 = 64
  @Option(name: .long) var depth: Int32 = 1
  @Option(name: .long) var seconds = 5.0
  @Option(
    name: .long,
    help: "Of 100 requests, how many store a new key; the others fetch the shared key `bench`."
  )
  var stores: Int32 = 0
  @Option(name: .long, help: "The server's process, for its CPU.")
  var pid: Int32 = 0

  func run() throws {
    let target = Target(host: host, port: port, files: Files(cert, privateKey, ca), pid: pid)
    let measured = try target.measure(
      connections: connections,
      depth: depth,
      seconds: seconds,
      stores: stores
    )
    print(measured.line)
  }
}

/// PEM files of a client or server.
struct Files {
  let certificate: String
  let privateKey: String
  let authority: String
  init(_ certificate: String, _ privateKey: String, _ authority: String) {
    self.certificate = certificate
    self.privateKey = privateKey
    self.authority = authority
  }
}

/// Lends C strings for the length of a call.
func withFiles<R>(
  _ certificate: String,
  _ key: String,
  _ authority: String,
  _ body: (bench_files) throws -> R
) rethrows -> R {
  // SAFETY: the strings live for the call.
  try unsafe certificate.withCString { certificate in
    try unsafe key.withCString { key in
      try unsafe authority.withCString { authority in
        try unsafe body(bench_files(certificate: certificate, key: key, authority: authority))
      }
    }
  }
}

/// Lends the C strings of several for the length of a call.
func withFiles<R>(_ files: [Files], _ body: (UnsafeBufferPointer<bench_files>) throws -> R) rethrows -> R {
  // SAFETY: the copies are freed after the call, and not before.
  let copies = unsafe files.map {
    unsafe bench_files(
      certificate: strdup($0.certificate),
      key: strdup($0.privateKey),
      authority: strdup($0.authority)
    )
  }
  defer {
    unsafe copies.forEach {
      unsafe free(UnsafeMutableRawPointer(mutating: $0.certificate))
      unsafe free(UnsafeMutableRawPointer(mutating: $0.key))
      unsafe free(UnsafeMutableRawPointer(mutating: $0.authority))
    }
  }
  return try unsafe copies.withUnsafeBufferPointer(body)
}
