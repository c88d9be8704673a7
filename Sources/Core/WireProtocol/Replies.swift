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
  case tenantDelete(dueMilliseconds: UInt64, isDone: Bool)
  case tenantUndelete
  case tenantReceipt(String, publicKey: String)
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
