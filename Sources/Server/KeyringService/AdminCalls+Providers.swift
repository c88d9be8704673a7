internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// What reaches a tenant's CMK is changed only once it was seen to work.
extension Service {
  /// Has the CMK of `settings` make a wrapping key for the tenant's keyring and open it again, with credentials read now.
  ///
  /// - Throws: what the KMS says, with everything as it was.
  func prove(
    _ settings: TenantSettings,
    _ tenant: Tenant
  ) async throws(ServiceError) -> TenantProviders.Candidate {
    let keyring = try await keyringID(tenant)
    let candidate: TenantProviders.Candidate
    do {
      candidate = try tenant.providers.candidate(settings.provider)
    } catch {
      throw ServiceError(error)
    }
    var environment = tenant.environment
    environment.provider = { _ in candidate.provider }
    _ = try await TenantKeyring.makeWrappingKey(environment, KeyringSettings(settings), keyring: keyring)
    return candidate
  }

  /// The id that the CMK's use is bound to; a passing one where the keyring could not be made yet, because the CMK in force refuses.
  private func keyringID(_ tenant: Tenant) async throws(ServiceError) -> KeyringID {
    do {
      return try await tenant.keyringForReading().id
    } catch {
      switch error {
      case .kmsDenied, .kmsUnreachable, .throttled: return KeyringID(value: .random(in: 0...UInt128.max))
      // `.configuration`: that of the provider in force, which may be what is being mended.
      case .configuration: return KeyringID(value: .random(in: 0...UInt128.max))
      default: throw error  // disabled, quarantined: not a CMK's doing
      }
    }
  }

  /// Reads a tenant's files and credentials anew, and takes them once they were seen to work; what was set globally stays in force.
  ///
  /// - Throws: what is wrong with them; the last good ones are in force then.
  func reload(_ tenant: Tenant) async throws(ServiceError) -> ReplyResult {
    let files = tenant.files
    let loaded = await resources.flushPools.value(device: tenant.device) {
      Result { () throws(ConfigurationError) in try files.load() }
    }
    let present = tenant.settings
    let settings: TenantSettings
    do {
      settings = try loaded.get().settings.keepingGlobal(of: present)
    } catch {
      throw .configuration("nothing was taken over: \(error)")
    }
    guard settings.file.storageFile == present.file.storageFile, settings.file.anchor == present.file.anchor
    else {
      throw .configuration("nothing was taken over: 'storage_file' and 'anchor' change at a restart only")
    }
    let candidate = try await prove(settings, tenant)
    try await checkThatKeysOpen(tenant, candidate)
    _ = try await tenant.changeSettings { now throws(ServiceError) in
      guard now == present else {
        throw .throttled("the settings were changed meanwhile: reload again", retryAfterMilliseconds: 100)
      }
      return settings
    }
    tenant.providers.adopt(candidate, keeping: settings.former)
    tenant.openKeyring?.expireGrants()
    tenant.openKeyring?.forgetRefusals()
    let credentials = tenant.providers.credentials(settings.provider).map(CredentialsStatus.init)
    return .tenantReload(
      credentials: credentials.map { "\($0.source), access key id ...\($0.accessKeyID)" } ?? ""
    )
  }

  /// New credentials must open what the old ones do: else the next confirmation would lock keys that are served now.
  private func checkThatKeysOpen(
    _ tenant: Tenant,
    _ candidate: TenantProviders.Candidate
  ) async throws(ServiceError) {
    guard let keyring = tenant.openKeyring else { return }
    let (held, keys) = keyring.view.withLock { ($0.held, $0.state.wrappingKeys) }
    for id in held.keys {
      guard let key = keys[id], key.provider == candidate.settings.kind else { continue }
      do throws(CMKError) {
        _ = try await candidate.provider.decrypt(key.wrapped, cmk: key.cmkID, context: keyring.context)
      } catch {
        guard tenant.settings.former.isEmpty else { continue }  // one of those may open it
        throw .configuration(
          "nothing was taken over: the new credentials do not open wrapping key \(id), which is in use: \(error)"
        )
      }
    }
  }

  /// Puts another provider and CMK in the place of the tenant's: proved, then one durable change; `rotate-keys` finishes it.
  func move(_ call: TenantMoveCall, _ tenant: Tenant) async throws(ServiceError) -> ReplyResult {
    let settings = try moved(tenant.settings, call)
    let candidate = try await prove(settings, tenant)
    let next = try await tenant.changeSettings { now throws(ServiceError) in try moved(now, call) }
    guard next.provider == candidate.settings else {
      throw .defect("the provider that was proved is another")
    }
    tenant.providers.adopt(candidate, keeping: next.former)
    logger.notice(
      "moved to the provider '\(next.provider.kind.rawValue)', CMK \(next.cmkID)",
      metadata: ["tenant": "\(tenant.name)"]
    )
    return .tenantMove(cmkID: next.cmkID.text)
  }

  private func moved(_ settings: TenantSettings, _ call: TenantMoveCall) throws(ServiceError)
    -> TenantSettings
  {
    do {
      let provider = try ProviderSettings(
        members: call.settings.map { ($0.name, $0.value) },
        allowedEndpoints: resources.configuration.allowedEndpoints
      )
      return try settings.moving(to: provider, cmkID: CMKID(call.cmkID))
    } catch {
      throw .malformed("\(error)")
    }
  }

  /// After a rotation nothing may depend on the providers before a move any more: they are forgotten.
  func forgetFormerProviders(_ tenant: Tenant) async throws(ServiceError) {
    guard !tenant.settings.former.isEmpty, let keyring = tenant.openKeyring else { return }
    let settings = tenant.keyringSettings
    let isNeeded = keyring.view.withLock { view in
      view.state.wrappingKeys.values.contains {
        $0.cmkID != settings.cmkID || $0.provider != settings.provider
      }
    }
    if isNeeded { return }
    _ = try await tenant.changeSettings { $0.forgettingFormer() }
  }
}

extension ServiceError {
  /// As the refusal of a variable's new value, where it is one.
  func asInvalid(_ name: VariableName) -> ServiceError {
    switch self {
    case .kmsDenied(let why), .configuration(let why):
      .variableInvalid("\(name.rawValue) cannot be set to the new value: \(why); the old value is in force")
    default: self
    }
  }
}
