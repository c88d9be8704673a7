/// Files that the service reads at its start and anew when they change, as they are in force.
public struct LoadedFiles: Sendable, Equatable {
  /// `certificate` (with its key), `client_ca`, `client_crl`.
  public var name: String
  /// When what is in force was read, Unix milliseconds.
  public var loadedMilliseconds: UInt64 = 0
  /// When it ends, Unix seconds; 0: it does not.
  public var ends: UInt64 = 0
  /// Why what lies there now was not taken; empty where it was.
  public var failure = ""

  /// Nothing known yet.
  public init(name: String) { self.name = name }
}

/// What a reload of the service did.
public struct ReloadReport: Sendable, Equatable {
  /// A tenant whose files were not taken.
  public struct TenantFailure: Sendable, Equatable {
    /// Whose.
    public let tenant: String
    /// In words.
    public let failure: String

    /// Puts both together.
    public init(tenant: String, failure: String) {
      self.tenant = tenant
      self.failure = failure
    }
  }

  /// The service's own, as they are in force now.
  public var files: [LoadedFiles] = []
  /// Open tenants whose files and credentials were read anew and taken.
  public var tenantsReloaded: UInt32 = 0
  /// Those whose were not: the last good ones are in force.
  public var tenantFailures: [TenantFailure] = []

  /// Nothing done yet.
  public init() {}

  /// Everything that was not taken: what, and why.
  public var failures: [String] {
    files.filter { !$0.failure.isEmpty }.map { "\($0.name): \($0.failure)" }
      + tenantFailures.map { "tenant \($0.tenant): \($0.failure)" }
  }
}
