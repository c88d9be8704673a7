internal import KeyringClient
import ArgumentParser
import Glibc
import KeyringCore
import SecureMemory
import WireProtocol

extension KeyFormat: ExpressibleByArgument {}

struct KeyCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "key",
    abstract: "Works with keys, as a database instance does: with an instance's certificate.",
    discussion: """
      A key is named by its scope (the instance's own, or --shared by all instances of the tenant), its owner (a database
      user; empty for the server itself) and its id.

        keyringctl key generate MyKey --type AES --length 32 --shared
        keyringctl key fetch MyKey --shared --format hex
      """,
    subcommands: [
      KeyGenerate.self, KeyStore.self, KeyFetch.self, KeyDescribe.self, KeyRemove.self, KeyRotate.self,
      KeyList.self, KeyTransact.self,
    ]
  )
}

struct KeyArguments: ParsableArguments {
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The key's id, 1 to 255 bytes.")
  var id: String
  @Flag(name: .long, help: "A key that all instances of the tenant share.")
  var shared = false
  @Option(name: .long, help: "The database user that it belongs to.")
  var owner: String = ""

  var name: KeyName {
    KeyName(scope: shared ? .shared : .instance, owner: Array(owner.utf8), keyID: Array(id.utf8))
  }

  /// Says what a change came to.
  func report(_ what: String, _ version: UInt32, _ sequence: UInt64) {
    var members: [(String, JSON)] = [("key_id", .text(id)), ("sequence", .number(sequence))]
    if version > 0 { members.insert(("version", .number(UInt64(version))), at: 1) }
    Output.show(
      connection.output,
      .object(members),
      text: "\(id): \(what)" + (version > 0 ? ", version \(version)" : "")
    )
  }
}

struct KeyGenerate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate",
    abstract: "Has a key made by the tenant's provider."
  )
  @OptionGroup var key: KeyArguments
  @Option(name: .long, help: "AES, SECRET, or what the tenant's profile allows.")
  var type: String = "AES"
  @Option(name: .long, help: "Bytes.")
  var length: UInt32 = 32

  func run() async throws {
    let (sequence, result) = try await key.connection.call(
      .change(.generate(key.name, type: type, length: length))
    )
    guard case .generate(let version) = result else { throw unexpected() }
    key.report("generated", version, sequence)
  }
}

struct KeyStore: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "store",
    abstract: "Stores key material that you bring.",
    discussion:
      "The material comes from a file or standard input, never from an argument, which others can see."
  )
  @OptionGroup var key: KeyArguments
  @Option(name: .long, help: "AES, SECRET, or what the tenant's profile allows.")
  var type: String = "SECRET"
  @Option(name: .customLong("from"), help: "A file, or - for standard input.")
  var source: String = "-"
  @Option(name: .long, help: "How it is written down: raw, hex or base64.")
  var format: KeyFormat = .raw

  func run() async throws {
    let value = try format.parse(try Input.secret(source))
    let (sequence, result) = try await key.connection.call(
      .change(.store(key.name, type: type, value: value))
    )
    guard case .store(let version) = result else { throw unexpected() }
    key.report("stored", version, sequence)
  }
}

struct KeyFetch: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fetch",
    abstract: "Prints a key's material: the only command that prints a secret.",
    discussion:
      "Absent keys end with exit status 3 and nothing on standard output; status 1 means that it could not be told."
  )
  @OptionGroup var key: KeyArguments
  @Option(name: .customLong("version"), help: "Which version; the newest by default.")
  var keyVersion: UInt32 = 0
  @Option(name: .long, help: "hex, base64 or raw (with --output text).")
  var format: KeyFormat = .hex

  func run() async throws {
    guard case .fetch(let found) = try await key.connection.call(.fetch(key.name, version: keyVersion)).result
    else {
      throw unexpected()
    }
    guard let found else {
      Output.error("keyringctl: there is no such key\n")
      throw ExitCode(3)
    }
    var output = WipedBuffer(capacity: found.value.count * 2 + 256)
    if key.connection.output == .json {
      output.append(
        Array("{\"key_id\":\(JSON.text(key.id).rendered),\"type\":\(JSON.text(found.type).rendered),".utf8)
      )
      output.append(
        Array("\"version\":\(found.version),\"latest_version\":\(found.latestVersion),\"value_hex\":\"".utf8)
      )
      KeyFormat.hex.append(found.value, to: &output)
      output.truncate(to: output.count - 1)
      output.append(Array("\"}\n".utf8))
    } else {
      format.append(found.value, to: &output)
    }
    unsafe output.withUnsafeBytes { unsafe Output.write(STDOUT_FILENO, $0) }
  }
}

