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
