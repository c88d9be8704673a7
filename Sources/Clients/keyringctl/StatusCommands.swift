import ArgumentParser
import WireProtocol

struct StatusCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "The state of the service, or of one tenant.",
    discussion: """
      cold         not used since the server started; its first call opens it
      ready        all is well
      degraded     the KMS does not answer; wrapping keys are held within outage_grace
      locked       the KMS refuses a wrapping key that keys depend on, `tenant lock`, or the directory is gone
      quarantined  the storage file is not the expected one: see `tenant accept`
      disabled     an administrator disabled it
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "Without it: the service.")
  var tenant: String?

  func run() async throws {
    switch try await connection.call(.admin(.status(tenant ?? ""))).result {
    case .service(let status): show(status)
    case .tenant(let status): show(status)
    default: throw unexpected()
    }
  }

  private func show(_ status: ServiceStatus) {
    let states = status.states.map { "\($0.tenants) \($0.state.name)" }.joined(separator: ", ")
    Output.show(
      connection.output,
      .object([
        ("version", .text(status.version)), ("started", .text(dateText(status.startedMilliseconds))),
        ("tenants", .number(UInt64(status.tenants))),
        ("states", .object(status.states.map { ($0.state.name, .number(UInt64($0.tenants))) })),
        ("connections", .number(UInt64(status.connections))), ("memory_locked", .flag(status.isMemoryLocked)),
        ("secure_bytes_used", .number(status.secureBytesUsed)), ("calls", .number(status.calls)),
        ("calls_failed", .number(status.callsFailed)), ("files", .list(status.files.map(\.json))),
        ("audit_written", .number(status.auditWritten)),
        ("audit_dropped", .number(status.auditDropped)), ("audit_failure", .text(status.auditFailure)),
        ("syslog_dropped", .number(status.syslogDropped)),
      ]),
      text: Output.table(
        [
          ["version", status.version], ["started", dateText(status.startedMilliseconds)],
          ["tenants", "\(status.tenants)\(states.isEmpty ? "" : " (\(states))")"],
          ["connections", "\(status.connections)"], ["memory locked", status.isMemoryLocked ? "yes" : "NO"],
          ["calls", "\(status.calls), \(status.callsFailed) failed"],
          ["audit", auditText(status.auditWritten, status.auditDropped, status.auditFailure)],
        ] + status.files.map { [$0.name, $0.text] }
      )
    )
  }

  private func show(_ status: TenantStatus) {
    let keys = status.wrappingKeys.map { key in
      JSON.object([
        ("id", .text(key.id)), ("cmk_id", .text(key.cmkID)), ("state", .text(key.state)),
        ("records", .number(key.records)),
        ("encryptions", .number(key.encryptions)), ("current", .flag(key.isCurrent)),
        ("created", .text(dateText(key.createdMilliseconds))),
      ])
    }
    let json = JSON.object(
      [
        ("summary", status.summary.json), ("reason", .text(status.reason)),
        ("sequence", .number(status.sequence)),
        ("keys", .number(status.keys)), ("records", .number(status.records)),
        ("storage_bytes", .number(status.storageBytes)),
        ("digest", .text(status.digest)), ("keyring_id", .text(status.keyringID)),
        ("connections", .number(UInt64(status.connections))),
        ("batches_unverified", .number(status.batchesUnverified)),
        ("rotation_done", .number(status.rotationDone)), ("rotation_total", .number(status.rotationTotal)),
        ("limits_hit", .object(status.limitsHit.map { ($0.limit, .number($0.count)) })),
        ("wrapping_keys", .list(keys)), ("audit", .text(status.audit)),
        ("audit_written", .number(status.auditWritten)), ("audit_dropped", .number(status.auditDropped)),
        ("audit_failure", .text(status.auditFailure)),
      ] + (status.credentials.map { [("credentials", $0.json)] } ?? [])
    )
    var rows = [
      ["tenant", status.summary.tenant],
      ["state", status.summary.state.name + (status.reason.isEmpty ? "" : ": \(status.reason)")],
      ["cmk_id", status.summary.cmkID], ["sequence", "\(status.sequence)"], ["digest", status.digest],
      ["keys", "\(status.keys) (\(status.records) records)"], ["storage", "\(status.storageBytes) bytes"],
      ["connections", "\(status.connections)"],
      [
        "audit",
        "\(status.audit), \(auditText(status.auditWritten, status.auditDropped, status.auditFailure))",
      ],
    ]
    if !status.limitsHit.isEmpty {
      let hits = status.limitsHit.map { "\($0.limit) \($0.count)" }
      rows.append(["refused by limits", hits.joined(separator: ", ")])
    }
    if let credentials = status.credentials { rows += credentials.rows }
    for key in status.wrappingKeys {
      rows.append([
        "wrapping key",
        "\(key.id) \(key.state)\(key.isCurrent ? ", current" : ""), \(key.records) records, CMK \(key.cmkID)",
      ])
    }
    Output.show(connection.output, json, text: Output.table(rows))
  }
}

private func auditText(_ written: UInt64, _ dropped: UInt64, _ failure: String) -> String {
  "\(written) entries written, \(dropped) not" + (failure.isEmpty ? "" : ": \(failure)")
}

extension CredentialsStatus {
  var json: JSON {
    .object([
      ("source", .text(source)), ("access_key_id", .text(accessKeyID)),
      ("loaded", .text(dateText(loadedMilliseconds))),
      ("expires", .text(expiresMilliseconds == 0 ? "" : dateText(expiresMilliseconds))),
      ("last_failure", .text(lastFailure)),
    ])
  }

  fileprivate var rows: [[String]] {
    let expiry = expiresMilliseconds == 0 ? "" : ", expire \(dateText(expiresMilliseconds))"
    let read = "\(source), key ...\(accessKeyID), since \(dateText(loadedMilliseconds))\(expiry)"
    return [["credentials", read]] + (lastFailure.isEmpty ? [] : [["", "newer ones failed: \(lastFailure)"]])
  }
}

struct WhoAmICommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "whoami",
    abstract: "Says who the server takes your certificate for."
  )
  @OptionGroup var connection: ConnectionOptions

  func run() async throws {
    guard case .whoAmI(let identity) = try await connection.call(.whoAmI).result else { throw unexpected() }
    Output.show(
      connection.output,
      .object([
        ("uri", .text(identity.uri)), ("tenant", .text(identity.tenant)),
        ("instance", .text(identity.instance)),
        ("not_after", .text(dateText(identity.notAfter * 1000))),
        ("server_version", .text(identity.serverVersion)),
      ]),
      text: "\(identity.uri), until \(dateText(identity.notAfter * 1000))"
    )
  }
}
