import Foundation
import HTTPTransport
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

@Suite struct CredentialEndpointsTests {
  let fixture: CredentialsFixture
  init() throws { fixture = try CredentialsFixture() }

  private static let expires = CredentialsFixture.start + CredentialsFixture.hour

  private func refusal(_ source: AWSCredentialsConfiguration.Source) async throws -> String {
    let cache = try fixture.cache(source)
    return await noCredentials { () throws(CMKError) in try await cache.credentials() }
  }

  // MARK: Web identity

  @Test func theTokenOfAWebIdentityIsReadAnewForEachExchange() async throws {
    // As Kubernetes has it: a link, readable by others, replaced while the service runs.
    try fixture.folder.write("first", "the.first.token\n")
    try fixture.folder.write("second", "the.second.token")
    try fixture.setMode("first", 0o644)
    func link(_ target: String) throws {
      _ = try? FileManager.default.removeItem(atPath: fixture.folder("token"))
      try FileManager.default.createSymbolicLink(
        atPath: fixture.folder("token"),
        withDestinationPath: target
      )
    }
    try link("first")
    fixture.set([
      "AWS_WEB_IDENTITY_TOKEN_FILE": fixture.folder("token"), "AWS_ROLE_ARN": CredentialsFixture.arn,
    ])
    fixture.serveSTS()
    let cache = try fixture.cache(.webIdentity)
    #expect(try await cache.credentials().accessKeyID.hasSuffix("1001"))
    try link("second")
    fixture.advance(CredentialsFixture.hour)
    #expect(try await cache.credentials().accessKeyID.hasSuffix("1002"))
    let tokens = fixture.sts.seen.map { $0.body.split(separator: "WebIdentityToken=").last }
    #expect(tokens == ["the.first.token", "the.second.token"] && fixture.metadata.seen.isEmpty)
  }

  @Test func aTokenThatIsNoneIsNotSent() async throws {
    fixture.set([
      "AWS_WEB_IDENTITY_TOKEN_FILE": fixture.folder("token"), "AWS_ROLE_ARN": CredentialsFixture.arn,
    ])
    #expect(try await refusal(.webIdentity).contains("token is not there"))
    for (text, why) in [
      ("", "holds no token"), ("one.token\ntwo\n", "holds no token"), ("SEC", "token:1: a token is 4"),
      ("SEC RET", "token:1: a token is 4"), ("SEC\0RET", "token:1: a token is 4"),
      (String(repeating: "x", count: 20_001), "to 20000 printable"),
      (String(repeating: "x", count: 65_537), "larger"),
    ] {
      try fixture.folder.write("token", text)
      let refusal = try await refusal(.webIdentity)
      #expect(refusal.contains(why) && !refusal.contains("SEC"), "\(refusal)")
    }
    #expect(fixture.sts.seen.isEmpty)
  }

  // MARK: Containers

  @Test func aContainerAsksItsEndpoint() async throws {
    fixture.metadata.onRequest { _ throws(HTTPError) in
      try CredentialsFixture.response(CredentialsFixture.handedOut(5, expires: Self.expires))
    }
    fixture.set(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://example.com/ignored"])
    fixture.set(["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x?y=z"])
    #expect(
      try await fixture.cache(.container).credentials().revealed
        == "ASIAIOSFODNN7EXAM1005|secret/of+number5|token/of+number5==|\(Self.expires)"
    )
    let seen = try #require(fixture.metadata.seen.first)
    #expect(seen.line == "GET http://169.254.170.2/v2/credentials/x?y=z" && seen.request.body == nil)
    #expect(seen.request.scheme == .plainToMetadata && seen.headers == ["Accept": "application/json"])
    #expect(fixture.metadata.seen.count == 1 && fixture.sts.seen.isEmpty)
  }

