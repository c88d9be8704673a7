import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Testing

@testable import CMKProviders

/// Answers that KMS should not give: none becomes a key, and none says that the CMK may not be used.
@Suite struct AWSReplyTests {
  /// A call, and a whole answer to it.
  enum Call: CaseIterable, Sendable {
    case generateDataKey, encrypt, decrypt, generateRandom, reEncrypt, describe

    var members: [String: Any] {
      let key = AWSFixture.coded(AWSFixture.bytes(32))
      let blob = AWSFixture.coded(AWSFixture.bytes(100))
      return switch self {
      case .generateDataKey: ["KeyId": AWSFixture.arn, "Plaintext": key, "CiphertextBlob": blob]
      case .encrypt: ["KeyId": AWSFixture.arn, "CiphertextBlob": blob]
      case .decrypt: ["KeyId": AWSFixture.arn, "Plaintext": key]
      case .generateRandom: ["Plaintext": key]
      case .reEncrypt: ["KeyId": AWSFixture.arn, "SourceKeyId": AWSFixture.arn, "CiphertextBlob": blob]
      case .describe: ["KeyMetadata": ["Arn": AWSFixture.arn, "KeyState": "Enabled"]]
      }
    }

    func perform(_ aws: AWSFixture, cmk: String = AWSFixture.id) async throws(CMKError) {
      let id: CMKID
      let wrapped: [UInt8]
      let plaintext: Secret
      do {
        id = try CMKID(cmk)
        wrapped = try AWSFixture.wrapped()
        plaintext = try .testing("a secret")
      } catch {
        throw .refused("the test's own: \(error)")
      }
      let provider = aws.provider
      switch self {
      case .generateDataKey: _ = try await provider.generateDataKey(cmk: id, context: aws.context)
      case .encrypt: _ = try await provider.encrypt(plaintext, cmk: id, context: aws.context)
      case .decrypt: _ = try await provider.decrypt(wrapped, cmk: id, context: aws.context)
      case .generateRandom: _ = try await provider.generateRandom(count: 32)
      case .reEncrypt: _ = try await provider.reEncrypt(wrapped, from: id, to: id, context: aws.context)
      case .describe: _ = try await provider.describe(cmk: id)
      }
    }
  }

  private func expectUnusable(
    _ call: Call,
    _ response: HTTPResponse,
    _ what: String,
    cmk: String = AWSFixture.id
  )
    async throws
  {
    let aws = try AWSFixture(response)
    let error = await refusal { () async throws(CMKError) in try await call.perform(aws, cmk: cmk) }
    #expect(error?.name == .unreachable, "\(call), \(what): \(error.map { "\($0)" } ?? "taken")")
    #expect(aws.http.requests.count == 1, "\(call), \(what)")
  }

  @Test(arguments: Call.allCases) func aWholeAnswerIsTaken(_ call: Call) async throws {
    try await call.perform(try AWSFixture(try AWSFixture.response(call.members)))
    // An emulator calls its JSON HTML.
    let html = try AWSFixture.response(call.members, headers: ["content-type": "text/html; charset=utf-8"])
    try await call.perform(try AWSFixture(html))
  }

  @Test(arguments: Call.allCases) func aMemberThatIsAbsentNullOrOfAnotherTypeIsNotTaken(_ call: Call)
    async throws
  {
    for name in call.members.keys {
      for value in [nil, NSNull(), 1, true, ["x"], ["a": "b"], "", "x"] as [Any?] {
        var members = call.members
        members[name] = value
        let what = "\(name) = \(value.map { "\($0)" } ?? "absent")"
        try await expectUnusable(call, try AWSFixture.response(members), what)
      }
    }
  }

  @Test(arguments: Call.allCases.filter { $0 != .generateRandom })
  func anotherKeyIsNotTaken(_ call: Call) async throws {
    let others = [
      "arn:aws:kms:eu-central-1:111122223333:key/\(AWSFixture.otherID)",
      "arn:aws:kms:eu-west-1:111122223333:key/\(AWSFixture.id)", AWSFixture.id, "alias/x",
      "arn:aws:kms:eu-central-1:111122223333:alias/x", "arn:aws:kms:eu-central-1:1:key/\(AWSFixture.id)",
      "arn:aws:kms:evil.example/:111122223333:key/\(AWSFixture.id)", AWSFixture.arn + "\0",
      AWSFixture.arn + "/x",
    ]
    for other in others {
      for name in ["KeyId", "SourceKeyId"] where call.members[name] != nil {
        let members = call.members.merging([name: other]) { $1 }
        try await expectUnusable(call, try AWSFixture.response(members), "\(name) = \(other)")
      }
      if call == .describe {
        let members = ["KeyMetadata": ["Arn": other, "KeyState": "Enabled"]]
        try await expectUnusable(call, try AWSFixture.response(members), other)
      }
    }
    // The same id in another account: an ARN says which.
    let elsewhere = "arn:aws:kms:eu-central-1:999999999999:key/\(AWSFixture.id)"
    if call.members["KeyId"] != nil {
      let members = call.members.merging(["KeyId": elsewhere]) { $1 }
      try await expectUnusable(call, try AWSFixture.response(members), elsewhere, cmk: AWSFixture.arn)
    }
  }

