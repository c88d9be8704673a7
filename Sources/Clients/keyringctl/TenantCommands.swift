internal import KeyringClient
import ArgumentParser
import WireProtocol

struct TenantCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tenant",
    abstract: "Onboards tenants and looks after them.",
    subcommands: [
      TenantCreate.self, TenantList.self, TenantShow.self, TenantDisable.self, TenantEnable.self,
      TenantLock.self, TenantUnlock.self, TenantAccept.self, TenantReload.self, TenantMove.self,
      TenantDelete.self, TenantUndelete.self, TenantReceipt.self,
      TenantApply.self,
    ]
  )
}

extension TenantSummary {
  var json: JSON {
    .object([
      ("tenant", .text(tenant)), ("state", .text(state.name)), ("provider", .text(provider)),
      ("cmk_id", .text(cmkID)),
    ])
  }
}

struct TenantList: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "Lists the tenants.")
  @OptionGroup var connection: ConnectionOptions

  func run() async throws {
    let client = try connection.makeClient()
    var all: [TenantSummary] = []
    var isMore = true
    while isMore {
      let call = AdminCall.tenantList(pageSize: 0, after: all.last?.tenant ?? "")
      guard case .tenantList(let page, let more) = try await client.call(.admin(call)).result else {
        throw unexpected()
      }
      all += page
      isMore = more && !page.isEmpty
    }
    await client.close()
    Output.show(
      connection.output,
      .list(all.map(\.json)),
      text: Output.table(
        [["TENANT", "STATE", "PROVIDER", "CMK"]]
          + all.map { [$0.tenant, $0.state.name, $0.provider, $0.cmkID] }
      )
    )
  }
}

struct TenantShow: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show",
    abstract: "Shows a tenant's configuration in force."
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    guard case .tenantShow(let details) = try await connection.call(.admin(.tenantShow(tenant))).result else {
      throw unexpected()
    }
    let json = JSON.object([
      ("summary", details.summary.json), ("profile", .text(details.profile)),
      ("any_instance", .flag(details.anyInstance)),
      ("instances", .list(details.instances.map(\.json))),
      ("variables", .list(details.variables.map(\.json))),
    ])
    let instances = details.anyInstance ? "any" : details.instances.map(\.name).joined(separator: ", ")
    Output.show(
      connection.output,
      json,
      text: Output.table(
        [
          ["tenant", details.summary.tenant], ["state", details.summary.state.name],
          ["instances", instances],
        ] + details.variables.filter { $0.name != "instances" }.map { [$0.name, $0.value, $0.source] }
      )
    )
  }
}

struct TenantDisable: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disable",
    abstract: "Refuses a tenant's calls and wipes its wrapping keys, across restarts.",
    discussion: """
      At once: the connections of its instances are closed, and who calls is told TENANT_DISABLED. `tenant lock` is the same
      until a restart.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    _ = try await connection.call(.admin(.tenantDisable(tenant)))
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("state", .text("disabled"))]),
      text: "tenant \(tenant) is disabled"
    )
  }
}

struct TenantEnable: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "enable",
    abstract: "The way back from disable; a quarantined tenant is looked at anew."
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    _ = try await connection.call(.admin(.tenantEnable(tenant)))
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("state", .text("enabled"))]),
      text: "tenant \(tenant) is enabled"
    )
  }
}

struct TenantAccept: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "accept",
    abstract: "Takes the storage file of a quarantined tenant as it is.",
    discussion: """
      A tenant is quarantined when its storage file is not the one that its anchor knows: an older copy was put back,
      say. Accepting gives up what the file lacks. Name the sequence that the file is at; the server's log has it.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Option(name: .long, help: "The sequence that the file is at.")
  var sequence: UInt64

  func run() async throws {
    _ = try await connection.call(.admin(.tenantAccept(tenant, sequence: sequence)))
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("sequence", .number(sequence))]),
      text: "tenant \(tenant) goes on from sequence \(sequence)"
    )
  }
}
