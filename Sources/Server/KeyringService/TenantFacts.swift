internal import KeyringCore
internal import WireProtocol

/// What is known of a tenant at one moment: what `findings` are made of. Times are Unix milliseconds.
struct TenantFacts: Sendable {
  /// What its storage allows.
  enum Phase: Sendable, Equatable {
    case notOpened
    case open
    /// Not loaded at all: its files are wrong.
    case notLoaded
    case notAvailable(String)
    case quarantined(String)
  }

  struct WrappingKey: Sendable {
    let status: WrappingKeyStatus
    let provider: ProviderKind
    let standing: Standing
    let sinceMilliseconds: UInt64
    /// Until when it is used without an answer; 0 where it is not held.
    let heldUntilMilliseconds: UInt64
    let unverifiedBatches: UInt64
  }

  struct CMK: Sendable {
    enum Standing: Sendable, Equatable {
      case known(CMKDescription.State)
      /// It may not be asked about, or is not there.
      case refused(String)
      case silent(String)
    }

    let id: String
    let provider: ProviderKind
    let standing: Standing
    let isInForce: Bool
  }

  let nowMilliseconds: UInt64
  var phase = Phase.notOpened
  var isDisabled = false
  var isReadOnly = false
  /// The cmk_id in force ends with the next restart.
  var isCMKTransient = false
  /// Why its files do not load at this moment; nil where they do.
  var configurationFailure: String?
  /// For how long the write under way has taken; 0 where that is not long.
  var slowWriteMilliseconds: UInt64 = 0
  var wrappingKeys: [WrappingKey] = []
  var cmks: [CMK] = []
  var credentials: CredentialsStatus?
  /// Of a rotate-keys; a total of 0 where none is under way.
  var rotation: (done: UInt64, total: UInt64) = (0, 0)
}

extension TenantFacts {
  /// Of what a wrapping key may take, this much is worth being told.
  static let encryptionsWorn = KeyringCore.WrappingKey.encryptionsMax / 4 * 3
  /// Temporary credentials are had anew at least a minute before their end: later than this something is wrong.
  static let credentialsLateMilliseconds: UInt64 = 60_000

  /// What follows from the facts, the most pressing first.
  var findings: [Finding] {
    tenantFindings + storageFindings + cmks.compactMap(finding) + formerFindings + wearFindings
      + credentialsFindings + remainingFindings
  }

  private func make(_ code: FindingCode, _ change: (inout Finding) -> Void = { _ in }) -> Finding {
    var finding = Finding(code)
    change(&finding)
    return finding
  }

  private var tenantFindings: [Finding] {
    var found: [Finding] = []
    if let configurationFailure {
      found.append(make(.configurationInvalid) { $0.detail = configurationFailure })
    }
    if isDisabled { found.append(make(.disabledByAdministrator)) }
    return found
  }

  private var storageFindings: [Finding] {
    var found: [Finding] = []
    switch phase {
    case .quarantined(let why): found.append(make(.storageQuarantined) { $0.detail = why })
    case .notAvailable(let why): found.append(make(.storageNotAvailable) { $0.detail = why })
    case .notOpened, .open, .notLoaded: break
    }
    if slowWriteMilliseconds > 0 {
      found.append(make(.storageSlow) { $0.sinceMilliseconds = nowMilliseconds - slowWriteMilliseconds })
    }
    return found
  }

  // MARK: CMKs

  private func dependents(of cmk: CMK) -> [WrappingKey] {
    wrappingKeys.filter { $0.status.cmkID == cmk.id && $0.provider == cmk.provider }
  }

  /// Records that depend on a CMK.
  func records(of cmk: CMK) -> UInt64 { dependents(of: cmk).reduce(0) { $0 + $1.status.records } }

