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

  @Option(name: .long, help: "A file of lines `server: …`, `cert: …`, `key: …`, `ca: …`. [KEYRING_CONTEXT]")
  var context: String?

  @Option(name: .long, help: "Seconds that a call may take.")
  var timeout: Int = 30

  @Option(name: .long, help: "text or json.")
  var output: OutputFormat = .text

  private func value(_ option: String?, _ name: String, _ fromFile: [String: String]) throws -> String {
    if let option { return option }
    let variable = "KEYRING_\(name.uppercased())"
    if let text = environment(variable) { return text }
    if let text = fromFile[name] { return text }
    throw Failure("no --\(name): give it, or set \(variable), or put `\(name): …` into a context file")
  }

  private func environment(_ name: String) -> String? {
    // SAFETY: getenv answers NULL or a C string that is copied at once.
    unsafe getenv(name).map { unsafe String(cString: $0) }
  }

  func makeClient() throws -> KeyringClient {
    let file = try contextFile()
    let address = try value(server, "server", file)
    let host = address.lastIndex(of: ":").map { String(address[..<$0]) } ?? address
    let port = address.lastIndex(of: ":").map { String(address[address.index(after: $0)...]) } ?? "8550"
    guard let number = Int(port), (1...65_535).contains(number), !host.isEmpty else {
      throw Failure("'\(address)' is not HOST:PORT")
    }
    var configuration = KeyringClientConfiguration(
      host: host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host,
      port: number,
      certificateFile: try value(cert, "cert", file),
      privateKeyFile: try value(privateKey, "key", file),
      authorityFile: try value(ca, "ca", file)
    )
    configuration.timeout = .seconds(max(1, timeout))
    return try KeyringClient(configuration)
  }

  private func contextFile() throws -> [String: String] {
    guard let path = context ?? environment("KEYRING_CONTEXT") else { return [:] }
    var entries: [String: String] = [:]
    for (number, line) in try Input.text(path).split(separator: "\n", omittingEmptySubsequences: false)
      .enumerated()
    {
      let parts = line.split(separator: ":", maxSplits: 1).map {
        $0.split(separator: " ").joined(separator: " ")
      }
      if parts.isEmpty || parts[0].hasPrefix("#") { continue }
      guard parts.count == 2, ["server", "cert", "key", "ca"].contains(parts[0]) else {
        throw Failure("\(path):\(number + 1): `server: …`, `cert: …`, `key: …` or `ca: …` is expected")
      }
      entries[parts[0]] = parts[1]
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
