internal import KeyringCore
internal import SecureMemory

/// The settings of a tenant that its keyring works by, as they are in force at one moment.
struct KeyringSettings: Sendable, Equatable {
  let cmkID: CMKID
  let provider: ProviderKind
  let wrappingKeyTTLNanoseconds: UInt64
  let outageGraceNanoseconds: UInt64
  let profile: Profile
  let isReadOnly: Bool
  let keysMax: Int
  /// True while `set global` gave the cmk_id in force and nothing persists it.
  let isCMKTransient: Bool
}

/// One change that a caller asks for.
enum KeyChange: Sendable {
  case store(KeyIdentity, KeyType, Secret)
  case generate(KeyIdentity, KeyType, length: Int)
  case remove(KeyIdentity)
  case rotate(KeyIdentity)
}
