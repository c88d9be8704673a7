import Foundation
import HTTPTransport
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

@Suite struct CredentialsChainTests {
  let fixture: CredentialsFixture
  init() throws { fixture = try CredentialsFixture() }

  private static let role = CredentialsFixture.arn

  private func resolved(_ source: AWSCredentialsConfiguration.Source = .chain) throws -> String {
    let (source, name) = try fixture.resolver.resolve(fixture.configuration(source))
    return "\(name) = \(SharedProfilesTests.words(source))"
  }

  private func refusal(_ source: AWSCredentialsConfiguration.Source = .chain) throws -> String {
    do {
      return "it was taken: " + (try resolved(source))
    } catch let error as CMKError {
      guard case .configuration = error else { return "not a configuration error: \(error)" }
      return "\(error)"
    }
  }

  /// All links of the chain, configured.
  private func configureAll() throws {
    fixture.set([
      "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "of-environment",
      "AWS_SESSION_TOKEN": "token-of-environment", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
      "AWS_ROLE_ARN": Self.role, "AWS_ROLE_SESSION_NAME": "pod",
      "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
      "AWS_EC2_METADATA_DISABLED": "false",
    ])
    try fixture.writeShared(
      credentials: "[default]\naws_access_key_id=AKIAIOSFODNN7EXAMPL2\naws_secret_access_key=of-profile\n"
    )
  }

  @Test func theFirstThatIsConfiguredCounts() throws {
    try configureAll()
    #expect(
      try resolved() == "chain: environment = AKIAIOSFODNN7EXAMPLE|of-environment|token-of-environment|"
    )
    fixture.set(["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""])
    #expect(try resolved() == "chain: web identity = web identity \(Self.role) pod /token")
    fixture.set(["AWS_WEB_IDENTITY_TOKEN_FILE": ""])
    #expect(try resolved() == "chain: profile default = AKIAIOSFODNN7EXAMPL2|of-profile||")
    // A profile that says nothing of credentials configures none.
    try fixture.writeShared(credentials: "", config: "[default]\nregion = eu-central-1\n")
    #expect(try resolved() == "chain: container = container http://169.254.170.23/v1/credentials")
    fixture.set(["AWS_CONTAINER_CREDENTIALS_FULL_URI": ""])
    #expect(try resolved() == "chain: instance metadata = instance http://169.254.169.254")
    fixture.set(["AWS_EC2_METADATA_DISABLED": "TRUE"])
    #expect(try refusal().hasPrefix("nothing of the chain is configured"))
  }

  @Test func aLinkThatIsConfiguredWronglyIsNotPassedOver() throws {
    try configureAll()
    fixture.set(["AWS_SECRET_ACCESS_KEY": ""])
    #expect(
      try refusal() == "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY one is set and the other is not"
    )
    fixture.set(["AWS_SECRET_ACCESS_KEY": "of environment"])
    #expect(try refusal().hasPrefix("AWS_SECRET_ACCESS_KEY: "))
    fixture.set(["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ROLE_ARN": ""])
    #expect(try refusal() == "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not")
    fixture.set(["AWS_ROLE_ARN": "arn:aws:iam::1:role/x"])
    #expect(try refusal().hasPrefix("AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME: a role's ARN"))
    fixture.set(["AWS_WEB_IDENTITY_TOKEN_FILE": ""])
    try fixture.setMode(".aws/credentials", 0o644)
    #expect(try refusal().contains("may be used by others"))
    fixture.set(["AWS_PROFILE": "other"])
    try fixture.setMode(".aws/credentials", 0o600)
    #expect(try refusal().hasPrefix("profile 'other' has no credentials in"))
    fixture.set(["AWS_PROFILE": ""])
    try fixture.writeShared(credentials: "[default]\nsso_session = x\n")
    #expect(try refusal().contains("sso_session is not supported"))
    try fixture.writeShared(credentials: "")
    fixture.set(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/"])
    #expect(try refusal().hasPrefix("AWS_CONTAINER_CREDENTIALS_FULL_URI is https://"))
  }

  @Test func theFailureOfAConfiguredLinkIsTheAnswer() async throws {
    try configureAll()
    fixture.set(["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""])
    fixture.set(["AWS_WEB_IDENTITY_TOKEN_FILE": fixture.folder("token")])
    try fixture.folder.write("token", "the.web.identity\n")
    fixture.sts.onRequest { _ throws(HTTPError) in try CredentialsFixture.response("", status: 503) }
    fixture.metadata.onRequest { _ throws(HTTPError) in throw .unreachable("nobody should have asked") }
    let cache = try fixture.cache(.chain)
    let refusal = await noCredentials { () throws(CMKError) in try await cache.credentials() }
    #expect(refusal == "credentials: STS AssumeRoleWithWebIdentity: HTTP 503")
    #expect(fixture.sts.seen.count == 1 && fixture.metadata.seen.isEmpty)
    #expect(cache.status.lastFailure == "STS AssumeRoleWithWebIdentity: HTTP 503")
  }

  @Test func whatIsAskedForAloneMustBeThere() throws {
    #expect(try refusal(.environment) == "AWS_ACCESS_KEY_ID is not set")
    #expect(try refusal(.webIdentity) == "AWS_WEB_IDENTITY_TOKEN_FILE is not set")
    #expect(try refusal(.container).hasPrefix("neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor"))
    #expect(try refusal(.instanceMetadata) == "AWS_EC2_METADATA_DISABLED is true")
    #expect(try refusal(.profile("x")).hasPrefix("profile 'x' has no credentials"))
    try configureAll()
    #expect(try resolved(.environment).hasPrefix("environment = AKIAIOSFODNN7EXAMPLE|"))
    #expect(try resolved(.webIdentity).hasPrefix("web identity = web identity"))
    #expect(try resolved(.container).hasPrefix("container = container"))
    #expect(try resolved(.instanceMetadata).hasPrefix("instance metadata = instance"))
    #expect(try resolved(.profile(nil)).hasPrefix("profile default = AKIAIOSFODNN7EXAMPL2|"))
  }

  @Test func aRoleStandsOverWhateverIsTheSource() throws {
    try configureAll()
    let configuration = try fixture.configuration(.chain, role: CredentialsFixture.role("x-1", "me"))
    let (source, name) = try fixture.resolver.resolve(configuration)
    #expect(name == "role \(Self.role) over chain: environment")
    #expect(SharedProfilesTests.words(source).hasPrefix("role \(Self.role) x-1 me < AKIAIOSFODNN7EXAMPLE|"))
  }

  @Test func theProcessesOwnVariablesAreRead() throws {
    #expect(
      try ProcessEnvironment.secret("PATH")?.revealed
        == Array((ProcessInfo.processInfo.environment["PATH"] ?? "").utf8)
    )
    #expect(try ProcessEnvironment.secret("KEYRING_NO_SUCH_VARIABLE") == nil)
  }

  // MARK: What a configuration may say

  @Test func endpointsAreHTTPSOrOfThisMachine() throws {
    for endpoint in [
      "https://sts.example.com", "http://127.0.0.1:15000/", "http://[::1]:1", "http://localhost/",
    ] {
      #expect(try fixture.configuration(.chain, endpoint: endpoint).securityTokenEndpoint == endpoint)
    }
    for endpoint in [
      "", "sts.example.com", "http://sts.example.com/", "ftp://127.0.0.1/", "http://127.0.0.1.example.com/",
      "http://127.0.0.1@example.com/", "http://127.0.0.256/", "http://127.1/", "http://127.00.0.1/",
      "http://[::1].example.com/", "http://[::1/", "http://[::1]x80/", "http://localhost:0/",
      "http://localhost:65536/",
      "http://localhost:+1/", "http://localhost:/", "https://", "https:///x", "https://a b/", "https://a\\b/",
      "https://a/#b", "https://a\r\nb/",
    ] {
      let refused = #expect(throws: CMKError.self, "\(endpoint)") {
        _ = try fixture.configuration(.chain, endpoint: endpoint)
      }
      #expect(refused?.description.contains("the endpoint of STS is") == true)
    }
  }

  @Test func aRegionIsPartOfAHostsName() throws {
    for region in ["", "eu.example.com/", "eu central", String(repeating: "a", count: 33)] {
      #expect(throws: CMKError.self, "\(region)") {
        _ = try AWSCredentialsConfiguration(.chain, tenant: try TenantName("acme"), region: region)
      }
    }
  }

