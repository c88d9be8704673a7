import ConfigurationFiles
import KeyringCore
import Testing

@testable import TenantRegistry

/// What `tenant move` persists is read again as it was, and comes before the file.
@Suite struct MovedProviderTests {
  private let hosts = ["kms.example"]

  private func settings(_ yaml: String = "cmk_id: local-1\n") throws -> TenantSettings {
    try TenantSettings(
      file: TenantConfiguration(yaml: yaml, file: "t", allowedEndpoints: hosts),
      persisted: PersistedState()
    )
  }

  private func aws(_ members: (String, String)...) throws -> ProviderSettings {
    try ProviderSettings(
      members: [(name: "provider", value: "aws")] + members.map { (name: $0.0, value: $0.1) },
      allowedEndpoints: hosts
    )
  }

  private func persisted(_ settings: TenantSettings) throws -> TenantSettings {
    var state = PersistedState()
    state.variables = settings.persisted
    state.moved = settings.moved
    state.former = settings.former
    let again = try PersistedState(json: state.encoded(), file: "p", allowedEndpoints: hosts)
    #expect(again == state)
    return try TenantSettings(file: settings.file, persisted: again)
  }

  @Test func aMoveIsInForceAfterARestart() throws {
    let arn = "arn:aws:kms:eu-central-1:111122223333:key/5d2f0cf6-0000-4000-8000-000000000001"
    let target = try aws(
      ("endpoint", "https://kms.example:8443"),
      ("credentials_file", "credentials.2"),
      ("role_arn", "arn:aws:iam::111122223333:role/keyring"),
      ("role_external_id", "a\"b\\c")
    )
    let moved = try persisted(settings().moving(to: target, cmkID: CMKID(arn)))
    var expected = target
    expected.region = "eu-central-1"
    #expect(moved.provider == expected)
    #expect(moved.cmkID.text == arn)
    #expect(moved.former == [.local])
    #expect(moved.shown(.provider) == "aws" && moved.source(.provider) == "persisted")
    #expect(moved.shown(.roleExternalID) == "a\"b\\c")
    #expect(moved.source(.credentials) == "default")
    #expect(!moved.isCMKTransient)
    #expect(try persisted(moved.forgettingFormer()).former.isEmpty)
  }

  @Test func aMoveEndsWhatWasSetGlobally() throws {
    let before = try settings("cmk_id: 5d2f0cf6\nprovider: aws\nregion: eu-west-1\n")
      .setting(.region, "eu-west-2", isPersisted: false)
      .setting(.cmkID, "alias/x", isPersisted: false)
    #expect(before.provider.region == "eu-west-2")
    let moved = try before.moving(to: aws(("region", "eu-west-3")), cmkID: CMKID("alias/y"))
    #expect(moved.provider.region == "eu-west-3" && moved.cmkID.text == "alias/y")
    #expect(moved.former.map(\.region) == ["eu-west-2"])
  }

  @Test func backAndForthKeepsEachProviderOnce() throws {
    let first = try settings().moving(to: aws(("region", "eu-west-1")), cmkID: CMKID("alias/a"))
    let back = try first.moving(to: .local, cmkID: CMKID("local-1"))
    #expect(try back.former == [aws(("region", "eu-west-1"))])
    let again = try back.moving(to: aws(("region", "eu-west-1")), cmkID: CMKID("alias/a"))
    #expect(again.former == [.local])
  }

  @Test func aRegionThatContradictsTheCMKIsRefused() throws {
    let arn = "arn:aws:kms:eu-central-1:111122223333:key/a"
    #expect(throws: ConfigurationError.self) {
      try settings().moving(to: aws(("region", "us-east-1")), cmkID: CMKID(arn))
    }
    let withARN = try settings("cmk_id: \(arn)\nprovider: aws\n")
    #expect(throws: ConfigurationError.self) { try withARN.setting(.region, "us-east-1", isPersisted: false) }
    #expect(
      try withARN.setting(.region, "eu-central-1", isPersisted: false).provider.region == "eu-central-1"
    )
  }

  @Test(arguments: [
    [("endpoint", "https://evil.example")], [("sts_endpoint", "https://evil.example")], [("host", "x")],
    [("provider", "aws"), ("provider", "local")], [("region", "a\nb")], [("credentials_file", "../x")],
    [("credentials_file", "tenant.yaml")],
  ])
  func whatAnAdministratorSendsIsChecked(_ members: [(String, String)]) {
    #expect(throws: ConfigurationError.self) {
      try ProviderSettings(members: members.map { (name: $0.0, value: $0.1) }, allowedEndpoints: hosts)
    }
  }

  @Test func aReloadKeepsWhatIsGlobalWhereItStillMayBe() throws {
    let present = try settings("cmk_id: alias/a\nprovider: aws\nregion: eu-west-1\n")
      .setting(.wrappingKeyTTL, "10s", isPersisted: false)
      .setting(.region, "eu-west-2", isPersisted: false)
    let next = try settings("cmk_id: alias/b\nprovider: aws\n").keepingGlobal(of: present)
    #expect(next.cmkID.text == "alias/b" && next.provider.region == "eu-west-2")
    #expect(next.wrappingKeyTTL == .seconds(10))
    let arn = try settings("cmk_id: arn:aws:kms:eu-west-3:111122223333:key/a\nprovider: aws\n")
    #expect(throws: ConfigurationError.self) { try arn.keepingGlobal(of: present) }
  }
}
