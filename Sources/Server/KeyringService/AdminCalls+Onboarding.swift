internal import KeyringCore
internal import Logging
internal import WireProtocol

extension Service {
  /// Makes one tenant; one that is there as it was asked for is a success.
  func create(_ call: TenantCreateCall, _ name: TenantName) async throws(ServiceError) -> ReplyResult {
    let outcomes = await onboarder.onboard([call])
    switch outcomes[0] {
    case .made(let id):
      await letGoOfFormer(call.tenant)
      return .tenantCreate(cmkID: id.text, isUnchanged: false)
    case .checked(.some(let id)): return .tenantCreate(cmkID: id.text, isUnchanged: false)
    case .checked(.none): return .tenantCreate(cmkID: "", isUnchanged: false)
    case .unchanged(let id): return .tenantCreate(cmkID: id.text, isUnchanged: true)
    case .differs(let differences): throw .tenantExists(Self.text(name.text, differences))
    case .failed(let error): throw error
    }
  }

  /// Makes many.
  func apply(_ calls: [TenantCreateCall], _ caller: Caller) async -> ReplyResult {
    logger.info("tenant apply of \(calls.count) by \(caller.uri)")
    let outcomes = await onboarder.onboard(calls)
    for (call, outcome) in zip(calls, outcomes) {
      if case .made = outcome { await letGoOfFormer(call.tenant) }
    }
    return .tenantApply(
      zip(calls, outcomes).map { call, outcome in
        var result = TenantApplyResult(tenant: call.tenant)
        switch outcome {
        case .made(let id), .checked(.some(let id)): result.cmkID = id.text
        case .checked(.none): break
        case .unchanged(let id):
          result.cmkID = id.text
          result.isUnchanged = true
        case .differs(let differences):
          result.refusal = Status(.tenantExists, Self.text(call.tenant, differences))
          result.differences = differences
        case .failed(let error):
          result.refusal = error.status
        }
        return result
      }
    )
  }

  /// Of a tenant that was made in the place of one whose directory went away.
  private func letGoOfFormer(_ tenant: String) async {
    do {
      try await letGoIfGone(TenantName(tenant))
    } catch {
      logger.warning("\(error)")  // the disk does not tell, and is looked at again in a moment
    }
  }

  private static func text(_ tenant: String, _ differences: [SettingDifference]) -> String {
    let how = differences.map { difference in
      difference.name == "instances" && difference.isDynamic
        ? "instance \(difference.wanted) may not call"
        : "\(difference.name) is \(difference.present.isEmpty ? "not set" : difference.present), not \(difference.wanted)"
    }.joined(separator: "; ")
    return "the tenant '\(tenant)' exists, and differs: \(how)"
  }
}
