public import ConfigurationFiles
public import KeyringCore
internal import KeyringStorage

/// A variable of a tenant, as MySQL has system variables.
public enum VariableName: String, Sendable, CaseIterable {
  case cmkID = "cmk_id"
  case wrappingKeyTTL = "wrapping_key_ttl"
  case outageGrace = "outage_grace"
  case profile
  case readOnly = "read_only"
  case provider
  case region
  case endpoint
  case anchor
  case instances
  case keysMax = "limits.keys"
  case bytesMax = "limits.bytes"
  case connectionsMax = "limits.connections"
  case requestsInFlightMax = "limits.requests_in_flight"
  case inFlightBytesMax = "limits.in_flight_bytes"
  case requestsPerSecond = "limits.requests_per_second"
  case requestsBurst = "limits.requests_burst"
  case writesPerSecond = "limits.writes_per_second"
  case writesBurst = "limits.writes_burst"
  case kmsCallsPerSecond = "limits.kms_calls_per_second"
  case weight = "limits.weight"
  case storageFile = "storage_file"
  case credentials
  case credentialsFile = "credentials_file"
  case awsProfile = "aws_profile"
  case roleARN = "role_arn"
  case roleExternalID = "role_external_id"
  case stsEndpoint = "sts_endpoint"
  case audit

  /// True if it can be set at run time.
  public var isDynamic: Bool {
    switch self {
    case .cmkID, .region, .wrappingKeyTTL, .outageGrace, .profile, .readOnly, .audit: true
    case .keysMax, .bytesMax, .connectionsMax, .requestsInFlightMax, .inFlightBytesMax, .requestsPerSecond,
      .requestsBurst, .writesPerSecond, .writesBurst, .kmsCallsPerSecond, .weight:
      true
    case .provider, .endpoint, .anchor, .instances, .storageFile, .credentials, .credentialsFile, .awsProfile,
      .roleARN, .roleExternalID, .stsEndpoint:
      false
    }
  }

  /// What it means.
  public var meaning: String {
    switch self {
    case .cmkID: "the CMK under which new keys are encrypted"
    case .wrappingKeyTTL: "for how long a wrapping key is used without asking the KMS again"
    case .outageGrace: "for how long beyond that while the KMS does not answer"
    case .profile: "which key types and lengths are allowed"
    case .readOnly: "refuses every change"
    case .provider: "who holds the CMK"
    case .region: "the region of the KMS"
    case .endpoint: "the address of the KMS, where it is not the region's own"
    case .anchor: "when the anchor of the storage file is written"
    case .instances: "the instances that may call"
    case .keysMax, .bytesMax, .connectionsMax, .requestsInFlightMax, .inFlightBytesMax, .requestsPerSecond,
      .requestsBurst, .writesPerSecond, .writesBurst, .kmsCallsPerSecond, .weight:
      limit?.meaning ?? ""
    case .storageFile: "the storage file"
    case .credentials: "where the credentials for AWS come from"
    case .credentialsFile: "the file of the credentials for AWS"
    case .awsProfile: "the profile in the shared files of AWS"
    case .roleARN: "the role that is assumed with these credentials"
    case .roleExternalID: "the external id that the role asks for"
    case .stsEndpoint: "the address of AWS STS, where it is not the region's own"
    case .audit: "whether calls are written to the audit log, and refused where they cannot be"
    }
  }
}

/// A tenant's settings in force: global before persisted before file before default.
public struct TenantSettings: Sendable, Equatable {
  /// `tenant.yaml`.
  public var file: TenantConfiguration
  /// What `tenant move` made of the file's provider; nil: as the file says.
  public private(set) var moved: ProviderSettings?
  /// Those before, as long as wrapping keys may need them.
  public private(set) var former: [ProviderSettings] = []
  /// What `set persist` wrote; checked values as text.
  public private(set) var persisted: [VariableName: String]
  /// What `set global` set since the start.
  public private(set) var global: [VariableName: String]

