internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import TenantRegistry
internal import WireProtocol

/// Makes one backup of one tenant: copies, writes, reads back, proves. What blocks runs on the threads for storage.
struct BackupMaker: Sendable {
  let tenant: Tenant
  let resources: ServiceResources
  let caller: String
  let allowUnproved: Bool

  /// A backup that was proved.
  struct Made: Sendable {
    let spool: SpoolFile
    let backup: Backup
  }

  /// What goes into the backup beside the storage file.
  private struct CMKs {
    var described: [BackupManifest.CMK] = []
    var parts: [BackupPart] = []
    var stretching: BackupManifest.Stretching?
  }

  private struct Copied: Sendable {
    let bytes: [UInt8]
    let content: StorageFileContent
  }

  /// - Throws: `tenantLocked`, `kmsUnreachable` where a wrapping key cannot be had, unless that is allowed; `configuration` without a backup
  ///   passphrase; `backupInvalid` where what was written does not open.
  func make(_ spool: SpoolFile) async throws(ServiceError) -> Made {
    _ = try await tenant.keyring()
    let files = try await tenant.configurationBytes()
    let copied = try await copy()
    // A move in between: keys of the new provider under the old one's configuration.
    guard try await tenant.configurationBytes() == files else {
      throw .throttled("the tenant's settings were changed meanwhile: try again", retryAfterMilliseconds: 100)
    }
    let unwrapped = await UnwrappedKeys.ask(for: copied.content.state) { kind throws(CMKError) in
      try tenant.provider(kind)
    }
    defer { unwrapped.wipe() }
    try checkRefusals(unwrapped)
    let cmks = try await cmks(copied.content.state, files)
    let manifest = BackupManifest(
      copied.content,
      timeMilliseconds: unixMilliseconds(),
      caller: caller,
      cmks: cmks.described,
      stretching: cmks.stretching,
      unproved: Array(unwrapped.refused.keys)
    )
    var parts = [
      BackupPart(name: BackupPartName.keyring, bytes: copied.bytes),
      BackupPart(name: BackupPartName.configuration, bytes: files.yaml),
    ]
    if let persisted = files.persisted {
      parts.append(BackupPart(name: BackupPartName.persisted, bytes: persisted))
    }
    parts += cmks.parts
    let written = try await write(manifest, parts, unwrapped.newest(of: copied.content.state), to: spool)
    let backup = try await readBack(spool)
    guard backup.digest == written else { throw .backupInvalid("the backup read back is another one") }
    try await prove(backup, unwrapped)
    return Made(spool: spool, backup: backup)
  }

  // MARK: What goes into it

  private func copy() async throws(ServiceError) -> Copied {
    let (store, name) = (tenant.store, tenant.name)
    let result = await resources.flushPools.value(device: tenant.device, .backup) {
      Result { () throws(StoreError) in
        let bytes = try store.copy().bytes()
        return Copied(bytes: bytes, content: try StorageFileReader.read(bytes, tenant: name))
      }
    }
    switch result {
    case .success(let copied): return copied
    case .failure(let error): throw ServiceError(error)
    }
  }

  private func checkRefusals(_ unwrapped: UnwrappedKeys) throws(ServiceError) {
    guard !allowUnproved, let (id, error) = unwrapped.refused.first else { return }
    let why =
      "the wrapping key \(id) cannot be had, so that the backup cannot be proved to open: \(error); --unproved takes one all the same"
    switch error {
    case .unreachable, .overloaded: throw .kmsUnreachable(why)
    case .denied, .invalidCiphertext, .refused, .configuration, .outcomeUnknown: throw .tenantLocked(why)
    }
  }

  private struct CMKName: Hashable {
    let provider: ProviderKind
    let id: CMKID
  }

  /// The CMKs of the wrapping keys, and those that new ones are to be made under.
  private func cmks(
    _ state: KeyringState,
    _ files: (yaml: [UInt8], persisted: [UInt8]?)
  ) async throws(ServiceError) -> CMKs {
    var counts: [CMKName: UInt32] = [:]
    for key in state.wrappingKeys.values {
      counts[CMKName(provider: key.provider, id: key.cmkID), default: 0] += 1
    }
    let settings = tenant.settings
    do {
      let stored = try resources.tenants.check(yaml: files.yaml, persisted: files.persisted).settings
      for id in [settings.cmkID, stored.cmkID] {
        counts[CMKName(provider: settings.provider.kind, id: id), default: 0] += 0
      }
    } catch {
      throw .configuration("\(error)")
    }
    do throws(CMKError) {
      return try await described(counts)
    } catch {
      throw ServiceError(error)
    }
  }

  private func described(_ counts: [CMKName: UInt32]) async throws(CMKError) -> CMKs {
    var cmks = CMKs()
    var root: RootKey?
    if counts.keys.contains(where: { $0.provider == .local }) {
      let stretching = try BackupPassphrase.newStretching()
      root = try await resources.backupRootKey(stretching)
      cmks.stretching = stretching
    }
    for (name, count) in counts.sorted(by: { $0.key.id.text < $1.key.id.text }) {
      if name.provider == .local, let root {
        do throws(CMKError) {
          cmks.parts += try await exported(name.id, root)
        } catch {
          // One that is gone, and that nothing is under, is not needed.
          guard case .denied = error, count == 0 || allowUnproved else { throw error }
          if count == 0 { continue }
        }
      }
      let version = await version(name)
      cmks.described.append(
        .init(provider: name.provider, id: name.id, version: version, wrappingKeys: count)
      )
    }
    if cmks.parts.isEmpty { cmks.stretching = nil }
    return cmks
  }

