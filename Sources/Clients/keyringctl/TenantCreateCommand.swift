import ArgumentParser
import KeyringClient
import KeyringStorage
import SecureMemory
import WireProtocol

/// What reaches a CMK of AWS, beside the credentials.
struct ProviderOptions: ParsableArguments {
  @Option(name: .long, help: "Of AWS; needless with an ARN.")
  var region: String?
  @Option(
    name: .long,
    help: "Of AWS, where it is not the region's own; among the service's allowed_endpoints."
  )
  var endpoint: String?
  @Option(name: .long, help: "The profile, with --credentials profile.")
  var awsProfile: String?
  @Option(name: .long, help: "A role to assume with these credentials.")
  var roleARN: String?
  @Option(name: .long, help: "The external id that the role asks for.")
  var roleExternalID: String?
  @Option(
    name: .long,
    help: "Of AWS STS, where it is not the region's own; among the service's allowed_endpoints."
  )
  var stsEndpoint: String?

  /// Those that were given, by their names in the tenant's file.
  var settings: [TenantMoveCall.Setting] {
    let all: [(String, String?)] = [
      ("region", region), ("endpoint", endpoint), ("aws_profile", awsProfile), ("role_arn", roleARN),
      ("role_external_id", roleExternalID), ("sts_endpoint", stsEndpoint),
    ]
    return all.compactMap { name, value in value.map { .init(name: name, value: $0) } }
  }
}

/// Where a new tenant's credentials come from: a file that is sent, or a source that the server has.
enum CredentialsArgument {
  case file(String)
  case source(String)

  static let sources = [
    "environment", "profile", "web-identity", "container", "instance-metadata", "chain",
  ]

  init(_ text: String) { self = Self.sources.contains(text) ? .source(text) : .file(text) }

  /// The file's content, straight into locked memory.
  static func read(_ path: String) throws -> Secret {
    if path == "-" { return try Input.secret(path) }
    do {
      return try SecretFile.read(path)
    } catch {
      throw Failure("\(error)")
    }
  }
}

struct TenantCreate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create",
    abstract:
      "Onboards a tenant: proves its CMK, then makes CMK (provider local), directory, files, keyring.",
    discussion: """
      For a service administrator. First the CMK makes a wrapping key for the tenant and opens it again; where it does not, nothing is made. Then
      all is made, or nothing: cut off at any moment, the same command again completes it or begins anew, and where the tenant is there as it was
      asked for, it says so and changes nothing.

        keyringctl tenant create acme --instance db1 --instance db2 --pki pki
        keyringctl tenant create globex --provider aws --credentials globex.credentials \\
          --cmk-id arn:aws:kms:eu-central-1:111122223333:key/... --instance db1

      The file of --credentials has two lines, access key id and secret access key (a third may hold a session token), and is readable by you
      alone; it is sent over TLS and becomes the tenant's credentials file. `-` is standard input. Many tenants: `tenant apply`.
      """
  )

  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "1 to 63 of a-z, 0-9 and '-'.")
  var tenant: String
  @Option(name: .long, help: "Who holds its CMK: local or aws.")
  var provider: String = "local"
  @Option(name: .long, help: "The CMK: an ARN, a key id, an alias. Without it, provider local makes one.")
  var cmkID: String = ""
  @Option(
    name: .long,
    help:
      "Of AWS: a file of two lines to send, or a source that the server has: environment, profile, web-identity, container, instance-metadata or chain. A file of such a name: ./profile."
  )
  var credentials: String?
  @OptionGroup var options: ProviderOptions
  @Option(
    name: .long,
    help: "keyring_aws (as without it), general or any: which key types and lengths it may have."
  )
  var profile: String = ""
  @Option(name: .customLong("instance"), help: "An instance that may call; may be given several times.")
  var instances: [String] = []
  @Flag(name: .long, help: "Allow any instance that the CA certified for this tenant.")
  var anyInstance = false
  @Option(
    name: .customLong("set"),
    help: "NAME=VALUE: more of the tenant's file, outage_grace=1h or limits.keys=1000 for example."
  )
  var settings: [String] = []
  @Flag(name: .long, help: "Prove the CMK and say what would be made; make nothing.")
  var dryRun = false
  @OptionGroup var certificates: CertificateOptions

  func run() async throws {
    let issuer = try certificates.open()
    let reply = try await connection.call(.admin(.tenantCreate(try call())))
    guard case .tenantCreate(let cmkID, let isUnchanged) = reply.result else { throw unexpected() }
    let issued = dryRun ? nil : try issuer?.ensure(tenant, instances)
    let what = isUnchanged ? "unchanged" : dryRun ? "checked" : "created"
    let made = issued?.made ?? []
    Output.show(
      connection.output,
      .object([
        ("tenant", .text(tenant)), ("result", .text(what)), ("cmk_id", .text(cmkID)),
        ("certificates", .list(made.map { .text($0) })),
      ]),
      text: text(cmkID, isUnchanged) + made.map { "\ncertificate \($0).crt, \($0).key" }.joined()
    )
  }

  private func text(_ cmkID: String, _ isUnchanged: Bool) -> String {
    if isUnchanged { return "tenant \(tenant) is there already, under CMK \(cmkID): nothing was changed" }
    guard dryRun else { return "tenant \(tenant) is ready under CMK \(cmkID)" }
    let cmk = cmkID.isEmpty ? "a new CMK" : "CMK \(cmkID), which can be used"
    return "tenant \(tenant) would be made under \(cmk) of provider \(provider); nothing was changed"
  }

  private func call() throws -> TenantCreateCall {
    var all = options.settings
    var secret: Secret?
    switch credentials.map(CredentialsArgument.init) {
    case .source(let source): all.append(.init(name: "credentials", value: source))
    case .file(let path): secret = try CredentialsArgument.read(path)
    case nil: break
    }
    for text in settings {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[1].isEmpty else {
        throw Failure("--set takes NAME=VALUE, not '\(text)'")
      }
      all.append(.init(name: String(parts[0]), value: String(parts[1])))
    }
    return TenantCreateCall(
      tenant: tenant,
      provider: provider,
      cmkID: cmkID,
      profile: profile,
      instances: instances,
      anyInstance: anyInstance,
      settings: all,
      credentials: secret,
      isDryRun: dryRun
    )
  }
}
