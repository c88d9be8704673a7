internal import Cryptography
internal import KeyringCore

/// The bytes of a storage file around its commits; docs/FILE_FORMAT.md has the tables. All numbers are big-endian.
enum StorageFormat {
  static let version: UInt16 = 1
  static let headerBytes = 176
  static let batchHeaderBytes = 96
  static let trailerBytes = 96
  static let sectorBytes = 512
  static let fileMagic = Array("KEYRING\0".utf8)
  static let batchMagic = Array("KRBATCH\0".utf8)
  static let trailerMagic = Array("KRTRAIL\0".utf8)
  static let anchorMagic = Array("KRANCHR\0".utf8)
  /// A larger file is neither written nor read: 4 GiB.
  static let fileBytesMax = 1 << 32
  /// A longer commit is neither written nor read: protobuf messages have less than 2 GiB, and protobuf-c refuses others.
  static let commitBytesMax = Int(Int32.max)

  static func sha256(_ parts: [UInt8]...) throws(StoreError) -> Digest {
    do {
      let hash = try SHA256()
      for part in parts { try hash.update(part) }
      return digest(try hash.finish())
    } catch {
      throw .unavailable("SHA-256 failed: \(error)")
    }
  }

  static func digest(_ value: SHA256Digest) -> Digest {
    guard let digest = Digest(bytes: value.bytes) else { preconditionFailure("SHA-256 has 32 bytes") }
    return digest
  }

  /// What files and anchors begin with: magic, version, tenant (length and 63 bytes), keyring id; 96 bytes.
  static func prefix(_ magic: [UInt8], tenant: TenantName, keyring: KeyringID) -> [UInt8] {
    var bytes = magic
    appendBigEndian(version, to: &bytes)
    bytes.append(UInt8(tenant.text.utf8.count))
    bytes += tenant.text.utf8
    bytes += [UInt8](repeating: 0, count: 80 - bytes.count)
    bytes += keyring.bytes
    return bytes
  }

  /// What a batch's HMAC is made over. The digest covers the whole batch, so that the HMAC can be checked without its bytes.
  static func authenticatedMessage(
    _ purpose: String,
    tenant: TenantName,
    keyring: KeyringID,
    sequence: UInt64,
    count: UInt32,
    previous: Digest,
    digest: Digest
  ) -> [UInt8] {
    var message = Array(purpose.utf8)
    message.append(0)
    message += prefix([], tenant: tenant, keyring: keyring)
    appendBigEndian(sequence, to: &message)
    appendBigEndian(count, to: &message)
    message += previous.bytes
    message += digest.bytes
    return message
  }
}

/// The header of a storage file: whose it is, and what it was made from.
struct StorageHeader: Equatable {
  let tenant: TenantName
  let keyring: KeyringID
  let createdMilliseconds: UInt64
  /// Where the file before stood when the snapshot was taken that this one begins with; sequence 0 and a digest of zeros for a first file.
  let origin: StorePosition

  /// The digest before the first batch.
  static func digest(_ head: [UInt8]) -> Digest {
    guard let digest = Digest(bytes: head.suffix(32)) else {
      preconditionFailure("a header ends in 32 bytes")
    }
    return digest
  }

  /// The 176 bytes; the last 32, SHA-256 of those before, are what the first batch names as the digest before it.
  func encode() throws(StoreError) -> [UInt8] {
    var bytes = StorageFormat.prefix(StorageFormat.fileMagic, tenant: tenant, keyring: keyring)
    appendBigEndian(createdMilliseconds, to: &bytes)
    appendBigEndian(origin.sequence, to: &bytes)
    bytes += origin.digest.bytes
    return bytes + (try StorageFormat.sha256(bytes)).bytes
  }
}

/// One batch, encoded.
struct EncodedBatch {
  let bytes: [UInt8]
  let position: StorePosition

  /// Encodes commits that are already messages.
  ///
  /// - Throws: `StoreError.unavailable` where one is longer than `commitBytesMax`.
  static func make(
    _ messages: [[UInt8]],
    firstSequence: UInt64,
    previous: Digest,
    tenant: TenantName,
    keyring: KeyringID,
    authenticator: any BatchAuthenticator,
    commitBytesMax: Int = StorageFormat.commitBytesMax
  ) throws(StoreError) -> EncodedBatch {
    if let longest = messages.map(\.count).max(), longest > commitBytesMax {
      throw .unavailable(
        "a commit has \(longest) bytes, and may have \(commitBytesMax): nothing was written; the keyring is too large to be written as one"
      )
    }
    let bodyBytes = messages.reduce(0) { $0 + 4 + $1.count }
    var bytes = StorageFormat.batchMagic
    bytes.reserveCapacity(bodyBytes + StorageFormat.batchHeaderBytes + StorageFormat.trailerBytes)
    appendBigEndian(UInt64(bodyBytes), to: &bytes)
    appendBigEndian(firstSequence, to: &bytes)
    appendBigEndian(UInt32(messages.count), to: &bytes)
    appendBigEndian(UInt32(0), to: &bytes)
    bytes += previous.bytes
    bytes += try StorageFormat.sha256(bytes).bytes
    for message in messages {
      appendBigEndian(UInt32(message.count), to: &bytes)
      bytes += message
    }
    let digest = try StorageFormat.sha256(previous.bytes, bytes)
    let message = StorageFormat.authenticatedMessage(
      "keyring batch",
      tenant: tenant,
      keyring: keyring,
      sequence: firstSequence,
      count: UInt32(messages.count),
      previous: previous,
      digest: digest
    )
    let mac = try authenticator.authenticate(message)
    bytes += digest.bytes
    bytes += authenticator.wrappingKeyID.bytes
    bytes += mac.bytes
    appendBigEndian(UInt64(bodyBytes), to: &bytes)
    bytes += StorageFormat.trailerMagic
    let last = firstSequence + UInt64(messages.count) - 1
    return EncodedBatch(bytes: bytes, position: StorePosition(sequence: last, digest: digest))
  }
}
