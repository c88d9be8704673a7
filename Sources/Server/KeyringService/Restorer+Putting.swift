internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

extension Restorer {
  // MARK: Into a tenant that is there

  /// Closes the tenant, puts all in its place and opens it once, before the next call can.
  func put(_ proved: Proved, into tenant: Tenant, _ report: inout RestoreReport) async throws(ServiceError) {
    let before = report
    report = try await tenant.settingsTurns.run { () async throws(ServiceError) in
      let result = Mutex<Result<RestoreReport, ServiceError>>(.success(before))
      await tenant.whileClosed {
        let put = await self.putWhileClosed(proved, tenant, before)
        result.withLock { $0 = put }
      }
      return try result.withLock { $0 }.get()
    }
  }

  private func putWhileClosed(
    _ proved: Proved,
    _ tenant: Tenant,
    _ before: RestoreReport
  ) async -> Result<RestoreReport, ServiceError> {
    var report = before
    let outcome: Result<Void, ServiceError>
    do throws(ServiceError) {
      try await put(proved, Place(tenant), &report)
      if !call.isDryRun {
        tenant.take(proved.configuration.settings, restored(proved, tenant.isDisabled))
        try await openOnce(tenant, proved)
      }
      outcome = .success(())
    } catch {
      outcome = .failure(error)
    }
    await letGo(tenant.store, tenant.device)
    return outcome.map { report }
  }

  private func restored(_ proved: Proved, _ isDisabled: Bool) -> PersistedState {
    var persisted = proved.configuration.persisted
    persisted.isDisabled = persisted.isDisabled || isDisabled
    return persisted
  }

  // MARK: Where there is none

  /// Makes the directory, puts all in it; with `tenant.yaml` it becomes a tenant, which is opened once.
  func putAnew(_ proved: Proved, _ report: inout RestoreReport) async throws(ServiceError) {
    let (resources, name) = (self.resources, self.name)
    guard !call.isDryRun else { return try await checkAnew(proved, &report) }
    let made = await onDisk { () throws(FileError) in
      let files = try resources.tenants.make(name)
      return (files, try files.directory.status().device)
    }
    guard case .success(let (files, device)) = made else {
      throw .storageUnavailable("the tenant's directory cannot be made")
    }
    let store = store(in: files.directory, proved)
    do throws(ServiceError) {
      try await put(proved, Place(files: files, store: store, device: device, isDisabled: false), &report)
    } catch {
      await letGo(store, device)
      throw error
    }
    await letGo(store, device)
    guard let tenant = try await tenants.find(name) else { throw .defect("a restored tenant is not there") }
    let result = Mutex<Result<Void, ServiceError>>(.success(()))
    await tenant.whileClosed {
      let opened = await self.opened(tenant, proved)
      await self.letGo(tenant.store, tenant.device)
      result.withLock { $0 = opened }
    }
    try result.withLock { $0 }.get()
  }

  /// What `putAnew` would find.
  private func checkAnew(_ proved: Proved, _ report: inout RestoreReport) async throws(ServiceError) {
    let (tenants, name) = (resources.tenants, self.name)
    let opened = await onDisk { () throws(ConfigurationError) in try tenants.open(name) }
    switch opened {
    case .failure(let error): throw .configuration("\(error)")
    case .success(nil):
      let anchors = resources.anchors
      let standing = await onDisk { () throws(StoreError) in
        try StandingKeyring.anchor(of: name, in: anchors)
      }
      try check(try storeResult(standing), proved.backup, &report)
    case .success(.some(let files)):
      let store = store(in: files.directory, proved)
      let standing = await onDisk { () throws(StoreError) in try store.standing() }
      await letGo(store, resources.transferDevice)
      try check(try storeResult(standing), proved.backup, &report)
    }
  }

  private func store(in directory: DirectoryDescriptor, _ proved: Proved) -> FileKeyringStore {
    FileKeyringStore(
      directory: directory,
      name: proved.configuration.settings.file.storageFile,
      tenant: name,
      anchors: resources.anchors,
      policy: proved.configuration.settings.file.anchor,
      anchorWriter: resources.anchorWriter,
      notice: { _ in }
    )
  }

  private func storeResult<Value>(_ result: Result<Value, StoreError>) throws(ServiceError) -> Value {
    switch result {
    case .success(let value): return value
    case .failure(let error): throw ServiceError(error)
    }
  }

  // MARK: Both

  /// Where a backup is put.
  private struct Place: Sendable {
    let files: TenantFiles
    let store: FileKeyringStore
    let device: UInt64
    let isDisabled: Bool

    init(files: TenantFiles, store: FileKeyringStore, device: UInt64, isDisabled: Bool) {
      self.files = files
      self.store = store
      self.device = device
      self.isDisabled = isDisabled
    }

    init(_ tenant: Tenant) {
      self.init(
        files: tenant.files,
        store: tenant.store,
        device: tenant.device,
        isDisabled: tenant.isDisabled
      )
    }
  }

  /// CMKs, storage file, anchor, configuration: each durable before the next.
  private func put(_ proved: Proved, _ place: Place, _ report: inout RestoreReport) async throws(ServiceError)
  {
    let (store, files) = (place.store, place.files)
    let standing = await resources.flushPools.value(device: place.device) {
      Result { () throws(StoreError) in try store.standing() }
    }
    try check(try storeResult(standing), proved.backup, &report)
    guard !call.isDryRun else { return }
    if let cmks = proved.cmks {
      do throws(CMKError) {
        _ = try await proved.provider?.adopt(cmks)
      } catch {
        throw ServiceError(error)
      }
    }
    let backup = proved.backup
    let authenticator = proved.unwrapped.newest(of: backup.content.state)
    let stored = await resources.flushPools.value(device: place.device) {
      Result { () throws(StoreError) in
        try store.restore(
          backup.part(BackupPartName.keyring) ?? [],
          keyring: backup.manifest.keyring,
          position: backup.manifest.position,
          authenticator: authenticator
        )
      }
    }
    try storeResult(stored)
    let configured = await resources.flushPools.value(device: place.device) {
      Result { () throws(FileError) in
        try files.restore(proved.configuration, isDisabled: place.isDisabled)
      }
    }
    if case .failure(let error) = configured {
      throw .outcomeUnknown(
        "the keys are restored, and the configuration is not: run the same again: \(error)"
      )
    }
  }

  /// Lets go of the writer's lock.
  private func letGo(_ store: FileKeyringStore, _ device: UInt64) async {
    _ = await resources.flushPools.value(device: device) {
      Result { () throws(StoreError) in try store.close() }
    }
  }

  private func opened(_ tenant: Tenant, _ proved: Proved) async -> Result<Void, ServiceError> {
    do throws(ServiceError) {
      try await openOnce(tenant, proved)
      return .success(())
    } catch {
      return .failure(error)
    }
  }

  /// Opens the keyring as the next call would, and closes it again.
  private func openOnce(_ tenant: Tenant, _ proved: Proved) async throws(ServiceError) {
    let keyring = try await TenantKeyring.open(tenant.environment)
    let position = keyring.view.withLock { $0.position }
    let isHeld = keyring.view.withLock { view in
      proved.unwrapped.keys.keys.allSatisfy { view.held[$0] != nil }
    }
    await keyring.close()
    guard position == proved.backup.manifest.position else {
      throw .outcomeUnknown("the restored keyring opens at \(position), not where the backup stands")
    }
    guard isHeld || call.acceptUnproved else {
      throw .outcomeUnknown("the keyring is restored, and a wrapping key that was proved cannot be had now")
    }
  }
}
