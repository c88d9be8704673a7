internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// Restores one tenant from one backup. First everything is proved, and nothing changed; then, in this order: CMKs, storage file, anchor,
/// `persisted.json`, `tenant.yaml`. Whatever ends it in between, the same call completes it: until then the tenant is absent (no
/// `tenant.yaml`), quarantined (file and anchor differ), or as it was; never without a key that the backup has.
struct Restorer: Sendable {
  let name: TenantName
  let resources: ServiceResources
  let tenants: Tenants
  let call: RestoreBeginCall
  /// The URI SAN of who restores, for the log.
  let caller: String
  /// What was persisted of the tenant that the server had, if its directory went away meanwhile.
  let former: PersistedState?

  /// A backup that was proved, and what it is to be opened with.
  struct Proved: Sendable {
    let backup: Backup
    let configuration: RestoredConfiguration
    /// Nil where the backup has no CMKs.
    let cmks: LocalCMKSet?
    let provider: LocalProvider?
    var adoptions: [CMKID: LocalProvider.Adoption] = [:]
    let unwrapped: UnwrappedKeys
    let notices: [String]
  }

  func restore(_ spool: SpoolFile) async throws(ServiceError) -> RestoreReport {
    let (present, remains) = try await presentTenant()
    let proved = try await prove(try await read(spool), present)
    defer { proved.unwrapped.wipe() }
    var report = RestoreReport()
    report.summary = BackupSummary(proved.backup)
    report.cmksMade = proved.adoptions.filter { $0.value != .keep }.map(\.key.text).sorted()
    report.isDryRun = call.isDryRun
    report.notices = proved.notices
    if let present {
      try await put(proved, into: present, &report)
    } else {
      try await putAnew(proved, remains, &report)
    }
    return report
  }

  /// The tenant, where there is one that loads; otherwise what its directory has, where there is that.
  ///
  /// - Throws: where the disk does not tell which.
  private func presentTenant() async throws(ServiceError) -> (Tenant?, TenantRemains?) {
    let failure: ServiceError
    do throws(ServiceError) {
      return (try await tenants.find(name), nil)
    } catch {
      switch error {
      case .configuration, .settingsUnread: failure = error
      default: throw error
      }
    }
    let (tenants, name) = (resources.tenants, self.name)
    let read = await onDisk { () throws(FileError) in try tenants.remains(of: name) }
    switch read {
    case .failure: throw failure
    case .success(let remains): return (nil, remains)
    }
  }

  /// Who restores what, and what that gives up; for the log.
  func audit(_ report: RestoreReport) -> String {
    let given = report.notices.isEmpty ? "" : ": " + report.notices.joined(separator: "; ")
    return
      "to sequence \(report.summary.sequence), from \(report.replacedSequence), by \(caller)\(call.acceptRollback ? ", who accepted a rollback" : "")\(call.acceptUnproved ? ", who accepted what is not proved" : "")\(given)"
  }

  // MARK: Proving

  private func read(_ spool: SpoolFile) async throws(ServiceError) -> Backup {
    let result = await onDisk { () throws(BackupError) in try Backup(spool) }
    let backup: Backup
    switch result {
    case .success(let read): backup = read
    case .failure(let error): throw ServiceError(error)
    }
    guard backup.digest == call.digest else {
      throw .backupInvalid("what was received is not the file that was announced: send it again")
    }
    guard backup.manifest.tenant == name else {
      throw .backupInvalid(
        "the backup is of the tenant '\(backup.manifest.tenant)', and is restored as that one only: its keys and HMACs are bound to the name"
      )
    }
    return backup
  }

  private func prove(_ backup: Backup, _ present: Tenant?) async throws(ServiceError) -> Proved {
    let configuration = try checked(backup, present)
    let (cmks, provider) = try await localCMKs(backup, configuration, present)
    var adoptions: [CMKID: LocalProvider.Adoption] = [:]
    if let cmks, let provider {
      do throws(CMKError) {
        adoptions = try await provider.adoption(of: cmks)
      } catch {
        throw .restoreRefused("\(error)")
      }
    }
    let unwrapped = await UnwrappedKeys.ask(for: backup.content.state) {
      kind throws(CMKError) -> any CMKProvider in
      if kind == .local, let cmks { return cmks }
      return try self.provider(kind, configuration.settings, present)
    }
    let notices = try await notices(backup, unwrapped, provider, adoptions)
    return Proved(
      backup: backup,
      configuration: configuration,
      cmks: cmks,
      provider: provider,
      adoptions: adoptions,
      unwrapped: unwrapped,
      notices: notices
    )
  }

