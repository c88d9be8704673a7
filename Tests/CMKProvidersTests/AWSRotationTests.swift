import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Testing

@testable import CMKProviders

/// A key's rotations on demand are counted, and there are few: each is sent once.
@Suite struct AWSRotationTests {
  private static func isRotation(_ request: HTTPRequest) -> Bool {
    request.headers.contains { $0.value == "TrentService.RotateKeyOnDemand" }
  }

  /// Answers DescribeKey well, and RotateKeyOnDemand with `answer`.
  private func fixture(
    describing: HTTPResponse? = nil,
    _ answer: @escaping @Sendable () throws(HTTPError) -> HTTPResponse
  ) throws -> AWSFixture {
    let described = try AWSFixture.response(["KeyMetadata": ["Arn": AWSFixture.arn, "KeyState": "Enabled"]])
    return try AWSFixture { request throws(HTTPError) in
      Self.isRotation(request) ? try answer() : describing ?? described
    }
  }

  private func names(_ aws: AWSFixture) throws -> [String] {
    try aws.http.requests.map { request in
      let operation =
        request.headers.first { $0.name == "X-Amz-Target" }?.value.dropFirst("TrentService.".count) ?? ""
      return "\(operation) \(try members(request)["KeyId"] ?? "")"
    }
  }

  /// KMS answers with the id alone, where it says more elsewhere.
  @Test(arguments: [AWSFixture.id, AWSFixture.arn]) func itIsSentAndThenDescribed(_ named: String)
    async throws
  {
    for cmk in [AWSFixture.id, AWSFixture.arn] {
      let answer = try AWSFixture.response(["KeyId": named])
      let aws = try fixture { () throws(HTTPError) in answer }
      let described = try await aws.provider.rotate(cmk: try CMKID(cmk))
      #expect(described == CMKDescription(id: try CMKID(cmk), state: .enabled, version: 0))
      #expect(try names(aws) == ["RotateKeyOnDemand \(cmk)", "DescribeKey \(cmk)"])
    }
  }

  /// RotateKeyOnDemand takes no alias.
  @Test(arguments: ["alias/x", "arn:aws:kms:eu-central-1:111122223333:alias/x"]) func anAliasIsLookedUpFirst(
    _ cmk: String
  ) async throws {
    let answer = try AWSFixture.response(["KeyId": AWSFixture.id])
    let aws = try fixture { () throws(HTTPError) in answer }
    #expect(try await aws.provider.rotate(cmk: try CMKID(cmk)).id == (try CMKID(cmk)))
    #expect(
      try names(aws) == ["DescribeKey \(cmk)", "RotateKeyOnDemand \(AWSFixture.arn)", "DescribeKey \(cmk)"]
    )
  }

  @Test func aRotationThatIsMadeIsSaidSoEvenWhereItCannotBeDescribed() async throws {
    let answer = try AWSFixture.response(["KeyId": AWSFixture.id])
    let denied = try AWSFixture.response(["__type": "AccessDeniedException"], status: 400)
    let aws = try fixture(describing: denied) { () throws(HTTPError) in answer }
    #expect(try await aws.provider.rotate(cmk: try CMKID(AWSFixture.id)).state == .enabled)
  }

  private func expectUnknown(
    _ what: String,
    _ answer: @escaping @Sendable () throws(HTTPError) -> HTTPResponse
  ) async throws {
    let aws = try fixture(answer)
    let cmk = try CMKID(AWSFixture.id)
    let error = await refusal { () async throws(CMKError) in try await aws.provider.rotate(cmk: cmk) }
    #expect(
      error?.name == .outcomeUnknown && error?.description.contains("ListKeyRotations") == true,
      "\(what)"
    )
    #expect(aws.http.requests.count == 1, "\(what): it was sent again, or described")
  }

  @Test func withoutAnAnswerTheOutcomeIsUnknownAndItIsNotSentAgain() async throws {
    try await expectUnknown("no answer") { () throws(HTTPError) in throw .unreachable("timed out") }
    try await expectUnknown("too much") { () throws(HTTPError) in throw .malformed("too large") }
    for status in [500, 502, 503, 504] {
      try await expectUnknown("\(status)") { () throws(HTTPError) in AWSFixture.response(nil, status: status)
      }
    }
    let other = "arn:aws:kms:eu-central-1:111122223333:key/\(AWSFixture.otherID)"
    let answers: [HTTPResponse] = try [
      AWSFixture.response(nil), AWSFixture.response(try .testing("{\"KeyId\":")), AWSFixture.response([:]),
      AWSFixture.response(["KeyId": other]), AWSFixture.response(["KeyId": 1]),
      AWSFixture.response(try .testing("<html>"), status: 403),
      AWSFixture.response(["__type": "DependencyTimeoutException"], status: 400),
      AWSFixture.response(["__type": "KMSInternalException"], status: 500),
    ]
    for answer in answers {
      try await expectUnknown("\(answer.status)") { () throws(HTTPError) in answer }
    }
  }

  @Test(arguments: [
    (
      "LimitExceededException", "The on-demand rotations limit has been reached for the given keyId.",
      "make a new CMK"
    ),
    ("ConflictException", "An on-demand rotation is in progress.", "under way"),
    ("UnsupportedOperationException", "not a primary", "primary"),
  ])
  func itsLimitsAreRefusalsWithAHint(_ code: String, _ message: String, _ hint: String) async throws {
    let answer = try AWSFixture.response(["__type": code, "message": message], status: 400)
    let aws = try fixture { () throws(HTTPError) in answer }
    let cmk = try CMKID(AWSFixture.id)
    let error = await refusal { () async throws(CMKError) in try await aws.provider.rotate(cmk: cmk) }
    #expect(error?.name == .refused && aws.http.requests.count == 1)
    #expect(error?.description.contains(message) == true && error?.description.contains(hint) == true)
  }

  /// What KMS refuses is not done: nothing is unknown about it.
  @Test(
    arguments: [
      ("ThrottlingException", .unreachable), ("AccessDeniedException", .denied),
      ("DisabledException", .denied),
      ("ExpiredTokenException", .unreachable), ("ValidationException", .configuration),
    ] as [(String, CMKError.Name)]
  )
  func aRefusalIsNoUnknownOutcome(_ code: String, _ expected: CMKError.Name)
    async throws
  {
    let answer = try AWSFixture.response(["__type": code], status: 400)
    let aws = try fixture { () throws(HTTPError) in answer }
    let cmk = try CMKID(AWSFixture.id)
    let error = await refusal { () async throws(CMKError) in try await aws.provider.rotate(cmk: cmk) }
    #expect(error?.name == expected && aws.http.requests.count == 1)
  }
}
