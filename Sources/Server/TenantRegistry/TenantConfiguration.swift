public import ConfigurationFiles
public import KeyringCore
public import KeyringStorage

/// Which instances of a tenant may call.
public enum AllowedInstances: Sendable, Equatable {
  /// Any that the trust domain's CA certified for this tenant.
  case any
  /// Those listed (and those that were added at run time).
  case listed([AllowedInstance])
}

/// A tenant's `tenant.yaml`. docs/CONFIGURATION.md lists the keys.
public struct TenantConfiguration: Sendable, Equatable {
  /// Mandatory.
  public let cmkID: CMKID
  /// Who holds the CMK.
  public let provider: ProviderSettings
  /// Types and lengths; default: keyring_aws.
  public let profile: Profile
  /// For how long a wrapping key may be used without asking the provider again; default: 5 min.
  public let wrappingKeyTTL: Duration
  /// For how long beyond that while the provider does not answer; default: 24 h.
  public let outageGrace: Duration
  /// Refuses changes; default: false.
  public let isReadOnly: Bool
  /// Default: written behind.
  public let anchor: AnchorPolicy
  /// Default: none but those added at run time.
  public let instances: AllowedInstances
  /// Those that it sets; 0: without limit.
  public let limits: [TenantLimit: Int]
  /// Default: lenient where the service has an audit directory.
  public let audit: AuditMode
  /// True if the service has an audit directory.
  public let hasAuditLog: Bool
  /// One path component; default: keyring.
  public let storageFile: String

  static let keys =
    ProviderSettings.keys + [
      "cmk_id", "profile", "wrapping_key_ttl", "outage_grace", "read_only", "anchor", "instances", "limits",
      "storage_file", "audit",
    ]

  static let limitKeys = TenantLimit.allCases.map(\.rawValue)

  /// Reads a tenant's file.
  ///
  /// - Parameters:
  ///   - file: for messages.
  ///   - allowedEndpoints: hosts that a tenant's `endpoint` may name.
  ///   - hasAuditLog: the service has an audit directory.
  public init(
    yaml: String,
    file: String,
    allowedEndpoints: [String],
    hasAuditLog: Bool = false
  ) throws(ConfigurationError) {
    var yaml = try StrictYAML(yaml, file: file)
    guard let cmkID = try yaml.take("cmk_id", Self.cmkID) else { throw yaml.error("cmk_id has to be set") }
    self.cmkID = cmkID
    provider = try ProviderSettings(&yaml, allowedEndpoints: allowedEndpoints)
    profile = try yaml.take("profile", Self.profile) ?? .keyringAWS
    wrappingKeyTTL = try yaml.duration("wrapping_key_ttl") ?? .seconds(300)
    outageGrace = try yaml.duration("outage_grace") ?? .seconds(86_400)
    isReadOnly = try yaml.flag("read_only") ?? false
    anchor =
      try yaml.take("anchor") { text throws(ConfigurationError) in
        guard let policy = AnchorPolicy(rawValue: text) else {
          throw ConfigurationError("written-behind or strict is expected, not '\(text)'")
        }
        return policy
      } ?? .writtenBehind
    instances = try Self.instances(&yaml)
    var mapping = try yaml.mapping("limits")
    var limits: [TenantLimit: Int] = [:]
    for limit in TenantLimit.allCases { limits[limit] = try mapping?.take(limit.rawValue, limit.value) }
    try mapping?.finish(known: Self.limitKeys)
    self.limits = limits
    audit = try yaml.take("audit", AuditMode.parse) ?? (hasAuditLog ? .lenient : .off)
    self.hasAuditLog = hasAuditLog
    storageFile = try yaml.take("storage_file", Self.fileName) ?? "keyring"
    try yaml.finish(known: Self.keys)
    try check(yaml)
  }

  private func check(_ yaml: StrictYAML) throws(ConfigurationError) {
    try Self.check(wrappingKeyTTL: wrappingKeyTTL, outageGrace: outageGrace) { yaml.error($0) }
    try Self.check(cmkID, region: provider.region) { yaml.error($0) }
    try Self.check(audit, hasAuditLog: hasAuditLog) { yaml.error($0) }
    guard storageFile != provider.credentialsFile else {
      throw yaml.error("storage_file and credentials_file are one file")
    }
  }

  /// An ARN names its region; a region beside it must be the same.
  static func check(
    _ cmkID: CMKID,
    region: String?,
    _ error: (String) -> ConfigurationError
  ) throws(ConfigurationError) {
    guard let region, let own = self.region(of: cmkID), own != region else { return }
    throw error("'region' is \(region), but cmk_id is of \(own)")
  }

