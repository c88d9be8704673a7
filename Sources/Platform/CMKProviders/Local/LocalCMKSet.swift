internal import Cryptography
public import KeyringCore
public import KeyringStorage
public import SecureMemory

/// Some CMKs of one tenant under one root key, in memory: those of a backup, or those in a directory that no server has. It decrypts, and
/// changes nothing.
public struct LocalCMKSet: CMKProvider {
  /// Always `local`.
  public let kind = ProviderKind.local
  /// Whose.
  public let tenant: TenantName
  let root: RootKey
  let cmks: [CMKID: LocalCMK]

  init(tenant: TenantName, root: RootKey, cmks: [LocalCMK]) {
    self.tenant = tenant
    self.root = root
    self.cmks = Dictionary(cmks.map { ($0.id, $0) }) { first, _ in first }
  }

  /// Reads CMK files.
  ///
  /// - Throws: `CMKError.unreachable` for one that is damaged, of another tenant, or under another root key.
  public init(tenant: TenantName, root: RootKey, files: [CMKID: [UInt8]]) throws(CMKError) {
    var cmks: [LocalCMK] = []
    for (id, bytes) in files { cmks.append(try LocalCMK.decode(bytes, tenant: tenant, id: id, root: root)) }
    self.init(tenant: tenant, root: root, cmks: cmks)
  }

  /// Reads the CMKs in a backup.
  ///
  /// - Parameter root: from the backup passphrase.
  /// - Throws: `CMKError.configuration` where the passphrase is another than the backup's.
  public init(_ backup: Backup, root: RootKey) throws(CMKError) {
    var files: [CMKID: [UInt8]] = [:]
    for part in backup.parts {
      if let id = BackupPartName.cmkID(part.name) { files[id] = part.bytes }
    }
    do throws(CMKError) {
      try self.init(tenant: backup.manifest.tenant, root: root, files: files)
    } catch {
      throw .configuration(
        "the CMKs in the backup do not open: its backup passphrase is another than this one"
      )
    }
  }

  /// Reads all CMKs of a tenant in a directory of CMKs, without its lock: for a look beside a server.
  ///
  /// - Throws: `CMKError.configuration`, `.unreachable`.
  public init(tenant: TenantName, directory: DirectoryDescriptor, root: RootKey) throws(CMKError) {
    var files: [CMKID: [UInt8]] = [:]
    do {
      let own = try directory.directory(tenant.text)
      for name in try own.names() where name.hasPrefix("local-") && !name.hasSuffix(".new") {
        files[try CMKID(name)] = try own.readFile(name, bytesMax: 16 << 20)
      }
    } catch {
      throw .configuration("the CMKs of \(tenant) cannot be read: \(error)")
    }
    try self.init(tenant: tenant, root: root, files: files)
  }

  /// Their files, by id.
  public func files() throws(CMKError) -> [CMKID: [UInt8]] {
    do {
      return try cmks.mapValues { try $0.encode(root) }
    } catch {
      throw .unreachable("a CMK cannot be encoded: \(error)")
    }
  }

  // MARK: CMKProvider

  private func known(_ id: CMKID) throws(CMKError) -> LocalCMK {
    guard let cmk = cmks[id] else { throw .denied("CMK \(id) is not there") }
    return cmk
  }

  /// Decrypts what an enabled CMK encrypted.
  public func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> Secret
  {
    let key = try known(cmk)
    try key.checkUsable()
    return try key.unwrap(wrapped, context, root)
  }

  /// What is known of a CMK.
  public func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription { try known(cmk).described }

  private static let readOnly = CMKError.refused("these CMKs are for reading only")

  /// Refused.
  public func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> GeneratedDataKey
  { throw Self.readOnly }

  /// Refused.
  public func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> [UInt8]
  { throw Self.readOnly }

  /// Refused.
  public func generateRandom(count: Int) async throws(CMKError) -> Secret { throw Self.readOnly }

  /// Refused.
  public func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription { throw Self.readOnly }
}

extension LocalCMK {
  /// True for the form that ids of local CMKs have, `local-` and 32 digits: a safe file name.
  static func isID(_ id: CMKID) -> Bool {
    id.text.hasPrefix("local-") && hexadecimalBytes(id.text.dropFirst(6))?.count == 16
  }

  /// What is known of it, for people.
  var described: CMKDescription {
    let shown: CMKDescription.State
    switch state {
    case .enabled: shown = .enabled
    case .disabled: shown = .disabled
    case .pendingDeletion, .destroyed: shown = .pendingDeletion
    }
    return CMKDescription(
      id: id,
      state: shown,
      version: UInt32(versions.count),
      createdMilliseconds: createdMilliseconds
    )
  }
}
