import ArgumentParser
import KeyringClient
import WireProtocol

extension VariableEntry {
  var json: JSON {
    .object([
      ("name", .text(name)), ("value", .text(value)), ("source", .text(source)),
      ("dynamic", .flag(isDynamic)),
      ("meaning", .text(meaning)),
    ])
  }
}

struct SetCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "set",
    abstract: "Changes a tenant's variable while the server runs.",
    discussion: """
      `set global` lasts until the server restarts, `set persist` beyond that, as MySQL has it. The value DEFAULT takes the
      global value away, and with `set persist` the persisted one, too. `reset persist` forgets what was persisted, and
      leaves what is in force as it is until the server restarts.
      Limits (`set global limits.requests_per_second 500`) count from the next request on; 0 or `unlimited` is none.
      A new cmk_id is proved first: the CMK must make a data key for this tenant and open it again. Where it does not,
      the old value stays in force. New keys are then written under the new CMK; `rotate-keys` moves the old ones.
      """,
    subcommands: [SetGlobal.self, SetPersist.self]
  )
}

struct SetArguments: ParsableArguments {
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "One that `variables` lists as dynamic, such as cmk_id or limits.keys.")
  var name: String
  @Argument(help: "The new value, or DEFAULT.")
  var value: String
  @Option(name: .long, help: "The tenant's name.")
  var tenant: String

  func run(_ persistence: Persistence) async throws {
    let call = AdminCall.variablesSet(tenant: tenant, name: name, value: value, persistence)
    guard case .variablesSet(let old, let new) = try await connection.call(.admin(call)).result else {
      throw unexpected()
    }
    Output.show(
      connection.output,
      .object([("name", .text(name)), ("old_value", .text(old)), ("new_value", .text(new))]),
      text: "\(name): \(old) -> \(new)"
    )
  }
}

struct SetGlobal: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "global",
    abstract: "Until the server restarts."
  )
  @OptionGroup var arguments: SetArguments
  func run() async throws { try await arguments.run(.global) }
}

struct SetPersist: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "persist", abstract: "Beyond a restart, too.")
  @OptionGroup var arguments: SetArguments
  func run() async throws { try await arguments.run(.persist) }
}

struct ResetCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reset",
    abstract: "Forgets what `set persist` wrote.",
    subcommands: [ResetPersist.self]
  )
}

struct ResetPersist: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "persist",
    abstract: "Forgets the persisted value of a tenant's variable.",
    discussion: """
      As MySQL's RESET PERSIST: the value in force stays so until the server restarts; then the tenant's file counts again.
      To go back at once: `set persist NAME DEFAULT`.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "A variable whose source is `persisted` in `variables`.")
  var name: String
  @Option(name: .long, help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    let call = AdminCall.variablesSet(tenant: tenant, name: name, value: "", .reset)
    guard case .variablesSet(_, let value) = try await connection.call(.admin(call)).result else {
      throw unexpected()
    }
    Output.show(
      connection.output,
      .object([("name", .text(name)), ("value", .text(value))]),
      text: "\(name): no longer persisted; \(value) until the server restarts"
    )
  }
}

struct VariablesCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "variables",
    abstract: "Lists a tenant's variables, where their values come from, and what they mean."
  )
  @OptionGroup var connection: ConnectionOptions
  @Option(name: .long, help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    guard
      case .variablesList(let variables) = try await connection.call(.admin(.variablesList(tenant))).result
    else {
      throw unexpected()
    }
    Output.show(
      connection.output,
      .list(variables.map(\.json)),
      text: Output.table(
        [["NAME", "VALUE", "SOURCE", "DYNAMIC", "MEANING"]]
          + variables.map { [$0.name, $0.value, $0.source, $0.isDynamic ? "yes" : "no", $0.meaning] }
      )
    )
  }
}

struct RotateCMKCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate-cmk",
    abstract: "Has the KMS rotate a tenant's CMK; its id stays.",
    discussion:
      "What was encrypted before stays readable. `rotate-keys` re-encrypts it under the new version."
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    guard case .rotateCMK(let id, let version) = try await connection.call(.admin(.rotateCMK(tenant))).result
    else {
      throw unexpected()
    }
    Output.show(
      connection.output,
      .object([("cmk_id", .text(id)), ("version", .number(UInt64(version)))]),
      // AWS KMS does not tell versions.
      text: version == 0 ? "CMK \(id) is rotated" : "CMK \(id) is at version \(version)"
    )
  }
}

struct RotateKeysCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rotate-keys",
    abstract: "Re-encrypts every key of a tenant under a new wrapping key of its present CMK.",
    discussion: """
      Key values do not change, and readers do not wait. It ends with a proof: the new storage file is read back, and no
      record in it depends on another wrapping key. Backups taken before still depend on the former CMKs that it names.
      It refuses while the cmk_id in force would end with a restart: `set persist cmk_id` first, or --allow-transient.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  @Flag(name: .long, help: "Go on though the cmk_id in force is not persisted.")
  var allowTransient = false

  func run() async throws {
    let client = try connection.makeClient()
    let progress = Task { [tenant] in await Self.showProgress(client, tenant) }
    let rotation = Call.admin(.rotateKeys(tenant, allowTransient: allowTransient))
    let outcome: Result<ReplyResult, KeyringClientError>
    do throws(KeyringClientError) {
      outcome = .success(
        try await client.call(rotation, timeout: .seconds(max(connection.timeout, 600))).result
      )
    } catch {
      outcome = .failure(error)
    }
    progress.cancel()
    await progress.value
    await client.close()
    guard case .rotateKeys(let report) = try outcome.get() else { throw unexpected() }
    let json = JSON.object([
      ("cmk_id", .text(report.cmkID)), ("wrapping_key_id", .text(report.wrappingKeyID)),
      ("records", .number(report.records)),
      ("records_elsewhere", .number(report.recordsElsewhere)),
      ("former_cmk_ids", .list(report.formerCMKIDs.map { .text($0) })),
    ])
    var text =
      "\(report.records) records re-encrypted under wrapping key \(report.wrappingKeyID) of CMK \(report.cmkID)\n"
    text += "proof: \(report.recordsElsewhere) records of the new file depend on another wrapping key"
    if !report.formerCMKIDs.isEmpty {
      text +=
        "\nno longer needed, but by backups taken before: \(report.formerCMKIDs.joined(separator: ", "))"
    }
    Output.show(connection.output, json, text: text)
  }

  /// A line on a terminal, gone once the rotation ends.
  private static func showProgress(_ client: KeyringClient, _ tenant: String) async {
    guard Output.isErrorTerminal else { return }
    Output.error("re-encrypting the keys of \(tenant)…")
    while !Task.isCancelled {
      do {
        try await Task.sleep(for: .milliseconds(200))
        let answer = try await client.call(.admin(.status(tenant)), timeout: .seconds(2))
        guard case .tenant(let status) = answer.result, status.rotationTotal > 0 else { continue }
        Output.error("\r\(status.rotationDone) of \(status.rotationTotal) records re-encrypted\u{1b}[K")
      } catch {
        break  // cancelled, or the rotation's own call says what is wrong
      }
    }
    Output.error("\r\u{1b}[K")
  }
}
