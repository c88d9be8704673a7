/// One version of a key, encrypted under a wrapping key: what memory and the storage file hold.
public struct Record: Sendable, Equatable {
  /// From 1, without gaps.
  public let version: UInt32
  /// Bytes of key material.
  public let length: UInt32
  /// When it was made, Unix milliseconds.
  public let createdMilliseconds: UInt64
  /// Names this encryption.
  public let id: RecordID
  /// The wrapping key that it is encrypted under.
  public let wrappingKeyID: WrappingKeyID
  /// 12 random bytes.
  public let nonce: [UInt8]
  /// AES-256-GCM output: `length` bytes, then a tag of 16.
  public let ciphertext: [UInt8]

  /// Puts the parts together.
  ///
  /// - Throws: `KeyringError.inconsistent` where a part has the wrong length.
  public init(
    version: UInt32,
    length: UInt32,
    createdMilliseconds: UInt64,
    id: RecordID,
    wrappingKeyID: WrappingKeyID,
    nonce: [UInt8],
    ciphertext: [UInt8]
  ) throws(KeyringError) {
    guard version >= 1, nonce.count == 12, ciphertext.count == Int(length) + 16, length >= 1 else {
      throw .inconsistent("a record's parts have impossible lengths")
    }
    self.version = version
    self.length = length
    self.createdMilliseconds = createdMilliseconds
    self.id = id
    self.wrappingKeyID = wrappingKeyID
    self.nonce = nonce
    self.ciphertext = ciphertext
  }

  /// What a record is bound to beyond its plaintext: the additional authenticated data of its encryption.
  ///
  /// Every part is length-prefixed (4 bytes, big-endian): format version, tenant, keyring id, identity (scope,
  /// instance, owner, key id), type, version, record id, wrapping key id.
  public static func authenticatedData(
    tenant: TenantName,
    keyring: KeyringID,
    identity: KeyIdentity,
    type: KeyType,
    version: UInt32,
    id: RecordID,
    wrappingKeyID: WrappingKeyID
  ) -> [UInt8] {
    var data: [UInt8] = []
    data.reserveCapacity(
      81 + tenant.text.utf8.count + identity.encoded.count + type.text.utf8.count
    )
    appendBigEndian(UInt32(1), to: &data)
    data.append(formatVersion)
    appendBigEndian(UInt32(tenant.text.utf8.count), to: &data)
    data += tenant.text.utf8
    appendBigEndian(UInt32(16), to: &data)
    appendBigEndian(keyring.value, to: &data)
    appendBigEndian(UInt32(identity.encoded.count), to: &data)
    data += identity.encoded
    appendBigEndian(UInt32(type.text.utf8.count), to: &data)
    data += type.text.utf8
    appendBigEndian(UInt32(4), to: &data)
    appendBigEndian(version, to: &data)
    appendBigEndian(UInt32(16), to: &data)
    appendBigEndian(id.value, to: &data)
    appendBigEndian(UInt32(16), to: &data)
    appendBigEndian(wrappingKeyID.value, to: &data)
    return data
  }

  /// The version of the record format, the first part of its authenticated data.
  public static let formatVersion: UInt8 = 1
}

/// Appends a number, most significant byte first.
@inlinable
public func appendBigEndian<Number: FixedWidthInteger>(_ number: Number, to bytes: inout [UInt8]) {
  // SAFETY: the copy's bytes are lent for the call.
  unsafe withUnsafeBytes(of: number.bigEndian) { unsafe bytes.append(contentsOf: $0) }
}

/// A key: its type and its versions, oldest first; the first is version 1.
public struct Key: Sendable, Equatable {
  /// Versions that a key may have: a commit that adds one copies the records of those before where a reader holds them, and opening a
  /// keyring reads every one of them. A key that is rotated each hour reaches it in 11 years.
  public static let versionsMax = 100_000

  /// As it was stored.
  public let type: KeyType
  /// Never empty; version `n` is at `n - 1`.
  public private(set) var records: [Record]

  /// - Parameter records: never empty; version `n` at `n - 1`.
  public init(type: KeyType, records: [Record]) {
    precondition(!records.isEmpty, "a key has at least one version")
    self.type = type
    self.records = records
  }

  /// Adds the next version, in place.
  ///
  /// - Throws: with the key unchanged, `KeyringError.versionsExhausted`, or `.inconsistent` where it is not the next version of this type.
  public mutating func append(_ record: Record, type: KeyType) throws(KeyringError) {
    try checkNext(record.version, type)
    records.append(record)
  }

  /// As `append` would throw.
  func checkNext(_ version: UInt32, _ type: KeyType) throws(KeyringError) {
    guard self.type == type, latest.version + 1 == version else {
      throw .inconsistent("a version of a key does not follow the one before")
    }
    guard records.count < Self.versionsMax else { throw .versionsExhausted }
  }

  /// The newest version.
  public var latest: Record { records[records.count - 1] }

  /// A version, 0 being the newest; nil if there is none of this number.
  public func record(version: UInt32) -> Record? {
    if version == 0 { return latest }
    return version <= UInt32(records.count) ? records[Int(version) - 1] : nil
  }
}

/// A wrapping key as the storage file holds it: wrapped by its CMK.
public struct WrappingKey: Sendable, Equatable {
  /// Encryptions after which a wrapping key is used no more: half of what NIST SP 800-38D 8.3 allows random nonces.
  public static let encryptionsMax: UInt64 = 1 << 31

  /// Names it.
  public let id: WrappingKeyID
  /// The CMK that wraps it.
  public let cmkID: CMKID
  /// Who holds that CMK.
  public let provider: ProviderKind
  /// The provider's ciphertext.
  public let wrapped: [UInt8]
  /// Commits to the plaintext: HKDF, so that one ciphertext cannot open under two keys.
  public let commitment: Digest
  /// When it was made, Unix milliseconds.
  public let createdMilliseconds: UInt64
  /// Records sealed under it so far.
  public var encryptions: UInt64

  /// Puts the parts together.
  public init(
    id: WrappingKeyID,
    cmkID: CMKID,
    provider: ProviderKind,
    wrapped: [UInt8],
    commitment: Digest,
    createdMilliseconds: UInt64,
    encryptions: UInt64 = 0
  ) {
    self.id = id
    self.cmkID = cmkID
    self.provider = provider
    self.wrapped = wrapped
    self.commitment = commitment
    self.createdMilliseconds = createdMilliseconds
    self.encryptions = encryptions
  }
}
