import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Testing

@testable import CMKProviders

/// What is asked of KMS, to the member.
@Suite struct AWSRequestTests {
  private static let context = [
    "keyring:id": KeyringID(value: 1).description, "keyring:purpose": "wrapping-key",
    "keyring:tenant": "acme",
  ]
  private static let key = AWSFixture.bytes(32)

  /// An answer to each call, good for every one.
  private static func whole(_ extra: [String: Any] = [:]) throws -> HTTPResponse {
    let members: [String: Any] = [
      "KeyId": AWSFixture.arn, "SourceKeyId": AWSFixture.arn, "Plaintext": AWSFixture.coded(key),
      "CiphertextBlob": AWSFixture.coded(Array("blob".utf8)),
      "KeyMetadata": ["Arn": AWSFixture.arn, "KeyState": "Enabled"],
    ]
    return try AWSFixture.response(members.merging(extra) { $1 })
  }

  private func expect(
    _ request: HTTPRequest?,
    _ operation: String,
    _ expected: [String: Any],
    region: String = "eu-central-1"
  ) throws {
    let request = try #require(request)
    #expect(request.method == .post && request.url == "https://kms.\(region).amazonaws.com/")
    guard case .secure = request.scheme else { Issue.record("plain HTTP is allowed"); return }
    #expect(
      request.headers.map { "\($0.name): \($0.value)" } == [
        "Content-Type: application/x-amz-json-1.1", "X-Amz-Target: TrentService.\(operation)",
      ]
    )
    #expect(request.secretHeaders.isEmpty)
    #expect(NSDictionary(dictionary: try members(request)) == NSDictionary(dictionary: expected))
    let signing = try #require(request.signing)
    #expect(signing.region == region && signing.service == "kms" && signing.accessKeyID == "AKIDEXAMPLE")
    #expect(
      signing.secretAccessKey.revealed == Array("secret of AKIDEXAMPLE".utf8) && signing.sessionToken == nil
    )
    #expect(request.timeoutMilliseconds == 3000 && request.connectTimeoutMilliseconds == 1000)
    #expect(request.responseBytesMax == 65_536)
  }

  @Test func generateDataKey() async throws {
    let aws = try AWSFixture(try Self.whole())
    let made = try await aws.provider.generateDataKey(cmk: try CMKID(AWSFixture.id), context: aws.context)
    #expect(made.plaintext.revealed == Self.key)
    #expect(made.wrapped == (try AWSFixture.wrapped()))
    try expect(
      aws.http.requests.first,
      "GenerateDataKey",
      ["KeyId": AWSFixture.id, "NumberOfBytes": 32, "EncryptionContext": Self.context]
    )
    #expect(aws.http.requests.count == 1 && aws.credentials.count == 1)
  }

  @Test func encrypt() async throws {
    let aws = try AWSFixture(try Self.whole())
    let plaintext = AWSFixture.bytes(100)
    let wrapped = try await aws.provider.encrypt(
      try .testing(plaintext),
      cmk: try CMKID(AWSFixture.arn),
      context: aws.context
    )
    #expect(wrapped == (try AWSFixture.wrapped()))
    try expect(
      aws.http.requests.first,
      "Encrypt",
      ["KeyId": AWSFixture.arn, "Plaintext": AWSFixture.coded(plaintext), "EncryptionContext": Self.context]
    )
  }

  @Test func decryptNamesTheKeyOfTheEnvelopeAlways() async throws {
    for cmk in [
      AWSFixture.id, AWSFixture.arn, "alias/now-another", "arn:aws:kms:eu-central-1:111122223333:alias/x",
    ] {
      let aws = try AWSFixture(try Self.whole())
      let opened = try await aws.provider.decrypt(
        try AWSFixture.wrapped(),
        cmk: try CMKID(cmk),
        context: aws.context
      )
      #expect(opened.revealed == Self.key)
      try expect(
        aws.http.requests.first,
        "Decrypt",
        [
          "KeyId": AWSFixture.arn, "CiphertextBlob": AWSFixture.coded(Array("blob".utf8)),
          "EncryptionContext": Self.context,
        ]
      )
      #expect(aws.http.requests.count == 1)
    }
  }

  @Test func generateRandom() async throws {
    let aws = try AWSFixture(try Self.whole(["Plaintext": AWSFixture.coded(AWSFixture.bytes(1024))]))
    #expect(try await aws.provider.generateRandom(count: 1024).revealed == AWSFixture.bytes(1024))
    try expect(aws.http.requests.first, "GenerateRandom", ["NumberOfBytes": 1024])
  }

  @Test func reEncrypt() async throws {
    let new = "arn:aws:kms:eu-central-1:111122223333:key/\(AWSFixture.otherID)"
    let aws = try AWSFixture(try Self.whole(["KeyId": new]))
    let wrapped = try await aws.provider.reEncrypt(
      try AWSFixture.wrapped(ciphertext: [7]),
      from: try CMKID("alias/old"),
      to: try CMKID(new),
      context: aws.context
    )
    #expect(wrapped == (try AWSFixture.wrapped(new)))
    try expect(
      aws.http.requests.first,
      "ReEncrypt",
      [
        "SourceKeyId": AWSFixture.arn, "DestinationKeyId": new, "CiphertextBlob": AWSFixture.coded([7]),
        "SourceEncryptionContext": Self.context, "DestinationEncryptionContext": Self.context,
      ]
    )
  }

  @Test func describeKey() async throws {
    let aws = try AWSFixture(try Self.whole())
    let cmk = try CMKID("alias/x")
    #expect(try await aws.provider.describe(cmk: cmk) == CMKDescription(id: cmk, state: .enabled, version: 0))
    try expect(aws.http.requests.first, "DescribeKey", ["KeyId": "alias/x"])
  }

  @Test(
    arguments: [
      ("Enabled", .enabled), ("Updating", .enabled), ("Disabled", .disabled), ("Creating", .disabled),
      ("PendingImport", .disabled), ("Unavailable", .disabled), ("PendingDeletion", .pendingDeletion),
      ("PendingReplicaDeletion", .pendingDeletion),
    ] as [(String, CMKDescription.State)]
  )
  func keyStates(_ state: String, _ meaning: CMKDescription.State) async throws {
    let aws = try AWSFixture(try Self.whole(["KeyMetadata": ["Arn": AWSFixture.arn, "KeyState": state]]))
    #expect(try await aws.provider.describe(cmk: try CMKID(AWSFixture.id)).state == meaning)
  }

  @Test func eachCallAsksForCredentialsAnew() async throws {
    let credentials = try HeldCredentials("AKIDFIRST")
    let whole = try Self.whole(["Plaintext": AWSFixture.coded(AWSFixture.bytes(16))])
    let aws = try AWSFixture(credentials: credentials) { _ throws(HTTPError) in whole }
    _ = try await aws.provider.generateRandom(count: 16)
    credentials.hold(try HeldCredentials.credentials("ASIASECOND", token: "the token"))
    _ = try await aws.provider.generateRandom(count: 16)
    let signings = aws.http.requests.compactMap(\.signing)
    #expect(signings.map(\.accessKeyID) == ["AKIDFIRST", "ASIASECOND"])
    #expect(signings[0].sessionToken == nil && signings[1].sessionToken?.revealed == Array("the token".utf8))
  }

  @Test func whatTheSourceOfCredentialsSaysGoesOnUnchangedAndNothingIsSent() async throws {
    let error = CMKError.unreachable("the credentials file is not there")
    let aws = try AWSFixture(credentials: HeldCredentials(.failure(error))) { _ throws(HTTPError) in
      throw .unreachable("sent")
    }
    let cmk = try CMKID(AWSFixture.id)
    #expect(
      await refusal { () async throws(CMKError) in try await aws.provider.generateRandom(count: 1) } == error
    )
    #expect(await refusal { () async throws(CMKError) in try await aws.provider.rotate(cmk: cmk) } == error)
    #expect(aws.http.requests.isEmpty && aws.credentials.count == 2)
  }

  @Test func whatKMSWouldRefuseIsNotSent() async throws {
    let aws = try AWSFixture(try Self.whole())
    let cmk = try CMKID(AWSFixture.id)
    for count in [-1, 0, 1025, Int.max] {
      let error = await refusal { () async throws(CMKError) in
        try await aws.provider.generateRandom(count: count)
      }
      #expect(error?.name == .refused, "\(count)")
    }
    for plaintext in [[], AWSFixture.bytes(4097), [UInt8](repeating: 0, count: 32)] {
      let secret = try Secret.testing(plaintext)
      let error = await refusal { () async throws(CMKError) in
        try await aws.provider.encrypt(secret, cmk: cmk, context: aws.context)
      }
      #expect(error?.name == .refused, "\(plaintext.count) bytes")
    }
    #expect(aws.http.requests.isEmpty)
  }
}
