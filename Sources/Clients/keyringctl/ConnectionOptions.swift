import ArgumentParser
import Glibc
import KeyringClient
import WireProtocol

/// Where the server is, which certificate to show, and how to show results.
struct ConnectionOptions: ParsableArguments {
  @Option(name: .long, help: "HOST:PORT of keyringd. [KEYRING_SERVER]")
  var server: String?

  @Option(name: .long, help: "The certificate to show (PEM). [KEYRING_CERT]")
  var cert: String?

  @Option(name: .customLong("key"), help: "Its private key (PEM, mode 0600). [KEYRING_KEY]")
  var privateKey: String?

  @Option(name: .long, help: "The CA that issued the server's certificate (PEM). [KEYRING_CA]")
  var ca: String?

  @Option(
    name: .long,
    help:
      "A file of lines `server: …`, `cert: …`, `key: …`, `ca: …`. [KEYRING_CONTEXT, ~/.config/keyring/context.yaml]"
  )
  var context: String?

  @Option(name: .long, help: "Seconds that a call may take.")
  var timeout: Int = 30

  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  /// What options and environment say, and the context file of the rest.
  private func values() throws -> [String: String] {
    var values: [String: String] = [:]
    for (name, option) in [("server", server), ("cert", cert), ("key", privateKey), ("ca", ca)] {
      values[name] = option ?? environment("KEYRING_\(name.uppercased())")
    }
    if values.count < 4 { values.merge(try contextFile()) { given, _ in given } }
    return values
  }

  private func value(_ name: String, _ values: [String: String]) throws -> String {
    if let value = values[name] { return value }
    throw Failure(
      "no --\(name): give it, or set KEYRING_\(name.uppercased()), or put `\(name): …` into a context file"
    )
  }

  private func environment(_ name: String) -> String? {
    // SAFETY: getenv answers NULL or a C string that is copied at once.
    unsafe getenv(name).map { unsafe String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
  }

  func makeClient() throws -> KeyringClient {
    let values = try values()
    let address = try value("server", values)
    let host = address.lastIndex(of: ":").map { String(address[..<$0]) } ?? address
    let port = address.lastIndex(of: ":").map { String(address[address.index(after: $0)...]) } ?? "8550"
    guard let number = Int(port), (1...65_535).contains(number), !host.isEmpty else {
      throw Failure("'\(address)' is not HOST:PORT")
    }
    var configuration = KeyringClientConfiguration(
      host: host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host,
      port: number,
      certificateFile: try value("cert", values),
      privateKeyFile: try value("key", values),
      authorityFile: try value("ca", values)
    )
    configuration.timeout = .seconds(max(1, timeout))
    return try KeyringClient(configuration)
  }

  /// `--context`, KEYRING_CONTEXT, or the file in its usual place, which need not be there.
  private func contextPath() -> String? {
    if let path = context ?? environment("KEYRING_CONTEXT") { return path }
    let folder = environment("XDG_CONFIG_HOME") ?? environment("HOME").map { "\($0)/.config" }
    // SAFETY: the path lives for the call.
    return folder.map { "\($0)/keyring/context.yaml" }.flatMap { unsafe access($0, F_OK) == 0 ? $0 : nil }
  }

  private func contextFile() throws -> [String: String] {
    guard let path = contextPath() else { return [:] }
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    var entries: [String: String] = [:]
    let lines = try Input.text(path).split(separator: "\n", omittingEmptySubsequences: false)
    for (number, line) in lines.enumerated() {
      let parts = line.split(separator: ":", maxSplits: 1).map { String($0.trimmingPrefix { $0 == " " }) }
      if parts.first?.hasPrefix("#") ?? true { continue }
      guard parts.count == 2, ["server", "cert", "key", "ca"].contains(parts[0]), !parts[1].isEmpty else {
        throw Failure("\(path):\(number + 1): `server: …`, `cert: …`, `key: …` or `ca: …` is expected")
      }
      let isPath = parts[0] != "server" && !parts[1].hasPrefix("/")
      entries[parts[0]] = isPath ? folder + parts[1] : parts[1]
    }
    return entries
  }

  /// Makes one call on a connection of its own.
  func call(_ call: Call) async throws -> (sequence: UInt64, result: ReplyResult) {
    let client = try makeClient()
    do {
      let answer = try await client.call(call)
      await client.close()
      return answer
    } catch {
      await client.close()
      throw error
    }
  }
}

/// A reply of another kind than the call's: the server is not one of ours.
func unexpected() -> Failure { Failure("the server answered with another kind of result") }
