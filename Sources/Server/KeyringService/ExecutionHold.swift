internal import KeyringCore
internal import TenantRegistry
internal import WireProtocol

/// What a request that is being executed holds of its tenant's limits, and of the server's.
struct ExecutionHold: Sendable {
  fileprivate let admission: Admission
  fileprivate let isAdministrator: Bool
  /// Of a large request.
  fileprivate let messageBytes: Int
  fileprivate let secretBytes: Int
  fileprivate let owner: TenantName?
  fileprivate let shares: SecretShares

  /// Gives all of it back: once, when the request is no longer being executed, answered or not.
  func giveBack() {
    if secretBytes > 0 { shares.give(secretBytes, owner) }
    admission.release(messageBytes)
    admission.end(isAdministrator: isAdministrator)
  }
}

extension Connection {
  /// Takes what a request needs while it is executed.
  ///
  /// - Throws: where that is not there; nothing is held then.
  func hold(_ call: Call, _ caller: Caller, _ messageBytes: Int) throws(ServiceError) -> ExecutionHold {
    let admission = self.admission
    let large = messageBytes > Frame.messageBytesDefault ? messageBytes : 0
    try admission.begin(isAdministrator: isAdministrator)
    do throws(ServiceError) {
      if large > 0 { try admission.reserve(large, isAdministrator: isAdministrator) }
    } catch {
      admission.end(isAdministrator: isAdministrator)
      throw error
    }
    let hold = ExecutionHold(
      admission: admission,
      isAdministrator: isAdministrator,
      messageBytes: large,
      secretBytes: call.secretBytes,
      owner: caller.tenant,
      shares: service.secretShares
    )
    if hold.secretBytes > 0, !service.secretShares.take(hold.secretBytes, caller.tenant) {
      admission.release(large)
      admission.end(isAdministrator: isAdministrator)
      admission.count(.secretMemory)
      throw .throttled(LimitKind.secretMemory.message, retryAfterMilliseconds: 50)
    }
    return hold
  }
}