  /// Of an ARN; nil for a key id and an alias.
  static func region(of cmkID: CMKID) -> String? {
    let arn = cmkID.text.split(separator: ":", omittingEmptySubsequences: false)
    return arn.count >= 6 && arn[0] == "arn" ? String(arn[3]) : nil
  }

  static func endpoint(_ text: String, allowed: [String]) throws(ConfigurationError) -> String {
    guard let host = endpointHost(text) else {
      throw ConfigurationError("https://HOST or https://HOST:PORT is expected, not '\(text)'")
    }
    guard allowed.contains(host) else {
      throw ConfigurationError("the host '\(host)' is not in the service's allowed_endpoints")
    }
    return text
  }

  /// The host of `https://HOST[:PORT][/]`; nil for anything else, a user name before the host among it: a reader of URLs that takes another
  /// part for the host than this one would go past the allow-list. Plain `http` is for a KMS on this machine alone.
  static func endpointHost(_ text: String) -> String? {
    let isPlain = text.hasPrefix("http://")
    guard isPlain || text.hasPrefix("https://") else { return nil }
    var rest = text.dropFirst(isPlain ? 7 : 8)
    if rest.hasSuffix("/") { rest = rest.dropLast() }
    let parts = rest.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2 {
      guard parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = Int(parts[1]),
        (1...65_535).contains(port)
      else { return nil }
    }
    let isHost = parts[0].utf8.allSatisfy { byte in
      (0x61...0x7a).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2d || byte == 0x2e
    }
    guard !parts[0].isEmpty, isHost else { return nil }
    guard !isPlain || ["localhost", "127.0.0.1"].contains(parts[0]) else { return nil }
    return String(parts[0])
  }

  static func check(
    wrappingKeyTTL: Duration,
    outageGrace: Duration,
    _ error: (String) -> ConfigurationError
  ) throws(ConfigurationError) {
    guard wrappingKeyTTL > .zero || outageGrace == .zero else {
      throw error("wrapping_key_ttl 0 asks the KMS at each operation: outage_grace must be 0 too")
    }
  }

  static func check(
    _ audit: AuditMode,
    hasAuditLog: Bool,
    _ error: (String) -> ConfigurationError
  ) throws(ConfigurationError) {
    guard audit != .strict || hasAuditLog else {
      throw error("'audit' cannot be strict: the service has no audit directory")
    }
  }

  // MARK: Values, as `set` takes them too

  static func cmkID(_ text: String) throws(ConfigurationError) -> CMKID {
    do {
      return try CMKID(text)
    } catch {
      throw ConfigurationError("\(error)")
    }
  }

  static func provider(_ text: String) throws(ConfigurationError) -> ProviderKind {
    guard let provider = ProviderKind(rawValue: text) else {
      throw ConfigurationError("local or aws is expected, not '\(text)'")
    }
    return provider
  }

  static func profile(_ text: String) throws(ConfigurationError) -> Profile {
    guard let profile = Profile(rawValue: text) else {
      throw ConfigurationError("keyring_aws, general or any is expected, not '\(text)'")
    }
    return profile
  }

  static func fileName(_ text: String) throws(ConfigurationError) -> String {
    let reserved = ["tenant.yaml", "persisted.json", TakenBackups.fileName]
    // `.lock` and `.new` are what the server puts behind a name of its own.
    guard !text.isEmpty, !text.hasPrefix("."), text.utf8.count <= 200, !reserved.contains(text),
      !text.hasSuffix(".lock"), !text.hasSuffix(".new"),
      text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "/") })
    else { throw ConfigurationError("a file name of one component is expected, not '\(text)'") }
    return text
  }

  private static func instances(_ yaml: inout StrictYAML) throws(ConfigurationError) -> AllowedInstances {
    var seen: Set<InstanceName> = []
    var isAny = false
    let instances = try yaml.items("instances") { item throws(ConfigurationError) -> AllowedInstance? in
      if case .word("any") = item {
        isAny = true
        return nil
      }
      let instance = try AllowedInstance(item)
      guard seen.insert(instance.name).inserted else {
        throw ConfigurationError("'\(instance.name)' is there twice")
      }
      return instance
    }
    guard isAny else { return .listed((instances ?? []).compactMap { $0 }) }
    guard instances?.count == 1 else { throw yaml.error("'instances' is `any`, or a list of names") }
    return .any
  }

  static func instance(_ word: String) throws(ConfigurationError) -> InstanceName {
    do {
      return try InstanceName(word)
    } catch {
      throw ConfigurationError("\(error), not '\(word)'")
    }
  }
}
