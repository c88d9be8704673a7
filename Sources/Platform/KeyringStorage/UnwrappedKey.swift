public import Cryptography
public import KeyringCore
public import SecureMemory
internal import Synchronization

/// A wrapping key in clear, as far as anything keeps one: the two keys derived from it. The wrapping key itself encrypts nothing and is wiped
/// once these are made. docs/FILE_FORMAT.md, "Keys".
public final class UnwrappedKey: Sendable, BatchAuthenticator {
  /// Which wrapping key it is.
  public let wrappingKeyID: WrappingKeyID
  private let tenant: TenantName
  private let keyring: KeyringID
  private let recordCipher: RecordCipher
  private let authenticationKey: Secret
  private let wiped = Atomic<Bool>(false)

  /// Derives both keys by HKDF-SHA-256; info is purpose, tenant and keyring id, each length-prefixed.
  ///
  /// - Throws: `CMKError.invalidCiphertext` where `plaintext` is not what `commitment` was made of; `.unreachable` without memory.
  public init(
    id: WrappingKeyID,
    plaintext: Secret,
    commitment: Digest,
    tenant: TenantName,
    keyring: KeyringID
  ) throws(CMKError) {
    guard plaintext.count == 32 else { throw .invalidCiphertext("a wrapping key has 32 bytes") }
    wrappingKeyID = id
    self.tenant = tenant
    self.keyring = keyring
    do {
      guard try Self.commitment(to: plaintext, id: id, tenant: tenant, keyring: keyring) == commitment else {
        throw CMKError.invalidCiphertext("the provider returned another wrapping key than this keyring's")
      }
      let recordKey = try Self.derive("record", from: plaintext, tenant: tenant, keyring: keyring)
      recordCipher = try RecordCipher(key: recordKey)
      authenticationKey = try Self.derive("commit", from: plaintext, tenant: tenant, keyring: keyring)
    } catch let error as CMKError {
      throw error
    } catch {
      throw .unreachable("the wrapping key cannot be prepared: \(error)")
    }
  }

  /// What the storage file keeps to recognise a wrapping key by.
  public static func commitment(
    to plaintext: Secret,
    id: WrappingKeyID,
    tenant: TenantName,
    keyring: KeyringID
  ) throws(CryptographyError) -> Digest {
    let derived = try derive(
      "commitment " + id.description,
      from: plaintext,
      tenant: tenant,
      keyring: keyring
    )
    let bytes = unsafe derived.withUnsafeBytes { unsafe Array($0) }  // a commitment is public
    guard let digest = Digest(bytes: bytes) else { preconditionFailure("32 bytes were asked for") }
    return digest
  }

  private static func derive(
    _ purpose: String,
    from plaintext: Secret,
    tenant: TenantName,
    keyring: KeyringID
  ) throws(CryptographyError) -> Secret {
    var info: [UInt8] = []
    for part in [Array(purpose.utf8), Array(tenant.text.utf8), keyring.bytes] {
      appendBigEndian(UInt32(part.count), to: &info)
      info += part
    }
    return try HKDFSHA256.derive(from: plaintext, salt: Array("keyring/1".utf8), info: info, count: 32)
  }

  private func authenticatedData(
    _ identity: KeyIdentity,
    _ type: KeyType,
    _ version: UInt32,
    _ id: RecordID
  ) -> [UInt8] {
    Record.authenticatedData(
      tenant: tenant,
      keyring: keyring,
      identity: identity,
      type: type,
      version: version,
      id: id,
      wrappingKeyID: wrappingKeyID
    )
  }

  /// Encrypts `plaintext` as the named version of a key.
  ///
  /// - Throws: `KeyringError.inconsistent` for an empty plaintext, `CryptographyError`.
  public func seal(
    _ plaintext: Secret,
    identity: KeyIdentity,
    type: KeyType,
    version: UInt32,
    createdMilliseconds: UInt64
  ) throws -> Record {
    let id = RecordID(value: try SystemRandom.uint128())
    let nonce = try SystemRandom.bytes(count: 12)
    let data = authenticatedData(identity, type, version, id)
    let ciphertext = try recordCipher.seal(plaintext, nonce: nonce, authenticatedData: data)
    return try Record(
      version: version,
      length: UInt32(plaintext.count),
      createdMilliseconds: createdMilliseconds,
      id: id,
      wrappingKeyID: wrappingKeyID,
      nonce: nonce,
      ciphertext: ciphertext
    )
  }

  /// Decrypts a record straight into `output`, which has room for `record.length` bytes; wiped where it fails.
  public func open(
    _ record: Record,
    identity: KeyIdentity,
    type: KeyType,
    into output: UnsafeMutableRawBufferPointer
  ) throws(CryptographyError) {
    // SAFETY: `output` lives for the call; the cipher checks its length.
    try unsafe recordCipher.open(
      ciphertextAndTag: record.ciphertext,
      nonce: record.nonce,
      authenticatedData: authenticatedData(identity, type, record.version, record.id),
      into: output
    )
  }

  /// HMAC-SHA-256 under the key for commits.
  ///
  /// - Throws: `StoreError.authenticatorUnavailable` once it is wiped.
  public func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest {
    guard !isWiped else { throw .authenticatorUnavailable }
    do {
      let mac = try HMACSHA256.authenticate(message, key: authenticationKey)
      guard let digest = Digest(bytes: mac.bytes) else { preconditionFailure("an HMAC-SHA-256 has 32 bytes") }
      return digest
    } catch {
      throw .unavailable("a batch cannot be authenticated: \(error)")
    }
  }

  /// True where the HMAC is that of its message.
  ///
  /// - Throws: where it cannot be told: that is no verdict.
  public func verifies(_ pending: PendingAuthentication) throws(StoreError) -> Bool {
    try authenticate(pending.message) == pending.mac
  }

  /// True once it was wiped.
  public var isWiped: Bool { wiped.load(ordering: .acquiring) }

  /// Ends its use: the cipher's contexts are cleansed; the HMAC key goes with the last owner of this object.
  public func wipe() {
    wiped.store(true, ordering: .releasing)
    recordCipher.wipe()
  }
}
