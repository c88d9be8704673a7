internal import AuditLog
internal import CMKProviders
internal import ConfigurationFiles
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

// Deleting a tenant, in this order, each durable before the next: the record, from which a process that ended goes on; the tenant disabled. Then,
// when its time has come: KMS told, where that was asked for; what there is written down for the receipt; the record says "begun", and nothing is
// undone from there on; CMKs destroyed, then the files, then the anchor; the receipt signed; the record says "done", and stays: a tenant of
// the same name that is made later takes no certificate of this one.

extension Service {
  static let deletionSecondsMax: UInt64 = 30 * 86_400

  /// Executes the three calls of a tenant's end.
  func end(_ call: AdminCall, _ name: TenantName, _ caller: Caller) async throws(ServiceError) -> ReplyResult
  {
    switch call {
    case .tenantDelete(let call): return try await delete(call, name, caller)
    case .tenantUndelete:
      try await undelete(name)
      return .tenantUndelete
    case .tenantReceipt: return try await receipt(name)
    default: throw .defect("not a call about a tenant's end")  // routed by `administrate`
    }
  }

  /// - Throws: where a deletion waits, or goes on.
  func checkThatNoDeletionStands(_ name: TenantName) throws(ServiceError) {
    guard let standing = resources.deletions.standing(name) else { return }
    let failure = resources.deletions.failure(name)
    throw .deletionRefused(
      (standing.phase == .waiting
        ? "the tenant '\(name)' is to be deleted: `keyringctl tenant undelete \(name)` first"
        : "the tenant '\(name)' is being deleted")
        + (failure.isEmpty ? "" : "; the last try failed: \(failure)")
    )
  }

