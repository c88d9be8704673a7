internal import HashTreeCollections
internal import CMKProviders
internal import Dispatch
internal import Cryptography
internal import KeyringCore
internal import SecureMemory
import Synchronization

/// One tenant's open keyring: reads from a snapshot, changes through the pipeline, wrapping keys from the provider.
///
/// It lives from opening to closing or failing; a failed one is never used again, the tenant opens another.
final class TenantKeyring: Sendable {
  /// What a keyring needs from around it.
  struct Environment: Sendable {
    let tenant: TenantName
    let store: any KeyringStore
    /// `anchor: strict`.
    let isAnchorStrict: Bool
    /// st_dev of the storage file's file system.
    let device: UInt64
    let flushPools: FlushPools
    let queue: DispatchQueue
    let settings: @Sendable () -> KeyringSettings
    var provider: @Sendable (ProviderKind) throws(CMKError) -> any CMKProvider
    /// Another number once other providers or credentials are in force.
    let providerGeneration: @Sendable () -> UInt64
    /// Told once, when the keyring can no longer be trusted.
    let failed: @Sendable (TenantKeyring, StoreError) -> Void
    let log: @Sendable (String) -> Void
    /// Told which limit a change was over.
    let overLimit: @Sendable (KeyringLimits.Excess) -> Void
    /// Throws where a call of AWS KMS at this moment (monotonic nanoseconds) would be over the tenant's limit.
    let awaitKMSCall: @Sendable (UInt64) throws(ServiceError) -> Void
  }

  let environment: Environment
  let id: KeyringID
  let context: EncryptionContext
  let view: Mutex<ReadView>
  let standings: Mutex<WrappingKeyStandings>
  let rotationProgress = Mutex<(done: UInt64, total: UInt64)>((0, 0))
  /// Single flight: by the CMK that is to wrap it.
  let makingWriteKey = Mutex<[CMKID: Task<Result<HeldWrappingKey, ServiceError>, Never>]>([:])
  let rotationTurns = Turns()
  let newRequestHashKeyTurns = Turns()
  /// Set when the wrapping keys are wiped for good: no answer of the provider brings one back.
  let isEnded = Atomic<Bool>(false)
  static let ended = ServiceError.throttled("the tenant was closed meanwhile", retryAfterMilliseconds: 10)
  let isCompacting = Atomic<Bool>(false)
  /// Monotonic nanoseconds before which compaction is not tried again, after it failed.
  let compactionNotBefore = Atomic<UInt64>(0)
  private let pipelineBox = Mutex<CommitPipeline?>(nil)

  private init(_ environment: Environment, _ loaded: LoadedKeyring, held: [HeldWrappingKey]) {
    self.environment = environment
    id = loaded.state.id
    context = EncryptionContext(tenant: environment.tenant, keyring: loaded.state.id)
    var standings = WrappingKeyStandings()
    for key in loaded.state.wrappingKeys.keys { standings.entries[key] = .init() }
    for pending in loaded.pendingAuthentications {
      standings.entries[pending.wrappingKeyID, default: .init()].unverified.append(pending)
    }
    let now = monotonicNanoseconds()
    for key in held {
      standings.entries[key.wrappingKeyID] = .init(standing: .held, confirmedAt: now, askedAt: now)
    }
    view = Mutex(
      ReadView(
        state: loaded.state,
        position: loaded.position,
        held: Dictionary(held.map { ($0.wrappingKeyID, $0) }) { first, _ in first },
        isUnverified: standings.unverifiedCount > 0
      )
    )
    self.standings = Mutex(standings)
    let pipeline = CommitPipeline(
      queue: environment.queue,
      store: environment.store,
      loaded: loaded,
      observer: self,
      limits: { environment.settings().limits },
      overLimit: environment.overLimit,
      runOnDisk: { environment.flushPools.run(device: environment.device, $0, $1) }
    )
    pipelineBox.withLock { $0 = pipeline }
  }

  var pipeline: CommitPipeline {
    guard let pipeline = pipelineBox.withLock({ $0 }) else { preconditionFailure("set in init") }
    return pipeline
  }

  // MARK: Opening

  /// Opens the stored keyring and asks for its wrapping keys, or creates the keyring where there is none.
  ///
  /// A wrapping key that cannot be had does not hinder opening: its keys answer why, the others are served.
  ///
  /// - Parameter former: the keyring whose storage failed; what it holds is held by the new one, so that a KMS that is not there at this moment
  ///   ends nobody's reading.
  static func open(_ environment: Environment, after former: TenantKeyring? = nil) async throws(ServiceError)
    -> TenantKeyring
  {
    let store = environment.store
    let loaded = await environment.flushPools.value(device: environment.device) {
      Result { () throws(StoreError) in try store.load() }
    }
    switch loaded {
    case .failure(let error): throw openingFailure(error)
    case .success(.some(let loaded)):
      loaded.notices.forEach(environment.log)
      let keyring = TenantKeyring(environment, loaded, held: [])
      if let former { try keyring.adopt(from: former) }
      try await keyring.askForWrappingKeys()
      try await keyring.bringAnchorUp()
      return keyring
    case .success(.none):
      return try await create(environment)
    }
  }

  /// Storage that is not the expected one is for an operator to decide about, whatever the call was.
  private static func openingFailure(_ error: StoreError) -> ServiceError {
    switch error {
    case .changed(let what), .damaged(let what): .tenantQuarantined(what)
    case .busy, .unavailable, .outcomeUnknown, .authenticatorUnavailable: .storageUnavailable("\(error)")
    }
  }

