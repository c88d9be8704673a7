internal import KeyringCore
internal import SecureMemory

/// What a configuration came to once files and environment were read: all that is left to do is asking over the network.
indirect enum ResolvedSource: Sendable {
  /// Credentials as they were read; they stay until the operator has new ones read.
  case fixed(AWSCredentials)
  /// AssumeRoleWithWebIdentity; the file is read anew for each exchange, since the platform renews it.
  case webIdentity(role: AWSRole, tokenFile: String)
  case container(ContainerEndpoint)
  /// `http://` and host.
  case instanceMetadata(endpoint: String)
  /// AssumeRole with the credentials of another source.
  case role(AWSRole, over: ResolvedSource)
}

/// Where a container's credentials are had.
struct ContainerEndpoint: Sendable {
  /// What proves that the request comes from the container.
  enum Authorization: Sendable {
    case none
    case value(Secret)
    /// Read anew for each request.
    case file(String)
  }
  let url: String
  let isSecure: Bool
  let authorization: Authorization
}
