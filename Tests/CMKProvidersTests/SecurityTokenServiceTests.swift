import HTTPTransport
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

@Suite struct SecurityTokenServiceTests {
  let fixture: CredentialsFixture
  init() throws { fixture = try CredentialsFixture() }

  private func secret(_ text: String) throws -> Secret { try .testing(text) }

  private func service(_ endpoint: String? = nil, region: String = "eu-central-1") throws
    -> SecurityTokenService
  {
    SecurityTokenService(
      http: fixture.sts,
      region: try #require(AWSRegion(region)),
      endpoint: endpoint,
      tenant: try TenantName("acme")
    )
  }

  private func base(token: String? = nil) throws -> AWSCredentials {
    AWSCredentials(
      accessKeyID: CredentialsFixture.accessKeyID,
      secretAccessKey: try secret("base/secret"),
      sessionToken: try token.map { try secret($0) },
      expiresMilliseconds: nil
    )
  }

  private func answer(_ body: String, status: Int = 200) {
    fixture.sts.onRequest { _ throws(HTTPError) in try CredentialsFixture.response(body, status: status) }
  }

  private func refusal() async throws -> String {
    let (service, role, base) = (try service(), try CredentialsFixture.role(), try base(token: "base/token"))
    return await noCredentials { () throws(CMKError) in try await service.assume(role, with: base)
    }
  }

  // MARK: Requests

