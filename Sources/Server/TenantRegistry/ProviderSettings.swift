public import ConfigurationFiles
public import KeyringCore

/// Where a tenant's AWS credentials come from.
public enum CredentialsKind: String, Sendable, CaseIterable {
  /// The two lines of `credentials_file`, as keyring_aws has them.
  case file
  /// AWS_ACCESS_KEY_ID and its companions, of keyringd's own environment.
  case environment
  /// `aws_profile` of the shared files.
  case profile
  /// AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN.
  case webIdentity = "web-identity"
  /// The endpoint that a container runtime names.
  case container
  /// IMDSv2.
  case instanceMetadata = "instance-metadata"
  /// The first of those above, the file apart, that is configured.
  case chain
}

/// Who holds a tenant's CMK, where, and whose credentials reach it.
public struct ProviderSettings: Sendable, Hashable {
  /// Default: local.
  public var kind: ProviderKind
  /// Of AWS; nil: the one in the CMK's ARN.
  public var region: String?
  /// Of AWS; nil: the region's own. Its host is in the service's allow-list.
  public var endpoint: String?
  /// Of AWS; default: file.
  public var credentials: CredentialsKind
  /// One path component in the tenant's directory; default: credentials.
  public var credentialsFile: String
  /// For `profile`; nil: AWS_PROFILE, or `default`.
  public var awsProfile: String?
  /// A role to assume with these credentials.
  public var roleARN: String?
  /// What the role's trust policy asks for.
  public var roleExternalID: String?
  /// Of AWS STS; nil: the region's own.
  public var stsEndpoint: String?
  /// The AWS account of its CMKs, once a move has learned it: whose ciphertexts it is asked for. Never in a tenant's file.
  public var account: String?

  /// The keys in `tenant.yaml`.
  static let keys = [
    "provider", "region", "endpoint", "credentials", "credentials_file", "aws_profile", "role_arn",
    "role_external_id", "sts_endpoint",
  ]

  /// The embedded provider.
  public static let local = ProviderSettings(
    kind: .local,
    credentials: .file,
    credentialsFile: "credentials"
  )

  /// Takes its keys out of `yaml`.
  ///
  /// - Parameter allowedEndpoints: hosts that endpoints may name.
  init(_ yaml: inout StrictYAML, allowedEndpoints: [String]) throws(ConfigurationError) {
    let endpoint = { text throws(ConfigurationError) in
      try TenantConfiguration.endpoint(text, allowed: allowedEndpoints)
    }
    kind = try yaml.take("provider", TenantConfiguration.provider) ?? .local
    region = try yaml.take("region", Self.region)
    self.endpoint = try yaml.take("endpoint", endpoint)
    credentials =
      try yaml.take("credentials") { text throws(ConfigurationError) in
        guard let kind = CredentialsKind(rawValue: text) else {
          let known = CredentialsKind.allCases.map(\.rawValue).joined(separator: ", ")
          throw ConfigurationError("one of \(known) is expected, not '\(text)'")
        }
        return kind
      } ?? .file
    credentialsFile =
      try yaml.take("credentials_file", TenantConfiguration.fileName) ?? Self.local.credentialsFile
    awsProfile = try yaml.take("aws_profile", Self.word)
    roleARN = try yaml.take("role_arn") { text throws(ConfigurationError) in
      guard text.hasPrefix("arn:"), text.split(separator: ":").count >= 5, text.contains(":role/") else {
        throw ConfigurationError("arn:aws:iam::ACCOUNT:role/NAME is expected, not '\(text)'")
      }
      return try Self.word(text)
    }
    roleExternalID = try yaml.take("role_external_id", Self.word)
    stsEndpoint = try yaml.take("sts_endpoint", endpoint)
    try check(yaml)
  }

  /// Reads settings that an administrator sent, by the same rules.
  public init(
    members: [(name: String, value: String)],
    allowedEndpoints: [String]
  ) throws(ConfigurationError) {
    for member in members {
      guard (member.name + member.value).utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
        throw ConfigurationError("a provider's settings are printable ASCII without spaces")
      }
    }
    var yaml = try StrictYAML(PersistedState.object(members), file: "the new provider")
    try self.init(&yaml, allowedEndpoints: allowedEndpoints)
    try yaml.finish(known: Self.keys)
  }

  private init(kind: ProviderKind, credentials: CredentialsKind, credentialsFile: String) {
    self.kind = kind
    self.credentials = credentials
    self.credentialsFile = credentialsFile
  }

  private func check(_ yaml: StrictYAML) throws(ConfigurationError) {
    guard roleExternalID == nil || roleARN != nil else {
      throw yaml.error("'role_external_id' is there without 'role_arn'")
    }
    guard awsProfile == nil || credentials == .profile else {
      throw yaml.error("'aws_profile' is there without 'credentials: profile'")
    }
  }

  /// True if both are the same settings, whatever is known of the account.
  public func isSame(butForAccount other: ProviderSettings) -> Bool {
    var mine = self
    mine.account = other.account
    return mine == other
  }

  /// True if both come to AWS as the same user.
  public func hasSameCredentials(as other: ProviderSettings) -> Bool {
    var mine = self
    (mine.region, mine.endpoint) = (other.region, other.endpoint)
    return mine.isSame(butForAccount: other)
  }

  // MARK: Values

  /// What may become a part of a host's name.
  static func region(_ text: String) throws(ConfigurationError) -> String {
    let isRegion = text.utf8.allSatisfy { byte in
      (0x61...0x7a).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2d
    }
    guard isRegion, (2...32).contains(text.utf8.count), !text.hasPrefix("-"), !text.hasSuffix("-") else {
      throw ConfigurationError("a region such as eu-central-1 is expected, not '\(text)'")
    }
    return text
  }

  private static func word(_ text: String) throws(ConfigurationError) -> String {
    guard (1...2048).contains(text.utf8.count), text.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      throw ConfigurationError("printable ASCII without spaces is expected, not '\(text)'")
    }
    return text
  }

  /// Reads what `persistedMembers` wrote.
  init(persisted yaml: StrictYAML, allowedEndpoints: [String]) throws(ConfigurationError) {
    var yaml = yaml
    let account = try yaml.take("account", Self.account)
    try self.init(&yaml, allowedEndpoints: allowedEndpoints)
    self.account = account
    try yaml.finish(known: Self.keys + ["account"])
  }

  private static func account(_ text: String) throws(ConfigurationError) -> String {
    guard text.utf8.count == 12, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
      throw ConfigurationError("an AWS account of 12 digits is expected, not '\(text)'")
    }
    return text
  }

  /// As members of a JSON object, what a move learned among them.
  var persistedMembers: [(name: String, value: String)] {
    members + (account.map { [(name: "account", value: $0)] } ?? [])
  }

  /// As members of a JSON object.
  var members: [(name: String, value: String)] {
    let optional: [(String, String?)] = [
      ("provider", kind.rawValue), ("region", region), ("endpoint", endpoint),
      ("credentials", credentials.rawValue), ("credentials_file", credentialsFile),
      ("aws_profile", awsProfile), ("role_arn", roleARN), ("role_external_id", roleExternalID),
      ("sts_endpoint", stsEndpoint),
    ]
    return optional.compactMap { name, value in value.map { (name: name, value: $0) } }
  }
}
