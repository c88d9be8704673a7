import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Testing

@testable import CMKProviders

/// What the provider gives out as wrapped names its key: nothing is lost, and nothing opened, because the configuration says another one now.
@Suite struct AWSEnvelopeTests {
  private static let frankfurt = "arn:aws:kms:eu-central-1:111122223333:key/"
  private static let dublin = "arn:aws:kms:eu-west-1:111122223333:key/"

  private func provider(_ http: any HTTPSending, region: String?) throws -> AWSProvider {
    AWSProvider(
      place: AWSPlace(region: region, endpoint: nil),
      credentials: try HeldCredentials(),
      http: http,
      guarded: CallGuard()
    )
  }

  private func context() throws -> EncryptionContext {
    EncryptionContext(tenant: try TenantName("acme"), keyring: KeyringID(value: 1))
  }

  @Test func theFormat() throws {
    let wrapped = try AWSFixture.wrapped(ciphertext: [9, 8, 7])
    #expect(wrapped == [1, 0, UInt8(AWSFixture.arn.utf8.count)] + Array(AWSFixture.arn.utf8) + [9, 8, 7])
    #expect(CiphertextEnvelope(wrapped)?.ciphertext == [9, 8, 7])
    let longest = try AWSFixture.wrapped(ciphertext: AWSFixture.bytes(6144))
    #expect(CiphertextEnvelope(longest)?.bytes == longest)
  }