  @Test func assumeRoleIsAFormSignedWithTheBase() async throws {
    answer(CredentialsFixture.assumed("AssumeRole", 7, expires: 1_800_003_600_000))
    let role = try CredentialsFixture.role("ext:1/+=,.@-_", "me@x")
    let credentials = try await service().assume(role, with: base(token: "base/token=="))
    #expect(
      credentials.revealed == "ASIAIOSFODNN7EXAM1007|secret/of+number7|token/of+number7==|1800003600000"
    )
    let seen = try #require(fixture.sts.seen.first)
    #expect(seen.line == "POST https://sts.eu-central-1.amazonaws.com/")
    #expect(seen.request.scheme == .secure && fixture.sts.seen.count == 1)
    #expect(seen.headers == ["Content-Type": "application/x-www-form-urlencoded; charset=utf-8"])
    #expect(
      seen.body == "Action=AssumeRole&Version=2011-06-15"
        + "&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fkeys%2Fkeyring&RoleSessionName=me%40x"
        + "&DurationSeconds=3600&ExternalId=ext%3A1%2F%2B%3D%2C.%40-_"
    )
    #expect(seen.signing == "eu-central-1|sts|AKIAIOSFODNN7EXAMPLE|base/secret|base/token==")
  }

  @Test func aRoleWithoutAnExternalIDNamesNone() async throws {
    answer(CredentialsFixture.assumed("AssumeRole", 1, expires: 1_800_003_600_000))
    _ = try await service("http://127.0.0.1:15000/").assume(CredentialsFixture.role(), with: base())
    let seen = try #require(fixture.sts.seen.first)
    #expect(seen.line == "POST http://127.0.0.1:15000/" && seen.request.scheme == .plainToLoopback)
    #expect(seen.body.hasSuffix("&RoleSessionName=keyring-acme&DurationSeconds=3600"))
    #expect(seen.signing == "eu-central-1|sts|AKIAIOSFODNN7EXAMPLE|base/secret|")
  }

  @Test func aRegionsServiceIsWhereItsPartitionHasIt() async throws {
    for (region, host) in [("cn-north-1", "amazonaws.com.cn"), ("us-gov-west-1", "amazonaws.com")] {
      answer(CredentialsFixture.assumed("AssumeRole", 1, expires: 1_800_003_600_000))
      _ = try await service(region: region).assume(CredentialsFixture.role(), with: base())
      #expect(fixture.sts.seen.last?.line == "POST https://sts.\(region).\(host)/")
    }
  }

  @Test func aWebIdentityIsSentInTheFormAndNotSigned() async throws {
    answer(CredentialsFixture.assumed("AssumeRoleWithWebIdentity", 3, expires: 1_800_003_600_000))
    let credentials = try await service().assume(
      CredentialsFixture.role(),
      webIdentity: secret("eyJ.a_b-c~.x+y/z=&é")
    )
    #expect(credentials.accessKeyID == "ASIAIOSFODNN7EXAM1003")
    let seen = try #require(fixture.sts.seen.first)
    #expect(seen.line == "POST https://sts.eu-central-1.amazonaws.com/" && seen.signing == nil)
    #expect(
      seen.body == "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
        + "&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fkeys%2Fkeyring&RoleSessionName=keyring-acme"
        + "&DurationSeconds=3600&WebIdentityToken=eyJ.a_b-c~.x%2By%2Fz%3D%26%C3%A9"
    )
  }

  // MARK: Answers

  @Test func anAnswerWithoutAllOfTheCredentialsIsNone() async throws {
    let good = CredentialsFixture.assumed("AssumeRole", 1, expires: 1_800_003_600_000)
    for element in ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"] {
      answer(good.replacing("<\(element)>", with: "<X>").replacing("</\(element)>", with: "</X>"))
      #expect(try await refusal().contains("has no credentials with a time"), "\(element)")
    }
    for (right, wrong, why) in [
      ("ASIAIOSFODNN7EXAM1001", "ASIA", "AccessKeyId: an access key id"),
      ("secret/of", "s\u{e9}cret/of", "SecretAccessKey: a secret"),
      ("secret/of", "secret of", "SecretAccessKey: a secret"),
      ("token/of", "token&#10;of", "entity"), ("token/of", "token\nof", "SessionToken: a session"),
      ("2027-01-15T09:00:00Z", "tomorrow", "has no credentials"),
      ("AssumeRoleResult>", "Other>", "has no cred"),
      ("<Credentials>", "", "XML"), ("</AssumeRoleResponse>", "", "XML"),
    ] {
      answer(good.replacing(right, with: wrong))
      let refusal = try await refusal()
      #expect(refusal.hasPrefix("STS AssumeRole: ") && refusal.contains(why), "\(wrong): \(refusal)")
      #expect(!refusal.contains("number1"), "\(refusal)")
    }
    answer("")
    #expect(try await refusal() == "STS AssumeRole: HTTP 200")
    answer(CredentialsFixture.assumed("AssumeRoleWithWebIdentity", 1, expires: 1_800_003_600_000))
    #expect(try await refusal().contains("has no credentials"), "the answer of another action")
    fixture.sts.onRequest { _ throws(HTTPError) in throw .unreachable("sts: connection refused") }
    #expect(try await refusal() == "STS AssumeRole: sts: connection refused")
  }

  private static func error(_ code: String, _ message: String) -> String {
    """
    <ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>\(code)</Code>
    <Message>\(message)</Message></Error><RequestId>x</RequestId></ErrorResponse>
    """
  }

  @Test func aRefusalSaysWhatAWSSaid() async throws {
    let denied =
      "User: arn:aws:iam::123456789012:user/x is not authorized to perform: sts:AssumeRole &gt; more"
    answer(Self.error("AccessDenied", denied), status: 403)
    #expect(
      try await refusal()
        == "STS AssumeRole: AccessDenied: User: arn:aws:iam::123456789012:user/x is not authorized to perform: "
        + "sts:AssumeRole &gt; more (HTTP 403)"
    )
    answer(Self.error("Throttling", "\u{1b}[2Jx"), status: 400)
    #expect(try await refusal() == "STS AssumeRole: Throttling (HTTP 400)")
    fixture.sts.onRequest { _ throws(HTTPError) in
      let body = try CredentialsFixture.response(Self.error("ServiceUnavailable", "later")).body
      return HTTPResponse(status: 503, headers: ["x-amzn-requestid": "c6104cbe"], body: body)
    }
    #expect(
      try await refusal() == "STS AssumeRole: ServiceUnavailable: later (HTTP 503, request id c6104cbe)"
    )
    answer(
      "<ErrorResponse><Errors><Error><Code>InvalidClientTokenId</Code></Error></Errors></ErrorResponse>",
      status: 403
    )
    #expect(try await refusal() == "STS AssumeRole: InvalidClientTokenId (HTTP 403)")
    for page in [
      "<html><body>Bad gateway</body></html>", "Bad gateway", Self.error("a b", "x"),
    ] {
      answer(page, status: 502)
      #expect(try await refusal() == "STS AssumeRole: HTTP 502")
    }
  }

  @Test func whatWasSentIsNotShownWhereAWSRepeatsIt() async throws {
    // What STS says of a wrong signature, with the session token among what should have been signed.
    answer(
      Self.error(
        "SignatureDoesNotMatch",
        "The Canonical String should have been 'POST x-amz-security-token:cut/tok"
      ),
      status: 403
    )
    #expect(try await refusal() == "STS AssumeRole: SignatureDoesNotMatch (HTTP 403)")
    answer(Self.error("ValidationError", "Value 'base/token' at 'x' failed"), status: 400)
    #expect(try await refusal() == "STS AssumeRole: ValidationError (HTTP 400)")
    answer(Self.error("ValidationError", "Value 'base/secret' at 'x' failed"), status: 400)
    #expect(try await refusal() == "STS AssumeRole: ValidationError (HTTP 400)")
    answer(Self.error("InvalidIdentityToken", "cannot read the.web.identity"), status: 400)
    let (service, role, token) = (
      try service(), try CredentialsFixture.role(), try secret("the.web.identity")
    )
    let refusal = await noCredentials { () throws(CMKError) in
      try await service.assume(role, webIdentity: token)
    }
    #expect(refusal == "STS AssumeRoleWithWebIdentity: InvalidIdentityToken (HTTP 400)")
  }

  // MARK: XML

  private func read(_ text: String) throws -> XMLDocument { try XMLDocument(try secret(text)) }

  @Test func elementsAreFoundByTheirPaths() throws {
    let document = try read("<?xml version=\"1.0\" encoding='UTF-8'?>\n<a x='1' y = \"a>'\"><b>\n</b></a>")
    #expect(try document.publicText("a/b") == "\n")
    let other = try read(
      "<a>\r\n\t<b >x&lt;&gt;&amp;&quot;&apos;y</b ><c/><d>é</d><n:e.f-g_1>z</n:e.f-g_1></a>\n"
    )
    #expect(try other.publicText("a/b") == "x<>&\"'y")
    #expect(try other.secret("a/b")?.revealed == Array("x<>&\"'y".utf8))
    #expect(try other.publicText("a/c") == "" && other.publicText("a/d") == "é")
    #expect(try other.publicText("a/n:e.f-g_1") == "z")
    #expect(try other.secret("a") == nil && other.secret("b") == nil && other.secret("a/x") == nil)
  }

  @Test(arguments: [
    "", " ", "x", "<a>", "<a></b>", "<a></a", "<a/>x", "<a/><b/>", "<a><b></a></b>", "<a>x<b/></a>",
    "<a><b/>x</a>",
    "<a b></a>", "<a b=c></a>", "<a b='c></a>", "<a b='<'></a>", "<a b='1'c='2'/>", "<>x</>", "< a/>",
    "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", "<a><!-- x --></a>", "<a><![CDATA[x]]></a>", "<a><?x y?></a>",
    "<?xml version='1.0'", "<?xml version='1.0'><a/>", "\u{feff}<a/>", "<a><b/><b/></a>", "<a>\0<b/></a>",
  ])
  func whatIsNotThatMuchOfXMLIsRefused(_ text: String) {
    #expect(throws: XMLDocument.Malformed.self) { try read(text) }
  }

  @Test func anotherEntityThanTheFiveIsRefused() throws {
    for text in ["&#38;", "&#x26;", "&nbsp;", "&AMP;", "&amp", "&", "&amp ;"] {
      let document = try read("<a>\(text)</a>")
      #expect(throws: CMKError.self, "\(text)") { try document.secret("a") }
    }
  }

  @Test func depthCountAndLengthAreBounded() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "<a>", count: depth) + String(repeating: "</a>", count: depth)
    }
    _ = try read(nested(XMLDocument.depthMax))
    #expect(throws: XMLDocument.Malformed.self) { try read(nested(XMLDocument.depthMax + 1)) }
    func wide(_ count: Int) -> String { "<r>" + (1..<count).map { "<e\($0)/>" }.joined() + "</r>" }
    _ = try read(wide(XMLDocument.elementsMax))
    #expect(throws: XMLDocument.Malformed.self) { try read(wide(XMLDocument.elementsMax + 1)) }
    func long(_ count: Int) -> String { "<a>" + String(repeating: "x", count: count - 7) + "</a>" }
    _ = try read(long(XMLDocument.bytesMax))
    #expect(throws: XMLDocument.Malformed.self) { try read(long(XMLDocument.bytesMax + 1)) }
    #expect(throws: XMLDocument.Malformed.self) { try read("<\(String(repeating: "a", count: 65))/>") }
  }

  @Test func aDocumentThatIsCutAnywhereIsRefused() throws {
    let whole = "<?xml version='1.0'?><a b='c'><d>e&amp;f</d><g/></a>"
    _ = try read(whole)
    for count in 0..<whole.utf8.count {
      #expect(throws: XMLDocument.Malformed.self) { try read(String(whole.prefix(count))) }
    }
  }

  // MARK: Times

  @Test func timesAreReadToTheSecond() {
    for (text, seconds) in [
      ("1970-01-01T00:00:00Z", 0), ("2000-02-29T12:34:56Z", 951_827_696),
      ("2027-01-15T08:00:00Z", 1_800_000_000),
      ("2024-12-31T23:59:59.999Z", 1_735_689_599), ("2100-03-01T00:00:00Z", 4_107_542_400),
      ("9999-12-31T23:59:59Z", 253_402_300_799),
    ] as [(String, UInt64)] {
      #expect(unixMilliseconds(text) == seconds * 1000, "\(text)")
    }
    for text in [
      "", "2027-01-15", "2027-01-15T08:00:00", "2027-01-15 08:00:00Z", "2027-01-15T08:00:00+01:00",
      "2027-13-15T08:00:00Z",
      "2027-00-15T08:00:00Z", "2027-02-29T08:00:00Z", "2100-02-29T08:00:00Z", "2027-04-31T08:00:00Z",
      "2027-01-00T08:00:00Z",
      "2027-01-15T24:00:00Z", "2027-01-15T08:60:00Z", "2027-01-15T08:00:60Z", "1969-12-31T23:59:59Z",
      "2027-01-15T08:00:00.Z", "2027-01-15T08:00:00.xZ", "20a7-01-15T08:00:00Z", "+027-01-15T08:00:00Z",
      "1800000000",
    ] {
      #expect(unixMilliseconds(text) == nil, "\(text)")
    }
  }
}
