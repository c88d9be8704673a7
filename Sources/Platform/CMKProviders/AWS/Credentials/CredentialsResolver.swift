internal import KeyringCore
internal import SecureMemory

/// Reads files and variables, and decides by them where credentials come from. Network: none.
struct CredentialsResolver: Sendable {
  let tenant: TenantName
  /// A variable's value; nil where it is not set, or empty.
  let variable: @Sendable (String) throws(SecureMemoryError) -> Secret?

  /// What a configuration comes to, and its name for status and messages.
  ///
  /// - Throws: `CMKError.configuration`, naming variable, or file and line; `.unreachable` where a file cannot be read at this moment.
  func resolve(
    _ configuration: AWSCredentialsConfiguration
  ) throws(CMKError) -> (source: ResolvedSource, name: String) {
    let (source, name) = try base(configuration.source)
    guard let role = configuration.role else { return (source, name) }
    return (.role(role, over: source), "role \(role.arn) over \(name)")
  }

  private func base(
    _ source: AWSCredentialsConfiguration.Source
  ) throws(CMKError) -> (source: ResolvedSource, name: String) {
    switch source {
    case .file(let directory, let name):
      return (.fixed(try CredentialsFile.read(directory, name)), "file \(name)")
    case .content(let content, let name):
      return (.fixed(try CredentialsFile.parse(content, file: name)), "file \(name)")
    case .environment:
      return (try found(environment(), "AWS_ACCESS_KEY_ID is not set"), "environment")
    case .profile(let name):
      let profiles = try sharedProfiles(name)
      return (try found(resolve(profiles), profiles.nothingThere), "profile \(profiles.name)")
    case .webIdentity:
      return (try found(webIdentity(), "AWS_WEB_IDENTITY_TOKEN_FILE is not set"), "web identity")
    case .container:
      let missing =
        "neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set"
      return (try found(container(), missing), "container")
    case .instanceMetadata:
      return (try found(instanceMetadata(), "AWS_EC2_METADATA_DISABLED is true"), "instance metadata")
    case .chain:
      return try chain()
    }
  }

  private func found(_ source: ResolvedSource?, _ missing: String) throws(CMKError) -> ResolvedSource {
    guard let source else { throw .configuration(missing) }
    return source
  }

  /// The first that is configured; it throws where that one is configured wrongly.
  private func chain() throws(CMKError) -> (source: ResolvedSource, name: String) {
    if let source = try environment() { return (source, "chain: environment") }
    if let source = try webIdentity() { return (source, "chain: web identity") }
    let profiles = try sharedProfiles(nil)
    if let source = try resolve(profiles) { return (source, "chain: profile \(profiles.name)") }
    guard !profiles.isNamed else { throw .configuration(profiles.nothingThere) }
    if let source = try container() { return (source, "chain: container") }
    if let source = try instanceMetadata() { return (source, "chain: instance metadata") }
    throw .configuration(
      "nothing of the chain is configured: no environment, web identity, profile or container, and AWS_EC2_METADATA_DISABLED is true"
    )
  }
}