  /// Puts file and persisted values together.
  ///
  /// - Throws: where a persisted value is not one.
  public init(file: TenantConfiguration, persisted: PersistedState) throws(ConfigurationError) {
    self.file = file
    moved = persisted.moved
    former = persisted.former
    self.persisted = [:]
    global = [:]
    // All of them together: one may be allowed only beside another, and there is no order among them.
    for (name, value) in persisted.variables.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      guard name.isDynamic else { throw Self.notDynamic(name) }
      self.persisted[name] = try Self.canonical(name, value)
    }
    try check()
  }

  private func check() throws(ConfigurationError) {
    try TenantConfiguration.check(cmkID, region: region) {
      ConfigurationError("\($0): an ARN needs no region beside it; `tenant move` changes both at once")
    }
    try TenantConfiguration.check(wrappingKeyTTL: wrappingKeyTTL, outageGrace: outageGrace) {
      ConfigurationError($0)
    }
    try TenantConfiguration.check(audit, hasAuditLog: file.hasAuditLog) { ConfigurationError($0) }
  }

  private static func notDynamic(_ name: VariableName) -> ConfigurationError {
    ConfigurationError("'\(name.rawValue)' cannot be set at run time: change tenant.yaml")
  }

  private func text(_ name: VariableName) -> String? { global[name] ?? persisted[name] }

  private func value<Value>(
    _ name: VariableName,
    _ fileValue: Value,
    _ read: (String) throws(ConfigurationError) -> Value
  ) -> Value {
    guard let text = text(name) else { return fileValue }
    do {
      return try read(text)
    } catch {
      preconditionFailure("'\(name.rawValue)' was checked when it was set")
    }
  }

  /// In force.
  public var cmkID: CMKID { value(.cmkID, file.cmkID, TenantConfiguration.cmkID) }
  /// In force.
  public var wrappingKeyTTL: Duration { value(.wrappingKeyTTL, file.wrappingKeyTTL, StrictYAML.duration) }
  /// In force.
  public var outageGrace: Duration { value(.outageGrace, file.outageGrace, StrictYAML.duration) }
  /// In force.
  public var profile: Profile { value(.profile, file.profile, TenantConfiguration.profile) }
  /// A limit in force, 0 for none; nil: the service's.
  func limit(_ limit: TenantLimit) -> Int? {
    guard let name = VariableName(rawValue: "limits.\(limit.rawValue)") else {
      preconditionFailure("every limit is a variable")
    }
    return value(name, file.limits[limit] ?? limit.standard) { text throws(ConfigurationError) in
      try limit.value(text)
    }
  }
  /// In force.
  public var audit: AuditMode { value(.audit, file.audit, AuditMode.parse) }
  /// In force.
  public var isReadOnly: Bool { value(.readOnly, file.isReadOnly, StrictYAML.flag) }
  /// In force; the region of an ARN counts where none is set.
  public var provider: ProviderSettings {
    var settings = moved ?? file.provider
    if settings.kind == .aws { settings.region = region ?? TenantConfiguration.region(of: cmkID) }
    return settings
  }

  private var region: String? { text(.region) ?? (moved ?? file.provider).region }

  /// The settings with another provider and CMK, persisted; the present provider is kept for what it wrapped.
  ///
  /// - Parameter account: the AWS account of the present provider's CMKs, where it is known.
  /// - Throws: where the region contradicts the CMK's.
  public func moving(
    to provider: ProviderSettings,
    cmkID: CMKID,
    from account: String? = nil
  ) throws(ConfigurationError) -> TenantSettings {
    var next = self
    var present = self.provider
    present.account = account ?? present.account
    next.former = [present] + former.filter { $0 != present && $0 != provider }
    next.moved = provider
    for name in [VariableName.region, .cmkID] {
      next.persisted[name] = nil
      next.global[name] = nil
    }
    next.persisted[.cmkID] = cmkID.text
    try next.check()
    return next
  }

  /// The settings once nothing needs a former provider any more.
  public func forgettingFormer() -> TenantSettings {
    var next = self
    next.former = []
    return next
  }

  /// These settings with what was set globally in `other`, where it still may be: what a reload takes over.
  public func keepingGlobal(of other: TenantSettings) throws(ConfigurationError) -> TenantSettings {
    var next = self
    next.global = other.global
    try next.check()
    return next
  }

  /// True while the cmk_id in force came from `set global` and a restart would come back to another.
  public var isCMKTransient: Bool {
    guard let global = global[.cmkID] else { return false }
    return global != (persisted[.cmkID] ?? file.cmkID.text)
  }

  /// The settings with one variable changed; nothing is changed where it throws. `DEFAULT` takes the global value away, and where
  /// `isPersisted` the persisted one, too: what is behind it is in force then.
  ///
  /// - Throws: for a variable that is not dynamic, and for a value that it cannot have.
  public func setting(_ name: VariableName, _ value: String, isPersisted: Bool) throws(ConfigurationError)
    -> TenantSettings
  {
    guard name.isDynamic else { throw Self.notDynamic(name) }
    var next = self
    let canonical = value == Self.defaultWord ? nil : try Self.canonical(name, value)
    if isPersisted { next.persisted[name] = canonical }
    next.global[name] = isPersisted ? nil : canonical
    guard next.moved == nil || next.persisted[.cmkID] != nil else { throw Self.neededSinceMove }
    try next.check()
    return next
  }

  /// The settings without the persisted value of a variable; the value in force stays so until a restart, as MySQL's RESET PERSIST has it.
  ///
  /// - Throws: where nothing is persisted of it.
  public func resettingPersisted(_ name: VariableName) throws(ConfigurationError) -> TenantSettings {
    guard let value = persisted[name] else {
      throw ConfigurationError("nothing is persisted of '\(name.rawValue)'")
    }
    guard moved == nil || name != .cmkID else { throw Self.neededSinceMove }
    var next = self
    next.persisted[name] = nil
    if next.global[name] == nil { next.global[name] = value }
    // What the next start makes of it must be possible, too.
    var restarted = next
    restarted.global = [:]
    try restarted.check()
    return next
  }

  /// What `set` takes in the place of a value.
  private static let defaultWord = "DEFAULT"
  private static let neededSinceMove = ConfigurationError(
    "the persisted cmk_id is that of a `tenant move`: set another one in its place"
  )

  private static func canonical(_ name: VariableName, _ value: String) throws(ConfigurationError) -> String {
    do throws(ConfigurationError) {
      switch name {
      case .cmkID: return try TenantConfiguration.cmkID(value).text
      case .region: return try ProviderSettings.region(value)
      case .wrappingKeyTTL, .outageGrace: return try StrictYAML.duration(value).text
      case .profile: return try TenantConfiguration.profile(value).rawValue
      case .readOnly: return "\(try StrictYAML.flag(value))"
      case .keysMax, .bytesMax, .connectionsMax, .requestsInFlightMax, .inFlightBytesMax, .requestsPerSecond,
        .requestsBurst, .writesPerSecond, .writesBurst, .kmsCallsPerSecond, .weight:
        guard let limit = name.limit else { preconditionFailure("a limit") }
        return limit.text(try limit.value(value))
      case .audit: return try AuditMode.parse(value).rawValue
      case .provider, .endpoint, .anchor, .instances, .storageFile, .credentials, .credentialsFile,
        .awsProfile, .roleARN, .roleExternalID, .stsEndpoint:
        preconditionFailure("not dynamic")
      }
    } catch {
      throw ConfigurationError("'\(name.rawValue)': \(error)")
    }
  }

  /// Where a value comes from.
  public func source(_ name: VariableName) -> String {
    if global[name] != nil { return "global" }
    if persisted[name] != nil { return "persisted" }
    if let moved, name.isOfProvider, text(name, of: moved) != text(name, of: file.provider) {
      return "persisted"
    }
    if let limit = name.limit { return file.limits[limit] == nil ? "default" : "file" }
    let usual = name == .audit ? (file.hasAuditLog ? AuditMode.lenient : .off).rawValue : Self.defaults[name]
    return text(inFile: name) == usual ? "default" : "file"
  }

  /// The value in force, as text; empty where there is none.
  public func shown(_ name: VariableName) -> String { text(name) ?? text(inFile: name) }

  private static let defaults: [VariableName: String] = [
    .provider: "local", .region: "", .endpoint: "", .profile: "keyring_aws", .wrappingKeyTTL: "5m",
    .outageGrace: "24h",
    .readOnly: "false", .anchor: "written-behind", .instances: "", .storageFile: "keyring",
    .credentials: "file", .credentialsFile: "credentials", .awsProfile: "", .roleARN: "",
    .roleExternalID: "", .stsEndpoint: "",
  ]

  private func text(inFile name: VariableName) -> String {
    switch name {
    case .cmkID: file.cmkID.text
    case .wrappingKeyTTL: file.wrappingKeyTTL.text
    case .outageGrace: file.outageGrace.text
    case .profile: file.profile.rawValue
    case .readOnly: "\(file.isReadOnly)"
    case .provider, .region, .endpoint, .credentials, .credentialsFile, .awsProfile, .roleARN,
      .roleExternalID, .stsEndpoint:
      text(name, of: moved ?? file.provider)
    case .anchor: file.anchor.rawValue
    case .audit: file.audit.rawValue
    case .keysMax, .bytesMax, .connectionsMax, .requestsInFlightMax, .inFlightBytesMax, .requestsPerSecond,
      .requestsBurst, .writesPerSecond, .writesBurst, .kmsCallsPerSecond, .weight:
      name.limit.map { limit in (file.limits[limit] ?? limit.standard).map(limit.text) ?? "" } ?? ""
    case .storageFile: file.storageFile
    case .instances:
      switch file.instances {
      case .any: "any"
      case .listed(let instances): instances.map(\.text).joined(separator: ", ")
      }
    }
  }

  private func text(_ name: VariableName, of provider: ProviderSettings) -> String {
    provider.members.first { $0.name == name.rawValue }?.value ?? ""
  }
}

extension VariableName {
  /// True if it is one of `ProviderSettings`.
  fileprivate var isOfProvider: Bool { ProviderSettings.keys.contains(rawValue) }
}
