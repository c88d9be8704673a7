/// What is to be explained.
public struct ExplainCall: Sendable, Equatable {
  /// A key, as an administrator names it, who has no own ones.
  public struct Key: Sendable, Equatable {
    /// Whose own key; empty: a shared one.
    public let instance: String
    /// The database user, `user@host`; empty for the server itself.
    public let owner: [UInt8]
    /// 1 to 255 bytes.
    public let keyID: [UInt8]

    /// Puts the parts together.
    public init(instance: String, owner: [UInt8], keyID: [UInt8]) {
      self.instance = instance
      self.owner = owner
      self.keyID = keyID
    }
  }

  /// Its name.
  public let tenant: String
  /// Nil: the tenant as a whole.
  public let key: Key?

  /// Puts both together.
  public init(tenant: String, key: Key? = nil) {
    self.tenant = tenant
    self.key = key
  }
}

/// How a KMS failed.
public struct KMSFailure: Sendable, Equatable {
  /// What it said.
  public let message: String
  /// Its id of the request; empty where it gave none.
  public let requestID: String
  /// Unix milliseconds.
  public let atMilliseconds: UInt64

  /// Puts the parts together.
  public init(message: String, requestID: String, atMilliseconds: UInt64) {
    self.message = message
    self.requestID = requestID
    self.atMilliseconds = atMilliseconds
  }
}

/// A CMK that a tenant depends on.
public struct ExplainedCMK: Sendable, Equatable {
  /// The CMK.
  public var id = ""
  /// `local` or `aws`.
  public var provider = ""
  /// `enabled`, `disabled`, `pending deletion` or `unknown`.
  public var state = ""
  /// Why it is unknown.
  public var why = ""
  /// Unix milliseconds; 0 where the provider does not tell.
  public var createdMilliseconds: UInt64 = 0
  /// True for the one that new keys are written under.
  public var isInForce = false
  /// That depend on it.
  public var records: UInt64 = 0

  /// All empty.
  public init() {}
}

/// A wrapping key that a tenant depends on.
public struct ExplainedWrappingKey: Sendable, Equatable {
  /// As in the status.
  public var key = WrappingKeyStatus()
  /// Since when it is in its state, Unix milliseconds; 0: not asked for yet.
  public var sinceMilliseconds: UInt64 = 0
  /// Until when it is used though the KMS does not answer, Unix milliseconds; 0 where it is not held.
  public var heldUntilMilliseconds: UInt64 = 0
  /// The newest; nil where there was none since the tenant was opened.
  public var failure: KMSFailure?

  /// All empty.
  public init() {}
}

/// What was found; admin.proto says what each means, and what its fields hold.
public enum FindingCode: UInt64, Sendable, CaseIterable {
  case unspecified = 0
  case configurationInvalid, disabledByAdministrator, storageQuarantined, storageNotAvailable, storageSlow
  case cmkDisabled, cmkPendingDeletion, cmkRefused, kmsSilentInGrace, kmsSilent, formerCMKNeeded,
    cmkNotPersisted
  case wrappingKeyWorn, wrappingKeyUsedUp, credentialsFail, credentialsExpire, batchesNotVerified
  case tenantReadOnly, rotationUnderWay, notOpened
}

/// One thing to be known or done.
public struct Finding: Sendable, Equatable {
  /// What.
  public var code: FindingCode
  /// That it is about; empty where it is about none.
  public var cmkID = ""
  /// 32 hexadecimal digits; empty where it is about none.
  public var wrappingKeyID = ""
  /// As the code says.
  public var count: UInt64 = 0
  /// Unix milliseconds; 0 where that is not known.
  public var sinceMilliseconds: UInt64 = 0
  /// As the code says, Unix milliseconds.
  public var untilMilliseconds: UInt64 = 0
  /// What the provider or the storage said.
  public var detail = ""

  /// A finding of nothing else yet.
  public init(_ code: FindingCode) { self.code = code }
}

/// A key that was asked for.
public struct ExplainedKey: Sendable, Equatable {
  /// Whether it is there.
  public enum Presence: UInt64, Sendable {
    case present = 1, absent, cannotTell
  }

  /// A wrapping key, and the versions that are under it.
  public struct Dependency: Sendable, Equatable {
    /// 32 hexadecimal digits.
    public var wrappingKeyID = ""
    /// How many.
    public var versions: UInt32 = 0
    /// The first of them.
    public var firstVersion: UInt32 = 0
    /// The last of them.
    public var lastVersion: UInt32 = 0
    /// When the last of them was made, Unix milliseconds.
    public var createdMilliseconds: UInt64 = 0

    /// All empty.
    public init() {}
  }

  /// Whether it is there.
  public var presence = Presence.cannotTell
  /// Why it cannot be told.
  public var why = ""
  /// As it was stored.
  public var type = ""
  /// The newest.
  public var latestVersion: UInt32 = 0
  /// In order of the first version of each.
  public var dependencies: [Dependency] = []

  /// Nothing known.
  public init() {}
}

/// What a tenant, or one of its keys, depends on, how that stands, and what follows from it.
public struct Explanation: Sendable, Equatable {
  /// Name, state, provider, CMK.
  public var summary: TenantSummary
  /// Why it is in this state.
  public var reason = ""
  /// By the server's clock, Unix milliseconds.
  public var nowMilliseconds: UInt64 = 0
  /// Those in use, and the one in force.
  public var cmks: [ExplainedCMK] = []
  /// Those in the storage file.
  public var wrappingKeys: [ExplainedWrappingKey] = []
  /// The newest failure of the KMS.
  public var lastFailure: KMSFailure?
  /// The most pressing first.
  public var findings: [Finding] = []
  /// Of the key that was asked for.
  public var key: ExplainedKey?
  /// What signs the calls to the KMS.
  public var credentials: CredentialsStatus?

  /// Of a tenant of which nothing more is known.
  public init(summary: TenantSummary) { self.summary = summary }
}
