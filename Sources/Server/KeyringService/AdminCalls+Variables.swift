internal import AuditLog
internal import ConfigurationFiles
internal import CMKProviders
internal import KeyringCore
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

extension Service {
  func variables(_ tenant: Tenant) -> [VariableEntry] {
    let settings = tenant.settings
    return VariableName.allCases.map { name in
      VariableEntry(
        name: name.rawValue,
        value: settings.shown(name, resources.configuration.limits),
        source: settings.source(name),
        isDynamic: name.isDynamic,
        meaning: name.meaning
      )
    }
  }

  /// Changes a variable: checked, and for cmk_id and region proved, before anything changes; a refusal leaves the old value in force.
  func set(
    _ text: String,
    _ value: String,
    _ persistence: Persistence,
    _ tenant: Tenant
  ) async throws(ServiceError) -> ReplyResult {
    guard let name = VariableName(rawValue: text) else {
      throw .variableInvalid("unknown variable '\(text.prefix(64))'; `variables` lists them")
    }
    let present = tenant.settings
    let wanted = try changed(present, name, value, persistence)
    var proved: TenantProviders.Candidate?
    if name == .cmkID || name == .region, persistence != .reset {
      do throws(ServiceError) {
        // With the credentials in force: new ones come by `reload`, which sees to the keys in use.
        proved = try await prove(wanted, tenant, .inForce).candidate
      } catch {
        throw error.asInvalid(name)
      }
    }
    let next = try await tenant.changeSettings(adopting: proved) { settings throws(ServiceError) in
      guard proved == nil || settings == present else { throw Self.changedMeanwhile }
      return try changed(settings, name, value, persistence)
    }
    // What was granted or refused under other settings is asked for anew.
    switch name {
    case .wrappingKeyTTL, .outageGrace: tenant.openKeyring?.expireGrants()
    case .region:
      tenant.openKeyring?.expireGrants()
      tenant.openKeyring?.forgetRefusals()
    // The ARN of a replica is another region too.
    case .cmkID: tenant.openKeyring?.forgetRefusals()
    case .profile, .readOnly, .provider, .endpoint, .anchor, .instances, .storageFile, .audit, .credentials,
      .credentialsFile, .awsProfile, .roleARN, .roleExternalID, .stsEndpoint, .keysMax, .bytesMax,
      .connectionsMax, .requestsInFlightMax, .inFlightBytesMax, .requestsPerSecond, .requestsBurst,
      .writesPerSecond, .writesBurst, .kmsCallsPerSecond, .weight:
      break
    }
    let limits = resources.configuration.limits
    return .variablesSet(oldValue: present.shown(name, limits), newValue: next.shown(name, limits))
  }

  private func changed(
    _ settings: TenantSettings,
    _ name: VariableName,
    _ value: String,
    _ persistence: Persistence
  ) throws(ServiceError) -> TenantSettings {
    do {
      switch persistence {
      case .global: return try settings.setting(name, value, isPersisted: false)
      case .persist: return try settings.setting(name, value, isPersisted: true)
      case .reset:
        guard value.isEmpty else { throw ConfigurationError("RESET_PERSIST takes no value") }
        return try settings.resettingPersisted(name)
      }
    } catch {
      throw .variableInvalid("\(error)")
    }
  }

  func rotateCMK(_ tenant: Tenant) async throws(ServiceError) -> CMKDescription {
    do {
      let settings = tenant.settings
      return try await tenant.provider(settings.provider.kind).rotate(cmk: settings.cmkID)
    } catch {
      throw ServiceError(error)
    }
  }
}

