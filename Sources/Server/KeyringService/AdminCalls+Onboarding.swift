internal import KeyringCore
internal import Logging
internal import WireProtocol

extension Service {
  /// Makes one tenant; one that is there as it was asked for is a success.
  func create(_ call: TenantCreateCall, _ name: TenantName) async throws(ServiceError) -> ReplyResult {
    let outcomes = await onboarder.onboard([call])
    switch outcomes[0] {
    case .made(let id), .checked(.some(let id)): return .tenantCreate(cmkID: id.text, isUnchanged: false)
    case .checked(.none): return .tenantCreate(cmkID: "", isUnchanged: false)
    case .unchanged(let id): return .tenantCreate(cmkID: id.text, isUnchanged: true)
    case .differs(let differences): throw .tenantExists(name, Self.text(differences))
    case .failed(let error): throw error
    }
  }

  /// Makes many.
  func apply(_ calls: [TenantCreateCall], _ caller: Caller) async -> ReplyResult {
    logger.info("tenant apply of \(calls.count) by \(caller.uri)")
    let outcomes = await onboarder.onboard(calls)
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
          result.refusal = Status(.tenantExists, "the tenant exists, and differs: \(Self.text(differences))")
          result.differences = differences
        case .failed(let error):
          result.refusal = error.status
        }
        return result
      }
    )
  }

  private static func text(_ differences: [SettingDifference]) -> String {
    differences.map { difference in
      difference.name == "instances" && difference.isDynamic
        ? "instance \(difference.wanted) may not call"
        : "\(difference.name) is \(difference.present.isEmpty ? "not set" : difference.present), not \(difference.wanted)"
    }.joined(separator: "; ")
  }
}
