internal import ConfigurationFiles
internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// What reaches a tenant's CMK is changed only once it was seen to work.
extension Service {
  /// A candidate, and the wrapping key that its CMK made on trial.
  struct Proof {
    let candidate: TenantProviders.Candidate
    let made: WrappingKey
    /// Nil where there is none yet, because the CMK in force refuses.
    let keyring: TenantKeyring?
  }

  /// Has the CMK of `settings` make a wrapping key for the tenant's keyring and open it again.
  ///
  /// - Throws: what the KMS says, with everything as it was.
  func prove(
    _ settings: TenantSettings,
    _ tenant: Tenant,
    _ credentials: TenantProviders.Credentials
  ) async throws(ServiceError) -> Proof {
    let keyring = try await presentKeyring(tenant)
    var environment = tenant.environment
    let candidate: TenantProviders.Candidate
    do {
      candidate = try tenant.providers.candidate(settings, credentials)
      environment.provider = { kind throws(CMKError) in try candidate.provider(kind) }
      let id = keyring?.id ?? KeyringID(value: .random(in: 0...UInt128.max))
      let made = try await TenantKeyring.makeWrappingKey(environment, KeyringSettings(settings), keyring: id)
      return Proof(candidate: candidate, made: made.key, keyring: keyring)
    } catch let error as CMKError {
      throw ServiceError(error)
    } catch let error as ServiceError {
      throw error
    } catch {
      throw .defect("\(error)")
    }
  }

  private func presentKeyring(_ tenant: Tenant) async throws(ServiceError) -> TenantKeyring? {
    do {
      return try await tenant.keyringForReading()
    } catch {
      switch error {
      // `.configuration`: that of the provider in force, which may be what is being mended.
      case .kmsDenied, .kmsUnreachable, .throttled, .configuration: return nil
      default: throw error  // disabled, quarantined: not a CMK's doing
      }
    }
  }

  /// Whatever the providers in force open, those of the candidate must open too: else the next confirmation would lock keys that are served now.
  private func checkThatKeysOpen(_ proof: Proof, _ tenant: Tenant) async throws(ServiceError) {
    guard let keyring = proof.keyring else { return }
    for key in keyring.view.withLock({ $0.state.wrappingKeys.values }) {
      do throws(CMKError) {
        let provider = try proof.candidate.provider(key.provider)
        _ = try await provider.decrypt(key.wrapped, cmk: key.cmkID, context: keyring.context)
      } catch {
        guard try await isOpenedByThoseInForce(key, keyring) else { continue }
        let why =
          "nothing was changed: wrapping key \(key.id) of CMK \(key.cmkID), which is in use, would not open"
        switch error {
        case .unreachable, .overloaded: throw .kmsUnreachable("\(why): \(error)")
        case .denied, .invalidCiphertext, .refused, .configuration, .outcomeUnknown:
          throw .configuration("\(why): \(error)")
        }
      }
    }
  }

  private func isOpenedByThoseInForce(
    _ key: WrappingKey,
    _ keyring: TenantKeyring
  ) async throws(ServiceError) -> Bool {
    if keyring.view.withLock({ $0.held[key.id] }) != nil { return true }
    do throws(CMKError) {
      let provider = try keyring.environment.provider(key.provider)
      _ = try await provider.decrypt(key.wrapped, cmk: key.cmkID, context: keyring.context)
      return true
    } catch {
      return false
    }
  }

  static let changedMeanwhile = ServiceError.throttled(
    "the tenant's settings were changed meanwhile: nothing was changed, try again",
    retryAfterMilliseconds: 100
  )