  private func onDisk<Value: Sendable>(
    _ body: @escaping @Sendable (DeletionIndex) throws(FileError) -> Value
  ) async throws(ServiceError) -> Value {
    let deletions = resources.deletions
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(FileError) in try body(deletions) }
    }
    switch result {
    case .success(let value): return value
    case .failure(.unknown(let why)): throw .outcomeUnknown(why)
    case .failure(let error): throw .storageUnavailable("\(error)")
    }
  }

  // MARK: Asking for it

  private func delete(_ call: TenantDeleteCall, _ name: TenantName, _ caller: Caller)
    async throws(ServiceError) -> ReplyResult
  {
    guard call.afterSeconds <= Self.deletionSecondsMax else {
      throw .malformed("a deletion waits for 30 days at most")
    }
    guard call.cmkDays == 0 || (7...30).contains(call.cmkDays) else {
      throw .malformed("KMS deletes a CMK after 7 to 30 days")
    }
    let days = call.cmkDays == 0 ? nil : Int(call.cmkDays)
    return try await tenants.claiming(name) { () async throws(ServiceError) in
      if let standing = resources.deletions.standing(name) {
        // The same again, by whoever did not hear the answer, or does not want to wait any more.
        if standing.phase == .begun { return try await deleted(standing) }
        guard standing.cmkDays == days else {
          throw .deletionRefused("the tenant '\(name)' is to be deleted otherwise: undelete it first")
        }
        if call.afterSeconds > 0 {
          return .tenantDelete(dueMilliseconds: standing.dueMilliseconds, isDone: false)
        }
        return try await deleted(standing)
      }
      guard try await tenants.hasDirectory(name) else { throw .tenantAbsent(name) }
      if days != nil { try await checkThatCMKsAreNobodyElses(name) }
      let now = unixMilliseconds()
      var deletion = TenantDeletion(
        tenant: name,
        requestedBy: caller.uri,
        requestedMilliseconds: now,
        dueMilliseconds: now + call.afterSeconds * 1000,
        cmkDays: days
      )
      deletion.formerMilliseconds = resources.deletions.tombstone(name) * 1000
      try await begin(deletion)
      guard call.afterSeconds == 0 else {
        return .tenantDelete(dueMilliseconds: deletion.dueMilliseconds, isDone: false)
      }
      return try await deleted(deletion)
    }
  }

  private func begin(_ deletion: TenantDeletion) async throws(ServiceError) {
    try await onDisk { deletions throws(FileError) in try deletions.write(deletion) }
    guard let tenant = await loaded(deletion.tenant) else { return }
    // From here on it is disabled whatever becomes of its file: whoever finds it anew sees the record.
    tenant.state.withLock { $0.persisted.isDisabled = true }
    await shutOut(tenant)
    do throws(ServiceError) {
      try await tenant.persist { $0.isDisabled = true }
    } catch {
      logger.error(
        "its persisted.json does not say that it is disabled: \(error)",
        metadata: ["tenant": "\(tenant.name)"]
      )
    }
  }

  /// The tenant, where there is one that loads.
  private func loaded(_ name: TenantName) async -> Tenant? {
    do throws(ServiceError) {
      return try await tenants.find(name)
    } catch {
      return nil  // its files are destroyed all the same
    }
  }

  private func undelete(_ name: TenantName) async throws(ServiceError) {
    try await tenants.claiming(name) { () async throws(ServiceError) in
      guard let standing = resources.deletions.standing(name) else {
        throw .deletionRefused("no deletion of the tenant '\(name)' waits")
      }
      guard standing.phase == .waiting else {
        throw .deletionRefused("the tenant '\(name)' is being deleted")
      }
      if let tenant = await loaded(name) { try await tenant.persist { $0.isDisabled = true } }
      try await onDisk { deletions throws(FileError) in try deletions.takeBack(standing) }
    }
  }

  private func receipt(_ name: TenantName) async throws(ServiceError) -> ReplyResult {
    guard let done = resources.deletions.done(name) else {
      try checkThatNoDeletionStands(name)
      throw .deletionRefused("no tenant '\(name)' was deleted")
    }
    let (receipt, key) = try await onDisk { deletions throws(FileError) in
      let files = try deletions.files()
      return (try files.receipt(done), try files.publicKey())
    }
    guard let receipt, let key else { throw .deletionRefused("the receipt is not in its place") }
    return .tenantReceipt(
      String(decoding: receipt, as: UTF8.self),
      publicKey: String(decoding: key, as: UTF8.self)
    )
  }

  /// A CMK that another tenant is under, or was to its settings, is not deleted with this one.
  private func checkThatCMKsAreNobodyElses(_ name: TenantName) async throws(ServiceError) {
    guard let tenant = await loaded(name) else {
      throw .configuration("its settings do not load: which CMKs it has is not known")
    }
    let own = Set(cmks(of: tenant.settings, storageContent(await read(tenant))))
    for other in try await tenants.names() where other != name {
      let settings: TenantSettings?
      do throws(ServiceError) {
        if let known = tenants.known(other) {
          settings = known.settings
        } else {
          settings = try await tenants.settings(ofUnused: other)?.0
        }
      } catch {
        throw .configuration("whether the tenant '\(other)' is under the same CMK is not known: \(error)")
      }
      guard let settings else { continue }
      let shared = own.first { mine in settings.cmkID.isSameKey(as: mine) }
      if let shared { throw .deletionRefused("CMK \(shared) is that of the tenant '\(other)' too") }
    }
  }

  private func cmks(of settings: TenantSettings, _ content: StorageFileContent?) -> [CMKID] {
    var all: [CMKID] = settings.provider.kind == .aws ? [settings.cmkID] : []
    for key in (content?.state.wrappingKeys ?? [:]).values
    where key.provider == .aws && !all.contains(key.cmkID) {
      all.append(key.cmkID)
    }
    return all
  }

  // MARK: Carrying it out

  /// Carries out those whose time has come.
  func carryOutDeletions() {
    for deletion in resources.deletions.due(nowMilliseconds: unixMilliseconds(), now: monotonicNanoseconds())
    {
      // Each for itself: a KMS or a disk that does not answer holds up its own tenant only. Who claimed the tenant goes first.
      Task { await carryOutIfDue(deletion.tenant) }
    }
  }

  private func carryOutIfDue(_ name: TenantName) async {
    do throws(ServiceError) {
      try await tenants.claiming(name) { () async throws(ServiceError) in
        guard let standing = resources.deletions.standing(name),
          standing.dueMilliseconds <= unixMilliseconds()
        else { return }  // undone meanwhile
        _ = try await deleted(standing)
      }
    } catch {
      return  // said, and put off; or somebody else is at it
    }
  }

  private func deleted(_ deletion: TenantDeletion) async throws(ServiceError) -> ReplyResult {
    do throws(ServiceError) {
      let done = try await carryOut(deletion)
      logger.notice("the tenant is deleted", metadata: ["tenant": "\(deletion.tenant)"])
      auditEvent("tenant-deleted", [("tenant", .text(deletion.tenant.text))])
      await Self.pass(done.doneMilliseconds / 1000)
      return .tenantDelete(dueMilliseconds: done.dueMilliseconds, isDone: true)
    } catch {
      resources.deletions.failed(deletion.tenant, "\(error.status.message)")
      logger.error("the deletion is put off: \(error)", metadata: ["tenant": "\(deletion.tenant)"])
      throw error
    }
  }

  private func carryOut(_ asked: TenantDeletion) async throws(ServiceError) -> TenantDeletion {
    var deletion = asked
    if deletion.phase == .waiting {
      let draft = try await draft(deletion)
      deletion.phase = .begun
      let begun = deletion
      try await onDisk { deletions throws(FileError) in
        try deletions.files().write(draft: draft, begun)
        try deletions.write(begun)
      }
    }
    let name = deletion.tenant
    if let present = tenants.known(name) {
      await shutOut(present)
      let result = Mutex<Result<Void, ServiceError>>(.success(()))
      await present.whileClosed {
        let destroyed = await self.destroyed(name, present)
        result.withLock { $0 = destroyed }
      }
      try result.withLock { $0 }.get()
      tenants.forget(present)
    } else {
      try await destroyed(name, nil).get()
    }
    deletion.phase = .done
    deletion.doneMilliseconds = unixMilliseconds()
    let done = deletion
    try await onDisk { deletions throws(FileError) in try deletions.finish(done) }
    return done
  }

  private func destroyed(_ name: TenantName, _ tenant: Tenant?) async -> Result<Void, ServiceError> {
    transfers.drop(tenant: name)
    do throws(ServiceError) {
      try await destroyCMKs(name, tenant)
      let (tenants, anchors) = (resources.tenants.directory, resources.anchors)
      try await onDisk { _ throws(FileError) in
        try tenants.shredDirectory(name.text)
        for suffix in [".anchor", ".anchor.new"] { try anchors.shred(name.text + suffix) }
      }
      return .success(())
    } catch {
      return .failure(error)
    }
  }

  private func destroyCMKs(_ name: TenantName, _ tenant: Tenant?) async throws(ServiceError) {
    guard resources.cmks != nil else { return }
    do throws(CMKError) {
      // The provider in use, so that it gives nothing out any more; and whatever one of its own finds.
      if let used = try tenant?.provider(.local) as? LocalProvider { try await used.destroyAll() }
      try await resources.localProvider(name).destroyAll()
    } catch {
      throw .storageUnavailable("\(error)")
    }
  }

  // MARK: The receipt

  private func read(_ tenant: Tenant) async -> Result<StorageFileContent, StoreError> {
    let (files, file, name) = (tenant.files, tenant.settings.file.storageFile, tenant.name)
    return await resources.flushPools.value(device: tenant.device, .backup) {
      Result { () throws(StoreError) in
        let bytes: [UInt8]
        do {
          bytes = try files.directory.readFile(file, bytesMax: Int(Self.restoreBytesMax))
        } catch {
          throw .unavailable("\(error)")
        }
        return try StorageFileReader.read(bytes, tenant: name)
      }
    }
  }

  private func storageContent(_ read: Result<StorageFileContent, StoreError>) -> StorageFileContent? {
    guard case .success(let content) = read else { return nil }
    return content
  }

  /// What there is, and what KMS was told of the CMKs.
  private func draft(_ deletion: TenantDeletion) async throws(ServiceError) -> [UInt8] {
    let name = deletion.tenant
    if let draft = try await onDisk({ deletions throws(FileError) in try deletions.files().draft(deletion) })
    {
      return draft
    }
    var receipt = DeletionReceipt(deletion: deletion)
    if let tenant = await loaded(name) {
      let read = await read(tenant)
      receipt.content = storageContent(read)
      if case .failure(let error) = read { receipt.storageFailure = "\(error)" }
      receipt.cmks = try await ended(cmks(of: tenant.settings, receipt.content), tenant, deletion)
      let (files, device) = (tenant.files, tenant.device)
      let taken = await resources.flushPools.value(device: device, .backup) {
        Result { () throws(ConfigurationError) in try files.takenBackups() }
      }
      if case .success(let backups) = taken { receipt.backups = backups }
    } else {
      receipt.storageFailure = "the tenant's settings do not load"
    }
    if resources.cmks != nil {
      do {
        let ids = try await resources.localProvider(name).ids()
        receipt.cmks += ids.map { .init(id: $0.text, provider: .local, fate: "destroyed") }
      } catch {
        throw ServiceError(error)
      }
    }
    return receipt.draft
  }

  /// What becomes of CMKs of AWS: nothing, or KMS is told to delete them.
  private func ended(
    _ ids: [CMKID],
    _ tenant: Tenant,
    _ deletion: TenantDeletion
  ) async throws(ServiceError) -> [DeletionReceipt.CMK] {
    guard let days = deletion.cmkDays else {
      return ids.map { .init(id: $0.text, provider: .aws, fate: "left as it is") }
    }
    var ended: [DeletionReceipt.CMK] = []
    for id in ids {
      do throws(CMKError) {
        let arn = try await tenant.scheduleDeletion(of: id, days: days)
        ended.append(.init(id: arn, provider: .aws, fate: "KMS deletes it \(days) days after this"))
      } catch {
        throw ServiceError(error)
      }
    }
    return ended
  }
}

extension Tenant {
  /// Has KMS delete a CMK after so many days, by the first of the tenant's providers that may.
  fileprivate func scheduleDeletion(of id: CMKID, days: Int) async throws(CMKError) -> String {
    let provider = try provider(.aws)
    let all = (provider as? SuccessiveProviders)?.members.map(\.provider) ?? [provider]
    var failure = CMKError.configuration("the tenant has no provider that could delete CMK \(id)")
    for each in all.reversed() {
      guard let aws = each as? AWSProvider else { continue }
      do throws(CMKError) {
        return try await aws.scheduleDeletion(cmk: id, days: days)
      } catch {
        failure = error
      }
    }
    throw failure
  }
}

extension CMKID {
  /// True where both name one key, as far as that is seen: a key id, and an ARN that ends in it. What an alias names is not seen.
  fileprivate func isSameKey(as other: CMKID) -> Bool {
    func key(_ id: CMKID) -> Substring { id.text.split(separator: "/").last ?? Substring(id.text) }
    return self == other || key(self) == key(other)
  }
}