  /// What is wrong with a CMK: its own state where that is told, else how its wrapping keys fare. One finding a CMK.
  private func finding(_ cmk: CMK) -> Finding? {
    let dependents = dependents(of: cmk)
    let isNeeded = cmk.isInForce || dependents.contains { $0.status.records > 0 }
    guard isNeeded else { return nil }
    var found: Finding?
    switch cmk.standing {
    case .known(.disabled): found = make(.cmkDisabled)
    case .known(.pendingDeletion): found = make(.cmkPendingDeletion)
    case .known(.enabled): found = findingOfWrappingKeys(dependents)
    case .refused(let why):
      // Where its wrapping keys are confirmed, it is only not to be described.
      let isConfirmed = dependents.contains { $0.standing == .held }
      found =
        findingOfWrappingKeys(dependents) ?? (isConfirmed ? nil : make(.cmkRefused) { $0.detail = why })
    case .silent(let why):
      found = findingOfWrappingKeys(dependents) ?? silence(why, dependents)
    }
    guard var found else { return nil }
    found.cmkID = cmk.id
    found.count = records(of: cmk)
    if found.sinceMilliseconds == 0 { found.sinceMilliseconds = since(dependents, found.code) }
    if found.untilMilliseconds == 0 { found.untilMilliseconds = heldUntil(dependents) }
    return found
  }

  private func findingOfWrappingKeys(_ keys: [WrappingKey]) -> Finding? {
    for key in keys {
      if case .denied(let why) = key.standing { return make(.cmkRefused) { $0.detail = why } }
    }
    for key in keys {
      if case .unreachable(let why) = key.standing { return silence(why, keys) }
    }
    return nil
  }

  /// Not known to answer. What is confirmed a moment ago is used all the same, and needs no word yet.
  private func silence(_ why: String, _ keys: [WrappingKey]) -> Finding {
    let isHeld = keys.contains { $0.heldUntilMilliseconds > nowMilliseconds }
    return make(isHeld ? .kmsSilentInGrace : .kmsSilent) { $0.detail = why }
  }

  private func since(_ keys: [WrappingKey], _ code: FindingCode) -> UInt64 {
    let failing = keys.filter { key in
      switch key.standing {
      case .denied, .unreachable: key.sinceMilliseconds > 0
      case .cold, .held: false
      }
    }
    return failing.map(\.sinceMilliseconds).min() ?? 0
  }

  /// The last moment at which something under it is still used; 0 where nothing is.
  private func heldUntil(_ keys: [WrappingKey]) -> UInt64 { keys.map(\.heldUntilMilliseconds).max() ?? 0 }

  private var formerFindings: [Finding] {
    var found: [Finding] = []
    // First: rotate-keys refuses before it is persisted.
    if isCMKTransient {
      found.append(make(.cmkNotPersisted) { $0.cmkID = cmks.first(where: \.isInForce)?.id ?? "" })
    }
    return found
      + cmks.filter { !$0.isInForce && records(of: $0) > 0 }.map { cmk in
        make(.formerCMKNeeded) {
          $0.cmkID = cmk.id
          $0.count = records(of: cmk)
        }
      }
  }

  // MARK: The rest

  private var wearFindings: [Finding] {
    wrappingKeys.filter { $0.status.isCurrent && $0.status.encryptions >= Self.encryptionsWorn }.map { key in
      let isUsedUp = key.status.encryptions >= KeyringCore.WrappingKey.encryptionsMax
      return make(isUsedUp ? .wrappingKeyUsedUp : .wrappingKeyWorn) {
        $0.wrappingKeyID = key.status.id
        $0.cmkID = key.status.cmkID
        $0.count = key.status.encryptions
      }
    }
  }

  private var credentialsFindings: [Finding] {
    guard let credentials else { return [] }
    let expires = credentials.expiresMilliseconds
    if !credentials.lastFailure.isEmpty {
      return [
        make(.credentialsFail) {
          $0.detail = credentials.lastFailure
          $0.untilMilliseconds = expires
        }
      ]
    }
    guard expires > 0, nowMilliseconds + Self.credentialsLateMilliseconds >= expires else { return [] }
    return [
      make(.credentialsExpire) {
        $0.detail = credentials.source
        $0.untilMilliseconds = expires
      }
    ]
  }

  private var remainingFindings: [Finding] {
    var found = wrappingKeys.filter { $0.unverifiedBatches > 0 }.map { key in
      make(.batchesNotVerified) {
        $0.wrappingKeyID = key.status.id
        $0.cmkID = key.status.cmkID
        $0.count = key.unverifiedBatches
      }
    }
    if isReadOnly { found.append(make(.tenantReadOnly)) }
    if rotation.total > 0 { found.append(make(.rotationUnderWay) { $0.count = rotation.done }) }
    if phase == .notOpened, !isDisabled { found.append(make(.notOpened)) }
    return found
  }
}