  /// Reads a tenant's files and credentials anew, and takes them once they were seen to work; what was set globally stays in force.
  ///
  /// - Throws: what is wrong with them; the last good ones are in force then.
  func reload(_ tenant: Tenant) async throws(ServiceError) -> ReplyResult {
    let (present, files) = (tenant.settings, tenant.files)
    let persisted = tenant.persisted
    let loaded = await resources.flushPools.value(device: tenant.device) {
      Result { () throws(ConfigurationError) in try files.load() }
    }
    let read: (settings: TenantSettings, persisted: PersistedState)
    do {
      let found = try loaded.get()
      read = (try found.settings.keepingGlobal(of: present), found.persisted)
    } catch {
      throw .configuration("nothing was taken over: \(error)")
    }
    guard read.settings.file.storageFile == present.file.storageFile,
      read.settings.file.anchor == present.file.anchor
    else {
      throw .configuration("nothing was taken over: 'storage_file' and 'anchor' change at a restart only")
    }
    let proof = try await prove(read.settings, tenant, .readAnew)
    try await checkThatKeysOpen(proof, tenant)
    _ = try await tenant.changeSettings(read: read.persisted, adopting: proof.candidate) {
      now throws(ServiceError) in
      guard now == present, tenant.persisted == persisted else { throw Self.changedMeanwhile }
      return read.settings
    }
    await applyRules(tenant)
    tenant.openKeyring?.expireGrants()
    tenant.openKeyring?.forgetRefusals()
    let credentials = tenant.providers.credentials(read.settings.provider).map(CredentialsStatus.init)
    return .tenantReload(
      credentials: credentials.map { "\($0.source), access key id ...\($0.accessKeyID)" } ?? ""
    )
  }

  /// Puts another provider and CMK in the place of the tenant's: proved, then one durable change; `rotate-keys` finishes it.
  func move(_ call: TenantMoveCall, _ tenant: Tenant) async throws(ServiceError) -> ReplyResult {
    let present = tenant.settings
    let proof = try await prove(moved(present, call), tenant, .readAnew)
    // What an alias names today is what was proved; and whose ciphertexts are whose is known from here on.
    let key = AWSProvider.key(of: proof.made.wrapped)
    let next = try moved(present, call, to: key, from: account(of: present, proof.keyring))
    let candidate: TenantProviders.Candidate
    do {
      candidate = try proof.candidate.knowing(next)
    } catch {
      throw ServiceError(error)
    }
    let complete = Proof(candidate: candidate, made: proof.made, keyring: proof.keyring)
    try await checkThatKeysOpen(complete, tenant)
    _ = try await tenant.changeSettings(adopting: candidate) { now throws(ServiceError) in
      guard now == present else { throw Self.changedMeanwhile }
      return next
    }
    logger.notice(
      "moved to the provider '\(next.provider.kind.rawValue)', CMK \(next.cmkID)",
      metadata: ["tenant": "\(tenant.name)"]
    )
    return .tenantMove(cmkID: next.cmkID.text)
  }

  /// Whose CMK the provider in force writes under: its wrapping keys say so.
  private func account(of settings: TenantSettings, _ keyring: TenantKeyring?) -> String? {
    guard settings.provider.kind == .aws, let keyring,
      let newest = keyring.newestWrappingKey(under: KeyringSettings(settings))
    else { return nil }
    return AWSProvider.key(of: newest.wrapped)?.account
  }

  private func moved(
    _ settings: TenantSettings,
    _ call: TenantMoveCall,
    to key: (arn: String, account: String)? = nil,
    from account: String? = nil
  ) throws(ServiceError) -> TenantSettings {
    do {
      var provider = try ProviderSettings(
        members: call.settings.map { ($0.name, $0.value) },
        allowedEndpoints: resources.configuration.allowedEndpoints
      )
      if provider.kind == .aws { provider.account = key?.account }
      let cmkID = try CMKID(key?.arn ?? call.cmkID)
      return try settings.moving(to: provider, cmkID: cmkID, from: account)
    } catch {
      throw .malformed("\(error)")
    }
  }

  /// After a rotation nothing may depend on the providers before a move any more: they are forgotten.
  func forgetFormerProviders(_ tenant: Tenant) async throws(ServiceError) {
    let present = tenant.settings
    guard !present.former.isEmpty, let keyring = tenant.openKeyring else { return }
    let next = present.forgettingFormer()
    let candidate: TenantProviders.Candidate
    do {
      candidate = try tenant.providers.candidate(next, .inForce)
    } catch {
      throw ServiceError(error)
    }
    do throws(ServiceError) {
      _ = try await tenant.changeSettings(adopting: candidate) { now throws(ServiceError) in
        guard now == present, !keyring.needsOthers(than: KeyringSettings(now)) else {
          throw Self.changedMeanwhile
        }
        return next
      }
    } catch .throttled {
      return  // the next rotation looks again
    }
  }
}

extension TenantKeyring {
  /// True if a wrapping key is of another CMK than that in force.
  fileprivate func needsOthers(than settings: KeyringSettings) -> Bool {
    view.withLock { view in
      view.state.wrappingKeys.values.contains {
        $0.cmkID != settings.cmkID || $0.provider != settings.provider
      }
    }
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
