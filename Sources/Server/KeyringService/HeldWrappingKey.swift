internal import Cryptography
internal import KeyringCore
internal import SecureMemory
import Synchronization

/// A wrapping key in clear, as far as the server keeps one: the two keys derived from it. The wrapping key itself encrypts nothing and is
/// wiped once these are made.
final class HeldWrappingKey: Sendable, BatchAuthenticator {
  let wrappingKeyID: WrappingKeyID
  private let tenant: TenantName
  private let keyring: KeyringID
  private let recordCipher: RecordCipher
  private let authenticationKey: Secret
  private let isWiped = Atomic<Bool>(false)
  /// Monotonic nanoseconds until which it may be used without asking the provider again.
  let servableUntil: Atomic<UInt64>
  /// Monotonic nanoseconds after which the next reader has the provider asked, without waiting for it.
  let refreshAfter = Atomic<UInt64>(.max)

  /// Derives both keys by HKDF-SHA-256; info is purpose, tenant and keyring id, each length-prefixed.
  ///
  /// - Throws: `CMKError.invalidCiphertext` where `plaintext` is not what `commitment` was made of.
  init(
    id: WrappingKeyID,
    plaintext: Secret,
    commitment: Digest,
    tenant: TenantName,
    keyring: KeyringID,
    servableUntil: UInt64
  ) throws(CMKError) {
    guard plaintext.count == 32 else { throw .invalidCiphertext("a wrapping key has 32 bytes") }
    wrappingKeyID = id
    self.tenant = tenant
    self.keyring = keyring
    self.servableUntil = Atomic(servableUntil)
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
  static func commitment(
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

  /// Encrypts `plaintext` as the named version of a key.
  func seal(
    _ plaintext: Secret,
    identity: KeyIdentity,
    type: KeyType,
    version: UInt32,
    createdMilliseconds: UInt64
  ) throws(ServiceError) -> Record {
    do {
      let id = RecordID(value: try SystemRandom.uint128())
      let nonce = try SystemRandom.bytes(count: 12)
      let data = Record.authenticatedData(
        tenant: tenant,
        keyring: keyring,
        identity: identity,
        type: type,
        version: version,
        id: id,
        wrappingKeyID: wrappingKeyID
      )
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
    } catch let error as KeyringError {
      throw .keyring(error)
    } catch {
      throw failure(error)
    }
  }

  /// Decrypts a record straight into `output`, which has room for `record.length` bytes; wiped by the callee where it fails.
  func open(
    _ record: Record,
    identity: KeyIdentity,
    type: KeyType,
    into output: UnsafeMutableRawBufferPointer
  ) throws(ServiceError) {
    let data = Record.authenticatedData(
      tenant: tenant,
      keyring: keyring,
      identity: identity,
      type: type,
      version: record.version,
      id: record.id,
      wrappingKeyID: wrappingKeyID
    )
    do throws(CryptographyError) {
      // SAFETY: `output` lives for the call; the cipher checks its length.
      try unsafe recordCipher.open(
        ciphertextAndTag: record.ciphertext,
        nonce: record.nonce,
        authenticatedData: data,
        into: output
      )
    } catch {
      throw failure(error)
    }
  }

  /// Decrypts a record into locked memory.
  func open(_ record: Record, identity: KeyIdentity, type: KeyType) throws(ServiceError) -> Secret {
    var failed: ServiceError?
    do {
      let secret = try unsafe Secret(count: Int(record.length)) { room in
        do throws(ServiceError) {
          try unsafe open(record, identity: identity, type: type, into: room)
        } catch {
          failed = error
        }
      }
      if let failed { throw failed }
      return secret
    } catch let error as ServiceError {
      throw error
    } catch {
      throw .throttled("no locked memory left", retryAfterMilliseconds: 100)
    }
  }

  private func failure(_ error: any Error) -> ServiceError {
    if isWiped.load(ordering: .acquiring) { return .wrappingKeyReplaced }
    return .tenantQuarantined("a record does not open: \(error)")
  }

  func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest {
    guard !isWiped.load(ordering: .acquiring) else { throw .authenticatorUnavailable }
    do {
      let mac = try HMACSHA256.authenticate(message, key: authenticationKey)
      guard let digest = Digest(bytes: mac.bytes) else { preconditionFailure("an HMAC-SHA-256 has 32 bytes") }
      return digest
    } catch {
      throw .unavailable("a batch cannot be authenticated: \(error)")
    }
  }

  /// True where `mac` is the HMAC of `message`.
  ///
  /// - Throws: where it cannot be told: that is no verdict.
  func verifies(_ pending: PendingAuthentication) throws(StoreError) -> Bool {
    try authenticate(pending.message) == pending.mac
  }

  /// Ends its use: the cipher's contexts are cleansed; the HMAC key goes with the last owner of this object.
  func wipe() {
    isWiped.store(true, ordering: .releasing)
    recordCipher.wipe()
  }
}
