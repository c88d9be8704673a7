public import SecureMemory

/// A key, read.
public struct FetchedKey: Sendable {
  /// As it was stored.
  public let type: String
  /// The version that `value` is.
  public let version: UInt32
  /// The newest.
  public let latestVersion: UInt32
  /// The key material.
  public let value: Secret

  /// Puts the parts together.
  public init(type: String, version: UInt32, latestVersion: UInt32, value: Secret) {
    self.type = type
    self.version = version
    self.latestVersion = latestVersion
    self.value = value
  }
}

/// What is known of one version of a key, without its material.
public struct KeyInfo: Sendable, Equatable {
  /// Which key.
  public let name: KeyName
  /// As it was stored.
  public let type: String
  /// Which version.
  public let version: UInt32
  /// The newest.
  public let latestVersion: UInt32
  /// Bytes of key material.
  public let length: UInt32
  /// Unix milliseconds.
  public let createdMilliseconds: UInt64
  /// 32 hexadecimal digits.
  public let wrappingKeyID: String

  /// Puts the parts together.
  public init(
    name: KeyName,
    type: String,
    version: UInt32,
    latestVersion: UInt32,
    length: UInt32,
    createdMilliseconds: UInt64,
    wrappingKeyID: String
  ) {
    self.name = name
    self.type = type
    self.version = version
    self.latestVersion = latestVersion
    self.length = length
    self.createdMilliseconds = createdMilliseconds
    self.wrappingKeyID = wrappingKeyID
  }
}

/// Who the server takes the caller for.
public struct Identity: Sendable, Equatable {
  /// The URI SAN.
  public let uri: String
  /// Empty for a service administrator.
  public let tenant: String
  /// Empty for an administrator.
  public let instance: String
  /// Unix seconds.
  public let notAfter: UInt64
  /// Of the server.
  public let serverVersion: String
  /// Of an instance's tenant: what its keys are held to; empty for others.
  public let profile: String
  /// Of an instance's tenant: true where every change is refused.
  public let isReadOnly: Bool

  /// Puts the parts together.
  public init(
    uri: String,
    tenant: String,
    instance: String,
    notAfter: UInt64,
    serverVersion: String,
    profile: String = "",
    isReadOnly: Bool = false
  ) {
    self.uri = uri
    self.tenant = tenant
    self.instance = instance
    self.notAfter = notAfter
    self.serverVersion = serverVersion
    self.profile = profile
    self.isReadOnly = isReadOnly
  }
}

/// What state a tenant is in.
public enum TenantState: UInt64, Sendable, CaseIterable {
  case cold = 1, ready, degraded, locked, quarantined, disabled

  /// As an operator reads it.
  public var name: String { "\(self)" }
}

/// A tenant in a list.
public struct TenantSummary: Sendable, Equatable {
  /// Its name.
  public let tenant: String
  /// Its state.
  public let state: TenantState
  /// `local` or `aws`.
  public let provider: String
  /// In force.
  public let cmkID: String

  /// Puts the parts together.
  public init(tenant: String, state: TenantState, provider: String, cmkID: String) {
    self.tenant = tenant
    self.state = state
    self.provider = provider
    self.cmkID = cmkID
  }
}

/// One instance of a tenant.
public struct InstanceEntry: Sendable, Equatable {
  /// Its name.
  public let name: String
  /// `file`, `added` or `revoked`.
  public let source: String
  /// Open at this moment.
  public let connections: UInt32
  /// When the name was revoked, Unix seconds: only later certificates are taken; 0 if it never was.
  public let notBefore: UInt64
  /// `read`, `write`.
  public let permissions: [String]
  /// `own`, `shared`.
  public let scopes: [String]

  /// Puts the parts together.
  public init(
    name: String,
    source: String,
    connections: UInt32,
    notBefore: UInt64 = 0,
    permissions: [String] = [],
    scopes: [String] = []
  ) {
    self.name = name
    self.source = source
    self.connections = connections
    self.notBefore = notBefore
    self.permissions = permissions
    self.scopes = scopes
  }
}

/// One variable of a tenant.
public struct VariableEntry: Sendable, Equatable {
  /// Its name.
  public let name: String
  /// In force.
  public let value: String
  /// `default`, `file`, `persisted` or `global`.
  public let source: String
  /// True if it can be set at run time.
  public let isDynamic: Bool
  /// What it means.
  public let meaning: String

