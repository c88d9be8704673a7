import KeyringTestSupport
import Testing

/// The database servers that the tests use are there.
@Suite struct InstallationTests {
  @Test func mysqlIsUnpacked() async throws {
    let outcome = try await TestProgram(path: "\(CClients.top)/Tests/install-mysql").run([])
    #expect(outcome.status == 0)
    #expect(outcome.text.hasSuffix("/root\n"))
  }
}
