internal import Cryptography
internal import HashTreeCollections
public import KeyringCore
internal import SecureMemory

/// The wrapping keys of a keyring, as far as their providers give them.
public struct UnwrappedKeys: Sendable {
  /// Those that could be had.
  public let keys: [WrappingKeyID: UnwrappedKey]
  /// Why the others could not.
  public let refused: [WrappingKeyID: CMKError]

  /// Asks for each wrapping key of a keyring, once.
  ///
  /// - Parameter provider: who holds a CMK's kind.
  public static func ask(
    for state: KeyringState,
    provider: (ProviderKind) throws(CMKError) -> any CMKProvider
  ) async -> UnwrappedKeys {
    let context = EncryptionContext(tenant: state.tenant, keyring: state.id)
    var keys: [WrappingKeyID: UnwrappedKey] = [:]
    var refused: [WrappingKeyID: CMKError] = [:]
    for key in state.wrappingKeys.values {
      do throws(CMKError) {
        let plaintext = try await provider(key.provider).decrypt(
          key.wrapped,
          cmk: key.cmkID,
          context: context
        )
        keys[key.id] = try UnwrappedKey(
          id: key.id,
          plaintext: plaintext,
          commitment: key.commitment,
          tenant: state.tenant,
          keyring: state.id
        )
      } catch {
        refused[key.id] = error
      }
    }
    return UnwrappedKeys(keys: keys, refused: refused)
  }

  /// The newest of those that could be had; nil if none could.
  public func newest(of state: KeyringState) -> UnwrappedKey? {
    let had = state.wrappingKeys.values.filter { keys[$0.id] != nil }
    let newest = had.max { ($0.createdMilliseconds, $0.id.value) < ($1.createdMilliseconds, $1.id.value) }
    return newest.flatMap { keys[$0.id] }
  }

  /// Ends their use.
  public func wipe() { for key in keys.values { key.wipe() } }
}

/// What a proof found.
public struct KeyringProof: Sendable, Equatable {
  /// HMACs that were checked, and are right.
  public private(set) var authenticated = 0
  /// Records that opened.
  public private(set) var opened = 0
  /// HMACs whose wrapping key could not be had.
  public private(set) var unauthenticated = 0
  /// Records whose wrapping key could not be had.
  public private(set) var unopened = 0

  /// Checks every HMAC and opens every record, each into memory that is wiped. Slow: it decrypts all there is.
  ///
  /// - Parameter also: HMACs from elsewhere: an anchor's, a manifest's.
  /// - Throws: `StoreError.damaged` at the first that is wrong; `.unavailable` where it cannot be told.
  public init(
    _ content: StorageFileContent,
    also: [PendingAuthentication] = [],
    under unwrapped: UnwrappedKeys
  ) throws(StoreError) {
    for pending in content.pendingAuthentications + also {
      guard let key = unwrapped.keys[pending.wrappingKeyID] else {
        guard content.state.wrappingKeys[pending.wrappingKeyID] != nil else {
          throw .damaged(
            "the HMAC of the \(pending.place) names a wrapping key that the keyring does not have"
          )
        }
        unauthenticated += 1
        continue
      }
      guard try key.verifies(pending) else {
        throw .damaged(
          "the HMAC of the \(pending.place) is wrong: it was changed by someone without the wrapping key"
        )
      }
      authenticated += 1
    }
    var room = WipedBuffer()
    for (identity, key) in content.state.keys {
      for record in key.records { try open(record, identity, key.type, unwrapped, &room) }
    }
  }

  private mutating func open(
    _ record: Record,
    _ identity: KeyIdentity,
    _ type: KeyType,
    _ unwrapped: UnwrappedKeys,
    _ room: inout WipedBuffer
  ) throws(StoreError) {
    guard let key = unwrapped.keys[record.wrappingKeyID] else {
      unopened += 1
      return
    }
    do throws(CryptographyError) {
      let count = Int(record.length)
      // SAFETY: the buffer has at least `count` bytes; it is wiped below, and where it goes.
      try unsafe room.append(minimum: count) { bytes throws(CryptographyError) in
        try unsafe key.open(
          record,
          identity: identity,
          type: type,
          into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
        )
        return count
      }
    } catch .authenticationFailed {
      throw .damaged("version \(record.version) of the key \(identity.shown) does not open")
    } catch {
      throw .unavailable("a record cannot be opened: \(error)")
    }
    room.consume(room.count)
    opened += 1
  }
}

extension KeyIdentity {
  /// For people: scope, owner and key id; what is no text is shown in hexadecimal digits.
  public var shown: String {
    func text(_ bytes: ArraySlice<UInt8>) -> String {
      String(validating: bytes, as: UTF8.self).map { printable($0) } ?? "0x" + hexadecimal(bytes)
    }
    let place =
      switch scope {
      case .shared: "shared"
      case .instance(let name): name.text
      case .server: "server"
      }
    return owner.isEmpty ? "\(place)/\(text(keyID))" : "\(place)/\(text(owner))/\(text(keyID))"
  }
}