  private func askForWrappingKeys() async throws(ServiceError) {
    for key in view.withLock({ $0.state.wrappingKeys.keys }) {
      do {
        _ = try await usableWrappingKey(key)
      } catch .tenantQuarantined(let why) {
        throw .tenantQuarantined(why)
      } catch {
        environment.log("wrapping key \(key) cannot be had: \(error)")
      }
    }
  }

  /// After a crash the anchor may be behind the file: an older file put back then would not be noticed. Where each anchor is to be durable before
  /// its reply, nothing is answered from a file that is ahead of it.
  private func bringAnchorUp() async throws(ServiceError) {
    guard let newest = newestWrappingKey(under: environment.settings()),
      let held = view.withLock({ $0.held[newest.id] })
    else { return }
    let store = environment.store
    let result = await environment.flushPools.value(device: environment.device) {
      Result { () throws(StoreError) in try store.anchor(authenticator: held) }
    }
    guard case .failure(let error) = result else { return }
    if environment.isAnchorStrict { throw ServiceError(error) }
    environment.log("the anchor was not brought up: \(error)")
  }

  private static func create(_ environment: Environment) async throws(ServiceError) -> TenantKeyring {
    let settings = environment.settings()
    do {
      let id = KeyringID(value: try SystemRandom.uint128())
      let made = try await Self.makeWrappingKey(environment, settings, keyring: id)
      return try await store(environment, id, try made.firstCommit(), made.held)
    } catch let error as ServiceError {
      throw error
    } catch {
      throw .defect("a keyring cannot be created: \(error)")
    }
  }

  private static func store(
    _ environment: Environment,
    _ id: KeyringID,
    _ commit: Commit,
    _ held: HeldWrappingKey
  ) async throws(ServiceError) -> TenantKeyring {
    let store = environment.store
    let created = await environment.flushPools.value(device: environment.device) {
      Result { () throws(StoreError) in
        try store.create(tenant: environment.tenant, id: id, commits: [commit], authenticator: held)
      }
    }
    do {
      let position = try created.get()
      var state = KeyringState(tenant: environment.tenant, id: id)
      try state.apply(commit)
      let loaded = LoadedKeyring(
        state: state,
        idempotency: IdempotencyWindow(),
        position: position,
        pendingAuthentications: [],
        storageBytes: store.storageBytes,
        notices: []
      )
      environment.log("created keyring \(id)")
      return TenantKeyring(environment, loaded, held: [held])
    } catch let error as StoreError {
      throw openingFailure(error)
    } catch {
      throw .defect("\(error)")
    }
  }

  // MARK: Reading

  /// Looks a key up in the present snapshot; never blocks, never awaits.
  ///
  /// - Parameter granted: a wrapping key that the provider granted for this very read, where wrapping_key_ttl is 0.
  func read(
    _ identity: KeyIdentity,
    version: UInt32,
    now: UInt64,
    granted: HeldWrappingKey? = nil
  ) -> (answer: ReadAnswer, sequence: UInt64) {
    let view = self.view.withLock { $0 }
    return (answer(view, identity, version, now, granted), view.state.sequence)
  }

  private func answer(
    _ view: ReadView,
    _ identity: KeyIdentity,
    _ version: UInt32,
    _ now: UInt64,
    _ granted: HeldWrappingKey?
  ) -> ReadAnswer {
    guard let key = view.state.keys[identity], let record = key.record(version: version) else {
      guard view.isUnverified, let unverified = unverifiedWrappingKey() else { return .absent }
      return .needsWrappingKey(unverified)
    }
    if let granted, granted.wrappingKeyID == record.wrappingKeyID {
      return .present(identity, key, record, granted)
    }
    guard let held = view.held[record.wrappingKeyID],
      held.servableUntil.load(ordering: .relaxed) > now
    else { return .needsWrappingKey(record.wrappingKeyID) }
    if held.refreshAfter.load(ordering: .relaxed) < now { refresh(held) }
    return .present(identity, key, record, held)
  }

  /// A wrapping key for which batches wait to be checked; nil where all are.
  func unverifiedWrappingKey() -> WrappingKeyID? {
    standings.withLock { $0.entries.first { !$0.value.unverified.isEmpty }?.key }
  }

  // MARK: Ending

  /// Wipes every wrapping key; whoever still reads gets an error.
  func wipe() {
    isEnded.store(true, ordering: .releasing)
    let held = view.withLock { view in
      defer { view = view.with(held: [:], isUnverified: view.isUnverified) }
      return view.held
    }
    for key in held.values { key.wipe() }
  }

  /// Lets what was accepted become durable, then refuses everything, wipes and closes the store.
  func close() async {
    let pipeline = self.pipeline
    pipeline.stop(.unavailable("the tenant is closing"))
    await withCheckedContinuation { continuation in pipeline.drain { continuation.resume() } }
    let store = environment.store
    let closed = await environment.flushPools.value(device: environment.device) {
      Result { () throws(StoreError) in try store.close() }
    }
    wipe()
    if case .failure(let error) = closed { environment.log("closing the storage failed: \(error)") }
  }
}

extension TenantKeyring: CommitPipeline.Observer {
  func pipeline(published state: KeyringState, position: StorePosition) {
    view.withLock { $0 = $0.with(state: state, position: position) }
    compactIfWorthwhile(state, pipeline.window)
  }

  func pipeline(failed error: StoreError) {
    environment.failed(self, error)
  }
}
