import HTTPTransport
import KeyringCore
import KeyringTestSupport
import Testing

@testable import CMKProviders

/// What every provider of CMKs does alike: before a KMS in memory, which has all of it, and over the network before moto, which checks signatures.
@Suite struct AWSConformanceTests {
  private func provider(_ kms: FakeKMS, _ principal: String) throws -> AWSProvider {
    AWSProvider(
      place: AWSPlace(region: "eu-central-1", endpoint: nil),
      credentials: try HeldCredentials(principal),
      http: kms,
      guarded: ManualClock().guarded(attempts: 1)
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

  /// What moto lets pass, though KMS refuses it.
  private func unserved(_ check: CMKConformance) -> Comment? {
    switch check {
    case .anotherTenantIsRefused: "moto's IAM knows no single key: who may use one may use all"
    case .disabledIsDenied, .pendingDeletionIsDenied: "moto encrypts and decrypts whatever the key's state is"
    case .aDataKeyOpensAgain, .sizesOfPlaintext, .sizesOfRandom, .anotherContextIsRefused,
      .anotherCMKIsRefused, .tamperedIsRefused, .unknownIsDenied, .rotationKeepsOldVersions,
      .anotherProviderGoesOn, .deletionTakes7To30Days, .cancelledDeletionIsDisabled:
      nil
    }
  }

  /// Signed requests on real connections. What moto cannot serve is run all the same, so that the day on which it can is noticed.
  @Test func conformsBeforeMoto() async throws {
    let emulator = try await AWSEmulator()
    let loop = try HTTPLoop()
    func credentials(_ user: AWSEmulator.User) throws -> AWSCredentials {
      AWSCredentials(
        accessKeyID: user.accessKeyID,
        secretAccessKey: try .testing(user.secretAccessKey),
        sessionToken: nil,
        expiresMilliseconds: nil
      )
    }
    let place = AWSPlace(region: emulator.region, endpoint: emulator.endpoint)
    func provider(_ user: Int) throws -> AWSProvider {
      AWSProvider(
        place: place,
        credentials: HeldCredentials(.success(try credentials(emulator.users[user]))),
        http: loop.connections(),
        guarded: ManualClock().guarded(attempts: 1)
      )
    }
    let steward = KMSAdministrator(
      http: loop.connections(),
      target: try place.target(),
      credentials: try credentials(emulator.administrator)
    ).steward
    let absent = "arn:aws:kms:\(emulator.region):123456789012:key/\(AWSFixture.id)"
    let subject = CMKConformance.Subject(
      provider: try provider(0),
      ofAnotherTenant: try provider(1),
      again: try provider(0),
      steward: steward,
      ofAnotherTenantsSteward: steward,
      absent: try CMKID(absent),
      hostile: try ["local-0", "..", "/etc/passwd", "arn:aws:kms:evil.example/:1:key/x"].map { try CMKID($0) }
    )
    for check in CMKConformance.allCases where check.need != .lifecycle {
      if let comment = unserved(check) {
        try await withKnownIssue(comment) {
          try await check.run(subject)
        } matching: {
          ($0.error as? CMKConformance.Violation)?.description.hasSuffix("not refused") == true
        }
      } else {
        await #expect(throws: Never.self, "\(check)") { try await check.run(subject) }
      }
    }
    await emulator.shutdown()
  }
}