  private func checked(_ backup: Backup, _ present: Tenant?) throws(ServiceError) -> RestoredConfiguration {
    let configuration: RestoredConfiguration
    do {
      configuration = try resources.tenants.check(
        yaml: backup.part(BackupPartName.configuration) ?? [],
        persisted: backup.part(BackupPartName.persisted)
      )
    } catch {
      throw .configuration("\(error)")
    }
    let file = configuration.settings.file.storageFile
    if let name = present?.store.name, name != file {
      throw .restoreRefused(
        "the tenant's storage_file is '\(name)', and '\(file)' in the backup: with the server stopped, rename the file and change tenant.yaml"
      )
    }
    return configuration
  }

  private func provider(
    _ kind: ProviderKind,
    _ settings: TenantSettings,
    _ present: Tenant?
  ) throws(CMKError) -> any CMKProvider {
    let files: TenantFiles?
    do {
      files = try present?.files ?? resources.tenants.open(name)
    } catch {
      throw .configuration("\(error)")
    }
    // The way to its CMKs is the backup's own, whatever the tenant has come to since.
    let providers = kind == .local ? present?.providers : nil
    return try (providers ?? TenantProviders(name, files, resources, present?.admission))
      .provider(kind, settings.provider, former: settings.former)
  }

  private func localCMKs(
    _ backup: Backup,
    _ configuration: RestoredConfiguration,
    _ present: Tenant?
  ) async throws(ServiceError) -> (LocalCMKSet?, LocalProvider?) {
    guard let stretching = backup.manifest.stretching else { return (nil, nil) }
    do throws(CMKError) {
      let root = try await resources.backupRootKey(stretching)
      return (
        try LocalCMKSet(backup, root: root),
        try provider(.local, configuration.settings, present) as? LocalProvider
      )
    } catch {
      throw ServiceError(error)
    }
  }

  /// Opens all there is; what cannot be opened is a refusal, or, where that is accepted, a notice.
  private func notices(
    _ backup: Backup,
    _ unwrapped: UnwrappedKeys,
    _ provider: LocalProvider?,
    _ adoptions: [CMKID: LocalProvider.Adoption]
  ) async throws(ServiceError) -> [String] {
    var unproved: [String] = []
    if backup.authentication == nil {
      unproved.append("the backup has no HMAC: it was taken while no wrapping key could be had")
    }
    for (id, error) in unwrapped.refused { unproved.append("the wrapping key \(id) cannot be had: \(error)") }
    for id in adoptions.filter({ $0.value == .keep }).keys {
      if let why = await disabled(id, provider) { unproved.append(why) }
    }
    unproved.sort()
    if let first = unproved.first, !call.acceptUnproved {
      throw .restoreRefused("\(first); --accept-unproved restores it all the same")
    }
    let result = await onDisk { () throws(StoreError) in
      try KeyringProof(backup.content, also: backup.authentication.map { [$0] } ?? [], under: unwrapped)
    }
    switch result {
    case .success: return unproved
    case .failure(.damaged(let what)): throw .backupInvalid("the backup does not open: \(what)")
    case .failure(let error): throw ServiceError(error)
    }
  }

  private func disabled(_ id: CMKID, _ provider: LocalProvider?) async -> String? {
    do throws(CMKError) {
      guard let description = try await provider?.describe(cmk: id), description.state != .enabled else {
        return nil
      }
      return "CMK \(id) is \(description.state.rawValue) here"
    } catch {
      return "CMK \(id): \(error)"
    }
  }

  func onDisk<Value: Sendable, Failure: Error>(
    _ body: @escaping @Sendable () throws(Failure) -> Value
  ) async -> Result<Value, Failure> {
    await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(Failure) in try body() }
    }
  }

  // MARK: What is there

  /// Refuses to give up what is there, unless that is accepted.
  func check(_ standing: StandingKeyring, _ backup: Backup, _ report: inout RestoreReport)
    throws(ServiceError)
  {
    let given: String
    switch standing {
    case .none: return
    case .keyring(let id, let positions):
      let sequence = positions.map(\.sequence).max() ?? 0
      report.replacedSequence = sequence
      if id != backup.manifest.keyring {
        given = "another keyring (\(id), at sequence \(sequence)) is there: all its keys would be given up"
      } else if positions.allSatisfy(backup.content.came(from:)) {
        return
      } else if sequence > backup.manifest.position.sequence {
        given =
          "the keyring is at sequence \(sequence), and the backup at \(backup.manifest.position.sequence): what was changed after it would be given up"
      } else {
        given =
          "the keyring is at sequence \(sequence), of another history than the backup's, or of one that cannot be told any more: what was changed since would be given up"
      }
    case .unreadable(let what):
      given = "what is there cannot be read, and may be newer than the backup: \(what)"
    case .mixed: given = "the storage file and the anchor that are there are of two keyrings"
    }
    guard call.acceptRollback else {
      throw .restoreRefused("\(given); --accept-rollback restores it all the same")
    }
    report.notices.append("accepted: \(given)")
  }
}
