internal import KeyringClient
import ArgumentParser
import WireProtocol

struct TenantReload: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reload",
    abstract: "Has a tenant's files and credentials read anew.",
    discussion: """
      The new ones are tried against the KMS first: they must make a wrapping key and open those in use. Where they do not, the last good ones
      stay in force and the command says why. What `set global` set stays in force too.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    let reply = try await connection.call(.admin(.tenantReload(tenant)))
    guard case .tenantReload(let credentials) = reply.result else { throw unexpected() }
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("credentials", .text(credentials))]),
      text: "tenant \(tenant) is reloaded" + (credentials.isEmpty ? "" : ", with \(credentials)")
    )
  }
}

struct TenantMove: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "move",
    abstract: "Moves a tenant to another provider, account or endpoint.",
    discussion: """
      The new CMK must make a wrapping key for the tenant and open it again; then it is in force, durably, for new keys. Old keys stay readable
      through the provider they were written under, until `rotate-keys` re-encrypts them all: run it next, and only then let the old CMK go.

      Credentials are not sent: put their file into the tenant's directory on the server first, under a name of its own.

        keyringctl tenant move acme --provider aws --cmk-id arn:aws:kms:eu-central-1:111122223333:key/... --credentials-file credentials.2
        keyringctl rotate-keys acme
        keyringctl cmk create acme
        keyringctl tenant move acme --provider local --cmk-id local-...
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Option(name: .long, help: "local or aws.")
  var provider: String
  @Option(name: .long, help: "The CMK: an ARN, a key id, an alias.")
  var cmkID: String
  @OptionGroup var options: ProviderOptions
  @Option(
    name: .long,
    help: "file, environment, profile, web-identity, container, instance-metadata or chain."
  )
  var credentials: String?
  @Option(name: .long, help: "The credentials' file in the tenant's directory.")
  var credentialsFile: String?
  func run() async throws {
    let reply = try await connection.call(
      .admin(.tenantMove(TenantMoveCall(tenant: tenant, cmkID: cmkID, settings: settings)))
    )
    guard case .tenantMove(let cmkID) = reply.result else { throw unexpected() }
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("provider", .text(provider)), ("cmk_id", .text(cmkID))]),
      text:
        "tenant \(tenant) writes under CMK \(cmkID) of \(provider); `rotate-keys \(tenant)` brings the old keys there"
    )
  }

  private var settings: [TenantMoveCall.Setting] {
    let all: [(String, String?)] = [
      ("provider", provider), ("credentials", credentials), ("credentials_file", credentialsFile),
    ]
    return all.compactMap { name, value in value.map { .init(name: name, value: $0) } } + options.settings
  }
}
