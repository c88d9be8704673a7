/// Whose a key is.
public enum Scope: Hashable, Sendable {
  /// Of all instances of the tenant together.
  case shared
  /// Of one instance alone.
  case instance(InstanceName)
  /// Of the server; no caller can name it.
  case server
}

/// What a key is called within its keyring: scope, owner and key id, as bytes, case-sensitive.
///
/// Kept as one canonical encoding with every part length-prefixed, so that ("ab", "c") and ("a", "bc") never
/// meet: scope (1 byte: 1 shared, 2 instance, 3 server), instance (1 byte of length), owner (2 bytes of length,
/// big-endian), key id (1 byte of length).
public struct KeyIdentity: Hashable, Sendable {
  /// The longest owner, in bytes: a MySQL `user@host` has at most 384.
  public static let ownerBytesMax = 512
  /// The longest key id, in bytes.
  public static let keyIDBytesMax = 255

  /// The canonical encoding.
  public let encoded: [UInt8]

  /// Joins the three parts.
  ///
  /// - Throws: `KeyringError.nameInvalid` for an empty or too long key id, or a too long owner.
  public init(scope: Scope, owner: [UInt8], keyID: [UInt8]) throws(KeyringError) {
    // SAFETY: both arrays live for the calls.
    self = try unsafe owner.span.withUnsafeBytes { owner throws(KeyringError) in
      try unsafe keyID.span.withUnsafeBytes { keyID throws(KeyringError) in
        try unsafe KeyIdentity(scope: scope, owner: owner, keyID: keyID)
      }
    }
  }

  /// Joins the three parts, two of which are lent.
  ///
  /// - Throws: `KeyringError.nameInvalid` for an empty or too long key id, or a too long owner.
  public init(
    scope: Scope,
    owner: UnsafeRawBufferPointer,
    keyID: UnsafeRawBufferPointer
  ) throws(KeyringError) {
    guard keyID.count > 0 else { throw .nameInvalid("key_id cannot be empty") }
    guard keyID.count <= Self.keyIDBytesMax else { throw .nameInvalid("a key_id has at most 255 bytes") }
    guard owner.count <= Self.ownerBytesMax else { throw .nameInvalid("an owner has at most 512 bytes") }
    var encoded: [UInt8] = []
    encoded.reserveCapacity(owner.count + keyID.count + 69)
    switch scope {
    case .shared: encoded += [1, 0]
    case .instance(let name):
      encoded.append(2)
      encoded.append(UInt8(name.text.utf8.count))
      encoded += name.text.utf8
    case .server: encoded += [3, 0]
    }
    encoded.append(UInt8(owner.count >> 8))
    encoded.append(UInt8(owner.count & 255))
    unsafe encoded.append(contentsOf: owner)
    encoded.append(UInt8(keyID.count))
    unsafe encoded.append(contentsOf: keyID)
    self.encoded = encoded
  }

  /// Of the canonical encoding, as a whole.
  public func hash(into hasher: inout Hasher) {
    // SAFETY: the array lives for the call.
    unsafe encoded.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
  }

  private var ownerStart: Int { 4 + Int(encoded[1]) }
  private var ownerCount: Int { Int(encoded[ownerStart - 2]) << 8 | Int(encoded[ownerStart - 1]) }

  /// Whose the key is.
  public var scope: Scope {
    switch encoded[0] {
    case 1: return .shared
    case 3: return .server
    default:
      let text = String(decoding: encoded[2..<2 + Int(encoded[1])], as: UTF8.self)
      guard let name = try? InstanceName(text) else {  // init took these bytes from an InstanceName
        preconditionFailure("an identity holds an instance name that was checked")
      }
      return .instance(name)
    }
  }

  /// The database user that the key belongs to; empty for the server itself.
  public var owner: ArraySlice<UInt8> { encoded[ownerStart..<ownerStart + ownerCount] }

  /// The key id, 1 to 255 bytes.
  public var keyID: ArraySlice<UInt8> { encoded[(ownerStart + ownerCount + 1)...] }

  /// True if both have the same scope (and instance).
  public func hasScope(of other: KeyIdentity) -> Bool {
    encoded[..<(ownerStart - 2)] == other.encoded[..<(other.ownerStart - 2)]
  }
}

extension KeyIdentity: Comparable {
  /// By scope, then owner, then key id, as bytes.
  public static func < (left: Self, right: Self) -> Bool {
    let leftScope = left.encoded[..<(left.ownerStart - 2)]
    let rightScope = right.encoded[..<(right.ownerStart - 2)]
    if leftScope != rightScope { return leftScope.lexicographicallyPrecedes(rightScope) }
    if left.owner != right.owner { return left.owner.lexicographicallyPrecedes(right.owner) }
    return left.keyID.lexicographicallyPrecedes(right.keyID)
  }
}
