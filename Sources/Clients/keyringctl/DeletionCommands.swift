internal import KeyringClient
import ArgumentParser
import Cryptography
import WireProtocol

struct TenantDelete: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete",
    abstract: "Destroys a tenant's keys and all it has, once the time to undo that is over.",
    discussion: """
      For a service administrator. At once the tenant is disabled, its connections are closed and its wrapping keys wiped.
      Until it is due, `tenant undelete` stops it. Then its CMKs of provider local are destroyed, its files are overwritten
      and removed, and a signed receipt is written (`tenant receipt`) that names the backups that can, and cannot, be read
      any more. Nobody can undo that.

        keyringctl tenant delete acme --confirm acme                 in 24 hours
        keyringctl tenant delete acme --confirm acme --after 7d      in a week
        keyringctl tenant delete acme --confirm acme --now           without undo; comes back when all is destroyed

      A CMK of AWS KMS stays, unless --schedule-cmk-deletion says after how many days KMS is to delete it; it must be no
      other tenant's.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Option(name: .long, help: "The tenant's name again.")
  var confirm: String = ""
  @Option(name: .long, help: "For how long it can be undone: 90m, 24h, 7d; at most 30d.")
  var after: Wait = Wait(seconds: 86_400)
  @Flag(name: .long, help: "At once.")
  var now = false
  @Option(name: .long, help: ArgumentHelp("AWS KMS deletes its CMKs after 7 to 30 days.", valueName: "days"))
  var scheduleCMKDeletion: UInt32 = 0

  /// A time of whole seconds.
  struct Wait: ExpressibleByArgument {
    let seconds: UInt64
    init(seconds: UInt64) { self.seconds = seconds }

    init?(argument: String) {
      let units: [Character: UInt64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
      guard let unit = argument.last.flatMap({ units[$0] }), let number = UInt64(argument.dropLast()),
        number > 0, number <= 2_592_000 / unit
      else { return nil }
      seconds = number * unit
    }

    var defaultValueDescription: String { "24h" }
  }

  func validate() throws {
    guard confirm == tenant else {
      throw ValidationError("nobody can undo this: say `--confirm \(tenant)` if '\(tenant)' is meant")
    }
  }

  func run() async throws {
    let call = TenantDeleteCall(
      tenant: tenant,
      afterSeconds: now ? 0 : after.seconds,
      cmkDays: scheduleCMKDeletion
    )
    let reply = try await connection.call(.admin(.tenantDelete(call)))
    guard case .tenantDelete(let due, let isDone) = reply.result else { throw unexpected() }
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("due_ms", .number(due)), ("done", .flag(isDone))]),
      text: isDone
        ? "tenant \(tenant) is deleted: `keyringctl tenant receipt \(tenant)` has the receipt"
        : "tenant \(tenant) is disabled, and deleted at \(dateText(due)); `keyringctl tenant undelete \(tenant)` stops that"
    )
  }
}

struct TenantUndelete: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "undelete",
    abstract: "Stops a deletion that is not due yet; the tenant stays disabled until `tenant enable`."
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    _ = try await connection.call(.admin(.tenantUndelete(tenant)))
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("state", .text("disabled"))]),
      text: "tenant \(tenant) is not deleted; it stays disabled until `keyringctl tenant enable \(tenant)`"
    )
  }
}

struct TenantReceipt: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "receipt",
    abstract: "Prints, or checks, the signed receipt of a deletion.",
    discussion: """
      The first line says what was destroyed, the second is its Ed25519 signature. Keep the public key away from the server:

        keyringctl tenant receipt acme > acme.receipt
        keyringctl tenant receipt acme --show-public-key > receipt.pub
        keyringctl tenant receipt --check acme.receipt --public-key receipt.pub          needs no server
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String = ""
  @Flag(name: .long, help: "Print the key that checks receipts instead.")
  var showPublicKey = false
  @Option(name: .long, help: "Check this receipt instead.")
  var check: String?
  @Option(name: .long, help: "With this public key.")
  var publicKey: String?

  func validate() throws {
    guard (check == nil) == !tenant.isEmpty, (check == nil) == (publicKey == nil) else {
      throw ValidationError("either a tenant, or --check FILE and --public-key FILE")
    }
  }

  func run() async throws {
    if let check, let publicKey { return try Self.check(check, publicKey, connection.output) }
    let reply = try await connection.call(.admin(.tenantReceipt(tenant)))
    guard case .tenantReceipt(let receipt, let key) = reply.result else { throw unexpected() }
    try Self.check(receipt, key)
    let lines = receipt.split(separator: "\n").map(String.init)
    Output.show(
      connection.output,
      .object([("receipt", .text(lines[0])), ("signature", .text(lines[1])), ("public_key", .text(key))]),
      text: showPublicKey ? String(key.dropLast()) : lines.joined(separator: "\n")
    )
  }

  private static func check(_ file: String, _ keyFile: String, _ output: OutputFormat) throws {
    let receipt = try Input.text(file, bytesMax: 4 << 20)
    try check(receipt, Input.text(keyFile))
    Output.show(
      output,
      .object([("signed", .flag(true))]),
      text: "the receipt is as it was signed"
    )
  }

  /// - Throws: where the signature is not of the first line.
  private static func check(_ receipt: String, _ key: String) throws {
    let lines = receipt.split(separator: "\n", omittingEmptySubsequences: false)
    guard lines.count == 3, lines[2].isEmpty else { throw Failure("a receipt has two lines") }
    let parts = lines[1].split(separator: "\"")
    guard let place = parts.firstIndex(of: "signature"), place + 2 < parts.count,
      let signature = bytes(parts[place + 2])
    else { throw Failure("the receipt has no signature") }
    let isValid: Bool
    do {
      isValid = try VerifyingKey(pem: key).isValid(signature, of: Array(lines[0].utf8))
    } catch {
      throw Failure("\(error)")
    }
    guard isValid else { throw Failure("the receipt is not as it was signed, or by another key") }
  }

  private static func bytes(_ digits: Substring) -> [UInt8]? {
    guard digits.utf8.count % 2 == 0 else { return nil }
    var bytes: [UInt8] = []
    var rest = digits
    while !rest.isEmpty {
      guard let byte = UInt8(rest.prefix(2), radix: 16) else { return nil }
      bytes.append(byte)
      rest = rest.dropFirst(2)
    }
    return bytes
  }
}
