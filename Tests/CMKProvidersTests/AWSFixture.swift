import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

/// Answers as a test says, and keeps what was asked.
final class ScriptedHTTP: HTTPSending {
  typealias Answer = @Sendable (HTTPRequest) async throws(HTTPError) -> HTTPResponse
  private let answer: Answer
  private let kept = Mutex<[HTTPRequest]>([])
  var requests: [HTTPRequest] { kept.withLock { $0 } }

  init(_ answer: @escaping Answer) { self.answer = answer }

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    kept.withLock { $0.append(request) }
    return try await answer(request)
  }
}

/// Gives out what it holds, and counts who asks.
final class HeldCredentials: AWSCredentialsSource {
  private let held: Mutex<Result<AWSCredentials, CMKError>>
  private let asked = Mutex(0)
  var count: Int { asked.withLock { $0 } }

  init(_ held: Result<AWSCredentials, CMKError>) { self.held = Mutex(held) }

  convenience init(_ accessKeyID: String = "AKIDEXAMPLE", token: String? = nil) throws {
    self.init(.success(try Self.credentials(accessKeyID, token: token)))
  }

  static func credentials(_ accessKeyID: String, token: String? = nil) throws -> AWSCredentials {
    AWSCredentials(
      accessKeyID: accessKeyID,
      secretAccessKey: try .testing("secret of \(accessKeyID)"),
      sessionToken: try token.map { try .testing($0) },
      expiresMilliseconds: nil
    )
  }

  func hold(_ credentials: AWSCredentials) { held.withLock { $0 = .success(credentials) } }

  func credentials() async throws(CMKError) -> AWSCredentials {
    asked.withLock { $0 += 1 }
    return try held.withLock { $0 }.get()
  }
}

/// An AWS provider before a script.
struct AWSFixture {
  static let id = "1234abcd-12ab-34cd-56ef-1234567890ab"
  static let otherID = "abcd1234-12ab-34cd-56ef-1234567890ab"
  static let arn = "arn:aws:kms:eu-central-1:111122223333:key/\(id)"
  static let multiRegionID = "mrk-1234abcd12ab34cd56ef1234567890ab"

  let http: ScriptedHTTP
  let credentials: HeldCredentials
  let provider: AWSProvider
  let context: EncryptionContext

  init(
    region: String? = "eu-central-1",
    endpoint: String? = nil,
    credentials: HeldCredentials? = nil,
    _ answer: @escaping ScriptedHTTP.Answer
  ) throws {
    http = ScriptedHTTP(answer)
    self.credentials = try credentials ?? HeldCredentials()
    provider = AWSProvider(
      place: AWSPlace(region: region, endpoint: endpoint),
      credentials: self.credentials,
      http: http,
      guarded: CallGuard()
    )
    context = EncryptionContext(tenant: try TenantName("acme"), keyring: KeyringID(value: 1))
  }

  /// Always the same response.
  init(region: String? = "eu-central-1", _ response: HTTPResponse) throws {
    try self.init(region: region) { _ throws(HTTPError) in response }
  }

  /// A response as KMS makes them; `members` are written as JSON.
  static func response(_ members: [String: Any], status: Int = 200, headers: [String: String] = [:]) throws
    -> HTTPResponse
  {
    let bytes = Array(try JSONSerialization.data(withJSONObject: members))
    return response(try .testing(bytes), status: status, headers: headers)
  }

  static func response(_ body: Secret?, status: Int = 200, headers: [String: String] = [:]) -> HTTPResponse {
    let common = ["content-type": "application/x-amz-json-1.1", "x-amzn-requestid": "request-1"]
    return HTTPResponse(status: status, headers: common.merging(headers) { $1 }, body: body)
  }

  /// A key of 32 bytes, and the like.
  static func bytes(_ count: Int, _ first: UInt8 = 1) -> [UInt8] {
    (0..<count).map { first &+ UInt8(truncatingIfNeeded: $0) }
  }

  static func coded(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

  /// An envelope of the provider's, of a key of this ARN.
  static func wrapped(_ arn: String = arn, ciphertext: [UInt8] = Array("blob".utf8)) throws -> [UInt8] {
    CiphertextEnvelope(key: try #require(KeyARN(arn)), ciphertext: ciphertext).bytes
  }
}

/// The members of a request's body.
func members(_ request: HTTPRequest) throws -> [String: Any] {
  let body = try #require(request.body)
  return try #require(try JSONSerialization.jsonObject(with: Data(body.revealed)) as? [String: Any])
}

/// Why a call was refused.
func refusal<Value>(_ body: () async throws(CMKError) -> Value) async -> CMKError? {
  do throws(CMKError) {
    _ = try await body()
    return nil
  } catch {
    return error
  }
}

extension CMKError {
  /// Its case, without the text.
  enum Name { case unreachable, denied, invalidCiphertext, refused, configuration, outcomeUnknown }

  var name: Name {
    switch self {
    case .unreachable: .unreachable
    case .denied: .denied
    case .invalidCiphertext: .invalidCiphertext
    case .refused: .refused
    case .configuration: .configuration
    case .outcomeUnknown: .outcomeUnknown
    }
  }
}