extension KeyInfo {
  var json: JSON {
    .object([
      ("key_id", .text(String(decoding: name.keyID, as: UTF8.self))),
      ("owner", .text(String(decoding: name.owner, as: UTF8.self))),
      ("scope", .text(name.scope == .shared ? "shared" : "instance")), ("type", .text(type)),
      ("version", .number(UInt64(version))), ("latest_version", .number(UInt64(latestVersion))),
      ("length", .number(UInt64(length))), ("created", .text(dateText(createdMilliseconds))),
      ("wrapping_key_id", .text(wrappingKeyID)),
    ])
  }

  var row: [String] {
    [
      String(decoding: name.keyID, as: UTF8.self), String(decoding: name.owner, as: UTF8.self), type,
      "\(length)",
      "\(version)", dateText(createdMilliseconds),
    ]
  }

  static let heads = ["KEY", "OWNER", "TYPE", "BYTES", "VERSION", "CREATED"]
}

struct KeyDescribe: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "describe",
    abstract: "Says what is known of a key, without its material."
  )
  @OptionGroup var key: KeyArguments
  @Option(name: .customLong("version"), help: "Which version; the newest by default.")
  var keyVersion: UInt32 = 0

  func run() async throws {
    guard
      case .describe(let info) = try await key.connection.call(.describe(key.name, version: keyVersion))
        .result
    else {
      throw unexpected()
    }
    guard let info else {
      Output.error("keyringctl: there is no such key\n")
      throw ExitCode(3)
    }
    Output.show(key.connection.output, info.json, text: Output.table([KeyInfo.heads, info.row]))
  }
}

struct KeyRemove: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Removes a key with all its versions."
  )
  @OptionGroup var key: KeyArguments

  func run() async throws {
    let (sequence, _) = try await key.connection.call(.change(.remove(key.name)))
    key.report("removed", 0, sequence)
  }
}

struct KeyRotate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate",
    abstract: "Adds a version to a key, made by the tenant's provider; older ones stay fetchable."
  )
  @OptionGroup var key: KeyArguments

  func run() async throws {
    let (sequence, result) = try await key.connection.call(.change(.rotate(key.name)))
    guard case .rotate(let version) = result else { throw unexpected() }
    key.report("rotated", version, sequence)
  }
}

struct KeyList: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "Lists keys, without their material."
  )
  @OptionGroup var connection: ConnectionOptions
  @Flag(name: .long, help: "Those that all instances of the tenant share.")
  var shared = false
  @Option(name: .long, help: "Only this owner's; an empty one is the server itself.")
  var owner: String?

  func run() async throws {
    let client = try connection.makeClient()
    var all: [KeyInfo] = []
    var token: [UInt8] = []
    repeat {
      let call = ListCall(
        scope: shared ? .shared : .instance,
        owner: owner.map { Array($0.utf8) },
        pageToken: token
      )
      guard case .list(let page, let next) = try await client.call(.list(call)).result else {
        throw unexpected()
      }
      all += page
      token = next
    } while !token.isEmpty
    await client.close()
    Output.show(
      connection.output,
      .list(all.map(\.json)),
      text: Output.table([KeyInfo.heads] + all.map(\.row))
    )
  }
}
