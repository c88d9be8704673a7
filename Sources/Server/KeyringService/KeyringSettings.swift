internal import KeyringCore
internal import SecureMemory
internal import TenantRegistry

/// The settings of a tenant that its keyring works by, as they are in force at one moment.
struct KeyringSettings: Sendable, Equatable {
  let cmkID: CMKID
  let provider: ProviderKind
  /// Of AWS, as it is set; nil: the one in the CMK's ARN.
  let region: String?
  let wrappingKeyTTLNanoseconds: UInt64
  let outageGraceNanoseconds: UInt64
  let profile: Profile
  let isReadOnly: Bool
  let limits: KeyringLimits
  /// True while `set global` gave the cmk_id in force and nothing persists it.
  let isCMKTransient: Bool
}

extension KeyringSettings {
  /// True if new keys are written under the same CMK of the same provider.
  func isOfSameCMK(as other: KeyringSettings) -> Bool {
    (cmkID, provider, region) == (other.cmkID, other.provider, other.region)
  }

  /// What a tenant's settings say.
  init(_ settings: TenantSettings) {
    cmkID = settings.cmkID
    provider = settings.provider.kind
    region = settings.provider.region
    wrappingKeyTTLNanoseconds = settings.wrappingKeyTTL.nanoseconds
    outageGraceNanoseconds = settings.outageGrace.nanoseconds
    profile = settings.profile
    isReadOnly = settings.isReadOnly
    limits = settings.keyringLimits
    isCMKTransient = settings.isCMKTransient
  }
}

/// One change that a caller asks for.
enum KeyChange: Sendable {
  case store(KeyIdentity, KeyType, Secret)
  case generate(KeyIdentity, KeyType, length: Int)
  case remove(KeyIdentity)
  case rotate(KeyIdentity)
}
