internal import Dispatch
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry

extension Tenant {
  /// Storage that must be read again before anybody knows what it holds, or that could not be opened. Of a keyring that was open nothing more
  /// is written, and readers go on with what was durable before.
  struct Recovery {
    /// After a try that failed, nanoseconds to the next: doubled each time, and at least four times as long as the try took, so that a large
    /// file on a full disk is not all that the disk does. The first try comes at once.
    static let pauses: ClosedRange<UInt64> = 250_000_000...60_000_000_000

    let keyring: TenantKeyring?
    let why: String
    /// Monotonic nanoseconds.
    var retryAt: UInt64 = 0
    var pause = Recovery.pauses.lowerBound

    /// What follows a try that began then and failed at `now`.
    func next(_ why: String, began: UInt64, now: UInt64) -> Recovery {
      let pause = min(max(self.pause, 4 * (now - min(now, began))), Self.pauses.upperBound)
      return Recovery(
        keyring: keyring,
        why: why,
        retryAt: now + pause,
        pause: min(2 * pause, Self.pauses.upperBound)
      )
    }
  }

  // MARK: Reading

  /// The keyring, if it can be read at this moment.
  var openKeyring: TenantKeyring? { state.withLock { readable(&$0) } }

  /// The keyring, if it can be read at this moment and the instance may do so; for readers on an event loop.
  ///
  /// - Parameter notBefore: of its certificate, Unix seconds.
  func openKeyring(
    for instance: InstanceName,
    notBefore: UInt64,
    needing needs: InstanceAccess
  ) -> TenantKeyring? {
    state.withLock { state in
      guard let access = state.rules.access(of: instance, notBefore: notBefore), access.isSuperset(of: needs)
      else { return nil }
      return readable(&state)
    }
  }

  private func readable(_ state: inout State) -> TenantKeyring? {
    if Self.barrier(state) != nil { return nil }
    switch state.phase {
    case .open(let keyring): return keyring
    case .opening(_, let readers): return readers
    case .recovering(let recovery):
      recoverIfDue(recovery, &state)
      return recovery.keyring
    case .cold, .closing, .quarantined: return nil
    }
  }

  /// The keyring for a call that changes nothing, opened if it is not.
  ///
  /// - Throws: as `keyring`.
  func keyringForReading() async throws(ServiceError) -> TenantKeyring {
    if let keyring = openKeyring { return keyring }
    return try await keyring()
  }

  // MARK: Opening

  /// The keyring, opened or recovered if it is not open.
  ///
  /// - Throws: `tenantDisabled`, `tenantQuarantined`, or why it does not open.
  func keyring() async throws(ServiceError) -> TenantKeyring {
    while true {
      let phase = try state.withLock { state throws(ServiceError) -> Phase in
        if let barrier = Self.barrier(state) { throw barrier }
        if case .cold = state.phase { state.phase = .opening(Task { await self.open(nil) }, readers: nil) }
        if case .recovering(let recovery) = state.phase { recoverIfDue(recovery, &state) }
        return state.phase
      }
      switch phase {
      case .open(let keyring): return keyring
      case .opening(let task, _): return try await task.value.get()
      case .recovering(let recovery): throw .storageUnavailable(recovery.why)
      case .closing(let task): await task.value
      case .quarantined(let why): throw .tenantQuarantined(why)
      case .cold: preconditionFailure("a cold tenant was told to open")
      }
    }
  }

  private func recoverIfDue(_ recovery: Recovery, _ state: inout State) {
    guard monotonicNanoseconds() >= recovery.retryAt else { return }
    state.phase = .opening(Task { await self.open(recovery) }, readers: recovery.keyring)
  }

  /// What the tenant's keyring needs from around it.
  var environment: TenantKeyring.Environment {
    let logger = self.logger
    return TenantKeyring.Environment(
      tenant: name,
      store: store,
      isAnchorStrict: settings.file.anchor == .strict,
      device: device,
      flushPools: resources.flushPools,
      queue: queue,
      settings: { self.keyringSettings },
      provider: { kind throws(CMKError) in try self.provider(kind) },
      providerGeneration: { self.providers.generation },
      failed: { self.failed($0, $1) },
      log: { logger.notice("\($0)") },
      overLimit: { [admission] in admission.count(LimitKind($0)) },
      awaitKMSCall: { [admission] now throws(ServiceError) in try admission.awaitKMSCall(now: now) }
    )
  }

