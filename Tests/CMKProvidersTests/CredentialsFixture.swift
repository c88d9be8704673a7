import Foundation
import HTTPTransport
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

/// A network of a test: answers as it is told, and remembers what it was asked.
final class CredentialsHTTP: HTTPSending {
  typealias Answer = @Sendable (Seen) async throws(HTTPError) -> HTTPResponse

  /// A request, its secrets revealed.
  struct Seen: Sendable {
    let request: HTTPRequest
    var line: String { "\(request.method.rawValue) \(request.url)" }
    var headers: [String: String] {
      let secret = request.secretHeaders.map { ($0.name, String(decoding: $0.value.revealed, as: UTF8.self)) }
      return Dictionary(uniqueKeysWithValues: request.headers.map { ($0.name, $0.value) } + secret)
    }
    var body: String { String(decoding: request.body?.revealed ?? [], as: UTF8.self) }
    /// `region/service/access key id/secret access key/session token`.
    var signing: String? {
      request.signing.map { signing in
        let secrets = [signing.secretAccessKey, signing.sessionToken].map {
          String(decoding: $0?.revealed ?? [], as: UTF8.self)
        }
        return ([signing.region, signing.service, signing.accessKeyID] + secrets).joined(separator: "|")
      }
    }
  }

  private let state = Mutex<(seen: [Seen], answer: Answer?)>(([], nil))

  var seen: [Seen] { state.withLock { $0.seen } }
  func onRequest(_ answer: @escaping Answer) { state.withLock { $0.answer = answer } }

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    let seen = Seen(request: request)
    let answer = state.withLock { state in
      state.seen.append(seen)
      return state.answer
    }
    guard let answer else { throw .unreachable("nobody listens") }
    return try await answer(seen)
  }
}

/// A place in which credentials are looked for: variables, files, a clock and networks of its own.
final class CredentialsFixture: Sendable {
  static let start: UInt64 = 1_800_000_000_000
  static let hour: UInt64 = 3_600_000
  static let accessKeyID = "AKIAIOSFODNN7EXAMPLE"
  static let secretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
  static let arn = "arn:aws:iam::123456789012:role/keys/keyring"

  let folder: TestDirectory
  let now = Mutex(start)
  let variables: Mutex<[String: String]>
  let sts = CredentialsHTTP()
  let metadata = CredentialsHTTP()
  /// What the random numbers are.
  let jitter = Mutex<@Sendable (ClosedRange<UInt64>) -> UInt64>({ $0.lowerBound })

  init() throws {
    folder = try TestDirectory()
    variables = Mutex(["HOME": folder.path, "AWS_EC2_METADATA_DISABLED": "true"])
  }

  func set(_ values: [String: String]) { variables.withLock { $0.merge(values) { $1 } } }
  func advance(_ milliseconds: UInt64) { now.withLock { $0 += milliseconds } }

  var resolver: CredentialsResolver {
    get throws {
      CredentialsResolver(tenant: try TenantName("acme")) { name throws(SecureMemoryError) in
        try self.variable(name)
      }
    }
  }

  @Sendable private func variable(_ name: String) throws(SecureMemoryError) -> Secret? {
    guard let value = variables.withLock({ $0[name] }) else { return nil }
    let bytes = Array(value.utf8)
    return try unsafe Secret(count: bytes.count) { unsafe $0.copyBytes(from: bytes) }
  }

  func configuration(
    _ source: AWSCredentialsConfiguration.Source,
    role: AWSRole? = nil,
    endpoint: String? = nil
  ) throws -> AWSCredentialsConfiguration {
    try AWSCredentialsConfiguration(
      source,
      role: role,
      tenant: try TenantName("acme"),
      region: "eu-central-1",
      securityTokenEndpoint: endpoint
    )
  }

  func cache(
    _ source: AWSCredentialsConfiguration.Source,
    role: AWSRole? = nil,
    endpoint: String? = nil
  ) throws -> AWSCredentialsCache {
    AWSCredentialsCache(
      try configuration(source, role: role, endpoint: endpoint),
      http: sts,
      metadata: metadata,
      variable: { name throws(SecureMemoryError) in try self.variable(name) },
      nowMilliseconds: { self.now.withLock { $0 } },
      jitter: { range in self.jitter.withLock { $0 }(range) }
    )
  }

