import ArgumentParser
import KeyringCore
import WireProtocol

struct ExplainCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain",
    abstract: "Says what a tenant, or one of its keys, depends on, how that stands, and what to do next.",
    discussion: """
      What is to be done comes first, the most pressing at the top; then the CMKs and wrapping keys, how old each is and how it stands, and the
      last failure of the KMS with its request id. It asks the KMS about the CMKs, for up to 5 seconds, and changes nothing.

      --key-id wants the tenant administrator's certificate, and says whose key it is: --instance NAME, or --shared. A service administrator learns
      nothing of a tenant's keys but their number.

        keyringctl explain acme
        keyringctl explain acme --key-id INNODBKey-0c5f…-1 --instance db1
      """
  )
  @OptionGroup var connection: ConnectionOptions
  @Argument(help: "The tenant's name.")
  var tenant: String
  // `--key` is the certificate's private key in every command.
  @Option(name: .customLong("key-id"), help: "A key's id: what this key depends on, too.")
  var keyID: String?
  @Option(name: .long, help: "The database user that the key belongs to; empty for the server itself.")
  var owner: String = ""
  @Option(name: .long, help: "The instance whose own key it is.")
  var instance: String?
  @Flag(name: .long, help: "It is one that the tenant's instances share.")
  var shared = false

  func validate() throws {
    guard keyID == nil || (instance != nil) != shared else {
      throw ValidationError("a key is an instance's own or shared: give --instance NAME or --shared")
    }
    guard keyID != nil || (instance == nil && !shared && owner.isEmpty) else {
      throw ValidationError("--owner, --instance and --shared say which key: give --key-id, too")
    }
  }

  func run() async throws {
    let key = keyID.map {
      ExplainCall.Key(instance: instance ?? "", owner: Array(owner.utf8), keyID: Array($0.utf8))
    }
    let reply = try await connection.call(.admin(.explain(ExplainCall(tenant: tenant, key: key))))
    guard case .explain(let explanation) = reply.result else { throw unexpected() }
    let report = ExplanationReport(explanation, keyID: keyID)
    Output.show(connection.output, report.json, text: report.text)
  }
}

/// An explanation as an operator, or a program, reads it.
struct ExplanationReport {
  private let explanation: Explanation
  private let keyID: String?
  private var now: UInt64 { explanation.nowMilliseconds }

  init(_ explanation: Explanation, keyID: String?) {
    self.explanation = explanation
    self.keyID = keyID
  }

  // MARK: For people

  var text: String {
    var lines = [head]
    if explanation.findings.isEmpty { lines.append("nothing is to be done") }
    for (index, finding) in explanation.findings.enumerated() {
      let (cause, advice) = finding.words(tenant: explanation.summary.tenant)
      lines.append("\(index + 1). \(cause)")
      if !finding.detail.isEmpty { lines.append("   \(printable(finding.detail))") }
      if let advice { lines.append("   -> \(advice)") }
    }
    lines += keyLines
    if !explanation.cmks.isEmpty || !explanation.wrappingKeys.isEmpty {
      lines.append("depends on")
      for cmk in explanation.cmks { lines += self.lines(cmk) }
    }
    if let failure = explanation.lastFailure {
      lines.append(
        "last failure of the KMS: \(printable(failure.message)), \(age(failure.atMilliseconds)) ago"
      )
    }
    if let credentials = explanation.credentials {
      lines.append(
        "credentials: \(credentials.source), key ...\(credentials.accessKeyID), read \(age(credentials.loadedMilliseconds)) ago"
      )
    }
    return lines.joined(separator: "\n")
  }

  private var head: String {
    let summary = explanation.summary
    let reason = explanation.reason.isEmpty ? "" : ": \(printable(explanation.reason))"
    return "tenant \(summary.tenant) is \(summary.state.name)\(reason)"
  }

  private var keyLines: [String] {
    guard let key = explanation.key, let keyID else { return [] }
    let name = "key '\(printable(keyID))'"
    switch key.presence {
    case .absent: return ["\(name): there is no such key"]
    case .cannotTell: return ["\(name): whether it is there cannot be told: \(printable(key.why))"]
    case .present:
      return ["\(name): \(key.type), version \(key.latestVersion)"]
        + key.dependencies.map { dependency in
          let versions =
            dependency.versions == 1
            ? "version \(dependency.firstVersion)"
            : "\(dependency.versions) versions from \(dependency.firstVersion) to \(dependency.lastVersion)"
          return "  \(versions) under wrapping key \(dependency.wrappingKeyID)"
            + ", the newest made \(age(dependency.createdMilliseconds)) ago"
        }
    }
  }

