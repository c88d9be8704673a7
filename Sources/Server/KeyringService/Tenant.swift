internal import AuditLog
internal import ConfigurationFiles
internal import CMKProviders
internal import Dispatch
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// One tenant: its settings, whether it may be used, and its keyring once that is open. Lives as long as the server.
final class Tenant: Sendable {
  enum Phase {
    case cold
    /// Readers of a keyring whose storage is being recovered go on with what was durable.
    case opening(Task<Result<TenantKeyring, ServiceError>, Never>, readers: TenantKeyring?)
    case open(TenantKeyring)
    case recovering(Recovery)
    /// Nobody opens it before this task is done.
    case closing(Task<Void, Never>)
    case quarantined(String)
  }

  struct State {
    var settings: TenantSettings {
      didSet {
        setRules()
        audit = settings.audit
        admission.limits = settings.limits(service)
      }
    }
    var persisted: PersistedState { didSet { setRules() } }
    /// Of the settings: each fetch asks.
    private(set) var audit: AuditMode
    /// Told of new limits whoever changes the settings, so that they count from the next request on.
    let admission: Admission
    let service: ServiceConfiguration.Limits
    /// When a tenant of this name was deleted, Unix seconds: certificates that begin no later were that one's.
    let tombstone: UInt64
    /// Who of the instances may do what, by both.
    private(set) var rules: InstanceRules
    /// An administrator locked the tenant; until the server ends.
    var isLocked = false
    /// Its directory is not in its place.
    var isDirectoryGone = false
    var phase = Phase.cold
    var connections: [InstanceName?: Int] = [:]

    init(
      settings: TenantSettings,
      persisted: PersistedState,
      admission: Admission,
      service: ServiceConfiguration.Limits,
      tombstone: UInt64
    ) {
      self.settings = settings
      self.persisted = persisted
      audit = settings.audit
      self.admission = admission
      self.service = service
      self.tombstone = tombstone
      rules = InstanceRules(file: settings.file.instances, persisted: persisted, tombstone: tombstone)
    }

    private mutating func setRules() {
      rules = InstanceRules(file: settings.file.instances, persisted: persisted, tombstone: tombstone)
    }
  }

  let name: TenantName
  let files: TenantFiles
  let resources: ServiceResources
  let store: FileKeyringStore
  let device: UInt64
  let queue: DispatchQueue
  let logger: Logger
  let state: Mutex<State>
  let settingsTurns = Turns()
  let use = TenantUse()
  let makeRoom: @Sendable () -> Void
  let providers: TenantProviders
  let watch: Mutex<TenantWatch>
  /// Another directory is in the place of its own: it is let go of.
  let isReplaced = Atomic(false)
  let admission: Admission
  let auditLog: AuditLogWriter?

  /// - Parameters:
  ///   - base: the bounded queue that all tenants' queues target.
  ///   - makeRoom: called before the keyring opens; does not block.
  init(
    _ files: TenantFiles,
    _ resources: ServiceResources,
    base: DispatchQueue,
    makeRoom: @escaping @Sendable () -> Void
  ) throws(ConfigurationError) {
    name = files.tenant
    self.makeRoom = makeRoom
    self.files = files
    self.resources = resources
    // Looked at before they are read: what changes in between is read again.
    let yaml = FileSignature(path: "\(files.directory.path)/tenant.yaml")
    var loaded = try files.load()
    let deletions = resources.deletions
    // Whatever became of `persisted.json` when the deletion was asked for.
    if deletions.standing(files.tenant) != nil { loaded.persisted.isDisabled = true }
    let credentials = loaded.settings.provider.credentialsFile
    let signatures = [yaml] + Self.signatures(files, credentials).dropFirst()
    watch = Mutex(TenantWatch(read: signatures, seen: signatures))
    let limits = resources.configuration.limits
    admission = Admission(.tenant(files.tenant), loaded.settings.limits(limits), resources.admission)
    state = Mutex(
      State(
        settings: loaded.settings,
        persisted: loaded.persisted,
        admission: admission,
        service: limits,
        tombstone: deletions.tombstone(files.tenant)
      )
    )
    providers = TenantProviders(files.tenant, files, resources, admission)
    var logger = resources.logger
    logger[metadataKey: "tenant"] = "\(files.tenant)"
    self.logger = logger
    do {
      device = try files.directory.status().device
    } catch {
      throw ConfigurationError(error)
    }
    do {
      auditLog = try resources.audit?.log(files.tenant.text)
    } catch {
      throw ConfigurationError("\(error)")
    }
    queue = DispatchQueue(label: "keyring.tenant.\(files.tenant)", target: base)
    store = FileKeyringStore(
      directory: files.directory,
      name: loaded.settings.file.storageFile,
      tenant: files.tenant,
      anchors: resources.anchors,
      policy: loaded.settings.file.anchor,
      anchorWriter: resources.anchorWriter,
      notice: { [logger] in logger.warning("\($0)") }
    )
  }

  // MARK: Settings

  var settings: TenantSettings { state.withLock { $0.settings } }
  var persisted: PersistedState { state.withLock { $0.persisted } }
  var isDisabled: Bool { state.withLock { $0.persisted.isDisabled } }

  var keyringSettings: KeyringSettings {
    KeyringSettings(settings)
  }

  /// What reaches the tenant's CMKs of a kind.
  func provider(_ kind: ProviderKind) throws(CMKError) -> any CMKProvider {
    let settings = self.settings
    return try providers.provider(kind, settings.provider, former: settings.former)
  }

  /// Changes what is persisted: the file first, then memory.
  func persist(_ change: (inout PersistedState) -> Void) async throws(ServiceError) {
    try await settingsTurns.run { () async throws(ServiceError) in
      var next = persisted
      change(&next)
      try await write(next)
    }
  }

