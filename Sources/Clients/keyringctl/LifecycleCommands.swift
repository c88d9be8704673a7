internal import KeyringClient
import ArgumentParser
import WireProtocol

struct TenantLock: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lock",
    abstract: "Refuses a tenant's calls and wipes its wrapping keys, until `tenant unlock` or a restart.",
    discussion: """
      At once: the connections of its instances are closed, and who calls is told TENANT_LOCKED. Nothing is written: the
      lock ends with the server, as what `set global` sets. `tenant disable` is the same across restarts.
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    _ = try await connection.call(.admin(.tenantLock(tenant)))
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("state", .text("locked"))]),
      text: "tenant \(tenant) is locked, until `tenant unlock` or a restart"
    )
  }
}

struct TenantUnlock: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unlock",
    abstract: "The way back from `tenant lock`; of a refusing KMS, it is `tenant reload` or another cmk_id."
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String

  func run() async throws {
    _ = try await connection.call(.admin(.tenantUnlock(tenant)))
    Output.show(
      connection.output,
      .object([("tenant", .text(tenant)), ("state", .text("unlocked"))]),
      text: "tenant \(tenant) is not locked by an administrator any more"
    )
  }
}

extension LoadedFiles {
  var json: JSON {
    .object([
      ("name", .text(name)), ("loaded", .text(dateText(loadedMilliseconds))),
      ("ends", ends == 0 ? .null : .text(dateText(ends * 1000))),
      ("failure", failure.isEmpty ? .null : .text(failure)),
    ])
  }

  /// As one line says it.
  var text: String {
    "read \(dateText(loadedMilliseconds))" + (ends == 0 ? "" : ", ends \(dateText(ends * 1000))")
      + (failure.isEmpty ? "" : "; what is there now was NOT taken: \(failure)")
  }
}

struct ReloadCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reload",
    abstract: "Has the server read its certificate, client CA, revocation list and tenants' files anew.",
    discussion: """
      For a service administrator; SIGHUP does the same, and the server looks at the files itself every 2 seconds. Each is
      taken by itself, and where one cannot be used the last good one stays in force: the exit status is not 0 then, and the
      error says why. Of the tenants those are reloaded that are open and whose tenant.yaml or credentials are others, as
      `tenant reload` does; connections whose certificates are not good any more are closed.
      """
  )
  @OptionGroup var connection: ConnectionOptions

  func run() async throws {
    guard case .serviceReload(let report) = try await connection.call(.admin(.serviceReload)).result else {
      throw unexpected()
    }
    let failures = report.tenantFailures
    Output.show(
      connection.output,
      .object([
        ("files", .list(report.files.map(\.json))),
        ("tenants_reloaded", .number(UInt64(report.tenantsReloaded))),
        (
          "tenant_failures",
          .list(
            failures.map { .object([("tenant", .text($0.tenant)), ("failure", .text($0.failure))]) }
          )
        ),
      ]),
      text: Output.table(
        report.files.map { [$0.name, $0.text] } + [["tenants", "\(report.tenantsReloaded) read anew"]]
      )
    )
    guard report.failures.isEmpty else {
      throw Failure(
        "not all was taken over, the last good is in force: \(report.failures.joined(separator: "; "))"
      )
    }
  }
}
