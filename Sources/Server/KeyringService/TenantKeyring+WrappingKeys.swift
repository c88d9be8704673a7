internal import CMKProviders
internal import Cryptography
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory
import Synchronization

extension TenantKeyring {
  /// A wrapping key that may be used at this moment: held and confirmed within its time, or asked for now.
  ///
  /// - Throws: `tenantLocked` where the provider refuses it (asked at most once in 30 s), `kmsUnreachable` where the provider
  ///   does not answer and the grace is over, `tenantQuarantined` where the file's HMACs do not check under it.
  func usableWrappingKey(_ id: WrappingKeyID) async throws(ServiceError) -> HeldWrappingKey {
    let now = monotonicNanoseconds()
    if let held = view.withLock({ $0.held[id] }), held.servableUntil.load(ordering: .relaxed) > now {
      return held
    }
    // Where each operation asks, the limit refuses it; what is asked for once and held is never refused, but counted.
    if environment.settings().wrappingKeyTTLNanoseconds == 0 { try environment.awaitKMSCall(now) }
    return try await ask(id).get()
  }

  /// Confirms a wrapping key before its time is over, so that no reader waits for the provider.
  func refresh(_ held: HeldWrappingKey) {
    held.refreshAfter.store(.max, ordering: .relaxed)
    Task { _ = await ask(held.wrappingKeyID) }
  }

  /// Has every wrapping key confirmed before its next use.
  func expireGrants() {
    for held in view.withLock({ $0.held.values }) { held.servableUntil.store(0, ordering: .relaxed) }
  }

  /// Has what was refused asked for again at its next use, whatever the time since.
  func forgetRefusals() {
    standings.withLock { standings in
      for id in standings.entries.keys { standings.entries[id]?.askedAt = 0 }
    }
  }

  /// Lets go of the wrapping keys whose time is over, the grace among it, though nobody asked for them.
  func dropExpired(now: UInt64) {
    let settings = environment.settings()
    let most = settings.wrappingKeyTTLNanoseconds + settings.outageGraceNanoseconds
    let held = view.withLock { $0.held.keys }
    let expired = standings.withLock { standings in
      held.filter { id in
        now >= (standings.entries[id]?.confirmedAt ?? 0) + most && !standings.onTheirWay.contains(id)
      }
    }
    standings.withLock { standings in
      for id in expired where standings.entries[id] != nil { standings.set(id, .cold) }
    }
    // Not wiped under who uses one at this moment: it is when the last lets go of it.
    for id in expired { drop(id) }
  }

  /// Holds what a keyring of the same storage held, for as long as that might: each once the HMACs that wait for it are checked.
  func adopt(from former: TenantKeyring) throws(ServiceError) {
    let (held, entries) = (former.view.withLock { $0.held }, former.standings.withLock { $0.entries })
    for (id, key) in held where view.withLock({ $0.state.wrappingKeys[id] != nil }) {
      if let failure = verifyPending(key) { throw failure }
      let unverified = standings.withLock { standings in
        if let entry = entries[id] {
          standings.entries[id]?.standing = entry.standing
          standings.entries[id]?.sinceMilliseconds = entry.sinceMilliseconds
          standings.entries[id]?.failure = entry.failure
          standings.entries[id]?.confirmedAt = entry.confirmedAt
          standings.entries[id]?.askedAt = entry.askedAt
        }
        return standings.unverifiedCount > 0
      }
      view.withLock { view in
        var all = view.held
        all[id] = key
        view = view.with(held: all, isUnverified: unverified)
      }
    }
  }

  /// Asks the provider, once for all who wait.
  private func ask(_ id: WrappingKeyID) async -> Result<HeldWrappingKey, ServiceError> {
    let now = monotonicNanoseconds()
    let asking = standings.withLock {
      standings -> Result<Task<Result<HeldWrappingKey, ServiceError>, Never>, ServiceError> in
      if let refusal = standings.freshRefusal(id, now: now) { return .failure(refusal) }
      if let asking = standings.entries[id]?.asking { return .success(asking) }
      // Not a child of who asks first: it is for all, whatever that one's deadline.
      let ids = KMSRequestIDs.current
      let asking = Task.detached {
        await self.patiently(id) { await ids.collecting { await self.confirm(id) } }
      }
      standings.entries[id, default: .init()].asking = asking
      return .success(asking)
    }
    switch asking {
    case .failure(let refusal): return .failure(refusal)
    case .success(let task): return await task.value
    }
  }

  private func confirm(_ id: WrappingKeyID) async -> Result<HeldWrappingKey, ServiceError> {
    let generation = environment.providerGeneration()
    let result: Result<HeldWrappingKey, ServiceError>
    do {
      guard let key = view.withLock({ $0.state.wrappingKeys[id] }) else {
        throw ServiceError.wrappingKeyReplaced
      }
      let provider = try environment.provider(key.provider)
      let plaintext = try await provider.decrypt(key.wrapped, cmk: key.cmkID, context: context)
      result = try confirmed(key, plaintext)
    } catch let error as CMKError {
      // What was said to credentials that are not in force any more counts for nothing.
      if environment.providerGeneration() != generation { return await confirm(id) }
      result = refused(id, error)
    } catch ServiceError.wrappingKeyReplaced {
      result = .failure(.wrappingKeyReplaced)
    } catch {
      result = .failure(.defect("\(error)"))
    }
    standings.withLock { $0.entries[id]?.asking = nil }
    return result
  }

