import ArgumentParser
import Glibc
import KeyringClient
import KeyringCore
import WireProtocol

struct TenantApply: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "apply",
    abstract: "Makes the tenants of a fleet as a file says.",
    discussion: """
      For a service administrator. The server first checks all of it, proving each CMK that is to be used; what would be done is shown:

        + acme (local, new CMK)                      is made
        = beta                                       is as the file says
        ~ gamma: profile keyring_aws -> general      is changed, as `set persist` and `instance add` do
        ! delta: provider local -> aws: ...          cannot be as the file says: then nothing at all is changed

      Tenants that the file does not name are left alone. Cut off at any moment, the same command again goes on from there; a tenant that fails
      is named, the others are made, and the exit status is not 0.

        tenants:
          - name: acme
            instances: [db1, db2]
          - name: globex
            provider: aws
            cmk_id: arn:aws:kms:eu-central-1:111122223333:key/...
            credentials_file: globex.credentials    # relative to this file
            instances: any
            variables: {outage_grace: 1h}

      deploy/tenants.yaml.example has all keys.
      """
  )

  @OptionGroup var connection: ConnectionOptions
  @Option(name: [.customShort("f"), .customLong("file")], help: "The fleet's file; `-` is standard input.")
  var file: String
  @Flag(name: .long, help: "Show what would be done, with every CMK proved; change nothing.")
  var dryRun = false
  @Flag(name: .long, help: "Do not ask.")
  var yes = false
  @OptionGroup var certificates: CertificateOptions

  func run() async throws {
    let fleet = try FleetFile(file)
    let issuer = try certificates.open()
    let client = try connection.makeClient()
    do {
      let plan = try await plan(fleet, client)
      try await carryOut(plan, issuer, client)
      await client.close()
    } catch {
      await client.close()
      throw error
    }
  }

  // MARK: Planning

  private func plan(_ fleet: FleetFile, _ client: KeyringClient) async throws -> FleetPlan {
    let runner = FleetRunner(client: client)
    let (results, failure) = await runner.apply(fleet.entries, isDryRun: true, progress: nil)
    if let failure { throw failure }
    var plan = FleetPlan(fleet.entries, results)
    let named = Set(fleet.entries.map(\.name.text))
    plan.others = try await runner.tenants().filter { !named.contains($0) }.count
    return plan
  }

  private func carryOut(
    _ plan: FleetPlan,
    _ issuer: TenantCertificates?,
    _ client: KeyringClient
  ) async throws {
    if connection.output == .text { plan.lines.forEach { Output.line($0) } }
    let counts = plan.counts
    guard counts.refuse == 0 else {
      show(plan, FleetRunner.Outcome())
      throw Failure("nothing was changed: \(counts.refuse) of the tenants cannot be as the file says")
    }
    guard !dryRun else { return show(plan, FleetRunner.Outcome()) }
    var outcome = FleetRunner.Outcome()
    if counts.make + counts.change > 0 {
      try confirm()
      outcome = await FleetRunner(client: client).carryOut(plan)
    }
    if let issuer { outcome.issue(plan, issuer) }
    show(plan, outcome)
    guard outcome.failures.isEmpty else {
      throw Failure("\(outcome.failures.count) tenants failed; run the same again for those")
    }
  }

  private func confirm() throws {
    if yes { return }
    guard isatty(STDIN_FILENO) == 1, file != "-" else {
      throw Failure(
        "nothing was changed: there is no terminal to ask at; --yes says yes, --dry-run only looks"
      )
    }
    Output.error("Do this? [y/N] ")
    guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else {
      throw Failure("nothing was changed")
    }
  }

  private func show(_ plan: FleetPlan, _ outcome: FleetRunner.Outcome) {
    let counts = plan.counts
    let json = JSON.object([
      ("to_make", .number(UInt64(counts.make))), ("to_change", .number(UInt64(counts.change))),
      ("unchanged", .number(UInt64(counts.keep))), ("refused", .number(UInt64(counts.refuse))),
      ("not_in_file", .number(UInt64(plan.others))), ("dry_run", .flag(dryRun)),
      ("plan", .list(plan.lines.dropLast().map { .text($0) })),
      ("made", .list(outcome.made.map { .text($0) })), ("changed", .list(outcome.changed.map { .text($0) })),
      ("certificates", .list(outcome.certificates.map { .text($0) })),
      ("failed", .object(outcome.failures.map { ($0.tenant, .text($0.why)) })),
    ])
    let certificates =
      outcome.certificates.isEmpty ? "" : ", \(outcome.certificates.count) certificates issued"
    if connection.output == .json {
      Output.line(json.rendered)
    } else if !dryRun, counts.refuse == 0 {
      for (tenant, why) in outcome.failures { Output.line("! \(tenant): \(why)") }
      Output.line("\(outcome.made.count) made, \(outcome.changed.count) changed\(certificates)")
    }
  }
}

/// Carries a plan out over one connection.
struct FleetRunner {
  /// What came of it.
  struct Outcome {
    var made: [String] = []
    var changed: [String] = []
    var certificates: [String] = []
    var failures: [(tenant: String, why: String)] = []

