import KeyringClient
import KeyringCore
import KeyringTestSupport
import Testing
import WireProtocol

/// An administrator who changes one tenant's CMKs, wrapping keys and persisted variables, one at a time, and knows what must have lasted.
struct CampaignAdministrator: Sendable {
  enum Step: Sendable, Hashable, CaseIterable {
    case persist, createCMK, useCMK, rotateCMK, rotateKeys
  }

  /// A step under way, with what it would change.
  private enum Change: Sendable {
    case persist(ttl: String)
    case createCMK
    case useCMK(String)
    case rotateCMK(String)
    case rotateKeys
  }

  let tenant: String
  var generator: SeededGenerator
  private var ttl: String?
  private var cmkID: String
  /// By CMK, how many versions it has.
  private var cmks: [String: UInt32]
  /// Wrapping keys that an acknowledged rotate-keys replaced: nothing depends on them any more.
  private var former: Set<String> = []
  private var inDoubt: Change?
  /// Steps that were acknowledged in time.
  private(set) var acknowledged: [Step: Int] = [:]
  private(set) var violations: [Violation] = []

  init(_ tenant: String, cmkID: String, _ generator: SeededGenerator) {
    self.tenant = tenant
    self.cmkID = cmkID
    self.generator = generator
    cmks = [cmkID: 1]
  }

  /// Changes something now and then until nothing counts any more.
  ///
  /// - Parameter first: made at once.
  mutating func run(_ client: KeyringClient, first: Step? = nil, until end: CountingEnd) async {
    if let first { await make(first, client, until: end) }
    while end.isCounting, inDoubt == nil, violations.isEmpty {
      let pause = Int.random(in: 5...250, using: &generator)
      try? await Task.sleep(for: .milliseconds(pause))  // never cancelled
      guard end.isCounting else { return }
      await make(Step.allCases.randomElement(using: &generator) ?? .persist, client, until: end)
    }
  }

  /// Makes one step.
  mutating func make(_ step: Step, _ client: KeyringClient, until end: CountingEnd) async {
    let change = planned(step)
    do throws(KeyringClientError) {
      let before = step == .rotateKeys ? try await status(client).wrappingKeys.map(\.id) : []
      inDoubt = change
      let result = try await client.once(.admin(call(change)))
      guard end.isCounting else { return }
      apply(change, result, before)
      acknowledged[step, default: 0] += 1
    } catch {
      if error.isDefinite { inDoubt = nil }
      if end.isCounting, !error.isThrottling {
        violations.append(Violation("\(step) was refused though nothing failed: \(error)"))
      }
    }
  }

  private mutating func planned(_ step: Step) -> Change {
    let known = cmks.keys.sorted()
    switch step {
    case .persist:
      // Of no whole minutes: shown as it was set. Never what it is already: that would write nothing.
      let values: [String] = (6...16).map { "\($0 * 60 + 1)s" }.filter { $0 != self.ttl }
      return .persist(ttl: values.randomElement(using: &generator) ?? "301s")
    case .createCMK where known.count < 4: return .createCMK
    case .createCMK, .useCMK: return .useCMK(known.randomElement(using: &generator) ?? cmkID)
    case .rotateCMK: return .rotateCMK(cmkID)
    case .rotateKeys: return .rotateKeys
    }
  }

  private func call(_ change: Change) -> AdminCall {
    switch change {
    case .persist(let ttl):
      .variablesSet(tenant: tenant, name: "wrapping_key_ttl", value: ttl, .persist)
    case .createCMK: .cmk(tenant: tenant, .create, cmkID: "", days: 0)
    case .useCMK(let id): .variablesSet(tenant: tenant, name: "cmk_id", value: id, .persist)
    case .rotateCMK: .rotateCMK(tenant)
    case .rotateKeys: .rotateKeys(tenant, allowTransient: false)
    }
  }

  private mutating func apply(_ change: Change, _ result: ReplyResult, _ before: [String]) {
    inDoubt = nil
    switch (change, result) {
    case (.persist(let value), .variablesSet): ttl = value
    case (.useCMK(let id), .variablesSet): cmkID = id
    case (.createCMK, .cmk(let id, _, let version)): cmks[id] = version
    case (.rotateCMK(let id), .rotateCMK(let rotated, let version)):
      expect(
        rotated == id && version == cmks[id, default: 0] + 1,
        "rotate-cmk answered \(rotated) version \(version)"
      )
      cmks[id] = version
    case (.rotateKeys, .rotateKeys(let report)):
      expect(report.recordsElsewhere == 0, "records depend on another wrapping key after rotate-keys")
      former.formUnion(before)
    default: violations.append(Violation("\(change) was answered by \(result)"))
    }
  }

  private mutating func expect(_ isSo: Bool, _ otherwise: String) {
    if !isSo { violations.append(Violation(otherwise)) }
  }

  // MARK: After a fault

  private func status(_ client: KeyringClient) async throws(KeyringClientError) -> TenantStatus {
    guard case .tenant(let status) = try await client.once(.admin(.status(tenant))) else {
      throw .wire("another result than a status")
    }
    return status
  }

  /// Compares what is in force with what must be; answers where the keyring stands.
  mutating func settle(_ client: KeyringClient) async throws -> TenantStatus {
    let change = inDoubt
    inDoubt = nil
    guard case .variablesList(let variables) = try await client.once(.admin(.variablesList(tenant))) else {
      throw UnexpectedReply()
    }
    func value(_ name: String) -> VariableEntry? { variables.first { $0.name == name } }
    settleVariables(value("wrapping_key_ttl"), value("cmk_id"), change)
    for (id, version) in cmks {
      guard
        case .cmk(_, let state, let found) = try await client.once(
          .admin(.cmk(tenant: tenant, .describe, cmkID: id, days: 0))
        )
      else { throw UnexpectedReply() }
      var allowed = [version]
      if case .rotateCMK(id) = change { allowed.append(version + 1) }
      expect(
        allowed.contains(found) && state == "enabled",
        "CMK \(id) is \(state) at version \(found) instead of \(allowed)"
      )
      cmks[id] = found
    }
    let status = try await status(client)
    expect(status.summary.state == .ready, "the tenant is \(status.summary.state): \(status.reason)")
    expect(status.batchesUnverified == 0, "batches wait for their wrapping key")
    let back = former.intersection(status.wrappingKeys.map(\.id))
    expect(back.isEmpty, "wrapping keys are back that an acknowledged rotate-keys replaced")
    return status
  }

  private mutating func settleVariables(_ ttl: VariableEntry?, _ cmkID: VariableEntry?, _ change: Change?) {
    var ttls = [self.ttl]
    var ids = [self.cmkID]
    if case .persist(let value) = change { ttls.append(value) }
    if case .useCMK(let id) = change { ids.append(id) }
    let found = ttl?.source == "persisted" ? ttl?.value : nil
    expect(ttls.contains(found), "wrapping_key_ttl is \(found ?? "not persisted") instead of \(ttls)")
    expect(ids.contains(cmkID?.value ?? ""), "cmk_id is \(cmkID?.value ?? "") instead of \(ids)")
    self.ttl = found
    self.cmkID = cmkID?.value ?? self.cmkID
  }
}
