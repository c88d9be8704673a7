import ArgumentParser
import WireProtocol

struct CMKCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cmk",
    abstract: "The CMKs of a tenant whose provider is local.",
    discussion: """
      A new CMK is not used before `set cmk_id` names it. One that is disabled, or pending deletion, locks the keys that
      depend on it, no later than wrapping_key_ttl.
      """,
    subcommands: [
      CMKCreate.self, CMKShow.self, CMKDisable.self, CMKEnable.self, CMKDelete.self, CMKCancelDeletion.self,
    ]
  )
}

extension ConnectionOptions {
  /// Does something to a CMK, and shows what it is then.
  func manage(_ tenant: String, _ action: CMKAction, _ cmkID: String, days: UInt32 = 0) async throws {
    let call = Call.admin(.cmk(tenant: tenant, action, cmkID: cmkID, days: days))
    guard case .cmk(let id, let state, let version) = try await self.call(call).result else {
      throw unexpected()
    }
    Output.show(
      output,
      .object([("cmk_id", .text(id)), ("state", .text(state)), ("version", .number(UInt64(version)))]),
      text: "\(id): \(state), version \(version)"
    )
  }
}

struct CMKArguments: ParsableArguments {
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Argument(help: "The CMK's id, as `cmk create` or `tenant show` says.")
  var cmkID: String
}

struct CMKCreate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "create", abstract: "Makes a CMK.")
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  func run() async throws { try await connection.manage(tenant, .create, "") }
}

struct CMKShow: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show",
    abstract: "Says what is known of a CMK."
  )
  @OptionGroup var arguments: CMKArguments
  func run() async throws {
    try await arguments.connection.manage(arguments.tenant, .describe, arguments.cmkID)
  }
}

struct CMKDisable: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disable",
    abstract: "Refuses a CMK's use until it is enabled."
  )
  @OptionGroup var arguments: CMKArguments
  func run() async throws {
    try await arguments.connection.manage(arguments.tenant, .disable, arguments.cmkID)
  }
}

struct CMKEnable: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "enable",
    abstract: "The way back from disable."
  )
  @OptionGroup var arguments: CMKArguments
  func run() async throws {
    try await arguments.connection.manage(arguments.tenant, .enable, arguments.cmkID)
  }
}

struct CMKDelete: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schedule-deletion",
    abstract: "Refuses a CMK's use at once, and destroys it after some days.",
    discussion: "What was encrypted under a destroyed CMK is lost: rotate-keys first, and think of backups."
  )
  @OptionGroup var arguments: CMKArguments
  @Option(name: .long, help: "7 to 30.")
  var days: UInt32 = 30
  func run() async throws {
    try await arguments.connection.manage(arguments.tenant, .scheduleDeletion, arguments.cmkID, days: days)
  }
}

struct CMKCancelDeletion: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cancel-deletion",
    abstract: "The way back while it is not destroyed; the CMK is then disabled."
  )
  @OptionGroup var arguments: CMKArguments
  func run() async throws {
    try await arguments.connection.manage(arguments.tenant, .cancelDeletion, arguments.cmkID)
  }
}