  /// Puts the parts together.
  public init(name: String, value: String, source: String, isDynamic: Bool, meaning: String) {
    self.name = name
    self.value = value
    self.source = source
    self.isDynamic = isDynamic
    self.meaning = meaning
  }
}

/// A tenant, shown.
public struct TenantDetails: Sendable, Equatable {
  /// Name, state, provider, CMK.
  public let summary: TenantSummary
  /// In force.
  public let profile: String
  /// Those listed or added.
  public let instances: [InstanceEntry]
  /// True: others too.
  public let anyInstance: Bool
  /// All of them.
  public let variables: [VariableEntry]

  /// Puts the parts together.
  public init(
    summary: TenantSummary,
    profile: String,
    instances: [InstanceEntry],
    anyInstance: Bool,
    variables: [VariableEntry]
  ) {
    self.summary = summary
    self.profile = profile
    self.instances = instances
    self.anyInstance = anyInstance
    self.variables = variables
  }
}

/// What a `rotate-keys` did.
public struct KeyRotationReport: Sendable, Equatable {
  /// The CMK that all keys depend on now.
  public let cmkID: String
  /// 32 hexadecimal digits.
  public let wrappingKeyID: String
  /// Re-encrypted.
  public let records: UInt64
  /// Of the new file, read back, that depend on another wrapping key.
  public let recordsElsewhere: UInt64
  /// CMKs that nothing in the file depends on any more.
  public let formerCMKIDs: [String]

  /// Puts the parts together.
  public init(
    cmkID: String,
    wrappingKeyID: String,
    records: UInt64,
    recordsElsewhere: UInt64,
    formerCMKIDs: [String]
  ) {
    self.cmkID = cmkID
    self.wrappingKeyID = wrappingKeyID
    self.records = records
    self.recordsElsewhere = recordsElsewhere
    self.formerCMKIDs = formerCMKIDs
  }
}

/// The service's state.
public struct ServiceStatus: Sendable, Equatable {
  /// Of the server.
  public var version = ""
  /// Unix milliseconds.
  public var startedMilliseconds: UInt64 = 0
  /// Open ones.
  public var connections: UInt32 = 0
  /// Those of them without a certificate checked yet.
  public var connectionsUnauthenticated: UInt32 = 0
  /// In the tenants directory.
  public var tenants: UInt32 = 0
  /// Tenants by state.
  public var states: [(state: TenantState, tenants: UInt32)] = []
  /// False where the start was allowed without locked memory.
  public var isMemoryLocked = false
  /// Bytes of locked memory in use.
  public var secureBytesUsed: UInt64 = 0
  /// Answered since the start.
  public var calls: UInt64 = 0
  /// Those of them that failed.
  public var callsFailed: UInt64 = 0
  /// The service's own files, as they are in force.
  public var files: [LoadedFiles] = []
  /// Entries of all audit logs that are durable.
  public var auditWritten: UInt64 = 0
  /// Entries that could not be written.
  public var auditDropped: UInt64 = 0
  /// A log that cannot be written, and why.
  public var auditFailure = ""
  /// Lines that syslog did not take.
  public var syslogDropped: UInt64 = 0

  /// All zero.
  public init() {}

  /// Field by field.
  public static func == (left: Self, right: Self) -> Bool {
    ReplyEncoder.bytes(id: 1, sequence: 0, .service(left))
      == ReplyEncoder.bytes(id: 1, sequence: 0, .service(right))
  }
}

/// One wrapping key of a tenant.
public struct WrappingKeyStatus: Sendable, Equatable {
  /// 32 hexadecimal digits.
  public var id = ""
  /// That wraps it.
  public var cmkID = ""
  /// `held`, `cold`, `unreachable` or `denied`.
  public var state = ""
  /// Made under it.
  public var encryptions: UInt64 = 0
  /// That depend on it.
  public var records: UInt64 = 0
  /// True for the one that new keys are written under.
  public var isCurrent = false
  /// Unix milliseconds.
  public var createdMilliseconds: UInt64 = 0

  /// All empty.
  public init() {}
}

