internal import ConfigurationFiles
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import TenantRegistry
internal import WireProtocol

extension Service {
  // MARK: Backup

  /// Executes a call about a backup of a tenant. What leaves the server is encrypted keys, and CMKs under the service's passphrase.
  func backup(_ call: BackupCall, _ tenant: Tenant, _ caller: Caller) async throws(ServiceError)
    -> BackupResult
  {
    switch call {
    case .begin(let allowUnproved):
      let id = try transfers.reserve(.backup, tenant.name, connection: caller.connection)
      do throws(ServiceError) {
        let made = try await makeBackup(tenant, caller, allowUnproved)
        try transfers.fill(id, made.spool)
        return .begun(
          id,
          bytes: UInt64(made.spool.size),
          digest: made.backup.digest,
          BackupSummary(made.backup)
        )
      } catch {
        transfers.drop(id)
        throw error
      }
    case .read(let id, let offset):
      let (kind, spool) = try transfers.use(id, tenant.name, connection: caller.connection)
      guard kind == .backup else { throw .transferExpired }
      return .data(try await read(spool, offset))
    case .end(let id):
      let (kind, _) = try transfers.use(id, tenant.name, connection: caller.connection)
      guard kind == .backup else { throw .transferExpired }
      transfers.drop(id)
      return .ended
    }
  }

  private func makeBackup(
    _ tenant: Tenant,
    _ caller: Caller,
    _ allowUnproved: Bool
  ) async throws(ServiceError) -> BackupMaker.Made {
    let maker = BackupMaker(
      tenant: tenant,
      resources: resources,
      caller: caller.uri,
      allowUnproved: allowUnproved
    )
    let made = try await maker.make(try await makeSpool())
    let unproved = made.backup.manifest.unproved.isEmpty ? "" : ", NOT proved to open as a whole"
    logger.notice(
      "backup at sequence \(made.backup.manifest.position.sequence) by \(caller.uri)\(unproved)",
      metadata: ["tenant": "\(tenant.name)"]
    )
    await note(made.backup, of: tenant)
    return made
  }

  /// For the receipt of a deletion. A backup that cannot be written down is one all the same: a full disk is when it is wanted.
  private func note(_ backup: Backup, of tenant: Tenant) async {
    let entry = TakenBackups.Entry(
      takenMilliseconds: backup.manifest.timeMilliseconds,
      sequence: backup.manifest.position.sequence,
      sha256: backup.digest.description,
      hasCMKs: !BackupSummary(backup).cmksIncluded.isEmpty
    )
    let files = tenant.files
    let noted = await tenant.settingsTurns.run { () async -> Result<Void, ConfigurationError> in
      await resources.flushPools.value(device: tenant.device) {
        Result { () throws(ConfigurationError) in try files.note(entry) }
      }
    }
    if case .failure(let error) = noted {
      logger.error(
        "the backup is not noted for the receipt of a deletion: \(error)",
        metadata: ["tenant": "\(tenant.name)"]
      )
    }
  }

  func makeSpool() async throws(ServiceError) -> SpoolFile {
    let directory = resources.transfers
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(FileError) in
        try SpoolFile(in: directory, name: "\(KeyringID(value: .random(in: 1...UInt128.max)))")
      }
    }
    switch result {
    case .success(let spool): return spool
    case .failure(let error): throw .storageUnavailable("\(error)")
    }
  }

  private func read(_ spool: SpoolFile, _ offset: UInt64) async throws(ServiceError) -> [UInt8] {
    guard offset < UInt64(spool.size) else { throw .malformed("the backup has \(spool.size) bytes") }
    let count = min(TransferID.chunkBytes, spool.size - Int(offset))
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(BackupError) in try spool.read(at: Int(offset), count: count) }
    }
    switch result {
    case .success(let bytes): return bytes
    case .failure(let error): throw ServiceError(error)
    }
  }

  // MARK: Restore

  /// The longest backup that is taken: a storage file, and room for the rest.
  static let restoreBytesMax = UInt64(1 << 32) + UInt64(1 << 30)

  /// Executes a call about a restore, for a service administrator.
  func restore(_ call: RestoreCall, _ name: TenantName, _ caller: Caller) async throws(ServiceError)
    -> RestoreResult
  {
    switch call {
    case .begin(let call):
      guard (1...Self.restoreBytesMax).contains(call.bytes) else {
        throw .malformed("a backup has 1 to \(Self.restoreBytesMax) bytes")
      }
      let id = try transfers.reserve(.restore(call), name, connection: caller.connection)
      do throws(ServiceError) {
        try transfers.fill(id, try await makeSpool())
        return .begun(id)
      } catch {
        transfers.drop(id)
        throw error
      }
    case .write(let id, let offset, let data):
      let (kind, spool) = try transfers.use(id, name, connection: caller.connection)
      guard case .restore(let call) = kind else { throw .transferExpired }
      guard offset <= call.bytes, UInt64(data.count) <= call.bytes - offset else {
        throw .malformed("the backup was said to have \(call.bytes) bytes")
      }
      try await write(spool, data, at: Int(offset))
      return .written
    case .end(let id):
      let (kind, spool) = try transfers.use(id, name, connection: caller.connection, isLast: true)
      do throws(ServiceError) {
        guard case .restore(let call) = kind else { throw .transferExpired }
        let report = try await restore(spool, call, name, caller)
        transfers.drop(id)
        return .ended(report)
      } catch {
        // The same call is made again by clients: what was sent is still there.
        if case .throttled = error { transfers.keep(id) } else { transfers.drop(id) }
        throw error
      }
    }
  }

  private func write(_ spool: SpoolFile, _ data: [UInt8], at offset: Int) async throws(ServiceError) {
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(BackupError) in try spool.write(data, at: offset) }
    }
    if case .failure(let error) = result { throw ServiceError(error) }
  }

  private func restore(
    _ spool: SpoolFile,
    _ call: RestoreBeginCall,
    _ name: TenantName,
    _ caller: Caller
  ) async throws(ServiceError) -> RestoreReport {
    do throws(ServiceError) {
      return try await tenants.claiming(name) { () async throws(ServiceError) in
        try checkThatNoDeletionStands(name)
        let restorer = Restorer(
          name: name,
          resources: resources,
          tenants: tenants,
          call: call,
          caller: caller.uri,
          former: try await letGoIfGone(name)
        )
        let report = try await restorer.restore(spool)
        guard !report.isDryRun else { return report }
        logger.warning("restored: \(restorer.audit(report))", metadata: ["tenant": "\(name)"])
        if let tenant = tenants.known(name) { await applyRules(tenant) }
        return report
      }
    } catch {
      logger.error("a restore by \(caller.uri) failed: \(error)", metadata: ["tenant": "\(name)"])
      throw error
    }
  }
}