    /// Certificates for all that did not fail.
    mutating func issue(_ plan: FleetPlan, _ issuer: TenantCertificates) {
      let failed = Set(failures.map(\.tenant))
      for (entry, _) in plan.steps where !failed.contains(entry.name.text) {
        do {
          certificates += try issuer.ensure(entry.name.text, entry.call.instances).made
        } catch {
          failures.append((entry.name.text, "\(error)"))
        }
      }
    }
  }

  let client: KeyringClient
  /// Batches that are on their way at a time: one is proved and encoded while the one before is written.
  private static let batchesMax = 2
  /// Of tenants whose CMK is proved over a network.
  private static let remoteBatchMax = 20
  private static let timeout = Duration.seconds(300)

  // MARK: Batches

  /// Sends all in batches.
  ///
  /// - Returns: results in the order of the entries, up to the first batch that failed as a whole, and why that did.
  func apply(
    _ entries: [FleetFile.Entry],
    isDryRun: Bool,
    progress: ProgressBar?
  ) async -> (results: [TenantApplyResult], failure: (any Error)?) {
    let batches = Self.batches(entries)
    var answers: [Int: Result<[TenantApplyResult], any Error>] = [:]
    await withTaskGroup(of: (Int, Result<[TenantApplyResult], any Error>).self) { group in
      var done = 0
      func note(_ answer: (Int, Result<[TenantApplyResult], any Error>)) {
        answers[answer.0] = answer.1
        done += batches[answer.0].count
        progress?.show(done)
      }
      for (index, batch) in batches.enumerated() {
        if index >= Self.batchesMax, let answer = await group.next() { note(answer) }
        guard !answers.values.contains(where: { if case .failure = $0 { true } else { false } }) else {
          break
        }
        group.addTask { (index, await send(batch, isDryRun)) }
      }
      for await answer in group { note(answer) }
    }
    var results: [TenantApplyResult] = []
    for (index, batch) in batches.enumerated() {
      switch answers[index] {
      case .success(let some): results += some
      case .failure(let error): return (results, error)
      case nil: return (results, Failure("\(batch.count) tenants were not sent"))
      }
    }
    return (results, nil)
  }

  private static func batches(_ entries: [FleetFile.Entry]) -> [[FleetFile.Entry]] {
    var batches: [[FleetFile.Entry]] = []
    var batch: [FleetFile.Entry] = []
    for entry in entries {
      let most = (batch + [entry]).contains(where: \.isAWS) ? remoteBatchMax : TenantApplyCall.tenantsMax
      if batch.count >= most {
        batches.append(batch)
        batch = []
      }
      batch.append(entry)
    }
    return batch.isEmpty ? batches : batches + [batch]
  }

  private func send(
    _ batch: [FleetFile.Entry],
    _ isDryRun: Bool
  ) async -> Result<[TenantApplyResult], any Error> {
    do {
      let calls = try batch.map { try $0.call(isDryRun: isDryRun) }
      let reply = try await client.call(.admin(.tenantApply(calls)), timeout: Self.timeout)
      guard case .tenantApply(let results) = reply.result, results.map(\.tenant) == calls.map(\.tenant) else {
        throw unexpected()
      }
      return .success(results)
    } catch {
      return .failure(error)
    }
  }

  /// The names of all tenants on the server.
  func tenants() async throws -> [String] {
    var all: [String] = []
    var isMore = true
    while isMore {
      let call = AdminCall.tenantList(pageSize: 0, after: all.last ?? "")
      guard case .tenantList(let page, let more) = try await client.call(.admin(call)).result else {
        throw unexpected()
      }
      all += page.map(\.tenant)
      isMore = more && !page.isEmpty
    }
    return all
  }

  // MARK: Carrying out

  func carryOut(_ plan: FleetPlan) async -> Outcome {
    var outcome = Outcome()
    let new = plan.steps.compactMap { item -> FleetFile.Entry? in
      if case .make = item.step { item.entry } else { nil }
    }
    let progress = ProgressBar(what: "tenants", total: new.count)
    let (results, failure) = await apply(new, isDryRun: false, progress: progress)
    for result in results {
      if let refusal = result.refusal {
        outcome.failures.append((result.tenant, "\(refusal)"))
      } else {
        outcome.made.append(result.tenant)
      }
    }
    if let failure {
      for entry in new.dropFirst(results.count) {
        outcome.failures.append((entry.name.text, "it may have been made: \(failure)"))
      }
    }
    for (entry, step) in plan.steps {
      guard case .change(let differences) = step else { continue }
      do {
        for difference in differences { try await change(entry.name.text, difference) }
        outcome.changed.append(entry.name.text)
      } catch {
        outcome.failures.append((entry.name.text, "\(error)"))
      }
    }
    return outcome
  }

  private func change(_ tenant: String, _ difference: SettingDifference) async throws {
    let call: AdminCall =
      difference.name == "instances"
      ? .instanceAdd(tenant: tenant, instance: difference.wanted)
      : .variablesSet(tenant: tenant, name: difference.name, value: difference.wanted, .persist)
    _ = try await client.call(.admin(call))
  }
}
