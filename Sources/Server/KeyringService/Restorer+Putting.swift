internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

extension Restorer {
  // MARK: Into a tenant that is there

  /// Closes the tenant, puts all in its place and opens it once, before the next call can.
  ///
  /// A dry run or a refusal leaves an open one as it is.
  func put(_ proved: Proved, into tenant: Tenant, _ report: inout RestoreReport) async throws(ServiceError) {
    try await checkDirectory(of: tenant)
    let before = report
    let store = tenant.store
    let open = await resources.flushPools.value(device: tenant.device) { store.standingOpen() }
    if let open {
      var looked = before
      try check(open, proved.backup, &looked)
      if call.isDryRun { return report = looked }
    }
    report = try await tenant.settingsTurns.run { () async throws(ServiceError) in
      let result = Mutex<Result<RestoreReport, ServiceError>>(.success(before))
      await tenant.whileClosed {
        let put = await self.putWhileClosed(proved, tenant, before)
        result.withLock { $0 = put }
      }
      return try result.withLock { $0 }.get()
    }
  }

  /// The directory that is held open may have been moved away, and another be in its place.
  private func checkDirectory(of tenant: Tenant) async throws(ServiceError) {
    let (tenants, files, name) = (resources.tenants, tenant.files, self.name)
    let compared = await onDisk { () throws(FileError) in
      let (there, held) = (try tenants.directory.status(of: name.text), try files.directory.status())
      return there?.device == held.device && there?.inode == held.inode
    }
    switch compared {
    case .success(true): return
    case .success(false):
      throw .restoreRefused(
        "the tenant's directory went away, or is another one than the server has open: run the same again"
      )
    case .failure(let error): throw .storageUnavailable("\(error)")
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
      let place = Place(tenant)
      try await put(proved, place, &report)
      if !call.isDryRun {
        tenant.take(
          proved.configuration.settings,
          proved.configuration.persisted.replacing(place.persisted)
        )
        try await openOnce(tenant, proved)
      }
      outcome = .success(())
    } catch {
      outcome = .failure(error)
    }
    await letGo(tenant.store, tenant.device)
    return outcome.map { report }
  }

  // MARK: Where there is none

  /// Makes the directory, puts all in it; with `tenant.yaml` it becomes a tenant, which is opened once.
  func putAnew(_ proved: Proved, _ remains: TenantRemains?, _ report: inout RestoreReport)
    async throws(ServiceError)
  {
    let (resources, name) = (self.resources, self.name)
    let persisted = remains?.persisted ?? former ?? PersistedState()
    var looked = report
    try await checkAnew(proved, remains, &looked)
    guard !call.isDryRun else { return report = looked }
    let made = await onDisk { () throws(FileError) in
      let files = try resources.tenants.make(name)
      return (files, try files.directory.status().device)
    }
    let (files, device): (TenantFiles, UInt64)
    switch made {
    case .success(let place): (files, device) = place
    case .failure(let error): throw .storageUnavailable("the tenant's directory cannot be made: \(error)")
    }
    if persisted.isDisabled {
      report.notices.append("the tenant stays disabled, as its persisted.json said, or may have said")
    }
    let store = store(in: files.directory, proved)
    do throws(ServiceError) {
      try await put(
        proved,
        Place(files: files, store: store, device: device, persisted: persisted, isAnew: true),
        &report
      )
    } catch {
      await letGo(store, device)
      throw error
    }
    await letGo(store, device)
    let tenant = try await restoredTenant()
    let result = Mutex<Result<Void, ServiceError>>(.success(()))
    await tenant.whileClosed {
      let opened = await self.opened(tenant, proved)
      await self.letGo(tenant.store, tenant.device)
      result.withLock { $0 = opened }
    }
    try result.withLock { $0 }.get()
  }

  private func restoredTenant() async throws(ServiceError) -> Tenant {
    do throws(ServiceError) {
      if let tenant = try await tenants.find(name) { return tenant }
    } catch {
      throw .restoreUnfinished("all is restored, and the tenant does not load: \(error)")
    }
    throw .restoreUnfinished("all was restored, and the tenant's directory is gone: run the same again")
  }