  @Test(arguments: [0, 1, 16, 31, 33, 64, 4097]) func aPlaintextOfAnotherLengthIsNotTaken(_ count: Int)
    async throws
  {
    let coded = AWSFixture.coded(AWSFixture.bytes(count))
    for call in [Call.generateDataKey, .generateRandom] {
      let members = call.members.merging(["Plaintext": coded]) { $1 }
      try await expectUnusable(call, try AWSFixture.response(members), "\(count) bytes")
    }
    guard count == 0 || count > 4096 else { return }
    let members = Call.decrypt.members.merging(["Plaintext": coded]) { $1 }
    try await expectUnusable(.decrypt, try AWSFixture.response(members), "\(count) bytes")
  }

  @Test(arguments: [Call.generateDataKey, .decrypt, .generateRandom]) func aRowOfZerosIsNoKey(_ call: Call)
    async throws
  {
    let members = call.members.merging(["Plaintext": AWSFixture.coded([UInt8](repeating: 0, count: 32))]) {
      $1
    }
    try await expectUnusable(call, try AWSFixture.response(members), "zeros")
  }

  @Test func aFewRandomBytesMayBeZero() async throws {
    let aws = try AWSFixture(try AWSFixture.response(["Plaintext": AWSFixture.coded([0])]))
    #expect(try await aws.provider.generateRandom(count: 1).revealed == [0])
  }

  @Test(arguments: [Call.generateDataKey, .encrypt, .reEncrypt]) func aCiphertextThatIsNoneIsNotTaken(
    _ call: Call
  ) async throws {
    for blob in [[], [UInt8](repeating: 0, count: 100), AWSFixture.bytes(6145)] {
      let members = call.members.merging(["CiphertextBlob": AWSFixture.coded(blob)]) { $1 }
      try await expectUnusable(call, try AWSFixture.response(members), "\(blob.count) bytes")
    }
    for text in ["not base64", "AAAA=", "QUJD\n", "QUJDRA", "QUI-"] {
      let members = call.members.merging(["CiphertextBlob": text]) { $1 }
      try await expectUnusable(call, try AWSFixture.response(members), text)
    }
  }

  @Test(arguments: Call.allCases) func halfAnAnswerIsNotTaken(_ call: Call) async throws {
    let whole = Array(try JSONSerialization.data(withJSONObject: call.members))
    for count in whole.indices {
      try await expectUnusable(call, AWSFixture.response(try .testing(whole.prefix(count))), "\(count) bytes")
    }
    try await expectUnusable(call, AWSFixture.response(try .testing(whole + whole)), "twice")
  }

  @Test(arguments: Call.allCases) func whatIsNoAnswerOfKMSIsNotTaken(_ call: Call) async throws {
    let whole = try Secret.testing(try JSONSerialization.data(withJSONObject: call.members))
    let bodies = [
      nil, "garbage", "<html><body>Welcome</body></html>",
      "<?xml version=\"1.0\"?><Response><Code>x</Code></Response>", "[]", "{}",
      "null", "\0\0\0\0",
    ]
    for status in [200, 201, 204, 301, 302, 307, 400, 403, 404, 407, 418, 500, 502, 503, 504] {
      for body in bodies {
        let secret = try body.map { try Secret.testing($0) }
        try await expectUnusable(
          call,
          AWSFixture.response(secret, status: status),
          "\(status) \(body ?? "empty")"
        )
      }
      if status != 200 {
        try await expectUnusable(call, AWSFixture.response(whole, status: status), "\(status)")
      }
    }
  }

  @Test(arguments: Call.allCases) func noAnswerIsUnreachable(_ call: Call) async throws {
    for (error, isConfiguration) in [
      (HTTPError.unreachable("connection reset"), false), (.malformed("too large"), false),
      (.configuration("no CA file"), true),
    ] {
      let aws = try AWSFixture { _ throws(HTTPError) in throw error }
      let thrown = await refusal { () async throws(CMKError) in try await call.perform(aws) }
      #expect(thrown?.name == (isConfiguration ? .configuration : .unreachable), "\(error)")
      #expect(thrown?.description.contains(error.description) == true)
    }
  }

  @Test func anUnknownKeyStateIsNotTaken() async throws {
    for state in ["", "enabled", "Enabled ", "Whatever\u{1b}[31m"] {
      let members = ["KeyMetadata": ["Arn": AWSFixture.arn, "KeyState": state]]
      try await expectUnusable(.describe, try AWSFixture.response(members), state)
    }
  }
}
