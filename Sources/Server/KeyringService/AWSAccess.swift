internal import CMKProviders
internal import KeyringCore
internal import TenantRegistry

/// One tenant's way to AWS KMS under certain settings: connections of its own, credentials, the provider.
final class AWSAccess: Sendable {
  let provider: any CMKProvider
  struct Credentials { let status: AWSCredentialsStatus }
  let credentials: Credentials

  init(
    _ settings: ProviderSettings,
    _ tenant: TenantName,
    _ files: TenantFiles?,
    _ resources: ServiceResources,
    _ guarded: CallGuard
  ) throws(CMKError) {
    throw .configuration("not there yet")
  }
}
struct AWSCredentialsStatus: Sendable { var summary: String { "" } }
enum AWSProvider { static func isOf(region: String?, _ wrapped: [UInt8]) -> Bool { true } }
