internal import KeyringCore
internal import SecureMemory

/// Profiles that name others.
extension CredentialsResolver {
  /// The longest chain of source_profiles.
  static let sourceProfilesMax = 5

  /// The shared files, by their variables or in the home directory.
  func sharedProfiles(_ name: String?) throws(CMKError) -> SharedProfiles {
    let home = try text("HOME")
    let ofVariable = try text("AWS_PROFILE")
    return try SharedProfiles(
      name: name ?? ofVariable,
      credentials: place("AWS_SHARED_CREDENTIALS_FILE", "credentials", home),
      configuration: place("AWS_CONFIG_FILE", "config", home)
    )
  }

  private func place(
    _ variable: String,
    _ name: String,
    _ home: String?
  ) throws(CMKError) -> SharedProfiles.Place? {
    guard let path = try text(variable) else {
      return home.map { SharedProfiles.Place(path: "\($0)/.aws/\(name)", isNamed: false) }
    }
    guard path.hasPrefix("~/"), let home else { return SharedProfiles.Place(path: path, isNamed: true) }
    return SharedProfiles.Place(path: home + path.dropFirst(1), isNamed: true)
  }

  /// What the wanted profile comes to; nil where it is not there, or says nothing of credentials.
  func resolve(_ profiles: SharedProfiles) throws(CMKError) -> ResolvedSource? {
    try resolve(profiles, profiles.name, above: [])
  }

  private func resolve(
    _ profiles: SharedProfiles,
    _ name: String,
    above: [String]
  ) throws(CMKError) -> ResolvedSource? {
    try profiles.refuseUnsupported(name)
    let fixed = try profiles.fixedCredentials(name)
    // A profile that others name as their source gives its keys, where it has any; the wanted one its role, as the AWS SDKs have it.
    if let fixed, !above.isEmpty { return .fixed(fixed) }
    guard let arn = try profiles.text(name, .roleARN) else { return fixed.map { .fixed($0) } }
    let role = try role(profiles, name, arn)
    let tokenFile = try profiles.text(name, .webIdentityTokenFile)
    let source = try profiles.text(name, .sourceProfile)
    let kind = try profiles.text(name, .credentialSource)
    switch (tokenFile, source, kind) {
    case (let tokenFile?, nil, nil):
      return .webIdentity(role: role, tokenFile: tokenFile)
    case (nil, let source?, nil):
      if source == name, let fixed { return .role(role, over: .fixed(fixed)) }
      return .role(role, over: try sourceProfile(profiles, source, above: above + [name]))
    case (nil, nil, let kind?):
      return .role(role, over: try credentialSource(profiles, name, kind))
    case (nil, nil, nil), (_?, _?, _), (_?, _, _?), (_, _?, _?):
      throw .configuration(
        "\(profiles.place(name, .roleARN)): role_arn needs one of source_profile, credential_source and web_identity_token_file"
      )
    }
  }

  private func role(_ profiles: SharedProfiles, _ name: String, _ arn: String) throws(CMKError) -> AWSRole {
    let externalID = try profiles.text(name, .externalID)
    let sessionName = try profiles.text(name, .roleSessionName)
    do {
      return try AWSRole(arn: arn, externalID: externalID, sessionName: sessionName)
    } catch {
      throw .configuration("\(profiles.place(name, .roleARN)): \(error)")
    }
  }

  private func sourceProfile(
    _ profiles: SharedProfiles,
    _ source: String,
    above: [String]
  ) throws(CMKError) -> ResolvedSource {
    let place = profiles.place(above.last ?? source, .sourceProfile)
    guard !above.contains(source) else {
      throw .configuration("\(place): the source_profile '\(printable(source))' leads back to itself")
    }
    guard above.count <= Self.sourceProfilesMax else {
      throw .configuration(
        "\(place): more than \(Self.sourceProfilesMax) source_profiles, each of the one before"
      )
    }
    guard let resolved = try resolve(profiles, source, above: above) else {
      throw .configuration("\(place): the source_profile '\(printable(source))' has no credentials")
    }
    return resolved
  }

  private func credentialSource(
    _ profiles: SharedProfiles,
    _ name: String,
    _ kind: String
  ) throws(CMKError) -> ResolvedSource {
    let source: ResolvedSource?
    switch kind {
    case "Environment": source = try environment()
    case "Ec2InstanceMetadata": source = try instanceMetadata()
    case "EcsContainer": source = try container()
    default:
      throw .configuration(
        "\(profiles.place(name, .credentialSource)): credential_source is Environment, Ec2InstanceMetadata or EcsContainer"
      )
    }
    guard let source else {
      throw .configuration("\(profiles.place(name, .credentialSource)): there are no credentials of \(kind)")
    }
    return source
  }
}