  private func lines(_ cmk: ExplainedCMK) -> [String] {
    let made = cmk.createdMilliseconds > 0 ? ", made \(age(cmk.createdMilliseconds)) ago" : ""
    let why = cmk.why.isEmpty ? "" : " (\(printable(cmk.why)))"
    let head = "  CMK \(cmk.id) of \(cmk.provider): \(cmk.state)\(why)\(made), \(recordsText(cmk.records))"
    let keys = explanation.wrappingKeys.filter { $0.key.cmkID == cmk.id }
    return [head + (cmk.isInForce ? ", in force" : "")] + keys.map(line)
  }

  private func line(_ key: ExplainedWrappingKey) -> String {
    let since = key.sinceMilliseconds > 0 ? " for \(age(key.sinceMilliseconds))" : ""
    let made = "made \(age(key.key.createdMilliseconds)) ago"
    return
      "    wrapping key \(key.key.id): \(key.key.state)\(since), \(made), \(recordsText(key.key.records))"
      + (key.key.isCurrent ? ", current" : "")
  }

  private func age(_ milliseconds: UInt64) -> String {
    durationText(now > milliseconds ? now - milliseconds : 0)
  }

  // MARK: For programs

  var json: JSON {
    var members: [(String, JSON)] = [
      ("summary", explanation.summary.json), ("reason", .text(explanation.reason)), ("now", date(now)),
      ("findings", .list(explanation.findings.map(json))), ("cmks", .list(explanation.cmks.map(json))),
      ("wrapping_keys", .list(explanation.wrappingKeys.map(json))),
      ("last_failure", explanation.lastFailure.map(json) ?? .null),
    ]
    if let key = explanation.key { members.append(("key", json(key))) }
    if let credentials = explanation.credentials { members.append(("credentials", credentials.json)) }
    return .object(members)
  }

  private func date(_ milliseconds: UInt64) -> JSON {
    milliseconds == 0 ? .null : .text(dateText(milliseconds))
  }

  private func json(_ finding: Finding) -> JSON {
    let (cause, advice) = finding.words(tenant: explanation.summary.tenant)
    return .object([
      ("code", .text(finding.name)), ("cmk_id", .text(finding.cmkID)),
      ("wrapping_key_id", .text(finding.wrappingKeyID)), ("count", .number(finding.count)),
      ("since", date(finding.sinceMilliseconds)), ("until", date(finding.untilMilliseconds)),
      ("detail", .text(finding.detail)), ("cause", .text(cause)), ("advice", .text(advice ?? "")),
    ])
  }

  private func json(_ failure: KMSFailure) -> JSON {
    .object([
      ("message", .text(failure.message)), ("request_id", .text(failure.requestID)),
      ("at", date(failure.atMilliseconds)),
    ])
  }

  private func json(_ cmk: ExplainedCMK) -> JSON {
    .object([
      ("id", .text(cmk.id)), ("provider", .text(cmk.provider)), ("state", .text(cmk.state)),
      ("why", .text(cmk.why)), ("created", date(cmk.createdMilliseconds)), ("in_force", .flag(cmk.isInForce)),
      ("records", .number(cmk.records)),
    ])
  }

  private func json(_ key: ExplainedWrappingKey) -> JSON {
    .object([
      ("id", .text(key.key.id)), ("cmk_id", .text(key.key.cmkID)), ("state", .text(key.key.state)),
      ("since", date(key.sinceMilliseconds)), ("held_until", date(key.heldUntilMilliseconds)),
      ("created", date(key.key.createdMilliseconds)), ("records", .number(key.key.records)),
      ("encryptions", .number(key.key.encryptions)), ("current", .flag(key.key.isCurrent)),
      ("failure", key.failure.map(json) ?? .null),
    ])
  }

  private func json(_ key: ExplainedKey) -> JSON {
    .object([
      ("presence", .text("\(key.presence)")), ("why", .text(key.why)), ("type", .text(key.type)),
      ("latest_version", .number(UInt64(key.latestVersion))),
      (
        "dependencies",
        .list(
          key.dependencies.map { dependency in
            .object([
              ("wrapping_key_id", .text(dependency.wrappingKeyID)),
              ("versions", .number(UInt64(dependency.versions))),
              ("first_version", .number(UInt64(dependency.firstVersion))),
              ("last_version", .number(UInt64(dependency.lastVersion))),
              ("created", date(dependency.createdMilliseconds)),
            ])
          }
        )
      ),
    ])
  }
}

private func recordsText(_ count: UInt64) -> String { count == 1 ? "1 record" : "\(count) records" }

/// A length of time of this many milliseconds, in its largest unit or two.
func durationText(_ milliseconds: UInt64) -> String {
  let seconds = milliseconds / 1000
  switch seconds {
  case 0..<60: return "\(seconds) s"
  case 60..<3600: return "\(seconds / 60) min"
  case 3600..<86_400: return "\(seconds / 3600) h \(seconds / 60 % 60) min"
  default: return "\(seconds / 86_400) d \(seconds / 3600 % 24) h"
  }
}