/// A tenant's state.
public struct TenantStatus: Sendable, Equatable {
  /// Name, state, provider, CMK.
  public var summary: TenantSummary
  /// Why it is in this state.
  public var reason = ""
  /// Of the keyring.
  public var sequence: UInt64 = 0
  /// The server's own not counted.
  public var keys: UInt64 = 0
  /// Versions of keys, and the server's own.
  public var records: UInt64 = 0
  /// Of the storage file.
  public var storageBytes: UInt64 = 0
  /// 64 hexadecimal digits: the checksum of the whole keyring.
  public var digest = ""
  /// Those in the file.
  public var wrappingKeys: [WrappingKeyStatus] = []
  /// Open ones.
  public var connections: UInt32 = 0
  /// Batches whose HMAC waits for its wrapping key.
  public var batchesUnverified: UInt64 = 0
  /// Of a rotate-keys under way.
  public var rotationDone: UInt64 = 0
  /// Of a rotate-keys under way; 0 if none is.
  public var rotationTotal: UInt64 = 0
  /// 32 hexadecimal digits.
  public var keyringID = ""
  /// What signs the calls to the KMS.
  public var credentials: CredentialsStatus?
  /// Those limits that refused something since the server started.
  public var limitsHit: [LimitHit] = []
  /// `off`, `lenient` or `strict`.
  public var audit = ""
  /// Entries of its audit log that are durable.
  public var auditWritten: UInt64 = 0
  /// Entries that could not be written.
  public var auditDropped: UInt64 = 0
  /// Why it cannot be written.
  public var auditFailure = ""

  /// A tenant that is not open.
  public init(summary: TenantSummary) { self.summary = summary }
}

/// How often a limit refused something.
public struct LimitHit: Sendable, Equatable {
  /// As a label of `keyring_throttled_total`.
  public let limit: String
  /// Since the server started.
  public let count: UInt64

  /// Puts the parts together.
  public init(limit: String, count: UInt64) {
    self.limit = limit
    self.count = count
  }
}

/// Credentials of a KMS, as far as they are not secret.
public struct CredentialsStatus: Sendable, Equatable {
  /// Where they come from.
  public var source = ""
  /// The last four characters.
  public var accessKeyID = ""
  /// Unix milliseconds.
  public var loadedMilliseconds: UInt64 = 0
  /// Unix milliseconds; 0: not known to expire.
  public var expiresMilliseconds: UInt64 = 0
  /// Empty where the last try succeeded.
  public var lastFailure = ""

  /// Nothing known.
  public init() {}
}

/// The result of a call that succeeded.
public enum ReplyResult: Sendable {
  /// Nil: the server knows that there is no such key.
  case fetch(FetchedKey?)
  case describe(KeyInfo?)
  case store(version: UInt32)
  case generate(version: UInt32)
  case remove
  case rotate(version: UInt32)
  case list([KeyInfo], nextPageToken: [UInt8])
  case transact(versions: [UInt32])
  case importKeys(stored: UInt32)
  case whoAmI(Identity)
  case tenantCreate(cmkID: String, isUnchanged: Bool)
  case tenantList([TenantSummary], more: Bool)
  case tenantShow(TenantDetails)
  case tenantDisable
  case tenantEnable
  case instanceAdd(InstanceEntry)
  case instanceRevoke(revokedAt: UInt64)
  case instanceList([InstanceEntry], anyInstance: Bool)
  case variablesSet(oldValue: String, newValue: String)
  case variablesList([VariableEntry])
  case rotateCMK(cmkID: String, version: UInt32)
  case rotateKeys(KeyRotationReport)
  case service(ServiceStatus)
  case tenant(TenantStatus)
  case tenantAccept(sequence: UInt64)
  case cmk(id: String, state: String, version: UInt32)
  case backup(BackupResult)
  case restore(RestoreResult)
  case tenantReload(credentials: String)
  case tenantMove(cmkID: String)
  case tenantLock
  case tenantUnlock
  case serviceReload(ReloadReport)
  case explain(Explanation)
  case tenantApply([TenantApplyResult])
}

/// One reply.
public struct Reply: Sendable {
  /// Of the request.
  public let id: UInt64
  /// That the answer reflects.
  public let sequence: UInt64
  /// What came of it.
  public let outcome: Result<ReplyResult, Status>
}
