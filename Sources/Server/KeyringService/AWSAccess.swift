internal import CMKProviders
internal import HTTPTransport
internal import KeyringCore
internal import SecureMemory
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// One tenant's way to AWS KMS under certain settings: credentials, and connections that nobody else's requests go over. Those close when the
/// last call that uses them is done, also after other settings came into force.
final class AWSAccess: Sendable {
  let provider: AWSProvider
  let credentials: AWSCredentialsCache

  /// Where the content of a credentials' file comes from.
  struct CredentialsPlace {
    let files: TenantFiles?
    /// Of a tenant that has no directory yet.
    let content: Secret?
  }

  /// - Throws: `CMKError.configuration` where the settings cannot be used; credentials are read at the first call.
  init(
    _ settings: ProviderSettings,
    _ tenant: TenantName,
    _ place: CredentialsPlace,
    _ resources: ServiceResources,
    _ guarded: CallGuard,
    _ shared: AWSCredentialsCache?
  ) throws(CMKError) {
    guard let region = settings.region else {
      throw .configuration("'region' has to be set where cmk_id is no ARN")
    }
    var options = HTTPConnections.Options()
    options.caFile = resources.configuration.awsCAFile
    options.proxy = resources.configuration.awsProxy
    let connections = resources.http.connections(options)
    if let shared {
      credentials = shared
    } else {
      credentials = AWSCredentialsCache(
        try Self.configuration(settings, region, tenant, place),
        http: connections,
        metadata: resources.http.connections(),  // beside this machine: never through a proxy
        nowMilliseconds: { unixMilliseconds() }
      )
    }
    provider = AWSProvider(
      place: AWSPlace(region: region, endpoint: settings.endpoint),
      credentials: credentials,
      http: connections,
      guarded: guarded
    )
  }

  private static func configuration(
    _ settings: ProviderSettings,
    _ region: String,
    _ tenant: TenantName,
    _ place: CredentialsPlace
  ) throws(CMKError) -> AWSCredentialsConfiguration {
    let source: AWSCredentialsConfiguration.Source
    switch settings.credentials {
    case .file:
      if let content = place.content {
        source = .content(content, name: settings.credentialsFile)
        break
      }
      guard let files = place.files else {
        throw .configuration("the tenant has no directory with a credentials file")
      }
      source = .file(directory: files.directory, name: settings.credentialsFile)
    case .environment: source = .environment
    case .profile: source = .profile(settings.awsProfile)
    case .webIdentity: source = .webIdentity
    case .container: source = .container
    case .instanceMetadata: source = .instanceMetadata
    case .chain: source = .chain
    }
    let role = try settings.roleARN.map { arn throws(CMKError) in
      try AWSRole(arn: arn, externalID: settings.roleExternalID, sessionName: nil)
    }
    return try AWSCredentialsConfiguration(
      source,
      role: role,
      tenant: tenant,
      region: region,
      securityTokenEndpoint: settings.stsEndpoint
    )
  }
}
