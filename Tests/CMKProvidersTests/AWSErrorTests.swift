import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Testing

@testable import CMKProviders

@Suite struct AWSErrorTests {
  private static let classes: [(CallFailure.Kind, [String])] = [
    (
      .throttled,
      [
        "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown",
        "LimitExceededException",
      ]
    ),
    (
      .denied,
      [
        "AccessDeniedException", "AccessDenied", "KMSAccessDenied", "KMSAccessDeniedException",
        "NotAuthorized",
      ]
    ),
    (.disabled, ["DisabledException", "KMSInvalidStateException"]),
    (.notFound, ["NotFoundException"]),
    (.invalidCiphertext, ["InvalidCiphertextException", "IncorrectKeyException"]),
    (
      .credential,
      [
        "UnrecognizedClientException", "InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
        "RequestExpired",
        "IncompleteSignature", "IncompleteSignatureException", "InvalidAccessKeyId", "OptInRequired",
      ]
    ),
    (
      .configuration,
      [
        "ValidationException", "ValidationError", "InvalidArnException", "InvalidKeyId",
        "InvalidKeyUsageException", "InvalidParameter",
        "UnknownOperationException",
      ]
    ),
    (
      .serverFailure,
      [
        "KeyUnavailableException", "DependencyTimeoutException", "KMSInternalException", "InternalFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException", "NobodyKnowsThisException", "DryRunOperationException", "Exception",
      ]
    ),
    (.refused, ["ConflictException", "UnsupportedOperationException"]),
  ]

  /// A code in every form in which it comes.
  private static func forms(_ code: String) throws -> [HTTPResponse] {
    try [
      ("{\"__type\":\"\(code)\",\"message\":\"why\"}", [:]),
      ("{\"__type\":\"com.amazonaws.kms#\(code)\",\"Message\":\"why\"}", [:]),
      (
        "{\"__type\":\"\(code):http://internal.amazon.com/coral/com.amazonaws.kms/\",\"message\":\"why\"}",
        [:]
      ),
      ("{\"message\":\"why\"}", ["x-amzn-errortype": code]),
      ("{\"message\":\"why\"}", ["x-amzn-errortype": "\(code):http://internal.amazon.com/coral/"]),
      ("{\"message\":\"why\",\"code\":\"\(code)\"}", [:]),
      ("{\"__type\":7,\"message\":\"why\",\"Code\":\"\(code)\"}", [:]),
      (
        "<ErrorResponse><Errors><Error><Code>\(code)</Code><Message>why</Message></Error></Errors></ErrorResponse>",
        ["content-type": "text/html"]
      ),
      (
        "<?xml version=\"1.0\"?>\n<Error><Code>\(code)</Code><Message>why</Message></Error>",
        ["content-type": "text/xml"]
      ),
    ].map { body, headers in AWSFixture.response(try .testing(body), status: 400, headers: headers) }
  }

  private func failure(_ response: HTTPResponse, _ operation: KMSOperation = .decrypt) -> CallFailure {
    CallFailure(response, to: operation)
  }

  @Test func everyCodeHasItsClassInEveryForm() throws {
    for (kind, codes) in Self.classes {
      for code in codes {
        for (index, response) in try Self.forms(code).enumerated() {
          let failure = failure(response)
          #expect(failure.kind == kind, "\(code), form \(index)")
          #expect(failure.message.contains("why"), "\(code), form \(index): \(failure.message)")
        }
      }
    }
  }

  /// What follows from a class for what is held: only KMS's own word that the CMK may not be used wipes it.
  @Test func whatFollowsFromAClass() {
    for kind in CallFailure.Kind.allCases {
      let error = CallFailure(kind, "why").cmkError
      switch kind {
      case .unreachable, .local, .throttled, .serverFailure, .credential:
        #expect(error.name == .unreachable, "\(kind)")
      case .denied, .disabled, .pendingDeletion, .notFound: #expect(error.name == .denied, "\(kind)")
      case .invalidCiphertext: #expect(error.name == .invalidCiphertext)
      case .configuration: #expect(error.name == .configuration)
      case .refused: #expect(error.name == .refused)
      case .outcomeUnknown: #expect(error.name == .outcomeUnknown)
      }
    }
  }

  @Test(arguments: [201, 204, 302, 307, 500, 502, 503, 504, 599])
  func aStatusThatIsNoRefusalIsNoWordAboutTheCMK(_ status: Int) throws {
    for (_, codes) in Self.classes {
      for code in codes {
        let body = try Secret.testing("{\"__type\":\"\(code)\",\"message\":\"pending deletion\"}")
        let failure = failure(AWSFixture.response(body, status: status))
        #expect(failure.cmkError.name == .unreachable && failure.isTransient, "\(status) \(code): \(failure)")
      }
    }
  }

  @Test func throttlingIsAnHTTP400AndAlsoA429() throws {
    let body =
      "{\"__type\":\"ThrottlingException\",\"message\":\"You have exceeded the rate at which you may call KMS.\"}"
    #expect(failure(AWSFixture.response(try .testing(body), status: 400)).kind == .throttled)
    #expect(failure(AWSFixture.response(nil, status: 429)).kind == .throttled)
  }

