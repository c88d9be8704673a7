public import KeyringCore
public import SecureMemory

/// Which keys a request means: those all instances share, or the calling instance's own.
public enum RequestedScope: UInt64, Sendable, Hashable {
  case instance = 1
  case shared = 2
}

/// The identity of a key as a request names it.
public struct KeyName: Sendable, Hashable {
  /// Whose.
  public let scope: RequestedScope
  /// The database user, `user@host`; empty for the server itself.
  public let owner: [UInt8]
  /// 1 to 255 bytes; checked by `identity`.
  public let keyID: [UInt8]

  /// Puts the parts together, unchecked.
  public init(scope: RequestedScope, owner: [UInt8], keyID: [UInt8]) {
    self.scope = scope
    self.owner = owner
    self.keyID = keyID
  }

  /// The key's identity within its tenant, for a call of `instance`.
  ///
  /// - Throws: `KeyringError.nameInvalid`.
  public func identity(for instance: InstanceName) throws(KeyringError) -> KeyIdentity {
    try KeyIdentity(scope: scope == .shared ? .shared : .instance(instance), owner: owner, keyID: keyID)
  }
}

/// One change of a key, alone or in a transaction.
public enum Change: Sendable {
  case store(KeyName, type: String, value: Secret)
  case generate(KeyName, type: String, length: UInt32)
  case remove(KeyName)
  case rotate(KeyName)
}

/// A listing's one page.
public struct ListCall: Sendable, Equatable {
  /// Whose keys.
  public let scope: RequestedScope
  /// Where set, only this owner's.
  public let owner: [UInt8]?
  /// 1 to 500; 0 is 500.
  public let pageSize: UInt32
  /// Empty at first.
  public let pageToken: [UInt8]

  /// Puts the parts together.
  public init(scope: RequestedScope, owner: [UInt8]? = nil, pageSize: UInt32 = 0, pageToken: [UInt8] = []) {
    self.scope = scope
    self.owner = owner
    self.pageSize = pageSize
    self.pageToken = pageToken
  }
}

/// How long a variable's new value lasts.
public enum Persistence: UInt64, Sendable {
  /// Until the server restarts.
  case global = 1
  /// Beyond it.
  case persist = 2
  /// No value: what was persisted is forgotten, and what is in force stays so until the server restarts.
  case reset = 3
}

/// What is done to a CMK.
public enum CMKAction: UInt64, Sendable, CaseIterable {
  case create = 1, describe, disable, enable, scheduleDeletion, cancelDeletion
}

/// A call of an administrator.
public enum AdminCall: Sendable, Equatable {
  case tenantCreate(TenantCreateCall)
  case tenantList(pageSize: UInt32, after: String)
  case tenantShow(String)
  case tenantDisable(String)
  case tenantEnable(String)
  /// Names of permissions and scopes; without: both for a new instance, and what it has for one that may call already.
  case instanceAdd(tenant: String, instance: String, permissions: [String] = [], scopes: [String] = [])
  case instanceRevoke(tenant: String, instance: String)
  case instanceList(String)
  case variablesSet(tenant: String, name: String, value: String, Persistence)
  case variablesList(String)
  case rotateCMK(String)
  case rotateKeys(String, allowTransient: Bool)
  /// Empty: the service.
  case status(String)
  case tenantAccept(String, sequence: UInt64)
  case cmk(tenant: String, CMKAction, cmkID: String, days: UInt32)
  case backup(String, BackupCall)
  case restore(String, RestoreCall)
  case tenantReload(String)
  case tenantMove(TenantMoveCall)
  case tenantLock(String)
  case tenantUnlock(String)
  case tenantDelete(TenantDeleteCall)
  case tenantUndelete(String)
  case tenantReceipt(String)
  case serviceReload
  case explain(ExplainCall)
  /// 1 to 200.
  case tenantApply([TenantCreateCall])
}

/// How a tenant is to be deleted.
public struct TenantDeleteCall: Sendable, Equatable {
  /// Which.
  public let tenant: String
  /// For how long that can be undone.
  public let afterSeconds: UInt64
  /// Days after which AWS KMS is to delete its CMKs; 0: they stay.
  public let cmkDays: UInt32

  /// Puts the parts together.
  public init(tenant: String, afterSeconds: UInt64, cmkDays: UInt32 = 0) {
    self.tenant = tenant
    self.afterSeconds = afterSeconds
    self.cmkDays = cmkDays
  }
}

/// Where a tenant is to be moved.
public struct TenantMoveCall: Sendable, Equatable {
  /// One setting of the provider.
  public struct Setting: Sendable, Equatable {
    /// As in the tenant's file.
    public let name: String
    /// No secret.
    public let value: String

    /// Puts both together.
    public init(name: String, value: String) {
      self.name = name
      self.value = value
    }
  }

  /// Its name.
  public let tenant: String
  /// The CMK to move to.
  public let cmkID: String
  /// The new provider's.
  public let settings: [Setting]

  /// Puts the parts together.
  public init(tenant: String, cmkID: String, settings: [Setting]) {
    self.tenant = tenant
    self.cmkID = cmkID
    self.settings = settings
  }
}

/// A call.
public enum Call: Sendable {
  case fetch(KeyName, version: UInt32)
  case describe(KeyName, version: UInt32)
  case change(Change)
  case list(ListCall)
  case transact([Change])
  case importKeys([ImportedKey])
  case whoAmI
  case admin(AdminCall)
}

/// One request.
public struct Request: Sendable {
  /// Not 0.
  public let id: UInt64
  /// 0 is the server's default.
  public let timeoutMilliseconds: UInt32
  /// W3C trace context, at most 64 bytes.
  public let traceparent: String
  /// Nil where the caller sent none.
  public let idempotencyID: IdempotencyID?
  /// 0 where the caller has seen nothing.
  public let minSequence: UInt64
  /// What is asked.
  public let call: Call

  /// Puts the parts together.
  public init(
    id: UInt64,
    timeoutMilliseconds: UInt32 = 0,
    traceparent: String = "",
    idempotencyID: IdempotencyID? = nil,
    minSequence: UInt64 = 0,
    call: Call
  ) {
    self.id = id
    self.timeoutMilliseconds = timeoutMilliseconds
    self.traceparent = traceparent
    self.idempotencyID = idempotencyID
    self.minSequence = minSequence
    self.call = call
  }
}