  private func confirmed(
    _ key: WrappingKey,
    _ plaintext: Secret
  ) throws(CMKError) -> Result<HeldWrappingKey, ServiceError> {
    let now = monotonicNanoseconds()
    // Made anew each time, so that the provider's answer is checked against the commitment each time.
    let fresh = try HeldWrappingKey(
      id: key.id,
      plaintext: plaintext,
      commitment: key.commitment,
      tenant: environment.tenant,
      keyring: id,
      servableUntil: 0
    )
    guard !isEnded.load(ordering: .acquiring) else { return .failure(Self.ended) }
    let held = view.withLock { $0.held[key.id] } ?? fresh
    setTimes(of: held, confirmedAt: now)
    if let failure = verifyPending(held) { return .failure(failure) }
    let found = standings.withLock { standings -> (before: Standing, isUnverified: Bool)? in
      // Forgotten while the provider was asked: it does not come back.
      guard let before = standings.entries[key.id]?.standing else { return nil }
      standings.set(key.id, .held)
      standings.entries[key.id, default: .init()].confirmedAt = now
      standings.entries[key.id, default: .init()].askedAt = now
      return (before, standings.unverifiedCount > 0)
    }
    guard let found else { return .failure(.wrappingKeyReplaced) }
    view.withLock { view in
      var all = view.held
      all[key.id] = held
      view = view.with(held: all, isUnverified: found.isUnverified)
    }
    switch found.before {
    case .denied, .unreachable: environment.log("wrapping key \(key.id) is confirmed again")
    case .cold, .held: break
    }
    return .success(held)
  }

  /// Confirmed for `wrapping_key_ttl`, less up to a tenth so that tenants do not ask at one moment; refreshed at four fifths of it.
  private func setTimes(of held: HeldWrappingKey, confirmedAt now: UInt64) {
    let ttl = environment.settings().wrappingKeyTTLNanoseconds
    let jittered = ttl - (ttl >= 10 ? UInt64.random(in: 0...ttl / 10) : 0)
    held.servableUntil.store(now + jittered, ordering: .relaxed)
    held.refreshAfter.store(now + jittered / 5 * 4, ordering: .relaxed)
  }

  /// Checks the HMACs of the file that waited for this wrapping key, before anything is read or written under it.
  private func verifyPending(_ held: HeldWrappingKey) -> ServiceError? {
    let pending = standings.withLock { $0.entries[held.wrappingKeyID]?.unverified ?? [] }
    for item in pending {
      do {
        if try held.verifies(item) { continue }
      } catch {
        return ServiceError(error)
      }
      let error = StoreError.damaged(
        "the HMAC of the \(item.place) is wrong: the file was changed by someone without the wrapping key"
      )
      environment.failed(self, error)
      return .tenantQuarantined(error.description)
    }
    standings.withLock { $0.entries[held.wrappingKeyID]?.unverified = [] }
    return nil
  }

  private func refused(_ id: WrappingKeyID, _ error: CMKError) -> Result<HeldWrappingKey, ServiceError> {
    let now = monotonicNanoseconds()
    switch error {
    case .unreachable(let why), .overloaded(let why, _), .refused(let why), .configuration(let why),
      .outcomeUnknown(let why):
      return unreachable(id, why, now)
    case .denied(let why), .invalidCiphertext(let why):
      set(id, .denied(why), askedAt: now)
      drop(id)?.wipe()
      return .failure(.tenantLocked(why))
    }
  }

  /// Takes what the provider said, which the log has where it is news.
  private func set(_ id: WrappingKeyID, _ standing: Standing, askedAt now: UInt64) {
    let before = standings.withLock { standings in
      let before = standings.entries[id, default: .init()].standing
      standings.set(id, standing)
      standings.entries[id, default: .init()].askedAt = now
      return before
    }
    guard standing.name != before.name else { return }
    switch standing {
    case .denied(let why): environment.log("wrapping key \(id) is refused, and wiped: \(why)")
    case .unreachable(let why): environment.log("wrapping key \(id) cannot be confirmed: \(why)")
    case .cold, .held: break
    }
  }

  /// Unreachable is not denied: what is held goes on within the grace.
  private func unreachable(_ id: WrappingKeyID, _ why: String, _ now: UInt64) -> Result<
    HeldWrappingKey, ServiceError
  > {
    set(id, .unreachable(why), askedAt: now)
    let confirmedAt = standings.withLock { $0.entries[id]?.confirmedAt ?? 0 }
    guard let held = view.withLock({ $0.held[id] }), let end = graceEnd(confirmedAt), now < end else {
      drop(id)?.wipe()
      return .failure(.kmsUnreachable(why))
    }
    // Readers go on to the end of the grace without waiting; one of them has the provider asked now and then.
    held.servableUntil.store(end, ordering: .relaxed)
    held.refreshAfter.store(min(end, now + WrappingKeyStandings.retryInterval), ordering: .relaxed)
    return .success(held)
  }

