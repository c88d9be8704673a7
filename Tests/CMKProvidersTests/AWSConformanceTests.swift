import KeyringCore
import KeyringTestSupport
import Testing

@testable import CMKProviders

/// What every provider of CMKs does alike, before a KMS in memory; emulators of AWS run the same checks with a steward of their own.
@Suite struct AWSConformanceTests {
  private func provider(_ kms: FakeKMS, _ principal: String) throws -> AWSProvider {
    AWSProvider(
      place: AWSPlace(region: "eu-central-1", endpoint: nil),
      credentials: try HeldCredentials(principal),
      http: kms,
      guarded: CallGuard()
    )
  }

  private func steward(_ kms: FakeKMS, _ principal: String) throws -> CMKConformance.Steward {
    let target = try AWSPlace(region: "eu-central-1", endpoint: nil).target()
    let credentials = try HeldCredentials.credentials(principal)
    return KMSAdministrator(http: kms, target: target, credentials: credentials).steward
  }

  @Test(arguments: CMKConformance.allCases.filter { $0.need != .lifecycle })
  func conforms(_ check: CMKConformance) async throws {
    let kms = FakeKMS()
    try await check.run(
      CMKConformance.Subject(
        provider: try provider(kms, "AKIDACME"),
        ofAnotherTenant: try provider(kms, "AKIDGLOBEX"),
        again: try provider(kms, "AKIDACME"),
        steward: try steward(kms, "AKIDACME"),
        ofAnotherTenantsSteward: try steward(kms, "AKIDGLOBEX"),
        absent: try CMKID(AWSFixture.arn),
        hostile: try ["local-0", "..", "/etc/passwd", "arn:aws:kms:evil.example/:1:key/x"].map {
          try CMKID($0)
        }
      )
    )
  }
}
