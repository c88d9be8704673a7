internal import ConfigurationFiles
internal import HashTreeCollections
internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// Puts together what `explain` tells of a tenant: its facts, what follows from them, and what a key depends on. It opens nothing for a tenant
/// as a whole, and changes nothing.
struct Explainer {
  /// How long the CMKs are asked about, in nanoseconds: whoever asks for an explanation waits for it while something is wrong.
  static let patience: UInt64 = 5_000_000_000
  /// CMKs that are asked about, at most: a tenant has one or two.
  static let cmksMax = 16

  let tenant: Tenant

  func explain(_ key: ExplainCall.Key?) async throws(ServiceError) -> Explanation {
    let explainedKey: ExplainedKey?
    if let key { explainedKey = try await explained(key) } else { explainedKey = nil }
    var facts = TenantFacts(nowMilliseconds: unixMilliseconds())
    let settings = tenant.settings
    (facts.phase, facts.isDisabled) = (phase, tenant.isDisabled)
    (facts.isReadOnly, facts.isCMKTransient) = (settings.isReadOnly, settings.isCMKTransient)
    facts.configurationFailure = await configurationFailure()
    facts.credentials = tenant.providers.credentials(settings.provider).map(CredentialsStatus.init)
    let condition = tenant.condition()
    var explanation = Explanation(summary: tenant.summary())
    explanation.reason = condition.reason
    if let keyring = tenant.openKeyring { collect(keyring, &facts, &explanation) }
    let described = await described(facts, settings)
    facts.cmks = described.map(\.facts)
    explanation.nowMilliseconds = facts.nowMilliseconds
    explanation.credentials = facts.credentials
    explanation.cmks = described.map { cmk in
      var shown = cmk.shown
      shown.records = facts.records(of: cmk.facts)
      return shown
    }
    explanation.findings = facts.findings
    explanation.key = explainedKey
    return explanation
  }

  private var phase: TenantFacts.Phase {
    switch tenant.state.withLock({ $0.phase }) {
    case .cold, .closing, .opening(_, readers: nil): .notOpened
    case .open: .open
    case .opening(_, .some): .notAvailable("its storage is being recovered; reads go on")
    case .recovering(let recovery): .notAvailable(recovery.why)
    case .quarantined(let why): .quarantined(why)
    }
  }

  /// Whether the tenant would load if the server started now.
  private func configurationFailure() async -> String? {
    let files = tenant.files
    let loaded = await tenant.resources.flushPools.value(device: tenant.device) {
      Result { () throws(ConfigurationError) in _ = try files.load() }
    }
    if case .failure(let error) = loaded { return "\(error)" }
    return nil
  }

  // MARK: The keyring

  private func collect(_ keyring: TenantKeyring, _ facts: inout TenantFacts, _ explanation: inout Explanation)
  {
    let standings = keyring.standings.withLock { $0 }
    let view = keyring.view.withLock { $0 }
    let now = monotonicNanoseconds()
    for status in tenant.status().wrappingKeys {
      guard let key = view.state.wrappingKeys.values.first(where: { $0.id.description == status.id }) else {
        continue
      }
      let entry = standings.entries[key.id] ?? .init()
      let end = view.held[key.id] == nil ? nil : keyring.graceEnd(entry.confirmedAt)
      let left = end.map { $0 > now ? ($0 - now) / 1_000_000 : 0 } ?? 0
      facts.wrappingKeys.append(
        TenantFacts.WrappingKey(
          status: status,
          provider: key.provider,
          standing: entry.standing,
          sinceMilliseconds: entry.sinceMilliseconds,
          heldUntilMilliseconds: left > 0 ? facts.nowMilliseconds + left : 0,
          unverifiedBatches: UInt64(entry.unverified.count)
        )
      )
      var shown = ExplainedWrappingKey()
      shown.key = status
      shown.sinceMilliseconds = entry.sinceMilliseconds
      shown.heldUntilMilliseconds = left > 0 ? facts.nowMilliseconds + left : 0
      shown.failure = entry.failure.map(KMSFailure.init)
      explanation.wrappingKeys.append(shown)
    }
    let failures =
      explanation.wrappingKeys.compactMap(\.failure) + [standings.failureToMake.map(KMSFailure.init)]
    explanation.lastFailure = failures.compactMap { $0 }.max { $0.atMilliseconds < $1.atMilliseconds }
    facts.rotation = keyring.rotationProgress.withLock { $0 }
    let began = keyring.pipeline.flushBegan.load(ordering: .relaxed)
    if began > 0, now > began, now - began > TenantKeyring.slowFlush {
      facts.slowWriteMilliseconds = (now - began) / 1_000_000
    }
  }

  // MARK: CMKs

  private struct Described: Sendable {
    let facts: TenantFacts.CMK
    var shown: ExplainedCMK
  }

  private struct Needed: Hashable, Sendable {
    let id: CMKID
    let provider: ProviderKind
  }

