import Foundation
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

@Suite struct SharedProfilesTests {
  let fixture: CredentialsFixture
  init() throws { fixture = try CredentialsFixture() }

  private static let keys = """
    aws_access_key_id = AKIAIOSFODNN7EXAMPLE
    aws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY
    """
  private static let arn = CredentialsFixture.arn

  /// What a profile comes to, in words.
  private func resolved(_ profile: String?) throws -> String {
    Self.words(try fixture.resolver.resolve(fixture.configuration(.profile(profile))).source)
  }

  static func words(_ source: ResolvedSource) -> String {
    switch source {
    case .fixed(let credentials): credentials.revealed
    case .webIdentity(let role, let file): "web identity \(role.arn) \(role.sessionName ?? "-") \(file)"
    case .container(let endpoint): "container \(endpoint.url)"
    case .instanceMetadata(let endpoint): "instance \(endpoint)"
    case .role(let role, let base):
      "role \(role.arn) \(role.externalID ?? "-") \(role.sessionName ?? "-") < \(words(base))"
    }
  }

  private func refusal(_ profile: String?) throws -> String {
    do {
      return "it was taken: " + (try resolved(profile))
    } catch let error as CMKError {
      guard case .configuration = error else { return "not a configuration error: \(error)" }
      return "\(error)"
    }
  }