extension Service {
  /// What an administrator does to a CMK of the tenant's provider.
  func manage(
    _ action: CMKAction,
    _ text: String,
    _ days: UInt32,
    _ tenant: Tenant
  ) async throws(ServiceError) -> CMKDescription {
    do {
      // Local CMKs are looked after whoever holds the one in force: a tenant is moved to one, and from one.
      let isLocal = action == .create || text.hasPrefix("local-") || tenant.settings.provider.kind == .local
      guard isLocal, let provider = try tenant.provider(.local) as? any CMKLifecycle else {
        guard action == .describe else {
          throw CMKError.refused(
            "CMKs of AWS KMS are made, disabled and deleted there, not through this service"
          )
        }
        return try await tenant.provider(.aws).describe(cmk: CMKID(text))
      }
      if action == .create { return try await provider.create() }
      let id = try CMKID(text)
      switch action {
      case .create, .describe: return try await provider.describe(cmk: id)
      case .disable: return try await provider.disable(cmk: id)
      case .enable: return try await provider.enable(cmk: id)
      case .scheduleDeletion: return try await provider.scheduleDeletion(cmk: id, days: Int(days))
      case .cancelDeletion: return try await provider.cancelDeletion(cmk: id)
      }
    } catch let error as CMKError {
      throw ServiceError(error)
    } catch let error as KeyringError {
      throw .keyring(error)
    } catch {
      throw .defect("\(error)")
    }
  }
}

extension Tenant {
  func summary() -> TenantSummary {
    TenantSummary(name, settings, condition().state)
  }

  func status() -> TenantStatus {
    var status = TenantStatus(summary: summary())
    status.reason = condition().reason
    if let deletion = resources.deletions.standing(name) {
      let due = AuditText.dateText(deletion.dueMilliseconds)
      let failure = resources.deletions.failure(name)
      status.reason =
        "it is to be deleted at \(due); `keyringctl tenant undelete \(name)` stops that"
        + (failure.isEmpty ? "" : "; the last try failed: \(failure)")
    }
    status.connections = UInt32(connections())
    status.credentials = providers.credentials(settings.provider).map(CredentialsStatus.init)
    let refused = admission.refused
    status.limitsHit = LimitKind.allCases.filter { refused[$0] > 0 }
      .map { LimitHit(limit: $0.rawValue, count: refused[$0]) }
    addAudit(to: &status)
    guard let keyring = openKeyring else { return status }
    let view = keyring.view.withLock { $0 }
    status.sequence = view.state.sequence
    status.keys = UInt64(view.state.keyCount)
    status.records = UInt64(view.state.recordCount)
    status.storageBytes = keyring.environment.store.storageBytes
    status.digest = view.position.digest.description
    status.keyringID = view.state.id.description
    (status.rotationDone, status.rotationTotal) = keyring.rotationProgress.withLock { $0 }
    let current = keyring.newestWrappingKey(under: keyring.environment.settings())?.id
    let standings = keyring.standings.withLock { $0 }
    status.batchesUnverified = UInt64(standings.unverifiedCount)
    status.wrappingKeys = view.state.wrappingKeys.values.sorted {
      $0.createdMilliseconds < $1.createdMilliseconds
    }
    .map { key in
      var entry = WrappingKeyStatus()
      entry.id = key.id.description
      entry.cmkID = key.cmkID.text
      entry.state = standings.entries[key.id]?.standing.name ?? "cold"
      entry.encryptions = key.encryptions
      entry.records = UInt64(view.state.recordsByWrappingKey[key.id, default: 0])
      entry.isCurrent = key.id == current
      entry.createdMilliseconds = key.createdMilliseconds
      return entry
    }
    return status
  }
}

extension CredentialsStatus {
  init(_ known: AWSCredentialsStatus) {
    self.init()
    source = known.sourceName ?? ""
    accessKeyID = known.accessKeyIDEnd ?? ""
    loadedMilliseconds = known.loadedMilliseconds ?? 0
    expiresMilliseconds = known.expiresMilliseconds ?? 0
    lastFailure = known.lastFailure ?? ""
  }
}

extension TenantSummary {
  init(_ name: TenantName, _ settings: TenantSettings, _ state: TenantState) {
    self.init(
      tenant: name.text,
      state: state,
      provider: settings.provider.kind.rawValue,
      cmkID: settings.cmkID.text
    )
  }
}