  private func exported(_ id: CMKID, _ root: RootKey) async throws(CMKError) -> [BackupPart] {
    guard let provider = try tenant.provider(.local) as? LocalProvider else {
      throw .configuration("the provider 'local' has no files")
    }
    return try await provider.export([id], under: root).files().map { id, bytes in
      BackupPart(name: BackupPartName.cmk(id), bytes: bytes)
    }
  }

  private func version(_ name: CMKName) async -> UInt32 {
    do throws(CMKError) {
      return try await tenant.provider(name.provider).describe(cmk: name.id).version
    } catch {
      return 0  // not known; whether it can be used is asked elsewhere
    }
  }

  // MARK: Writing, proving

  private func write(
    _ manifest: BackupManifest,
    _ parts: [BackupPart],
    _ authenticator: UnwrappedKey?,
    to spool: SpoolFile
  ) async throws(ServiceError) -> Digest {
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(BackupError) in
        try BackupWriter.write(manifest, parts: parts, authenticator: authenticator) {
          bytes throws(BackupError) in try spool.append(bytes)
        }
      }
    }
    switch result {
    case .success(let digest): return digest
    case .failure(let error): throw ServiceError(error)
    }
  }

  private func readBack(_ spool: SpoolFile) async throws(ServiceError) -> Backup {
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(BackupError) in try Backup(spool) }
    }
    switch result {
    case .success(let backup): return backup
    case .failure(let error): throw ServiceError(error)
    }
  }

  /// Every record under the provider's wrapping keys; and the same wrapping keys from the CMKs in the backup alone.
  private func prove(_ backup: Backup, _ unwrapped: UnwrappedKeys) async throws(ServiceError) {
    let result = await resources.flushPools.value(device: resources.transferDevice, .backup) {
      Result { () throws(StoreError) in
        try KeyringProof(
          backup.content,
          also: backup.authentication.map { [$0] } ?? [],
          under: unwrapped
        )
      }
    }
    do throws(StoreError) {
      let proof = try result.get()
      guard allowUnproved || (proof.unopened == 0 && proof.unauthenticated == 0) else {
        throw .damaged("not every record could be opened")
      }
    } catch {
      throw .backupInvalid("the backup does not open: \(error); look at the tenant with `keyringctl verify`")
    }
    guard let stretching = backup.manifest.stretching else { return }
    do throws(CMKError) {
      let set = try LocalCMKSet(backup, root: await resources.backupRootKey(stretching))
      let again = await UnwrappedKeys.ask(for: backup.content.state) {
        kind throws(CMKError) -> any CMKProvider in
        if kind == .local { return set }
        return try tenant.provider(kind)
      }
      defer { again.wipe() }
      if let (id, error) = again.refused.first(where: { unwrapped.keys[$0.key] != nil }) {
        throw .invalidCiphertext("the wrapping key \(id) does not open under the CMKs in it: \(error)")
      }
    } catch {
      throw .backupInvalid("the backup does not open with its own CMKs: \(error)")
    }
  }
}

extension ServiceResources {
  /// The root key of the CMKs in one backup.
  ///
  /// - Throws: `CMKError.configuration` where the service has no backup passphrase.
  func backupRootKey(_ stretching: BackupManifest.Stretching) async throws(CMKError) -> RootKey {
    guard let backupPassphrase else {
      throw .configuration(
        "local CMKs lie in backups under a passphrase, and the service has none: set `backup: {passphrase_file: FILE}` in keyringd's configuration, restart it, and keep the passphrase where the server is not"
      )
    }
    // One at a time: each takes 128 MiB and a core.
    return try await stretchingTurns.run { () async throws(CMKError) in
      let result = await flushPools.value(device: transferDevice, .backup) {
        Result { () throws(CMKError) in try backupPassphrase.rootKey(stretching) }
      }
      return try result.get()
    }
  }
}

extension ServiceError {
  /// What a backup's failure means for the call that met it.
  init(_ error: BackupError) {
    switch error {
    case .invalid(let what): self = .backupInvalid("this is no backup that can be used: \(what)")
    case .unavailable(let what): self = .storageUnavailable(what)
    }
  }
}

extension BackupSummary {
  /// What a backup has in it.
  init(_ backup: Backup) {
    self.init()
    let manifest = backup.manifest
    keyringID = manifest.keyring.description
    sequence = manifest.position.sequence
    digest = manifest.position.digest.description
    keys = manifest.keys
    records = manifest.records
    let included = Set(backup.parts.compactMap { BackupPartName.cmkID($0.name) })
    for cmk in manifest.cmks {
      if cmk.provider == .local, included.contains(cmk.id) {
        cmksIncluded.append(cmk.id.text)
      } else {
        cmksNeeded.append(cmk.id.text)
      }
    }
    unprovedWrappingKeys = manifest.unproved.map(\.description)
  }
}
