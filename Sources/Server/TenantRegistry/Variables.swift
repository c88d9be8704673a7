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
  case storageFile = "storage_file"
  case credentials
  case credentialsFile = "credentials_file"
  case awsProfile = "aws_profile"
  case roleARN = "role_arn"
  case roleExternalID = "role_external_id"
  case stsEndpoint = "sts_endpoint"

  /// True if it can be set at run time.
  public var isDynamic: Bool {
    switch self {
    case .cmkID, .region, .wrappingKeyTTL, .outageGrace, .profile, .readOnly: true
    case .provider, .endpoint, .anchor, .instances, .keysMax, .storageFile, .credentials, .credentialsFile,
      .awsProfile, .roleARN, .roleExternalID, .stsEndpoint:
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
    case .keysMax: "how many keys the tenant may have"
    case .storageFile: "the storage file"
    case .credentials: "where the credentials for AWS come from"
    case .credentialsFile: "the file of the credentials for AWS"
    case .awsProfile: "the profile in the shared files of AWS"
    case .roleARN: "the role that is assumed with these credentials"
    case .roleExternalID: "the external id that the role asks for"
    case .stsEndpoint: "the address of AWS STS, where it is not the region's own"
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

  /// The settings with one variable changed; nothing is changed where it throws.
  ///
  /// - Throws: for a variable that is not dynamic, and for a value that it cannot have.
  public func setting(_ name: VariableName, _ value: String, isPersisted: Bool) throws(ConfigurationError)
    -> TenantSettings
  {
    guard name.isDynamic else { throw Self.notDynamic(name) }
    var next = self
    let canonical = try Self.canonical(name, value)
    if isPersisted { next.persisted[name] = canonical }
    next.global[name] = isPersisted ? nil : canonical
    try next.check()
    return next
  }

  private static func canonical(_ name: VariableName, _ value: String) throws(ConfigurationError) -> String {
    do throws(ConfigurationError) {
      switch name {
      case .cmkID: return try TenantConfiguration.cmkID(value).text
      case .region: return try ProviderSettings.region(value)
      case .wrappingKeyTTL, .outageGrace: return try StrictYAML.duration(value).text
      case .profile: return try TenantConfiguration.profile(value).rawValue
      case .readOnly: return "\(try StrictYAML.flag(value))"
      case .provider, .endpoint, .anchor, .instances, .keysMax, .storageFile, .credentials,
        .credentialsFile, .awsProfile, .roleARN, .roleExternalID, .stsEndpoint:
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
    return text(inFile: name) == Self.defaults[name] ? "default" : "file"
  }

  /// The value in force, as text; empty where there is none.
  public func shown(_ name: VariableName) -> String { text(name) ?? text(inFile: name) }

  private static let defaults: [VariableName: String] = [
    .provider: "local", .region: "", .endpoint: "", .profile: "keyring_aws", .wrappingKeyTTL: "5m",
    .outageGrace: "24h",
    .readOnly: "false", .anchor: "written-behind", .instances: "", .keysMax: "1000000",
    .storageFile: "keyring",
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
    case .keysMax: "\(file.keysMax)"
    case .storageFile: file.storageFile
    case .instances:
      switch file.instances {
      case .any: "any"
      case .listed(let names): names.map(\.text).joined(separator: ", ")
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
