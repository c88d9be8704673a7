import HTTPTransport
import KeyringCore
import Testing

@testable import CMKProviders

@Suite struct AWSPlaceTests {
  private static let id = AWSFixture.id
  private static let account = "111122223333"

  // MARK: Regions and endpoints

  @Test(arguments: [
    ("eu-central-1", "aws", "https://kms.eu-central-1.amazonaws.com/"),
    ("us-gov-west-1", "aws-us-gov", "https://kms.us-gov-west-1.amazonaws.com/"),
    ("cn-north-1", "aws-cn", "https://kms.cn-north-1.amazonaws.com.cn/"),
    ("eusc-de-east-1", "aws-eusc", "https://kms.eusc-de-east-1.amazonaws.eu/"),
    ("us-iso-east-1", "aws-iso", "https://kms.us-iso-east-1.c2s.ic.gov/"),
    ("us-isob-east-1", "aws-iso-b", "https://kms.us-isob-east-1.sc2s.sgov.gov/"),
    ("eu-isoe-west-1", "aws-iso-e", "https://kms.eu-isoe-west-1.cloud.adc-e.uk/"),
    ("us-isof-south-1", "aws-iso-f", "https://kms.us-isof-south-1.csp.hci.ic.gov/"),
    ("mx-central-1", "aws", "https://kms.mx-central-1.amazonaws.com/"),
  ])
  func everyPartitionHasItsEndpoint(_ region: String, _ partition: String, _ url: String) throws {
    let target = try AWSPlace(region: region, endpoint: nil).target(of: KeyReference(try CMKID(Self.id)))
    #expect(target.url == url && target.region.text == region)
    let arn = "arn:\(partition):kms:\(region):\(Self.account):key/\(Self.id)"
    let settled = try AWSPlace(region: nil, endpoint: nil).settled(for: try CMKID(arn))
    #expect(settled == AWSPlace(region: region, endpoint: nil))
    #expect(try settled.target().url == url)
    #expect(KeyARN(arn)?.description == arn)
    for other in AWSPartition.allCases where other.rawValue != partition {
      #expect(KeyARN("arn:\(other.rawValue):kms:\(region):\(Self.account):key/\(Self.id)") == nil)
    }
  }

