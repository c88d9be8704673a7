import KeyringTestSupport
import Testing

/// The C clients build without a warning, with and without sanitizers.
@Suite struct BuildTests {
  @Test(arguments: [nil] + CClients.Sanitizer.allCases.map { $0 })
  func builds(_ sanitizer: CClients.Sanitizer?) async throws {
    _ = try await CClients.built(sanitizer)
  }
}