  /// Changes the settings: `change` is given those in force at its turn; what it changes of the persisted ones is durable first.
  ///
  /// - Parameters:
  ///   - read: what else is taken over from `persisted.json`; it is not written then.
  ///   - candidate: what reaches the CMKs under the new ones, and is in force with them.
  func changeSettings(
    read: PersistedState? = nil,
    adopting candidate: TenantProviders.Candidate? = nil,
    _ change: (TenantSettings) throws(ServiceError) -> TenantSettings
  ) async throws(ServiceError) -> TenantSettings {
    try await settingsTurns.run { () async throws(ServiceError) in
      let next = try change(settings)
      if let read {
        state.withLock { $0.persisted = read }
      } else {
        var written = persisted
        written.variables = next.persisted
        written.moved = next.moved
        written.former = next.former
        if written != persisted { try await write(written) }
      }
      if let candidate { providers.adopt(candidate) }
      state.withLock { $0.settings = next }
      return next
    }
  }

  /// Takes the settings that a restore wrote; what was global is over, and what was refused meanwhile stays refused.
  /// For whoever has the turn of `settingsTurns`.
  func take(_ settings: TenantSettings, _ persisted: PersistedState) {
    state.withLock { state in
      state.settings = settings
      state.persisted = persisted.replacing(state.persisted)
    }
    providers.forget()
  }

  private func write(_ next: PersistedState) async throws(ServiceError) {
    let files = self.files
    let result = await resources.flushPools.value(device: device) {
      Result { () throws(FileError) in try files.write(next) }
    }
    switch result {
    case .success: state.withLock { $0.persisted = next }
    // The next change writes the whole file, and so settles which it is.
    case .failure(.unknown(let what)): throw .outcomeUnknown(what)
    case .failure(let error): throw .storageUnavailable("\(error)")
    }
  }

  /// Takes the storage file as it is.
  ///
  /// - Parameter caller: the URI SAN of who decided that, for the log.
  func accept(sequence: UInt64, by caller: String) async throws(ServiceError) {
    let (store, device, pools) = (self.store, self.device, resources.flushPools)
    let result = Mutex<Result<Void, StoreError>>(.success(()))
    await whileClosed {
      let accepted = await pools.value(device: device) {
        Result { () throws(StoreError) in try store.accept(sequence: sequence) }
      }
      result.withLock { $0 = accepted }
    }
    if case .failure(let error) = result.withLock({ $0 }) { throw ServiceError(error) }
    logger.warning("the storage file was accepted as it is, at sequence \(sequence), by \(caller)")
  }

  // MARK: Caps

  /// Connections of the tenant's administrators, which its instances cannot take.
  private static let administratorsMax = 16

  /// Counts a connection in; false where the tenant's instances, or its administrators, have as many as they may.
  func admitConnection(_ instance: InstanceName?) -> Bool {
    let most = instance == nil ? Self.administratorsMax : admission.limits.connections
    let isAdmitted = state.withLock { state in
      let administrators = state.connections[nil, default: 0]
      let all = state.connections.values.reduce(0, +)
      guard (instance == nil ? administrators : all - administrators) < most else { return false }
      state.connections[instance, default: 0] += 1
      return true
    }
    if !isAdmitted { admission.count(.connections) }
    return isAdmitted
  }

  func releaseConnection(_ instance: InstanceName?) {
    state.withLock { state in
      let rest = state.connections[instance, default: 1] - 1
      state.connections[instance] = rest == 0 ? nil : rest
    }
  }

  func connections(of instance: InstanceName? = nil) -> Int {
    state.withLock { state in
      instance.map { state.connections[$0] ?? 0 } ?? state.connections.values.reduce(0, +)
    }
  }

  // MARK: State

  /// The state that an operator sees, and why.
  func condition() -> (state: TenantState, reason: String) {
    let (phase, barrier) = state.withLock { state in (state.phase, Self.barrier(state)) }
    switch barrier {
    case .none: break
    case .some(.tenantLocked(let why)): return (.locked, why)
    case .some: return (.disabled, "an administrator disabled it")
    }
    switch phase {
    case .opening(_, .some): return (.degraded, "its storage is being recovered; reads go on")
    case .recovering(let recovery) where recovery.keyring == nil:
      return (.degraded, "its storage does not open: \(recovery.why)")
    case .recovering(let recovery):
      return (.degraded, "its storage must be recovered; reads go on: \(recovery.why)")
    case .cold, .opening, .closing: return (.cold, "")
    case .quarantined(let why): return (.quarantined, why)
    case .open(let keyring): return keyring.condition()
    }
  }
}

extension Duration {
  var nanoseconds: UInt64 {
    UInt64(clamping: components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000)
  }
}

extension TenantKeyring {
  /// A flush that takes longer than this, in nanoseconds, makes its tenant degraded.
  static let slowFlush: UInt64 = 5_000_000_000

  /// The worst of the wrapping keys in use, and of the disk.
  func condition() -> (state: TenantState, reason: String) {
    let used = view.withLock { $0.state.recordsByWrappingKey }
    var worst: (state: TenantState, reason: String) = (.ready, "")
    let began = pipeline.flushBegan.load(ordering: .relaxed)
    let now = monotonicNanoseconds()
    if began > 0, now > began, now - began > Self.slowFlush {
      worst = (.degraded, "a write to the disk has taken \((now - began) / 1_000_000_000) s so far")
    }
    return standings.withLock { standings in
      for (id, entry) in standings.entries where used[id, default: 0] > 0 {
        switch entry.standing {
        case .denied(let why): return (.locked, why)
        case .unreachable(let why): worst = (.degraded, why)
        case .cold, .held: break
        }
      }
      return worst
    }
  }
}
