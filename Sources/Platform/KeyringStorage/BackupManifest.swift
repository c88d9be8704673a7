internal import CMessages
internal import CProtobufC
public import KeyringCore
internal import MessageEncoding

/// Why a backup cannot be made, read or used.
public enum BackupError: Error, Sendable, Equatable, CustomStringConvertible {
  /// It is not a backup, or damaged, or contradicts itself; the text says where.
  case invalid(String)
  /// It could not be read or written now.
  case unavailable(String)

  /// For a client and the log; no secret.
  public var description: String {
    switch self {
    case .invalid(let what), .unavailable(let what): what
    }
  }
}

/// What a backup says of itself. docs/FILE_FORMAT.md, "Backup files".
public struct BackupManifest: Sendable, Equatable {
  /// A CMK that is needed to open the keyring, or that new keys are to be written under.
  public struct CMK: Sendable, Equatable {
    /// Who holds it.
    public let provider: ProviderKind
    /// Names it.
    public let id: CMKID
    /// Its newest version when the backup was taken; 0 where the provider does not tell.
    public let version: UInt32
    /// Wrapping keys that it wraps.
    public let wrappingKeys: UInt32

    /// Puts the parts together.
    public init(provider: ProviderKind, id: CMKID, version: UInt32, wrappingKeys: UInt32) {
      self.provider = provider
      self.id = id
      self.version = version
      self.wrappingKeys = wrappingKeys
    }
  }

  /// A file in the backup.
  public struct Part: Sendable, Equatable {
    /// `keyring`, `tenant.yaml`, `persisted.json` or `cmks/<id>`.
    public let name: String
    /// Bytes.
    public let length: UInt64
    /// Of its bytes.
    public let digest: Digest
  }

  /// How the root key of the parts `cmks/<id>` is made of the backup passphrase: scrypt, r 8, p 1.
  public struct Stretching: Sendable, Equatable {
    /// 16 random bytes.
    public let salt: [UInt8]
    /// N.
    public let cost: UInt64

    /// Puts both together.
    public init(salt: [UInt8], cost: UInt64) {
      self.salt = salt
      self.cost = cost
    }
  }

  /// Whose.
  public let tenant: TenantName
  /// Which keyring.
  public let keyring: KeyringID
  /// Where the storage file in it stands.
  public let position: StorePosition
  /// When it was taken, Unix milliseconds.
  public let timeMilliseconds: UInt64
  /// Who asked for it.
  public let caller: String
  /// Keys, the server's own left out.
  public let keys: UInt64
  /// Versions of keys, and the server's own.
  public let records: UInt64
  /// By provider and id, ascending.
  public let cmks: [CMK]
  /// In the order in which they follow.
  public internal(set) var parts: [Part]
  /// Nil where no CMK is in it.
  public let stretching: Stretching?
  /// Wrapping keys that could not be had, ascending: what lies under them is not proved to open.
  public let unproved: [WrappingKeyID]

  /// Describes a storage file that was read; the parts come with `BackupWriter`.
  ///
  /// - Parameters:
  ///   - cmks: of `content`, and the configured one; in any order.
  ///   - unproved: in any order.
  public init(
    _ content: StorageFileContent,
    timeMilliseconds: UInt64,
    caller: String,
    cmks: [CMK],
    stretching: Stretching?,
    unproved: [WrappingKeyID]
  ) {
    tenant = content.state.tenant
    keyring = content.state.id
    position = content.position
    self.timeMilliseconds = timeMilliseconds
    self.caller = caller
    keys = UInt64(content.state.keyCount)
    records = UInt64(content.state.recordCount)
    self.cmks = cmks.sorted { Self.precedes($0, $1) }
    parts = []
    self.stretching = stretching
    self.unproved = unproved.sorted { $0.value < $1.value }
  }

  private static func precedes(_ left: CMK, _ right: CMK) -> Bool {
    (left.provider.rawValue, left.id.text) < (right.provider.rawValue, right.id.text)
  }

  // MARK: Encoding

  /// The message, in canonical form.
  public var encoded: [UInt8] {
    var message = MessageWriter(capacity: 512)
    message.bytes(1, tenant.text.utf8)
    message.bytes(2, keyring.bytes)
    message.number(3, position.sequence)
    message.bytes(4, position.digest.bytes)
    message.number(5, timeMilliseconds)
    message.bytes(6, caller.utf8)
    message.number(7, keys)
    message.number(8, records)
    for cmk in cmks {
      message.message(9) { inner in
        inner.bytes(1, cmk.provider.rawValue.utf8)
        inner.bytes(2, cmk.id.text.utf8)
        inner.number(3, UInt64(cmk.version))
        inner.number(4, UInt64(cmk.wrappingKeys))
      }
    }
    for part in parts {
      message.message(10) { inner in
        inner.bytes(1, part.name.utf8)
        inner.number(2, part.length)
        inner.bytes(3, part.digest.bytes)
      }
    }
    message.bytes(11, stretching?.salt ?? [])
    message.number(12, stretching?.cost ?? 0)
    for id in unproved { message.element(13, id.bytes) }
    return message.bytes
  }

  // MARK: Decoding

