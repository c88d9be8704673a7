internal import Cryptography
public import KeyringCore
public import SecureMemory

/// A CMK of the local provider that is in no file yet. What it wraps is lost unless `file` becomes durable.
public struct NewLocalCMK: CMKProvider {
  /// Always `local`.
  public let kind = ProviderKind.local
  /// Its id, which is its file's name in the tenant's folder of CMKs.
  public let id: CMKID
  /// What its file is to hold; no secret without the root key.
  public let file: [UInt8]
  let cmk: LocalCMK
  private let root: RootKey

  /// Makes one, with one version.
  ///
  /// - Parameter nowMilliseconds: Unix milliseconds.
  public init(tenant: TenantName, root: RootKey, nowMilliseconds: UInt64) throws(CMKError) {
    do {
      id = try CMKID("local-" + hexadecimal(SystemRandom.bytes(count: 16)))
      var cmk = LocalCMK(
        tenant: tenant.text,
        id: id,
        createdMilliseconds: nowMilliseconds,
        state: .enabled,
        versions: []
      )
      try cmk.addVersion(root, nowMilliseconds: nowMilliseconds)
      file = try cmk.encode(root)
      self.cmk = cmk
      self.root = root
    } catch {
      throw .unreachable("a CMK cannot be made: \(error)")
    }
  }

  /// True for the form that ids of local CMKs have: a safe file name.
  public static func isID(_ id: CMKID) -> Bool { LocalCMK.isID(id) }

  private func known(_ id: CMKID) throws(CMKError) -> LocalCMK {
    guard id == self.id else { throw .denied("CMK \(id) is not there") }
    return cmk
  }

  // MARK: CMKProvider

  /// 32 random bytes, and their ciphertext.
  public func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> GeneratedDataKey
  {
    let plaintext = try await generateRandom(count: 32)
    return GeneratedDataKey(plaintext: plaintext, wrapped: try known(cmk).wrap(plaintext, context, root))
  }

  /// Encrypts.
  public func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> [UInt8]
  { try known(cmk).wrap(plaintext, context, root) }

  /// Decrypts what it encrypted with this context.
  public func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> Secret
  { try known(cmk).unwrap(wrapped, context, root) }

  /// Of libcrypto's private generator.
  public func generateRandom(count: Int) async throws(CMKError) -> Secret {
    do {
      return try SystemRandom.secret(count: count)
    } catch {
      throw .unreachable("no random bytes: \(error)")
    }
  }

  /// What is known of it.
  public func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription { try known(cmk).described }

  /// Refused: it has one version until it has a file.
  public func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    throw .refused("a CMK that is in no file yet is not rotated")
  }
}

extension RootKey {
  /// An HMAC-SHA-256 under a key derived for `purpose`, 64 hexadecimal digits: of what this service wrote for itself.
  public func authenticationText(of bytes: [UInt8], purpose: String) throws(CMKError) -> String {
    do {
      return hexadecimal(try HMACSHA256.authenticate(bytes, key: derive(purpose, [])).bytes)
    } catch {
      throw .unreachable("\(error)")
    }
  }
}