  /// The CMK in force first, then those that the file still needs, each asked about at the same time.
  private func described(_ facts: TenantFacts, _ settings: TenantSettings) async -> [Described] {
    var needed = [Needed(id: settings.cmkID, provider: settings.provider.kind)]
    for key in facts.wrappingKeys {
      do {
        let other = Needed(id: try CMKID(key.status.cmkID), provider: key.provider)
        if !needed.contains(other), needed.count < Self.cmksMax { needed.append(other) }
      } catch {
        continue  // what the file holds was such an id when it was read
      }
    }
    let deadline = monotonicNanoseconds() + Self.patience
    let all = needed
    return await CallGuard.$deadline.withValue(deadline) {
      await withTaskGroup(of: (Int, Described).self) { group in
        for (index, cmk) in all.enumerated() {
          group.addTask { (index, await describe(cmk, isInForce: index == 0)) }
        }
        var found: [Int: Described] = [:]
        for await (index, cmk) in group { found[index] = cmk }
        return all.indices.compactMap { found[$0] }
      }
    }
  }

  private func describe(_ cmk: Needed, isInForce: Bool) async -> Described {
    var shown = ExplainedCMK()
    (shown.id, shown.provider, shown.isInForce) = (cmk.id.text, cmk.provider.rawValue, isInForce)
    let standing: TenantFacts.CMK.Standing
    do throws(CMKError) {
      let description = try await tenant.provider(cmk.provider).describe(cmk: cmk.id)
      standing = .known(description.state)
      shown.state = description.state.rawValue
      shown.createdMilliseconds = description.createdMilliseconds
    } catch {
      shown.state = "unknown"
      shown.why = error.description
      switch error {
      case .denied, .invalidCiphertext, .configuration, .refused: standing = .refused(error.description)
      case .unreachable, .overloaded, .outcomeUnknown: standing = .silent(error.description)
      }
    }
    return Described(
      facts: TenantFacts.CMK(
        id: cmk.id.text,
        provider: cmk.provider,
        standing: standing,
        isInForce: isInForce
      ),
      shown: shown
    )
  }

  // MARK: A key

  private func explained(_ key: ExplainCall.Key) async throws(ServiceError) -> ExplainedKey {
    let identity: KeyIdentity
    do throws(KeyringError) {
      let scope: Scope = key.instance.isEmpty ? .shared : .instance(try InstanceName(key.instance))
      identity = try KeyIdentity(scope: scope, owner: key.owner, keyID: key.keyID)
    } catch {
      throw .keyring(error)
    }
    var explained = ExplainedKey()
    let keyring: TenantKeyring
    do throws(ServiceError) {
      keyring = try await tenant.keyringForReading()
    } catch {
      explained.why = error.status.message
      return explained
    }
    guard let found = keyring.view.withLock({ $0.state.keys[identity] }) else {
      let isSure = keyring.unverifiedWrappingKey() == nil
      explained.presence = isSure ? .absent : .cannotTell
      if !isSure { explained.why = "a part of the storage file is not verified" }
      return explained
    }
    explained.presence = .present
    (explained.type, explained.latestVersion) = (found.type.text, found.latest.version)
    explained.dependencies = dependencies(found)
    return explained
  }

  private func dependencies(_ key: Key) -> [ExplainedKey.Dependency] {
    var order: [WrappingKeyID] = []
    var found: [WrappingKeyID: ExplainedKey.Dependency] = [:]
    for record in key.records {
      if found[record.wrappingKeyID] == nil {
        order.append(record.wrappingKeyID)
        found[record.wrappingKeyID] = .init()
        found[record.wrappingKeyID]?.wrappingKeyID = record.wrappingKeyID.description
        found[record.wrappingKeyID]?.firstVersion = record.version
      }
      found[record.wrappingKeyID]?.versions += 1
      found[record.wrappingKeyID]?.lastVersion = record.version
      found[record.wrappingKeyID]?.createdMilliseconds = record.createdMilliseconds
    }
    return order.compactMap { found[$0] }
  }
}

extension KMSFailure {
  init(_ failure: (what: String, atMilliseconds: UInt64)) {
    self.init(
      message: failure.what,
      requestID: CMKError.requestID(in: failure.what) ?? "",
      atMilliseconds: failure.atMilliseconds
    )
  }
}

extension Service {
  /// Says what a tenant depends on, also one whose files do not load.
  func explain(
    _ call: ExplainCall,
    _ name: TenantName?,
    _ caller: Caller
  ) async throws(ServiceError) -> Explanation {
    let tenant: Tenant
    do throws(ServiceError) {
      tenant = try await find(name, caller)
    } catch .configuration(let why), .settingsUnread(let why) {
      var explanation = Explanation(
        summary: TenantSummary(tenant: name?.text ?? "", state: .cold, provider: "", cmkID: "")
      )
      var facts = TenantFacts(nowMilliseconds: unixMilliseconds())
      (facts.phase, facts.configurationFailure) = (.notLoaded, why)
      explanation.nowMilliseconds = facts.nowMilliseconds
      explanation.findings = facts.findings
      if call.key != nil { explanation.key = ExplainedKey() }
      return explanation
    }
    logger.info("explain by \(caller.uri)", metadata: ["tenant": "\(tenant.name)"])
    return try await Explainer(tenant: tenant).explain(call.key)
  }
}