  /// Reads a manifest, and checks that it is in canonical form and that its parts are those that there can be.
  init(_ bytes: [UInt8]) throws(BackupError) {
    let arena: MessageArena
    do {
      arena = try MessageArena(
        firstBlockBytes: bytes.count * 4 + 4096,
        budgetBytes: bytes.count * 16 + 65_536
      )
    } catch {
      throw .unavailable("not enough memory for its manifest of \(bytes.count) bytes")
    }
    // SAFETY: the message lives in the arena, which lives to the end of this function; what leaves is copied.
    guard
      let message = unsafe keyring__storage__v1__backup_manifest__unpack(arena.allocator, bytes.count, bytes)
    else {
      throw arena.isStarved
        ? .unavailable("not enough memory for its manifest of \(bytes.count) bytes")
        : .invalid("its manifest is no protobuf message")
    }
    do {
      try unsafe self.init(message.pointee)
    } catch let error as BackupError {
      throw error
    } catch {
      throw .invalid("its manifest is wrong: \(error)")
    }
    guard encoded == bytes else { throw .invalid("its manifest is not in canonical form") }
    try checkOrder()
  }

  private init(_ message: Keyring__Storage__V1__BackupManifest) throws {
    guard let keyring = unsafe KeyringID(bytes: array(message.keyring_id)),
      let digest = unsafe Digest(bytes: array(message.digest))
    else { throw BackupError.invalid("its manifest has no keyring id or digest") }
    tenant = try unsafe TenantName(text(message.tenant))
    self.keyring = keyring
    position = unsafe StorePosition(sequence: message.sequence, digest: digest)
    timeMilliseconds = unsafe message.time_ms
    caller = unsafe text(message.caller)
    keys = unsafe message.keys
    records = unsafe message.records
    cmks = try unsafe (0..<message.n_cmks).map { try unsafe Self.cmk(message.cmks[$0]) }
    parts = try unsafe (0..<message.n_parts).map { try unsafe Self.part(message.parts[$0]) }
    let salt = unsafe array(message.passphrase_salt)
    stretching = salt.isEmpty ? nil : Stretching(salt: salt, cost: unsafe message.passphrase_cost)
    unproved = try unsafe (0..<message.n_unproved).map { index in
      guard let id = unsafe WrappingKeyID(bytes: array(message.unproved[index])) else {
        throw BackupError.invalid("its manifest names a wrapping key by a wrong length")
      }
      return id
    }
  }

  private static func cmk(_ pointer: UnsafeMutablePointer<Keyring__Storage__V1__BackupCMK>?) throws -> CMK {
    guard let message = unsafe pointer?.pointee,
      let provider = ProviderKind(rawValue: unsafe text(message.provider))
    else { throw BackupError.invalid("its manifest has a CMK of an unknown provider") }
    return try unsafe CMK(
      provider: provider,
      id: CMKID(text(message.cmk_id)),
      version: message.version,
      wrappingKeys: message.wrapping_keys
    )
  }

  private static func part(_ pointer: UnsafeMutablePointer<Keyring__Storage__V1__BackupPart>?) throws -> Part
  {
    guard let message = unsafe pointer?.pointee, let digest = unsafe Digest(bytes: array(message.sha256))
    else {
      throw BackupError.invalid("its manifest has a part without a digest")
    }
    return unsafe Part(name: text(message.name), length: message.length, digest: digest)
  }

  private func checkOrder() throws(BackupError) {
    let names = parts.map(\.name)
    let fixed = BackupPartName.fixed.filter { $0 != BackupPartName.persisted || names.contains($0) }
    let exported = names.dropFirst(fixed.count)
    let known = Set(cmks.filter { $0.provider == .local }.map { BackupPartName.cmk($0.id) })
    guard names.starts(with: fixed), exported.allSatisfy(known.contains),
      zip(exported, exported.dropFirst()).allSatisfy({ $0 < $1 })
    else { throw .invalid("its parts are not those of a backup, in their order") }
    guard exported.isEmpty == (stretching == nil), stretching?.salt.count ?? 16 == 16 else {
      throw .invalid("its manifest has CMKs without a salt, or a salt without CMKs")
    }
    guard zip(cmks, cmks.dropFirst()).allSatisfy({ Self.precedes($0, $1) }),
      zip(unproved, unproved.dropFirst()).allSatisfy({ $0.value < $1.value })
    else { throw .invalid("its manifest lists CMKs or wrapping keys out of order") }
    for part in parts where part.length > BackupPartName.bytesMax(part.name) {
      throw .invalid("its part \(printable(part.name)) is larger than such a part can be")
    }
  }
}

/// The names of a backup's parts.
public enum BackupPartName {
  /// The storage file, up to the manifest's position.
  public static let keyring = "keyring"
  /// The tenant's configuration.
  public static let configuration = "tenant.yaml"
  /// What was persisted at run time; not there where nothing was.
  public static let persisted = "persisted.json"
  static let fixed = [keyring, configuration, persisted]
  private static let cmkPrefix = "cmks/"

  /// A CMK of the local provider.
  public static func cmk(_ id: CMKID) -> String { cmkPrefix + id.text }

  /// The CMK that a part is; nil for the other parts.
  public static func cmkID(_ name: String) -> CMKID? {
    guard name.hasPrefix(cmkPrefix) else { return nil }
    do {
      return try CMKID(String(name.dropFirst(cmkPrefix.count)))
    } catch {
      return nil
    }
  }

  static func bytesMax(_ name: String) -> UInt64 {
    switch name {
    case keyring: UInt64(StorageFormat.fileBytesMax)
    case configuration, persisted: 65_536
    default: 16 << 20
    }
  }
}

private func text(_ string: UnsafeMutablePointer<CChar>?) -> String {
  // SAFETY: protobuf-c's strings end in NUL and live as long as the arena.
  guard let string = unsafe string else { return "" }
  return unsafe String(cString: string)
}

private func array(_ data: ProtobufCBinaryData) -> [UInt8] {
  // SAFETY: `data` has `len` bytes and lives as long as the arena.
  unsafe Array(UnsafeBufferPointer(start: data.data, count: data.len))
}