  @Test func whatIsNoEnvelopeIsInvalidAndNotSent() async throws {
    let aws = try AWSFixture { _ throws(HTTPError) in throw .unreachable("sent") }
    let good = try AWSFixture.wrapped(ciphertext: [9])
    var bad = good.indices.map { Array(good.prefix($0)) }
    bad += [
      [2] + good.dropFirst(), [0] + good.dropFirst(), [1, 0xff, 0xff] + good.dropFirst(3),
      good + AWSFixture.bytes(6144), [1, 0, 0, 9],
    ]
    for index in 0..<good.count - 1 { bad.append(good); bad[bad.count - 1][index] ^= 0x80 }
    for arn in [
      "alias/x", AWSFixture.id, "arn:aws:kms:eu-central-1:111122223333:alias/x",
      "arn:aws:kms:evil.example/:111122223333:key/\(AWSFixture.id)",
      "arn:aws:kms:eu-central-1@evil-1:111122223333:key/\(AWSFixture.id)",
      "arn:aws-cn:kms:eu-central-1:111122223333:key/\(AWSFixture.id)",
    ] { bad.append([1, 0, UInt8(arn.utf8.count)] + Array(arn.utf8) + [9]) }
    let cmk = try CMKID("alias/x")
    for wrapped in bad {
      let decrypt = await refusal { () async throws(CMKError) in
        try await aws.provider.decrypt(wrapped, cmk: cmk, context: aws.context)
      }
      let reEncrypt = await refusal { () async throws(CMKError) in
        try await aws.provider.reEncrypt(wrapped, from: cmk, to: cmk, context: aws.context)
      }
      #expect(
        decrypt?.name == .invalidCiphertext && reEncrypt?.name == .invalidCiphertext,
        "\(wrapped.prefix(90))"
      )
    }
    #expect(aws.http.requests.isEmpty)
  }

  @Test func ofAnotherKeyThanTheOneNamedIsInvalidAndNotSent() async throws {
    let aws = try AWSFixture { _ throws(HTTPError) in throw .unreachable("sent") }
    let multiRegion = Self.frankfurt + AWSFixture.multiRegionID
    let pairs = [
      (AWSFixture.arn, AWSFixture.otherID), (AWSFixture.arn, Self.frankfurt + AWSFixture.otherID),
      (AWSFixture.arn, Self.dublin + AWSFixture.id),
      (AWSFixture.arn, "arn:aws:kms:eu-central-1:999999999999:key/" + AWSFixture.id),
      (AWSFixture.arn, "arn:aws:kms:eu-central-1:999999999999:alias/x"),
      (multiRegion, AWSFixture.id), (multiRegion, Self.frankfurt + "mrk-abcd1234abcd1234abcd1234abcd1234"),
      (multiRegion, "arn:aws:kms:eu-central-1:999999999999:key/" + AWSFixture.multiRegionID),
    ]
    for (arn, cmk) in pairs {
      let (wrapped, cmk) = (try AWSFixture.wrapped(arn), try CMKID(cmk))
      let error = await refusal { () async throws(CMKError) in
        try await aws.provider.decrypt(wrapped, cmk: cmk, context: aws.context)
      }
      #expect(error?.name == .invalidCiphertext, "\(arn) as \(cmk)")
    }
    #expect(aws.http.requests.isEmpty)
  }

  @Test func anAliasMayBeMoved() async throws {
    let kms = FakeKMS()
    let (old, new) = (kms.make(for: "AKIDEXAMPLE"), kms.make(for: "AKIDEXAMPLE"))
    let (provider, cmk, context) = (
      try provider(kms, region: "eu-central-1"), try CMKID("alias/tenant"), try context()
    )
    try kms.point(alias: "alias/tenant", to: old)
    let made = try await provider.generateDataKey(cmk: cmk, context: context)
    #expect(CiphertextEnvelope(made.wrapped)?.key.description == old)
    try kms.point(alias: "alias/tenant", to: new)
    #expect(try await provider.decrypt(made.wrapped, cmk: cmk, context: context).isEqual(to: made.plaintext))
    #expect(
      CiphertextEnvelope(try await provider.generateDataKey(cmk: cmk, context: context).wrapped)?.key
        .description == new
    )
  }

  @Test(arguments: ["alias/tenant", nil]) func theRegionMayBeChanged(_ alias: String?) async throws {
    let kms = FakeKMS()
    let arn = kms.make(for: "AKIDEXAMPLE")
    try kms.point(alias: "alias/tenant", to: arn)
    let (cmk, context) = (try CMKID(alias ?? arn), try context())
    let made = try await provider(kms, region: "eu-central-1").generateDataKey(cmk: cmk, context: context)
    // The tenant's new CMK is in another region; what the old one wrapped is still asked for where it is.
    for region in ["eu-west-1", nil] {
      let elsewhere = try provider(kms, region: region)
      #expect(
        try await elsewhere.decrypt(made.wrapped, cmk: cmk, context: context).isEqual(to: made.plaintext)
      )
    }
  }

  @Test(arguments: [
    AWSFixture.multiRegionID, dublin + AWSFixture.multiRegionID, frankfurt + AWSFixture.multiRegionID,
    "alias/x",
  ])
  func aMultiRegionKeyIsAskedInTheRegionInForce(_ cmk: String) async throws {
    let opened = AWSFixture.bytes(32)
    let aws = try AWSFixture(region: "eu-west-1") { request throws(HTTPError) in
      do {
        return try AWSFixture.response([
          "KeyId": try members(request)["KeyId"] ?? "", "Plaintext": AWSFixture.coded(opened),
        ])
      } catch {
        throw .unreachable("\(error)")
      }
    }
    let wrapped = try AWSFixture.wrapped(Self.frankfurt + AWSFixture.multiRegionID)
    let plaintext = try await aws.provider.decrypt(wrapped, cmk: try CMKID(cmk), context: aws.context)
    #expect(plaintext.revealed == opened)
    #expect(aws.http.requests.map(\.url) == ["https://kms.eu-west-1.amazonaws.com/"])
    #expect(try members(aws.http.requests[0])["KeyId"] as? String == Self.dublin + AWSFixture.multiRegionID)
    #expect(aws.http.requests[0].signing?.region == "eu-west-1")
  }

  /// A tenant that left a multi-Region key for a key in a region without its replica.
  @Test func aMultiRegionKeyWithoutAReplicaIsAskedInItsOwnRegion() async throws {
    let kms = FakeKMS()
    let arn = kms.make(for: "AKIDEXAMPLE", id: AWSFixture.multiRegionID)
    let context = try context()
    let made = try await provider(kms, region: "eu-central-1").generateDataKey(
      cmk: try CMKID(arn),
      context: context
    )
    let elsewhere = try provider(kms, region: "eu-west-1")
    #expect(
      try await elsewhere.decrypt(made.wrapped, cmk: try CMKID(arn), context: context).isEqual(
        to: made.plaintext
      )
    )
    // Disabled where it is: that is KMS's word.
    try kms.set(arn, state: "Disabled")
    let cmk = try CMKID(arn)
    let error = await refusal { () async throws(CMKError) in
      try await elsewhere.decrypt(made.wrapped, cmk: cmk, context: context)
    }
    #expect(error?.name == .denied)
  }

  /// Only where the replica is not there: a replica that is refused is not gone round.
  @Test(
    arguments: [
      ("DisabledException", "", 1, .denied),
      ("AccessDeniedException", "not authorized", 1, .denied),
      ("KMSInternalException", "", 1, .unreachable),
      ("ThrottlingException", "", 1, .unreachable),
      ("InvalidCiphertextException", "", 1, .invalidCiphertext),
      ("NotFoundException", "", 2, .denied),
      (
        "AccessDeniedException", "The ciphertext refers to a customer master key that does not exist", 2,
        .denied
      ),
    ] as [(String, String, Int, CMKError.Name)]
  )
  func aReplicaThatRefusesIsNotGoneRound(
    _ code: String,
    _ message: String,
    _ requests: Int,
    _ expected: CMKError.Name
  ) async throws {
    let answer = try AWSFixture.response(["__type": code, "message": message], status: 400)
    let aws = try AWSFixture(region: "eu-west-1", answer)
    let wrapped = try AWSFixture.wrapped(Self.frankfurt + AWSFixture.multiRegionID)
    let cmk = try CMKID(AWSFixture.multiRegionID)
    let error = await refusal { () async throws(CMKError) in
      try await aws.provider.decrypt(wrapped, cmk: cmk, context: aws.context)
    }
    #expect(
      error?.name == expected && aws.http.requests.count == requests,
      "\(error.map { "\($0)" } ?? "taken")"
    )
  }

  @Test func reEncryptionStaysWithinARegionAndMovesAMultiRegionKeyThere() async throws {
    let new = Self.dublin + AWSFixture.otherID
    let source = Self.dublin + AWSFixture.multiRegionID
    let answer = try AWSFixture.response([
      "KeyId": new, "SourceKeyId": source, "CiphertextBlob": AWSFixture.coded([5]),
    ])
    let aws = try AWSFixture(region: nil, answer)
    let (fixed, moving) = (
      try AWSFixture.wrapped(), try AWSFixture.wrapped(Self.frankfurt + AWSFixture.multiRegionID)
    )
    let (old, cmk) = (try CMKID("alias/old"), try CMKID(new))
    let error = await refusal { () async throws(CMKError) in
      try await aws.provider.reEncrypt(fixed, from: old, to: cmk, context: aws.context)
    }
    #expect(error?.name == .refused && aws.http.requests.isEmpty)
    let wrapped = try await aws.provider.reEncrypt(moving, from: old, to: cmk, context: aws.context)
    #expect(wrapped == (try AWSFixture.wrapped(new, ciphertext: [5])))
    #expect(try members(aws.http.requests[0])["SourceKeyId"] as? String == source)
  }
}