  @Test func theFilesAreReadAsTheAWSToolsWriteThem() throws {
    let keys = Self.keys.replacing("\n", with: "\r\n")
    try fixture.writeShared(
      credentials:
        "# mine\n; too\n\n[other]\nunknown = x y # z\n  nested = 1\n[ default ] # it\r\n\(keys)\r\n",
      config: """
        [default]
        region = eu-central-1
        s3 =
          max_concurrent_requests = 20

        [profile\t two ]
        AWS_Access_Key_ID=AKIAIOSFODNN7EXAMPL2
        aws_secret_access_key=two=with=equals
        aws_session_token   =   token/of/two==\t
        [sso-session x]
        sso_start_url = https://example.com
        [three]
        aws_access_key_id = ignored: no profile here
        """
    )
    #expect(
      try resolved(nil) == "AKIAIOSFODNN7EXAMPLE|wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY||"
    )
    #expect(try resolved("two") == "AKIAIOSFODNN7EXAMPL2|two=with=equals|token/of/two==|")
    #expect(
      try refusal("three").hasPrefix("profile 'three' has no credentials in \(fixture.folder(".aws"))/c")
    )
    fixture.set(["AWS_PROFILE": "two"])
    #expect(try resolved(nil).hasPrefix("AKIAIOSFODNN7EXAMPL2|"))
    #expect(try resolved("default").hasPrefix("AKIAIOSFODNN7EXAMPLE|"))
  }

  @Test func theFilesAreWhereTheVariablesSay() throws {
    try fixture.folder.write("a", "[default]\n\(Self.keys)\n")
    try fixture.folder.write("b", "[profile role]\nrole_arn = \(Self.arn)\nsource_profile = default\n")
    fixture.set(["AWS_SHARED_CREDENTIALS_FILE": fixture.folder("a"), "AWS_CONFIG_FILE": "~/b"])
    #expect(try resolved("role").hasPrefix("role \(Self.arn) - - < AKIAIOSFODNN7EXAMPLE|"))
    fixture.set(["AWS_CONFIG_FILE": fixture.folder("absent")])
    #expect(try refusal(nil).hasSuffix("/absent is not there"))
    fixture.set(["AWS_CONFIG_FILE": "", "HOME": ""])
    #expect(try resolved(nil).hasPrefix("AKIAIOSFODNN7EXAMPLE|"))
    fixture.set(["AWS_SHARED_CREDENTIALS_FILE": ""])
    #expect(try refusal(nil) == "profile 'default' has no credentials in any file: HOME is not set")
  }

  @Test func theKeysOfOneFileAreNotMixedWithAnothers() throws {
    try fixture.writeShared(
      credentials: "[default]\n\(Self.keys)\n",
      config: "[default]\naws_session_token = of-other-keys\naws_access_key_id = AKIAIOSFODNN7EXAMPL2\n"
    )
    #expect(try resolved(nil) == "AKIAIOSFODNN7EXAMPLE|wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY||")
  }

  @Test func rolesAreAssumedOverTheirSources() throws {
    fixture.set([
      "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "of-environment",
      "AWS_EC2_METADATA_DISABLED": "false", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x",
    ])
    let role = "role_arn = \(Self.arn)\n"
    try fixture.writeShared(
      credentials: "[keys]\n\(Self.keys)\n[self]\n\(Self.keys)\n\(role)source_profile = self\n",
      config: """
        [profile a]
        \(role)source_profile = b
        external_id = x-1
        role_session_name = me
        [profile b]
        \(role)source_profile = keys
        [profile env]
        \(role)credential_source = Environment
        [profile ec2]
        \(role)credential_source = Ec2InstanceMetadata
        [profile ecs]
        \(role)credential_source = EcsContainer
        [profile web]
        \(role)web_identity_token_file = /token
        role_session_name = me
        [profile over-self]
        \(role)source_profile = self
        """
    )
    let (arn, keys) = (Self.arn, "AKIAIOSFODNN7EXAMPLE|wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY||")
    #expect(try resolved("a") == "role \(arn) x-1 me < role \(arn) - - < \(keys)")
    #expect(try resolved("env") == "role \(arn) - - < AKIAIOSFODNN7EXAMPLE|of-environment||")
    #expect(try resolved("ec2") == "role \(arn) - - < instance http://169.254.169.254")
    #expect(try resolved("ecs") == "role \(arn) - - < container http://169.254.170.2/v2/x")
    #expect(try resolved("web") == "web identity \(arn) me /token")
    #expect(try resolved("self") == "role \(arn) - - < \(keys)")
    #expect(try resolved("over-self") == "role \(arn) - - < \(keys)")
  }

  @Test func chainsOfSourcesAreBoundedAndDoNotLoop() throws {
    let links = (1...7).map { "[profile p\($0)]\nrole_arn = \(Self.arn)\nsource_profile = p\($0 + 1)\n" }
    try fixture.writeShared(
      credentials: "[p8]\n\(Self.keys)\n",
      config: links.joined()
        + "[profile x]\nrole_arn = \(Self.arn)\nsource_profile = y\n[profile y]\nrole_arn = \(Self.arn)\nsource_profile = x\n"
        + "[profile own]\nrole_arn = \(Self.arn)\nsource_profile = own\n"
    )
    #expect(try resolved("p3").split(separator: "<").count == 6)
    #expect(try refusal("p2").contains(".aws/config:21: more than 5 source_profiles"))
    #expect(try refusal("x").contains(".aws/config:27: the source_profile 'x' leads back to itself"))
    #expect(try refusal("own").contains("the source_profile 'own' leads back to itself"))
  }

  @Test(arguments: [
    ("a line that is nothing", "[default]\nnothing\n", "2: a line is"),
    ("a key before any section", "region = x\n", "1: a line is"),
    ("a byte order mark", "\u{feff}[default]\n", "1: a line is"),
    ("NUL", "[default]\n\0\n", "2: a control character"),
    ("a carriage return in a line", "[default]\naws_access_key_id = A\rB\n", "2: a control character"),
    ("a bracket missing", "[default\n", "1: ']' is missing"),
    ("something behind a section", "[default] x\n", "1: a section is"),
    ("a name of two words", "[profile x]\n", "1: a profile is"),
    ("no name", "[]\n", "1: a profile is"),
    ("a profile twice", "[default]\n[x]\n[default]\n", "3: profile 'default' is there twice"),
    ("a key twice", "[default]\nKEYS\naws_access_key_id = x\n", "4: aws_access_key_id is there twice"),
    ("no value", "[default]\naws_secret_access_key =\n", "2: aws_secret_access_key has no value"),
    ("an indented line", "[default]\n aws_access_key_id = x\n", "2: an indented line"),
    ("a value over two lines", "[default]\nKEYS\n  more\n", "4: an indented line"),
    ("one key alone", "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n", "needs both"),
    ("a token alone", "[default]\naws_session_token = SECRET\n", "needs both"),
    (
      "a short id", "[default]\naws_secret_access_key = SECRET\naws_access_key_id = SHORT\n",
      "3: an access key id"
    ),
    (
      "a comment behind a secret",
      "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = SECRET # mine\n",
      "3: a secret access key"
    ),
    ("a token with a space", "[default]\nKEYS\naws_session_token = SEC RET\n", "4: a session token"),
    ("single sign-on", "[default]\nKEYS\nsso_session = x\n", "4: sso_session is not supported"),
    ("old single sign-on", "[default]\nsso_start_url = x\n", "2: sso_start_url is not supported"),
    ("a process", "[default]\ncredential_process = /bin/x y\n", "2: credential_process is not supported"),
    ("a device", "[default]\nrole_arn = ROLE\nmfa_serial = x\n", "3: mfa_serial is not supported"),
    ("no source", "[default]\nrole_arn = ROLE\n", "2: role_arn needs one of"),
    (
      "two sources", "[default]\nrole_arn = ROLE\nsource_profile = x\ncredential_source = Environment\n",
      "2: role_arn needs one of"
    ),
    (
      "a token and a source",
      "[default]\nrole_arn = ROLE\nsource_profile = x\nweb_identity_token_file = /x\n",
      "2: role_arn needs one of"
    ),
    ("no role", "[default]\nrole_arn = arn:aws:iam::1:user/x\nsource_profile = x\n", "2: a role's ARN"),
    (
      "a space in a value", "[default]\nrole_arn = ROLE # x\nsource_profile = x\n",
      "2: role_arn is a value without"
    ),
    (
      "an absent source", "[default]\nrole_arn = ROLE\nsource_profile = x\n",
      "3: the source_profile 'x' has no"
    ),
    ("another kind", "[default]\nrole_arn = ROLE\ncredential_source = Sky\n", "3: credential_source is"),
    ("a kind not there", "[default]\nrole_arn = ROLE\ncredential_source = Environment\n", "3: there are no"),
    (
      "an external id", "[default]\nrole_arn = ROLE\nsource_profile = x\nexternal_id = é\n",
      "4: external_id is"
    ),
    (
      "a session name", "[default]\nrole_arn = ROLE\nsource_profile = x\nrole_session_name = /\n",
      "2: a role's"
    ),
    ("nothing of credentials", "[default]\nregion = eu-central-1\n", "profile 'default' has no credentials"),
  ])
  func whatIsWrongIsRefusedByFileAndLine(_ what: String, _ text: String, _ why: String) throws {
    let content = text.replacing("KEYS", with: Self.keys).replacing("ROLE", with: Self.arn)
    try fixture.writeShared(credentials: content)
    let refusal = try refusal(nil)
    #expect(refusal.contains(why) && refusal.contains(".aws/credentials"), "\(what): \(refusal)")
    #expect(
      !refusal.contains("SEC") && !refusal.contains("wJalr") && !refusal.contains("SHORT"),
      "\(refusal)"
    )
  }

  @Test func aDeviceMattersToRolesAlone() throws {
    try fixture.writeShared(credentials: "[default]\n\(Self.keys)\nmfa_serial = x\n")
    #expect(try resolved(nil).hasPrefix("AKIAIOSFODNN7EXAMPLE|"))
  }

  @Test func aFileOfSecretsThatOthersMayReadIsRefused() throws {
    try fixture.writeShared(credentials: "[default]\n\(Self.keys)\n", config: "[profile x]\nregion = y\n")
    try fixture.setMode(".aws/config", 0o644)
    #expect(try resolved(nil).hasPrefix("AKIAIOSFODNN7EXAMPLE|"))
    try fixture.setMode(".aws/credentials", 0o640)
    #expect(try refusal(nil).contains("credentials may be used by others (mode 0640)"))
    // The other file is no secret, unless it has one.
    try fixture.writeShared(credentials: "", config: "[default]\n\(Self.keys)\n")
    #expect(try resolved(nil).hasPrefix("AKIAIOSFODNN7EXAMPLE|"))
    try fixture.setMode(".aws/config", 0o644)
    #expect(try refusal(nil).contains("config may be used by others (mode 0644)"))
  }

  @Test func aLinkADirectoryAndATooLongFileAreRefused() throws {
    try fixture.writeShared(config: "[profile x]\n")
    try fixture.folder.write("elsewhere", "[default]\n\(Self.keys)\n")
    let path = fixture.folder(".aws/credentials")
    try FileManager.default.createSymbolicLink(
      atPath: path,
      withDestinationPath: fixture.folder("elsewhere")
    )
    #expect(try refusal(nil).contains("credentials is not a plain file"))
    try FileManager.default.removeItem(atPath: path)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    #expect(try refusal(nil).contains("credentials is not a regular file"))
    try FileManager.default.removeItem(atPath: path)
    try fixture.writeShared(credentials: String(repeating: "#", count: 65_537))
    #expect(try refusal(nil).contains("is larger than 65536 bytes"))
  }
}