  @Test(arguments: [
    "arn:aws:kms:eu-central-1:111122223333:key/x is pending deletion.", "key is pending replica deletion",
  ])
  func pendingDeletionIsInTheMessage(_ message: String) throws {
    let body = "{\"__type\":\"KMSInvalidStateException\",\"message\":\"\(message)\"}"
    #expect(failure(AWSFixture.response(try .testing(body), status: 400)).kind == .pendingDeletion)
    let disabled = "{\"__type\":\"DisabledException\",\"message\":\"\(message)\"}"
    #expect(failure(AWSFixture.response(try .testing(disabled), status: 400)).kind == .disabled)
  }

  /// AWS repeats what should have been signed, the session token among it, behind the first line.
  @Test func whatWasSignedIsNotRepeated() throws {
    let message =
      "The request signature we calculated does not match the signature you provided.\\n\\nThe Canonical String for this request should have been\\n'POST\\n/\\n\\nx-amz-security-token:TOPSECRETTOKEN\\n'"
    let json = "{\"__type\":\"InvalidSignatureException\",\"message\":\"\(message)\"}"
    let xml =
      "<Error><Code>SignatureDoesNotMatch</Code><Message>\(message.replacing("\\n", with: "\n"))</Message></Error>"
    for body in [json, xml] {
      let failure = failure(AWSFixture.response(try .testing(body), status: 403))
      #expect(failure.kind == .credential && failure.message.contains("does not match"))
      #expect(!failure.message.contains("TOPSECRET") && !failure.message.contains("Canonical"))
    }
  }

  @Test func messagesAreShortAndPrintable() throws {
    for long in [String(repeating: "a", count: 5000), String(repeating: "\u{202e}é", count: 5000)] {
      let failure = failure(
        try AWSFixture.response(["__type": "NotFoundException", "message": long], status: 400)
      )
      #expect(failure.message.count <= "NotFound: ".count + 300 && failure.message.count > 200)
      #expect(failure.message.unicodeScalars.allSatisfy { $0.value != 0x202e && $0.value >= 0x20 })
    }
    let forged = try AWSFixture.response(
      ["__type": "NotFoundException", "message": "one\u{1b}[31m"],
      status: 400,
      headers: ["x-amzn-requestid": "a\u{1b}\nb"]
    )
    #expect(failure(forged).message == "NotFound: one")
    #expect(failure(forged).requestID == "a\\u{1b}\\u{a}b")
    let odd = try AWSFixture.response(["__type": "Not\nFound", "message": ["x"]], status: 400)
    #expect(failure(odd).kind == .serverFailure && failure(odd).message.contains("HTTP status 400"))
  }

  @Test func theRequestIDReachesTheErrorsText() throws {
    let response = try AWSFixture.response(["__type": "NotFoundException"], status: 400)
    #expect(failure(response).requestID == "request-1")
    #expect(failure(response).cmkError.description == "AWS: not found: NotFound (request id request-1)")
  }

  @Test(
    arguments: [
      (["retry-after": "7"], 7000), (["retry-after": "100000"], 60_000), (["retry-after": "-1"], nil),
      (["retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"], nil), (["x-amz-retry-after": "1500"], 1500),
      (["x-amz-retry-after": "99999999"], 60_000), (["x-amz-retry-after": "20", "retry-after": "9"], 20),
      ([:], nil),
      (["retry-after": "99999999999999999999"], nil),
    ] as [([String: String], Int?)]
  )
  func howLongToWait(_ headers: [String: String], _ milliseconds: Int?) {
    #expect(
      failure(AWSFixture.response(nil, status: 503, headers: headers)).retryAfterMilliseconds == milliseconds
    )
  }

  @Test(arguments: [
    ("InvalidSignatureException", "Signature expired: 20240820T230143Z is now earlier than 20240820T230302Z"),
    (
      "InvalidSignatureException",
      "Signature not yet current: 20300101T000000Z is still later than 20240820T230302Z"
    ),
    ("RequestExpired", ""), ("RequestTimeTooSkewed", ""),
  ])
  func aWrongClockIsNamed(_ code: String, _ message: String) throws {
    let failure = failure(try AWSFixture.response(["__type": code, "message": message], status: 400))
    #expect(failure.kind == .credential && failure.message.contains("clock"))
  }

  @Test func aWrongSecretIsNotTakenForAWrongClock() throws {
    let members = [
      "__type": "InvalidSignatureException", "message": "The request signature we calculated does not match.",
    ]
    #expect(!failure(try AWSFixture.response(members, status: 400)).message.contains("clock"))
  }

  /// Garbage of every length and first byte ends, and says nothing about the CMK.
  @Test func garbageSaysNothing() throws {
    let whole = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    for count in 0..<"<Error><Code>AccessDenied</Code>".utf8.count {
      let failure = failure(AWSFixture.response(try .testing(whole.utf8.prefix(count)), status: 403))
      #expect(failure.kind == .serverFailure, "\(count) bytes")
    }
    let json = "{\"__type\":\"AccessDeniedException\"}"
    for count in 0..<json.utf8.count {
      let failure = failure(AWSFixture.response(try .testing(json.utf8.prefix(count)), status: 400))
      #expect(failure.kind == .serverFailure, "\(count) bytes")
    }
    for byte in UInt8.min...UInt8.max {
      let failure = failure(
        AWSFixture.response(try .testing([byte] + AWSFixture.bytes(60, byte)), status: 400)
      )
      #expect(failure.kind == .serverFailure, "\(byte)")
    }
  }
}