  @Test(arguments: [
    "", "e", "1", "eu-central-", "-eu-1", "EU-central-1", "eu_central_1", "eu-central-1.evil.example",
    "evil.example/", "a@b-1",
    "eu-central-1:443", "eu-central-1/", "eu central 1", "eu-central-1\n", "eu-central-1#", "eu-central-1?",
    "eu-cèntral-1", "%2e-1",
    "eu-central-\u{661}", "a" + String(repeating: "b", count: 31) + "1",
  ])
  func whatIsNoRegionGetsIntoNoHostName(_ region: String) async throws {
    let cmk = try CMKID(Self.id)
    let aws = try AWSFixture(region: region) { _ throws(HTTPError) in throw .unreachable("sent") }
    let arn = "arn:aws:kms:\(region):\(Self.account):key/\(Self.id)"
    let wrapped = [1, 0, UInt8(arn.utf8.count)] + Array(arn.utf8) + [9]
    for error in [
      await refusal { () async throws(CMKError) in try await aws.provider.generateRandom(count: 1) },
      await refusal { () async throws(CMKError) in try await aws.provider.describe(cmk: cmk) },
      await refusal { () async throws(CMKError) in
        try AWSPlace(region: region, endpoint: nil).settled(for: cmk)
      },
    ] { #expect(error?.name == .configuration, "\(region)") }
    #expect(KeyARN(arn) == nil)
    #expect(aws.http.requests.isEmpty && CiphertextEnvelope(wrapped) == nil)
  }

  @Test func theRegionIsTheARNsAndAContradictionOrNoneIsRefused() throws {
    let arn = try CMKID(AWSFixture.arn)
    let alias = try CMKID("arn:aws:kms:eu-central-1:\(Self.account):alias/x")
    for cmk in [arn, alias] {
      for region in [nil, "eu-central-1"] {
        #expect(try AWSPlace(region: region, endpoint: nil).settled(for: cmk).region == "eu-central-1")
      }
      #expect(
        throws: CMKError.configuration(
          "the cmk_id \(cmk) is in eu-central-1, and the region is configured as us-east-1: leave the region out, or correct it"
        )
      ) {
        try AWSPlace(region: "us-east-1", endpoint: nil).settled(for: cmk)
      }
    }
    for cmk in [Self.id, "alias/x"] {
      #expect(
        throws: CMKError.configuration(
          "there is no AWS region: configure one, or give the cmk_id as an ARN, which has it"
        )
      ) {
        try AWSPlace(region: nil, endpoint: nil).settled(for: try CMKID(cmk))
      }
      #expect(
        try AWSPlace(region: "us-east-1", endpoint: nil).settled(for: try CMKID(cmk)).region == "us-east-1"
      )
    }
  }

  @Test func aCallWithoutARegionIsRefusedAndNotSent() async throws {
    let aws = try AWSFixture(region: nil) { _ throws(HTTPError) in throw .unreachable("sent") }
    let error = await refusal { () async throws(CMKError) in try await aws.provider.generateRandom(count: 1) }
    #expect(error?.name == .configuration && aws.http.requests.isEmpty)
  }

  @Test(arguments: [
    (
      "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com",
      "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com/", true
    ),
    ("https://kms-fips.us-east-1.amazonaws.com/", "https://kms-fips.us-east-1.amazonaws.com/", true),
    ("https://10.0.0.1:8443/kms/", "https://10.0.0.1:8443/kms/", true),
    ("http://127.0.0.1:5000", "http://127.0.0.1:5000/", false),
    ("http://[::1]:5000/", "http://[::1]:5000/", false),
  ])
  func anEndpointIsTakenAsItIs(_ endpoint: String, _ url: String, _ isSecure: Bool) throws {
    let target = try AWSPlace(region: "eu-central-1", endpoint: endpoint).target()
    #expect(target.url == url && target.region.text == "eu-central-1")
    // Plain HTTP to another machine is the transport's to refuse.
    if case .secure = target.scheme { #expect(isSecure) } else { #expect(!isSecure) }
  }

  @Test(arguments: [
    "", "kms.example", "ftp://kms.example/", "https://", "https:///x", "https://user:secret@kms.example/",
    "https://kms.example/?x",
    "https://kms.example/#x", "https://kms.example/ x", "https://kms.example/\n", "HTTPS://kms.example/",
    "file:///etc/passwd",
  ])
  func whatIsNoEndpointIsRefused(_ endpoint: String) throws {
    let error = #expect(throws: CMKError.self) {
      try AWSPlace(region: "eu-central-1", endpoint: endpoint).target()
    }
    #expect(error?.name == .configuration)
  }

  // MARK: References

  @Test func everyFormOfAReferenceIsRead() throws {
    let key = try #require(KeyARN(AWSFixture.arn))
    #expect(key.id == Self.id && key.home.account == Self.account && key.home.region.text == "eu-central-1")
    let forms: [(String, KeyReference)] = [
      (Self.id, .id(Self.id)), (AWSFixture.multiRegionID, .id(AWSFixture.multiRegionID)),
      ("mrk-" + Self.id, .id("mrk-" + Self.id)), (AWSFixture.arn, .key(key)),
      ("alias/a/B_c-1", .alias("alias/a/B_c-1")),
      ("arn:aws:kms:eu-central-1:\(Self.account):alias/x", .aliasARN(key.home, "alias/x")),
    ]
    for (text, reference) in forms {
      #expect(try KeyReference(try CMKID(text)) == reference && reference.description == text)
    }
    #expect(
      !key.isMultiRegion
        && KeyARN(AWSFixture.arn.replacing(Self.id, with: AWSFixture.multiRegionID))?.isMultiRegion == true
    )
  }

  @Test(arguments: [
    "local-0123456789abcdef0123456789abcdef", "1234abcd", "1234ABCD-12AB-34CD-56EF-1234567890AB", id + "0",
    "x" + id.dropFirst(),
    id.replacing("-", with: ""), "mrk-", "mrk-1234", "MRK-1234abcd12ab34cd56ef1234567890ab",
    "mrk-1234abcd12ab34cd56ef1234567890ag", "alias/",
    "alias", "Alias/x", "alias/x.y", "alias/x:y", "alias/" + String(repeating: "x", count: 251), "key/" + id,
    "arn:aws:kms",
    "arn:aws:kms:eu-central-1:111122223333:" + id, "arn:aws:kms:eu-central-1:111122223333:key/",
    "arn:aws:kms:eu-central-1::key/" + id,
    "arn:aws:kms::111122223333:key/" + id, "arn:aws:s3:eu-central-1:111122223333:key/" + id,
    "arn:aws:kms:eu-central-1:11112222333:key/" + id,
    "arn:aws:kms:eu-central-1:11112222333x:key/" + id, "arn::kms:eu-central-1:111122223333:key/" + id,
    "ARN:aws:kms:eu-central-1:111122223333:key/" + id,
    "arn:aws-mars:kms:eu-central-1:111122223333:key/" + id,
    "arn:aws:kms:eu-central-1:111122223333:key/alias/x",
    "arn:aws:kms:eu-central-1:111122223333:key/" + id + ":x", "arn:aws:kms:eu-central-1:111122223333:alias/",
    "..", "/etc/passwd",
  ])
  func whatIsNoReferenceIsRefusedAndNotSent(_ text: String) async throws {
    let cmk = try CMKID(text)
    let aws = try AWSFixture { _ throws(HTTPError) in throw .unreachable("sent") }
    let wrapped = try AWSFixture.wrapped()
    for error in [
      await refusal { () async throws(CMKError) in
        try await aws.provider.generateDataKey(cmk: cmk, context: aws.context)
      },
      await refusal { () async throws(CMKError) in
        try await aws.provider.decrypt(wrapped, cmk: cmk, context: aws.context)
      },
      await refusal { () async throws(CMKError) in try await aws.provider.describe(cmk: cmk) },
      await refusal { () async throws(CMKError) in try await aws.provider.rotate(cmk: cmk) },
      await refusal { () async throws(CMKError) in
        try AWSPlace(region: "eu-central-1", endpoint: nil).settled(for: cmk)
      },
    ] { #expect(error?.name == .configuration, "\(text)") }
    #expect(aws.http.requests.isEmpty)
  }
}
