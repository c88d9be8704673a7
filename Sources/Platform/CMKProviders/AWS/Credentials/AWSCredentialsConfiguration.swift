public import KeyringCore
public import KeyringStorage
public import SecureMemory

/// Where a tenant's credentials come from.
public struct AWSCredentialsConfiguration: Sendable {
  /// The source, as the AWS SDKs know them, and keyring_aws's file.
  public enum Source: Sendable {
    /// A file of two lines, access key id and secret access key, mode 0600; a third line may hold a session token.
    case file(directory: DirectoryDescriptor, name: String)
    /// The content of such a file that is not there yet, and what it will be called.
    case content(Secret, name: String)
    /// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN of the service's process.
    case environment
    /// A profile of the shared files (AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, AWS_CONFIG_FILE or ~/.aws/config); nil: AWS_PROFILE, or
    /// `default`.
    case profile(String?)
    /// AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_SESSION_NAME: AssumeRoleWithWebIdentity, as in EKS.
    case webIdentity
    /// The endpoint in AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, as in ECS and EKS Pod Identity.
    case container
    /// The instance metadata service of EC2, version 2.
    case instanceMetadata
    /// Environment, web identity, shared profile, container, instance metadata: the first of them that is *configured*. Where that one fails, the
    /// failure is the answer; none of the others is tried, since credentials of another account or of wider rights would hide the mistake.
    case chain
  }

  /// Where the credentials come from.
  public let source: Source
  /// A role that they are exchanged for.
  public let role: AWSRole?
  /// Whose they are.
  public let tenant: TenantName
  /// Whose Security Token Service is asked: `https://sts.<region>.amazonaws.com/`, or what the region's partition has for it.
  let region: AWSRegion
  /// Asked instead; https, or http to loopback.
  public let securityTokenEndpoint: String?

  /// Puts the parts together.
  ///
  /// - Parameter region: as `eu-central-1`.
  /// - Throws: `CMKError.configuration` for what is no region and for an endpoint that is no URL.
  public init(
    _ source: Source,
    role: AWSRole? = nil,
    tenant: TenantName,
    region: String,
    securityTokenEndpoint: String? = nil
  ) throws(CMKError) {
    guard let region = AWSRegion(region) else {
      throw .configuration(
        "the region '\(printable(region))' is no name of an AWS region, as eu-central-1 is one"
      )
    }
    if let securityTokenEndpoint {
      guard let url = EndpointURL(securityTokenEndpoint), url.isSecure || url.isLoopback else {
        throw .configuration("the endpoint of STS is an https:// URL, or http:// of this machine")
      }
    }
    self.source = source
    self.role = role
    self.tenant = tenant
    self.region = region
    self.securityTokenEndpoint = securityTokenEndpoint
  }
}
