internal import CMKProviders
internal import Cryptography
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory

/// A wrapping key just made: as the file holds it, and ready for use.
struct MadeWrappingKey: Sendable {
  let key: WrappingKey
  let held: HeldWrappingKey

  /// A new keyring's first commit: the wrapping key, and the key under which requests are hashed.
  func firstCommit() throws -> Commit {
    let record = try held.seal(
      try SystemRandom.secret(count: 32),
      identity: .requestHashKey,
      type: KeyType("SECRET"),
      version: 1,
      createdMilliseconds: unixMilliseconds()
    )
    return Commit(
      sequence: 1,
      timeMilliseconds: unixMilliseconds(),
      caller: "keyringd",
      idempotency: nil,
      operations: [.addWrappingKey(key), .put(.requestHashKey, try KeyType("SECRET"), record)]
    )
  }
}

/// A wrapping key that is to be made: one argument, since the compiler's debug builds lose their way in an asynchronous function of many.
struct NewWrappingKey: Sendable {
  let tenant: TenantName
  let keyring: KeyringID
  let settings: KeyringSettings
  let provider: any CMKProvider

  /// Has the CMK make it, and open it again: the proof that the CMK can be used.
  func make() async throws(ServiceError) -> MadeWrappingKey {
    let context = EncryptionContext(tenant: tenant, keyring: keyring)
    do {
      let generated = try await provider.generateDataKey(cmk: settings.cmkID, context: context)
      let reopened = try await provider.decrypt(generated.wrapped, cmk: settings.cmkID, context: context)
      guard generated.plaintext.count == 32, reopened.isEqual(to: generated.plaintext) else {
        throw CMKError.invalidCiphertext("the provider does not give back the data key that it made")
      }
      let id = WrappingKeyID(value: try SystemRandom.uint128())
      let commitment = try UnwrappedKey.commitment(
        to: generated.plaintext,
        id: id,
        tenant: tenant,
        keyring: keyring
      )
      let held = try HeldWrappingKey(
        id: id,
        plaintext: generated.plaintext,
        commitment: commitment,
        tenant: tenant,
        keyring: keyring,
        servableUntil: monotonicNanoseconds() + settings.wrappingKeyTTLNanoseconds
      )
      let key = WrappingKey(
        id: id,
        cmkID: settings.cmkID,
        provider: settings.provider,
        wrapped: generated.wrapped,
        commitment: commitment,
        createdMilliseconds: unixMilliseconds()
      )
      return MadeWrappingKey(key: key, held: held)
    } catch let error as CMKError {
      throw ServiceError(error)
    } catch let error as ServiceError {
      throw error
    } catch {
      throw .defect("a wrapping key cannot be made: \(error)")
    }
  }
}
