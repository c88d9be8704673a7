internal import Cryptography
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory
import Synchronization

/// A wrapping key in clear, and for how long it may be used.
final class HeldWrappingKey: Sendable, BatchAuthenticator {
  /// What it encrypts and authenticates with.
  let key: UnwrappedKey
  /// Monotonic nanoseconds until which it may be used without asking the provider again.
  let servableUntil: Atomic<UInt64>
  /// Monotonic nanoseconds after which the next reader has the provider asked, without waiting for it.
  let refreshAfter = Atomic<UInt64>(.max)

  var wrappingKeyID: WrappingKeyID { key.wrappingKeyID }

  /// - Throws: `CMKError.invalidCiphertext` where `plaintext` is not what `commitment` was made of.
  init(
    id: WrappingKeyID,
    plaintext: Secret,
    commitment: Digest,
    tenant: TenantName,
    keyring: KeyringID,
    servableUntil: UInt64
  ) throws(CMKError) {
    key = try UnwrappedKey(
      id: id,
      plaintext: plaintext,
      commitment: commitment,
      tenant: tenant,
      keyring: keyring
    )
    self.servableUntil = Atomic(servableUntil)
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
      return try key.seal(
        plaintext,
        identity: identity,
        type: type,
        version: version,
        createdMilliseconds: createdMilliseconds
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
    do throws(CryptographyError) {
      // SAFETY: `output` lives for the call; the cipher checks its length.
      try unsafe key.open(record, identity: identity, type: type, into: output)
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
    if key.isWiped { return .wrappingKeyReplaced }
    return .tenantQuarantined("a record does not open: \(error)")
  }

  func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest { try key.authenticate(message) }

  /// True where `mac` is the HMAC of `message`.
  ///
  /// - Throws: where it cannot be told: that is no verdict.
  func verifies(_ pending: PendingAuthentication) throws(StoreError) -> Bool { try key.verifies(pending) }

  /// Ends its use: the cipher's contexts are cleansed; the HMAC key goes with the last owner of this object.
  func wipe() { key.wipe() }
}