  /// What `putAnew` will find; makes nothing.
  private func checkAnew(_ proved: Proved, _ remains: TenantRemains?, _ report: inout RestoreReport)
    async throws(ServiceError)
  {
    let file = proved.configuration.settings.file.storageFile
    if let former = remains?.storageFile, former != file {
      throw .restoreRefused(
        "the storage_file in tenant.yaml is '\(former)', and '\(file)' in the backup: rename the file and change tenant.yaml"
      )
    }
    switch remains?.files {
    case .none:
      let (anchors, name) = (resources.anchors, self.name)
      let standing = await onDisk { () throws(StoreError) in
        try StandingKeyring.anchor(of: name, in: anchors)
      }
      try check(try storeResult(standing), proved.backup, &report)
    case .some(let files):
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
    /// As it is now: what it refuses stays refused.
    let persisted: PersistedState
    /// No keyring that is open reads the CMKs: how durable those are that are there is not known.
    let isAnew: Bool

    init(files: TenantFiles, store: FileKeyringStore, device: UInt64, persisted: PersistedState, isAnew: Bool)
    {
      self.files = files
      self.store = store
      self.device = device
      self.persisted = persisted
      self.isAnew = isAnew
    }

    init(_ tenant: Tenant) {
      self.init(
        files: tenant.files,
        store: tenant.store,
        device: tenant.device,
        persisted: tenant.persisted,
        isAnew: false
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
    // Whatever becomes of it, who gave up what is in the log.
    resources.logger.warning("restoring \(audit(report))", metadata: ["tenant": "\(name)"])
    try await adopt(proved, place)
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
    switch stored {
    case .success: break
    case .failure(.outcomeUnknown(let what)):
      throw .restoreUnfinished("whether the keys are restored is not known: run the same again: \(what)")
    case .failure(let error): throw ServiceError(error)
    }
    let configured = await resources.flushPools.value(device: place.device) {
      Result { () throws(FileError) in
        try files.restore(proved.configuration, replacing: place.persisted)
      }
    }
    if case .failure(let error) = configured {
      throw .restoreUnfinished(
        "the keys are restored, and the configuration is not: run the same again: \(error)"
      )
    }
  }

  private func adopt(_ proved: Proved, _ place: Place) async throws(ServiceError) {
    guard let cmks = proved.cmks else { return }
    do throws(CMKError) {
      _ = try await proved.provider?.adopt(cmks, rewriting: place.isAnew)
    } catch .outcomeUnknown(let what) {
      throw .restoreUnfinished("nothing but CMKs was changed: run the same again: \(what)")
    } catch {
      throw ServiceError(error)
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
  ///
  /// - Throws: `restoreUnfinished`: all was put in its place.
  private func openOnce(_ tenant: Tenant, _ proved: Proved) async throws(ServiceError) {
    let keyring: TenantKeyring
    do throws(ServiceError) {
      keyring = try await TenantKeyring.open(tenant.environment)
    } catch {
      throw .restoreUnfinished("all is restored, and the keyring does not open: \(error)")
    }
    let position = keyring.view.withLock { $0.position }
    let isHeld = keyring.view.withLock { view in
      proved.unwrapped.keys.keys.allSatisfy { view.held[$0] != nil }
    }
    let isExpected = await cameOf(proved.backup, tenant, position)
    await keyring.close()
    guard isExpected else {
      throw .restoreUnfinished("the restored keyring opens at \(position), which did not come of the backup")
    }
    guard isHeld || call.acceptUnproved else {
      throw .restoreUnfinished(
        "all is restored, and a wrapping key that was proved cannot be had now: look at the tenant's status"
      )
    }
  }

  /// True where the open file is the backup's, or one that instances have written to since it was restored.
  private func cameOf(_ backup: Backup, _ tenant: Tenant, _ position: StorePosition) async -> Bool {
    guard position != backup.manifest.position else { return true }
    let (store, name) = (tenant.store, tenant.name)
    let read = await resources.flushPools.value(device: tenant.device) {
      Result { () throws(StoreError) in
        try StorageFileReader.read(try store.copy().bytes(), tenant: name)
      }
    }
    guard case .success(let content) = read, content.state.id == backup.manifest.keyring else { return false }
    return content.came(from: backup.manifest.position)
  }
}