  @Test func rolesAreChecked() throws {
    let right = try AWSRole(
      arn: "arn:aws-cn:iam::123456789012:role/x",
      externalID: "a:/-",
      sessionName: "a=,.@-"
    )
    #expect(right.sessionName(for: try TenantName("acme")) == "a=,.@-")
    let unnamed = try CredentialsFixture.role()
    #expect(unnamed.sessionName(for: try TenantName("acme")) == "keyring-acme")
    let long = try TenantName(String(repeating: "a", count: 63))
    #expect(unnamed.sessionName(for: long) == "keyring-" + String(repeating: "a", count: 56))
    for arn in [
      "", "arn:aws:iam::123456789012:user/x", "arn:aws:iam::12345678901:role/x",
      "arn:aws:sts::123456789012:role/x",
      "arn:aws:iam:eu-central-1:123456789012:role/x", "arn:aws:iam::123456789012:role/",
      "arn:aws:iam::12345678901٢:role/x", "arn:aws:iam::123456789012:role/x y",
    ] {
      #expect(throws: CMKError.self, "\(arn)") {
        _ = try AWSRole(arn: arn, externalID: nil, sessionName: nil)
      }
    }
    for (externalID, sessionName) in [
      ("x", nil), ("a&b", nil), (nil, "x"), (nil, "a/b"), (nil, String(repeating: "a", count: 65)),
    ] {
      #expect(throws: CMKError.self) {
        _ = try AWSRole(arn: CredentialsFixture.arn, externalID: externalID, sessionName: sessionName)
      }
    }
  }
}