  /// - Parameter recovery: of storage that failed; the readers of its keyring go on until this one is open.
  private func open(_ recovery: Recovery?) async -> Result<TenantKeyring, ServiceError> {
    let began = monotonicNanoseconds()
    makeRoom()
    do throws(ServiceError) {
      let keyring = try await TenantKeyring.open(environment, after: recovery?.keyring)
      let isKept = state.withLock { state in
        guard case .opening = state.phase else { return false }
        state.phase = .open(keyring)
        return true
      }
      guard isKept else {
        keyring.wipe()
        throw .tenantDisabled
      }
      if recovery != nil { logger.notice("the storage is recovered") }
      // Who reads from the keyring of before at this moment still may: its wrapping keys are wiped when the last lets go of it.
      return .success(keyring)
    } catch {
      opening(recovery, began: began, failed: error)
      return .failure(error)
    }
  }

  private func opening(_ recovery: Recovery?, began: UInt64, failed error: ServiceError) {
    let isEnded = state.withLock { state -> Bool in
      if case .tenantQuarantined(let why) = error {
        state.phase = .quarantined(why)
        return true
      }
      guard case .opening = state.phase else { return true }
      let last = recovery ?? Recovery(keyring: nil, why: "")
      if last.keyring == nil, !error.isOfStorage {
        state.phase = .cold
        return true
      }
      state.phase = .recovering(last.next("\(error)", began: began, now: monotonicNanoseconds()))
      return false
    }
    if isEnded { recovery?.keyring?.wipe() }
    logger.error("the keyring does not open: \(error)")
  }

  /// A keyring's storage failed. One whose storage is not the expected one is quarantined; another is read until the next call has it recovered.
  func failed(_ keyring: TenantKeyring, _ error: StoreError) {
    logger.error("the storage failed: \(error)")
    let isRead = state.withLock { state in
      switch error {
      case .changed(let why), .damaged(let why): state.phase = .quarantined(why)
      case .busy, .unavailable, .outcomeUnknown, .authenticatorUnavailable:
        switch state.phase {
        case .open(let present) where present === keyring:
          state.phase = .recovering(Recovery(keyring: keyring, why: "\(error)"))
          return true
        case .opening(_, let readers): return readers === keyring
        case .recovering(let recovery): return recovery.keyring === keyring
        case .open, .cold, .closing, .quarantined: return false
        }
      }
      return false
    }
    if !isRead { keyring.wipe() }
  }

  /// Lets go of the wrapping keys whose time is over.
  func dropExpiredWrappingKeys(now: UInt64) { heldKeyring?.dropExpired(now: now) }

  /// The keyring that may hold wrapping keys.
  var heldKeyring: TenantKeyring? {
    state.withLock { state -> TenantKeyring? in
      switch state.phase {
      case .open(let keyring): keyring
      case .opening(_, let readers): readers
      case .recovering(let recovery): recovery.keyring
      case .cold, .closing, .quarantined: nil
      }
    }
  }

  // MARK: Closing

  /// Closes the keyring: what was accepted becomes durable, then the wrapping keys are wiped. The next call opens it again.
  func close() async { await whileClosed {} }

  /// Closes the keyring, runs `body`, and only then lets the next call open it.
  func whileClosed(_ body: @escaping @Sendable () async -> Void) async {
    while true {
      let (phase, isMine) = state.withLock { state -> (Phase, Bool) in
        switch state.phase {
        case .opening, .closing: return (state.phase, false)
        case .open, .recovering, .cold, .quarantined:
          let before = state.phase
          state.phase = .closing(Task { await self.end(before, body) })
          return (state.phase, true)
        }
      }
      switch phase {
      case .opening(let task, _): _ = await task.value
      case .closing(let task): await task.value
      case .open, .recovering, .cold, .quarantined: preconditionFailure("an open tenant was told to close")
      }
      if isMine { return }
    }
  }

  func end(_ before: Phase, _ body: @Sendable () async -> Void) async {
    switch before {
    case .open(let keyring): await keyring.close()
    case .recovering(let recovery): recovery.keyring?.wipe()
    case .cold, .opening, .closing, .quarantined: break
    }
    await body()
    state.withLock { if case .closing = $0.phase { $0.phase = .cold } }
  }
}

extension ServiceError {
  /// True where trying again costs the disk a whole reading or writing of the file.
  fileprivate var isOfStorage: Bool {
    switch self {
    case .storageUnavailable, .outcomeUnknown, .storageChanged: true
    default: false  // of the KMS, of settings: asking again is cheap
    }
  }
}
