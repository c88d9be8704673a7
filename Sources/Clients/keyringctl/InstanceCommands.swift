internal import KeyringClient
import ArgumentParser
import WireProtocol

struct InstanceCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "instance",
    abstract: "The database servers that may call for a tenant, and what each may do.",
    subcommands: [InstanceAdd.self, InstanceList.self, InstanceRevoke.self]
  )
}

extension InstanceEntry {
  var json: JSON {
    .object([
      ("name", .text(name)), ("source", .text(source)), ("connections", .number(UInt64(connections))),
      ("permissions", .list(permissions.map { .text($0) })), ("scopes", .list(scopes.map { .text($0) })),
      ("revoked_at", notBefore == 0 ? .null : .text(dateText(notBefore * 1000))),
    ])
  }
}

/// Names with commas between them.
private func words(_ text: String?) -> [String] {
  text?.split(separator: ",", omittingEmptySubsequences: false).map(String.init) ?? []
}

struct InstanceAdd: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Allows an instance, or changes what one may do.",
    discussion: """
      Without --permissions and --scopes a new instance may do everything, and one that may call already keeps what it
      has. For one that is there already, also in tenant.yaml or where any instance may call, this changes what it may do:
      at once, on open connections too. A backup host that reads everything and changes nothing of the shared keys:

        keyringctl instance add acme backup1 --permissions read --scopes shared

      A name that was revoked takes only certificates that begin after that: issue a new one.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Argument(help: "The instance's name, as its certificate has it.")
  var instance: String
  @Option(name: .long, help: "read, write, or both with a comma: fetch, describe, list; and every change.")
  var permissions: String?
  @Option(
    name: .long,
    help: "own, shared, or both with a comma: keys of its own, and those that all instances share."
  )
  var scopes: String?

  func run() async throws {
    let call = AdminCall.instanceAdd(
      tenant: tenant,
      instance: instance,
      permissions: words(permissions),
      scopes: words(scopes)
    )
    guard case .instanceAdd(let entry) = try await connection.call(.admin(call)).result else {
      throw unexpected()
    }
    let certificates =
      entry.notBefore == 0
      ? ""
      : "\nthe name was revoked at \(dateText(entry.notBefore * 1000)): only certificates that begin after that are taken, issue a new one"
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("instance", entry.json)]),
      text:
        "instance \(instance) may \(entry.permissions.joined(separator: " and ")) for tenant \(tenant), in the scopes: \(entry.scopes.joined(separator: ", "))\(certificates)"
    )
  }
}

struct InstanceList: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "Lists a tenant's instances.",
    discussion: """
      SOURCE is `file` for one of tenant.yaml, `added` for one of `instance add`, `revoked` for one that may not call any
      more. REVOKED is when the name was revoked last: it takes only certificates that begin after that.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    guard
      case .instanceList(let instances, let isAny) = try await connection.call(.admin(.instanceList(tenant)))
        .result
    else {
      throw unexpected()
    }
    Output.show(
      connection.output,
      .object([("any_instance", .flag(isAny)), ("instances", .list(instances.map(\.json)))]),
      text: (isAny ? "any instance that the CA certified, but for those revoked\n" : "")
        + Output.table(
          [["INSTANCE", "SOURCE", "PERMISSIONS", "SCOPES", "CONNECTIONS", "REVOKED"]] + instances.map(row)
        )
    )
  }

  private func row(_ instance: InstanceEntry) -> [String] {
    func list(_ words: [String]) -> String { words.isEmpty ? "-" : words.joined(separator: ",") }
    return [
      instance.name, instance.source, list(instance.permissions), list(instance.scopes),
      "\(instance.connections)", instance.notBefore == 0 ? "-" : dateText(instance.notBefore * 1000),
    ]
  }
}

struct InstanceRevoke: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "revoke",
    abstract: "Refuses an instance for good, and closes its connections.",
    discussion: """
      Durable when it returns, whatever tenant.yaml says. Calls of its open connections are refused from here on, and the
      connections are closed. Its certificates stay refused after `instance add`: the name then takes only certificates that
      begin later, in whole seconds; one that `keyringctl pki issue` makes after this returned does.

      A certificate that is to be refused for every tenant and as an administrator's goes onto the CA's revocation list:
      `keyringctl pki revoke`, and `tls.client_crl` in keyringd's configuration.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Argument(help: "The instance's name.")
  var instance: String

  func run() async throws {
    let call = AdminCall.instanceRevoke(tenant: tenant, instance: instance)
    guard case .instanceRevoke(let second) = try await connection.call(.admin(call)).result else {
      throw unexpected()
    }
    Output.show(
      connection.output,
      .object([
        ("tenant", .text(tenant)), ("instance", .text(instance)),
        ("revoked_at", .text(dateText(second * 1000))),
      ]),
      text:
        "instance \(instance) may not call for tenant \(tenant) any more, since \(dateText(second * 1000))"
    )
  }
}