  /// The tenant's two-line file.
  func file(_ name: String = "credentials") throws -> AWSCredentialsConfiguration.Source {
    .file(directory: try DirectoryDescriptor(path: folder.path), name: name)
  }

  /// Writes the two shared files.
  func writeShared(credentials: String? = nil, config: String? = nil) throws {
    try FileManager.default.createDirectory(atPath: folder(".aws"), withIntermediateDirectories: true)
    if let credentials { try folder.write(".aws/credentials", credentials) }
    if let config { try folder.write(".aws/config", config) }
  }

  func setMode(_ name: String, _ mode: Int) throws {
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: folder(name))
  }

  static func role(_ externalID: String? = nil, _ sessionName: String? = nil) throws -> AWSRole {
    try AWSRole(arn: arn, externalID: externalID, sessionName: sessionName)
  }

  // MARK: Answers

  static func response(_ body: String, status: Int = 200) throws(HTTPError) -> HTTPResponse {
    do {
      return HTTPResponse(status: status, headers: [:], body: body.isEmpty ? nil : try .testing(body))
    } catch {
      throw .malformed("the test has no memory: \(error)")
    }
  }

  static func timestamp(_ milliseconds: UInt64) -> String {
    Date(timeIntervalSince1970: Double(milliseconds) / 1000).ISO8601Format()
  }

  /// What the Security Token Service answers; the access key id ends in `number`.
  static func assumed(_ action: String, _ number: Int, expires: UInt64) -> String {
    """
    <\(action)Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
      <\(action)Result>
        <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/a/b</Arn></AssumedRoleUser>
        <Credentials>
          <AccessKeyId>ASIAIOSFODNN7EXAM\(number + 1000)</AccessKeyId>
          <SecretAccessKey>secret/of+number\(number)</SecretAccessKey>
          <SessionToken>token/of+number\(number)==</SessionToken>
          <Expiration>\(timestamp(expires))</Expiration>
        </Credentials>
        <PackedPolicySize>6</PackedPolicySize>
      </\(action)Result>
      <ResponseMetadata><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ResponseMetadata>
    </\(action)Response>
    """
  }

  /// What an endpoint of containers or instances answers.
  static func handedOut(_ number: Int, expires: UInt64, code: String? = nil) -> String {
    let first = code.map {
      #""Code" : "\#($0)", "LastUpdated" : "2026-01-01T00:00:00Z", "Type" : "AWS-HMAC","#
    }
    return """
      { \(first ?? "") "AccessKeyId" : "ASIAIOSFODNN7EXAM\(number + 1000)", "SecretAccessKey" : "secret/of+number\(number)",
        "Token" : "token/of+number\(number)==", "Expiration" : "\(timestamp(expires))" }
      """
  }

  /// Lets the Security Token Service answer with ever new credentials, good for an hour.
  func serveSTS() {
    let count = Mutex(0)
    sts.onRequest { seen throws(HTTPError) in
      let number = count.withLock { count in
        count += 1
        return count
      }
      let action =
        seen.body.contains("Action=AssumeRoleWithWebIdentity&") ? "AssumeRoleWithWebIdentity" : "AssumeRole"
      let expires = self.now.withLock { $0 } + Self.hour
      return try Self.response(Self.assumed(action, number, expires: expires))
    }
  }
}

extension AWSCredentials {
  /// All parts in one text.
  var revealed: String {
    let secrets = [secretAccessKey, sessionToken].map { String(decoding: $0?.revealed ?? [], as: UTF8.self) }
    return ([accessKeyID] + secrets + [expiresMilliseconds.map { "\($0)" } ?? ""]).joined(separator: "|")
  }
}

/// Why something has no credentials.
func noCredentials<Value>(_ body: () async throws(CMKError) -> Value) async -> String {
  do throws(CMKError) {
    _ = try await body()
    return "it was taken"
  } catch {
    return "\(error)"
  }
}
