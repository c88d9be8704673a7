public import SecureMemory

/// A new tenant.
public struct TenantCreateCall: Sendable, Equatable {
  /// The longest content of a credentials' file, in bytes.
  public static let credentialsBytesMax = 16_384

  /// Its name.
  public let tenant: String
  /// `local` or `aws`; empty: `local`.
  public let provider: String
  /// Empty: one is made (provider `local`).
  public let cmkID: String
  /// Empty: `keyring_aws`.
  public let profile: String
  /// Allowed instances.
  public let instances: [String]
  /// True: any instance.
  public let anyInstance: Bool
  /// More of the tenant's file, by the names that it has there; `limits.keys` for what is under `limits`.
  public var settings: [TenantMoveCall.Setting]
  /// What the credentials' file is to hold, 1 to 16,384 bytes; nil where the tenant gets none.
  public var credentials: Secret?
  /// True: everything is checked, nothing made.
  public var isDryRun: Bool

  /// Puts the parts together.
  public init(
    tenant: String,
    provider: String = "",
    cmkID: String = "",
    profile: String = "",
    instances: [String] = [],
    anyInstance: Bool = false,
    settings: [TenantMoveCall.Setting] = [],
    credentials: Secret? = nil,
    isDryRun: Bool = false
  ) {
    self.tenant = tenant
    self.provider = provider
    self.cmkID = cmkID
    self.profile = profile
    self.instances = instances
    self.anyInstance = anyInstance
    self.settings = settings
    self.credentials = credentials
    self.isDryRun = isDryRun
  }

  /// Field by field; secrets are compared in constant time.
  public static func == (left: Self, right: Self) -> Bool {
    let sameSecret =
      switch (left.credentials, right.credentials) {
      case (.none, .none): true
      case (.some(let left), .some(let right)): left.isEqual(to: right)
      case (.some, .none), (.none, .some): false
      }
    return sameSecret && left.tenant == right.tenant && left.provider == right.provider
      && left.cmkID == right.cmkID && left.profile == right.profile && left.instances == right.instances
      && left.anyInstance == right.anyInstance && left.settings == right.settings
      && left.isDryRun == right.isDryRun
  }
}

/// Many new tenants.
public enum TenantApplyCall {
  /// Of one call.
  public static let tenantsMax = 200
  /// Locked memory that the credentials of one call may take together, in bytes.
  public static let lockedBytesMax = 1 << 20
}

/// How a tenant that is there differs from what was asked for.
public struct SettingDifference: Sendable, Equatable {
  /// As in the tenant's file; `instances`: one that may not call yet.
  public let name: String
  /// In force.
  public let present: String
  /// Asked for.
  public let wanted: String
  /// True: it can be made so at run time.
  public let isDynamic: Bool

  /// Puts the parts together.
  public init(name: String, present: String, wanted: String, isDynamic: Bool) {
    self.name = name
    self.present = present
    self.wanted = wanted
    self.isDynamic = isDynamic
  }
}

/// What came of one of many new tenants.
public struct TenantApplyResult: Sendable, Equatable {
  /// As sent.
  public let tenant: String
  /// Nil: it is there.
  public var refusal: Status?
  /// Made or given; empty where a dry run would make one.
  public var cmkID = ""
  /// The tenant was there already, with these settings.
  public var isUnchanged = false
  /// Of a tenant that was there with others.
  public var differences: [SettingDifference] = []

  /// Nothing known but the name.
  public init(tenant: String) { self.tenant = tenant }
}
