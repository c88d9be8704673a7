/// Why a configuration cannot be used: one line that says where and what.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// `tenants/acme/tenant.yaml:3:7: unknown key 'cmkid'`
  public let description: String

  /// - Parameter description: one line.
  public init(_ description: String) { self.description = description }
}