  @Test func aContainersAuthorizationIsSentAndItsFileReadAnew() async throws {
    fixture.metadata.onRequest { _ throws(HTTPError) in
      let expires = self.fixture.now.withLock { $0 } + CredentialsFixture.hour
      return try CredentialsFixture.response(CredentialsFixture.handedOut(1, expires: expires))
    }
    fixture.set([
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://credentials.example.com/x",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic-of-variable",
    ])
    _ = try await fixture.cache(.container).credentials()
    fixture.set([
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[fd00:ec2::23]/v1/credentials",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": fixture.folder("token"),
    ])
    let cache = try fixture.cache(.container)
    for token in ["first", "second"] {
      try fixture.folder.write("token", token + "\n")
      _ = try await cache.credentials()
      fixture.advance(CredentialsFixture.hour)
    }
    let seen = fixture.metadata.seen
    #expect(seen.map { $0.headers["Authorization"] } == ["Basic-of-variable", "first", "second"])
    #expect(seen.map(\.request.scheme) == [.secure, .plainToMetadata, .plainToMetadata])
    #expect(seen.allSatisfy { $0.request.secretHeaders.map(\.name) == ["Authorization"] })
  }

  @Test func anAuthorizationThatIsNoHeaderIsNotSent() async throws {
    fixture.set([
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN": "SEC\r\nX: RET",
    ])
    #expect(
      try await refusal(.container)
        == "credentials: AWS_CONTAINER_AUTHORIZATION_TOKEN is not one printable word"
    )
    fixture.set(["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": fixture.folder("token")])
    try fixture.folder.write("token", "SEC\r\nX: RET\n")
    #expect(try await refusal(.container).contains("token holds no token: one line"))
    #expect(fixture.metadata.seen.isEmpty)
  }

  @Test(arguments: [
    "http://example.com/", "http://169.254.169.254/", "http://169.254.170.3/", "http://10.0.0.1/",
    "http://169.254.170.2.example.com/", "http://169.254.170.2@example.com/", "http://[fd00:ec2::254]/",
    "http://[::ffff:169.254.170.2]/", "ftp://127.0.0.1/", "127.0.0.1/", "http://127.0.0.1\\@example.com/",
  ])
  func aContainersCredentialsComeFromNowhereElse(_ url: String) async throws {
    fixture.set(["AWS_CONTAINER_CREDENTIALS_FULL_URI": url])
    #expect(try await refusal(.container).contains("AWS_CONTAINER_CREDENTIALS_FULL_URI is https://"))
    #expect(fixture.metadata.seen.isEmpty)
  }

  @Test(arguments: ["@example.com/", "v2", ".example.com/x", "/a b", "/a\r\nb", "//x#y", ":80/"])
  func aContainersPathIsAPath(_ path: String) async throws {
    fixture.set(["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": path])
    #expect(try await refusal(.container).contains("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is no path"))
    #expect(fixture.metadata.seen.isEmpty)
  }

  // MARK: Instances

  /// An instance metadata service with one role.
  private func serveInstance(role: String = "keyring-role", _ answer: String) {
    fixture.metadata.onRequest { seen throws(HTTPError) in
      switch seen.line {
      case "PUT http://169.254.169.254/latest/api/token": try CredentialsFixture.response("the-token==")
      case "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/":
        try CredentialsFixture.response(role)
      case "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/keyring-role":
        try CredentialsFixture.response(answer)
      default: throw .unreachable("no such thing: \(seen.line)")
      }
    }
    fixture.set(["AWS_EC2_METADATA_DISABLED": ""])
  }

  @Test func anInstanceIsAskedWithATokenAlone() async throws {
    serveInstance(CredentialsFixture.handedOut(5, expires: Self.expires, code: "Success"))
    #expect(
      try await fixture.cache(.instanceMetadata).credentials().revealed
        == "ASIAIOSFODNN7EXAM1005|secret/of+number5|token/of+number5==|\(Self.expires)"
    )
    let seen = fixture.metadata.seen
    #expect(seen.map(\.request.method) == [.put, .get, .get])
    #expect(
      seen.map(\.headers)
        == [["X-aws-ec2-metadata-token-ttl-seconds": "60"]]
        + Array(repeating: ["X-aws-ec2-metadata-token": "the-token=="], count: 2)
    )
    #expect(seen.dropFirst().allSatisfy { $0.request.secretHeaders.count == 1 && $0.request.headers.isEmpty })
    #expect(
      seen.allSatisfy {
        $0.request.scheme == .plainToMetadata && $0.request.timeoutMilliseconds == 1000
          && $0.request.connectTimeoutMilliseconds == 1000 && $0.request.body == nil && $0.signing == nil
      }
    )
  }

  @Test func anInstanceThatRefusesATokenIsNotAskedWithoutOne() async throws {
    fixture.set(["AWS_EC2_METADATA_DISABLED": ""])
    for status in [400, 403, 404, 405] {
      fixture.metadata.onRequest { _ throws(HTTPError) in
        try CredentialsFixture.response("", status: status)
      }
      #expect(
        try await refusal(.instanceMetadata)
          == "credentials: the instance metadata service answers HTTP \(status)"
      )
    }
    #expect(fixture.metadata.seen.allSatisfy { $0.request.method == .put })
  }

  @Test func anInstancesAnswersAreChecked() async throws {
    let good = CredentialsFixture.handedOut(5, expires: Self.expires, code: "Success")
    for role in ["../../x", "a b", String(repeating: "r", count: 65), "\nkeyring-role", "a?b", "a#b"] {
      serveInstance(role: role, good)
      #expect(try await refusal(.instanceMetadata).contains("no role's name"), "\(role)")
    }
    serveInstance(role: "keyring-role\nother\n", good)
    _ = try await fixture.cache(.instanceMetadata).credentials()
    fixture.metadata.onRequest { _ throws(HTTPError) in try CredentialsFixture.response("a\r\nX: y") }
    #expect(try await refusal(.instanceMetadata).contains("no token"))
    for (right, wrong, why) in [
      ("Success", "AssumeRoleUnauthorizedAccess", "answers AssumeRoleUnauthorizedAccess"),
      ("AccessKeyId", "X", "no credentials with a time"),
      ("SecretAccessKey", "X", "no credentials with a time"),
      (#""Token""#, #""X""#, "no credentials with a time"), ("Expiration", "X", "no credentials with a time"),
      ("2027-01-15T09:00:00Z", "soon", "no credentials with a time"),
      ("secret/of", "secret of", "SecretAccessKey: a secret"),
      ("ASIAIOSFODNN7EXAM", "é", "AccessKeyId: an access key id"),
      ("token/of", "token of", "Token: a session token"),
      ("}", "", "JSON"), (#""Token" : "#, #""Token" : 1, "X" : "#, "member 'Token' is not a string"),
    ] {
      serveInstance(good.replacing(right, with: wrong))
      let refusal = try await refusal(.instanceMetadata)
      #expect(
        refusal.contains(why) && refusal.contains("the instance metadata service"),
        "\(wrong): \(refusal)"
      )
      #expect(!refusal.contains("number5"), "\(refusal)")
    }
    serveInstance(CredentialsFixture.handedOut(5, expires: CredentialsFixture.start, code: "Success"))
    #expect(
      try await refusal(.instanceMetadata).contains("instance metadata gives credentials that have expired")
    )
  }

  @Test func anotherEndpointOfAnInstanceIsLinkLocalOrOfThisMachine() async throws {
    fixture.set(["AWS_EC2_METADATA_DISABLED": "false"])
    let asked = Mutex<[String]>([])
    fixture.metadata.onRequest { seen throws(HTTPError) in
      asked.withLock { $0.append(seen.request.url) }
      throw .unreachable("enough")
    }
    for endpoint in ["http://[fd00:ec2::254]", "http://127.0.0.1:1338/", "http://localhost"] {
      fixture.set(["AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint])
      #expect(try await refusal(.instanceMetadata).hasSuffix("enough"))
    }
    #expect(
      asked.withLock { $0 }
        == ["[fd00:ec2::254]", "127.0.0.1:1338", "localhost"].map { "http://\($0)/latest/api/token" }
    )
    for endpoint in [
      "http://example.com", "https://169.254.169.254", "http://169.254.170.2", "http://127.0.0.1/x",
      "http://127.0.0.1?x",
      "169.254.169.254", "http://169.254.169.254@example.com", "http://2852039166/",
    ] {
      fixture.set(["AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint])
      #expect(
        try await refusal(.instanceMetadata).contains("AWS_EC2_METADATA_SERVICE_ENDPOINT is http://"),
        "\(endpoint)"
      )
    }
    #expect(fixture.metadata.seen.count == 3)
  }
}
