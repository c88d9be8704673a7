internal import CMKProviders
internal import HTTPTransport
internal import KeyringCore
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// One tenant's way to AWS KMS under certain settings: credentials, and connections that nobody else's requests go over. Those close when the
/// last call that uses them is done, also after other settings came into force.
final class AWSAccess: Sendable {
  let provider: AWSProvider
  let credentials: AWSCredentialsCache

  /// - Throws: `CMKError.configuration` where the settings cannot be used; credentials are read at the first call.
  init(
    _ settings: ProviderSettings,
    _ tenant: TenantName,
    _ files: TenantFiles?,
    _ resources: ServiceResources,
    _ guarded: CallGuard
  ) throws(CMKError) {
    guard let region = settings.region else {
      throw .configuration("'region' has to be set where cmk_id is no ARN")
    }
    var options = HTTPConnections.Options()
    options.caFile = resources.configuration.awsCAFile
    options.proxy = resources.configuration.awsProxy
    let connections = resources.http.connections(options)
    credentials = AWSCredentialsCache(
      try Self.configuration(settings, region, tenant, files),
      http: connections,
      metadata: resources.http.connections(),  // beside this machine: never through a proxy
      nowMilliseconds: { unixMilliseconds() }
    )
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
    _ files: TenantFiles?
  ) throws(CMKError) -> AWSCredentialsConfiguration {
    let source: AWSCredentialsConfiguration.Source
    switch settings.credentials {
    case .file:
      guard let files else { throw .configuration("the tenant has no directory with a credentials file") }
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
