public import KeyringCore
public import SecureMemory

/// What signs a tenant's requests to AWS.
public struct AWSCredentials: Sendable {
  /// Not secret.
  public let accessKeyID: String
  /// Signs; never sent.
  public let secretAccessKey: Secret
  /// Of temporary credentials.
  public let sessionToken: Secret?
  /// Unix milliseconds; nil: until they are revoked.
  public let expiresMilliseconds: UInt64?

  /// Puts the parts together.
  public init(
    accessKeyID: String,
    secretAccessKey: Secret,
    sessionToken: Secret?,
    expiresMilliseconds: UInt64?
  ) {
    self.accessKeyID = accessKeyID
    self.secretAccessKey = secretAccessKey
    self.sessionToken = sessionToken
    self.expiresMilliseconds = expiresMilliseconds
  }
}

/// Where credentials come from. One a tenant.
public protocol AWSCredentialsSource: Sendable {
  /// Credentials that are good at this moment, from memory where they are; those that expire soon are had anew, once for all who ask.
  ///
  /// - Throws: `CMKError.unreachable` where there are none at this moment: what is held goes on within the grace.
  func credentials() async throws(CMKError) -> AWSCredentials

  /// AWS does not know them, or no longer: temporary ones are had anew before the next call.
  func invalidate()
}
