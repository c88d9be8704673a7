internal import Cryptography
internal import KeyringCore
internal import SecureMemory

extension LocalCMK {
  /// - Throws: `CMKError.denied` unless it is enabled.
  func checkUsable() throws(CMKError) {
    switch state {
    case .enabled: break
    case .disabled: throw .denied("CMK \(id) is disabled")
    case .pendingDeletion, .destroyed: throw .denied("CMK \(id) is pending deletion")
    }
  }

  // MARK: Ciphertext: format (1), version (4), nonce (12), ciphertext and tag

  /// Encrypts under the newest version.
  func wrap(_ plaintext: Secret, _ context: EncryptionContext, _ root: RootKey) throws(CMKError) -> [UInt8] {
    do {
      let nonce = try SystemRandom.bytes(count: 12)
      let sealed = try cipher(version: versions.count, root).seal(
        plaintext,
        nonce: nonce,
        authenticatedData: authenticatedData(versions.count, context)
      )
      var blob: [UInt8] = [1]
      appendBigEndian(UInt32(versions.count), to: &blob)
      return blob + nonce + sealed
    } catch {
      throw .unreachable("CMK \(id) cannot encrypt: \(error)")
    }
  }

  /// Decrypts what any version encrypted.
  func unwrap(_ blob: [UInt8], _ context: EncryptionContext, _ root: RootKey) throws(CMKError) -> Secret {
    let invalid = CMKError.invalidCiphertext("not a ciphertext of CMK \(id) with this context")
    guard blob.count > 33, blob[0] == 1 else { throw invalid }
    let version = blob[1..<5].reduce(0) { $0 << 8 | Int($1) }
    guard version >= 1, version <= versions.count else { throw invalid }
    do {
      return try cipher(version: version, root).open(
        Array(blob[17...]),
        nonce: Array(blob[5..<17]),
        authenticatedData: authenticatedData(version, context)
      )
    } catch .authenticationFailed {
      throw invalid
    } catch {
      throw .unreachable("CMK \(id) cannot decrypt: \(error)")
    }
  }

  private func authenticatedData(_ version: Int, _ context: EncryptionContext) -> [UInt8] {
    lengthPrefixed(
      ["cmk data", tenant, id.text, "\(version)"] + context.pairs.flatMap { [$0.name, $0.value] }
    )
  }
}