  @discardableResult
  private func drop(_ id: WrappingKeyID) -> HeldWrappingKey? {
    view.withLock { view in
      var all = view.held
      let dropped = all.removeValue(forKey: id)
      view = view.with(held: all, isUnverified: view.isUnverified)
      return dropped
    }
  }

  // MARK: The wrapping key to write under

  /// The newest wrapping key under the CMK in force; made, and committed, where there is none yet.
  func writeKey(_ settings: KeyringSettings) async throws(ServiceError) -> HeldWrappingKey {
    if let newest = newestWrappingKey(under: settings) {
      return try await usableWrappingKey(newest.id)
    }
    let making = makingWriteKey.withLock { making in
      if let task = making[settings.cmkID] { return task }
      let ids = KMSRequestIDs.current
      let task = Task.detached {
        let result = await ids.collecting { await self.addWrappingKey(settings) }
        self.makingWriteKey.withLock { $0[settings.cmkID] = nil }
        return result
      }
      making[settings.cmkID] = task
      return task
    }
    return try await making.value.get()
  }

  func newestWrappingKey(under settings: KeyringSettings) -> WrappingKey? {
    view.withLock { $0.state.wrappingKeys.values }
      .filter { key in
        key.cmkID == settings.cmkID && key.provider == settings.provider
          && (settings.provider == .local || AWSProvider.isOf(region: settings.region, key.wrapped))
      }
      .max { ($0.createdMilliseconds, $0.id.value) < ($1.createdMilliseconds, $1.id.value) }
  }

  private func addWrappingKey(_ settings: KeyringSettings) async -> Result<HeldWrappingKey, ServiceError> {
    do {
      let made = try await Self.makeWrappingKey(environment, settings, keyring: id)
      setTimes(of: made.held, confirmedAt: monotonicNanoseconds())
      let change = PreparedChange(
        operations: [.addWrappingKey(made.key)],
        writeKey: made.held,
        caller: "keyringd",
        idempotency: nil,
        versions: [],
        deadline: .never,  // it serves many callers, each with a deadline of its own
        isStillWanted: { [environment] in environment.settings().isOfSameCMK(as: settings) }
      )
      hold(made.held)
      defer { arrived(made.held) }
      _ = try await submit(change).get()
      return .success(made.held)
    } catch let error as ServiceError {
      noteFailureToMake(error)
      return .failure(error)
    } catch CommitFailure.failed(let error) {
      return .failure(error)
    } catch {
      return .failure(.defect("a wrapping key could not be added: \(error)"))
    }
  }

  /// Keeps what the provider said where it failed at making a wrapping key or random bytes.
  func noteFailureToMake(_ error: ServiceError) {
    switch error {
    case .kmsUnreachable(let why), .kmsDenied(let why), .configuration(let why):
      standings.withLock { $0.failureToMake = (why, unixMilliseconds()) }
    default: break  // not of the provider
    }
  }

  /// Puts a wrapping key that was just made at the readers' hand; `arrived` follows once it is part of the keyring, or will never be.
  func hold(_ held: HeldWrappingKey) {
    standings.withLock { standings in
      standings.onTheirWay.insert(held.wrappingKeyID)
      let now = monotonicNanoseconds()
      standings.entries[held.wrappingKeyID] = .init(standing: .held, confirmedAt: now, askedAt: now)
    }
    setTimes(of: held, confirmedAt: monotonicNanoseconds())
    view.withLock { view in
      var all = view.held
      all[held.wrappingKeyID] = held
      view = view.with(held: all, isUnverified: view.isUnverified)
    }
  }

  /// Ends what `hold` began, and forgets the wrapping key where the keyring does not have it.
  func arrived(_ held: HeldWrappingKey) {
    _ = standings.withLock { $0.onTheirWay.remove(held.wrappingKeyID) }
    forgetFormerWrappingKeys()
  }

  /// Forgets the wrapping keys that the keyring no longer has, after a replacement. Who uses one at this moment still may: it is wiped when
  /// the last lets go of it.
  func forgetFormerWrappingKeys() {
    let present = view.withLock { Set($0.state.wrappingKeys.keys) }
    let former = standings.withLock { standings in
      let former = standings.entries.keys.filter {
        !present.contains($0) && !standings.onTheirWay.contains($0)
      }
      for id in former { standings.entries[id] = nil }
      return former
    }
    for id in former { drop(id) }
  }

  /// Has the provider make a wrapping key, and checks that it also opens it again: a key that cannot be had back must not encrypt.
  static func makeWrappingKey(
    _ environment: Environment,
    _ settings: KeyringSettings,
    keyring: KeyringID
  ) async throws(ServiceError) -> MadeWrappingKey {
    let provider: any CMKProvider
    do {
      provider = try environment.provider(settings.provider)
    } catch {
      throw ServiceError(error)
    }
    return try await NewWrappingKey(
      tenant: environment.tenant,
      keyring: keyring,
      settings: settings,
      provider: provider
    ).make()
  }
}
