import ConfigurationFiles
import KeyringCore
import KeyringStorage
import Testing

@testable import TenantRegistry

/// What is wrong in a configuration file is said with file, line, column and key.
@Suite struct ConfigurationFileTests {
  private func tenant(_ yaml: String) -> String {
    do throws(ConfigurationError) {
      _ = try TenantConfiguration(
        yaml: yaml,
        file: "t.yaml",
        allowedEndpoints: ["kms.example.org", "localhost"]
      )
      return "it was taken"
    } catch {
      return "\(error)"
    }
  }

  @Test(arguments: [
    ("", "t.yaml: the file is empty"), ("profile: any\n", "t.yaml:1:1: cmk_id has to be set"),
    ("cmk_id: a\ncmkid: b\n", "t.yaml:2:8: unknown key 'cmkid'; did you mean 'cmk_id'?"),
    (
      "cmk_id: a\nwrapping-key-ttl: 5m\n",
      "t.yaml:2:19: unknown key 'wrapping-key-ttl'; did you mean 'wrapping_key_ttl'?"
    ),
    ("cmk_id: a\nfoo: b\n", "t.yaml:2:6: unknown key 'foo'"),
    ("cmk_id: a\nlimits: {keys: 1, foo: 2}\n", "t.yaml:2:24: unknown key 'limits.foo'"),
    ("cmk_id:\n", "t.yaml:1:8: 'cmk_id': a cmk_id is 1 to 2,048 printable"),
    ("cmk_id: a b\n", "t.yaml:1:9: 'cmk_id': a cmk_id is 1 to 2,048 printable"),
    ("cmk_id: [a]\n", "t.yaml:1:9: 'cmk_id' is one value"),
    ("- a\n", "t.yaml:1:1: the file holds `key: value` lines"),
    ("cmk_id\n", "t.yaml:1:1: the file holds `key: value` lines"),
    ("cmk_id: a\nprovider: gcp\n", "t.yaml:2:11: 'provider': local or aws is expected, not 'gcp'"),
    (
      "cmk_id: a\nprofile: AES\n",
      "t.yaml:2:10: 'profile': keyring_aws, general or any is expected, not 'AES'"
    ),
    ("cmk_id: a\nread_only: maybe\n", "t.yaml:2:12: 'read_only': true or false is expected, not 'maybe'"),
    ("cmk_id: a\nanchor: never\n", "t.yaml:2:9: 'anchor': written-behind or strict is expected, not 'never'"),
    ("cmk_id: a\nwrapping_key_ttl: 5\n", "t.yaml:2:19: 'wrapping_key_ttl': a time such as"),
    ("cmk_id: a\nwrapping_key_ttl: -5m\n", "t.yaml:2:19: 'wrapping_key_ttl': a time such as"),
    ("cmk_id: a\nwrapping_key_ttl: 1.5h\n", "t.yaml:2:19: 'wrapping_key_ttl': a time such as"),
    ("cmk_id: a\noutage_grace: 87601h\n", "t.yaml:2:15: 'outage_grace': a time of at most ten years"),
    (
      "cmk_id: a\noutage_grace: 9223372036854775807h\n",
      "t.yaml:2:15: 'outage_grace': a time of at most ten years"
    ),
    ("cmk_id: a\nwrapping_key_ttl: 0\n", "t.yaml:1:1: wrapping_key_ttl 0 asks the KMS"),
    ("cmk_id: a\nlimits: 5\n", "t.yaml:2:9: 'limits' holds `key: value` lines"),
    (
      "cmk_id: a\nlimits:\n  keys: -1\n",
      "t.yaml:3:9: 'limits.keys': a number from 1 to 100000000, or unlimited (0), is expected, not '-1'"
    ),
    ("cmk_id: a\nlimits:\n  keys: many\n", "t.yaml:3:9: 'limits.keys': a number from"),
    ("cmk_id: a\nlimits:\n  keys: 99999999999999999999\n", "t.yaml:3:9: 'limits.keys': a number from"),
    ("cmk_id: a\ninstances: [a, B]\n", "t.yaml:2:16: 'instances': an instance's name is"),
    ("cmk_id: a\ninstances: [a, a]\n", "t.yaml:2:16: 'instances': 'a' is there twice"),
    ("cmk_id: a\ninstances: {a: b}\n", "t.yaml:2:12: 'instances' is a list"),
    ("cmk_id: a\ninstances: [[a]]\n", "t.yaml:2:13: 'instances' is a list of words"),
    ("cmk_id: a\nregion: ''\n", "t.yaml:2:9: 'region': a region such as eu-central-1 is expected, not ''"),
    (
      "cmk_id: arn:aws:kms:eu-west-1:1:key/a\nregion: us-east-1\n",
      "t.yaml:1:1: 'region' is us-east-1, but cmk_id is of eu-west-1"
    ),
    (
      "cmk_id: a\nregion: eu.central\n",
      "t.yaml:2:9: 'region': a region such as eu-central-1 is expected, not 'eu.central'"
    ),
    (
      "cmk_id: a\nregion: evil/x\n",
      "t.yaml:2:9: 'region': a region such as eu-central-1 is expected, not 'evil/x'"
    ),
    ("cmk_id: a\nrole_external_id: x\n", "t.yaml:1:1: 'role_external_id' is there without 'role_arn'"),
    ("cmk_id: a\nrole_arn: nobody\n", "t.yaml:2:11: 'role_arn': arn:aws:iam::ACCOUNT:role/NAME is expected"),
    ("cmk_id: a\ncredentials: magic\n", "t.yaml:2:14: 'credentials': one of file, environment, profile"),
    ("cmk_id: a\naws_profile: x\n", "t.yaml:1:1: 'aws_profile' is there without 'credentials: profile'"),
    (
      "cmk_id: a\nsts_endpoint: https://evil.example\n",
      "t.yaml:2:15: 'sts_endpoint': the host 'evil.example' is not in the service's allowed_endpoints"
    ),
    (
      "cmk_id: a\nstorage_file: a\ncredentials_file: a\n",
      "t.yaml:1:1: storage_file and credentials_file are one file"
    ),
    ("cmk_id: &a b\nprofile: *a\n", "t.yaml:1:9: anchors and aliases are not allowed"),
    ("a: &a [x, x]\nb: &b [*a, *a]\n", "t.yaml:1:4: anchors and aliases are not allowed"),
    ("cmk_id: a\n\tprofile: any\n", "t.yaml"), ("cmk_id: 'a\n", "t.yaml"),
    ("cmk_id: a\n---\ncmk_id: b\n", "t.yaml"),
    ("cmk_id: a\ncmk_id: b\n", "t.yaml"), ("cmk_id: a\nlimits: {keys: 1, keys: 2}\n", "t.yaml"),
    (
      "cmk_id: a\nprofile: \"x\\ny\\e[31m\\L\"\n",
      "t.yaml:2:10: 'profile': keyring_aws, general or any is expected, not 'x\\u{a}y\\u{1b}[31m\\u{2028}'"
    ),
    ("cmk_id: a\n\"b\\nc\": d\n", "unknown key 'b\\u{a}c'"),
    ("cmk_id: a\nprofile: " + String(repeating: "x", count: 5000), "xxx..."),
    ("[a]: b\n", "t.yaml:1:1: a key is a word"), ("cmk_id: a\u{1}\n", "t.yaml"),
    (String(repeating: "#\n", count: 40_000), "t.yaml: larger than 65536 bytes"),
    (String(repeating: "[", count: 60_000), "t.yaml"), (String(repeating: "{a: ", count: 15_000), "t.yaml"),
    (String(repeating: "- ", count: 30_000), "t.yaml"),
  ])
  func aTenantsFile(_ yaml: String, _ why: String) {
    let refusal = tenant(yaml)
    #expect(refusal.contains(why))
    #expect(refusal.hasPrefix("t.yaml") && !refusal.contains("\n"), "\(refusal)")
  }

  @Test(arguments: [
    "a/b", "../keyring", "/etc/passwd", ".", "..", ".keyring", "a b", "é", "a\\u0000b", "tenant.yaml",
    "persisted.json", "backups.json",
    "keyring.new", "keyring.lock", "tenant.yaml.new", String(repeating: "a", count: 201),
  ])
  func aHostileFileName(_ name: String) {
    for key in ["storage_file", "credentials_file"] {
      let why = tenant("cmk_id: a\n\(key): \"\(name)\"\n")
      #expect(why.contains("t.yaml:2:\(key.count + 3): '\(key)': a file name of one component"), "\(why)")
    }
  }

  @Test(arguments: [
    "evil.example.org", "evil.example.org/kms.example.org", "https://evil.example.org",
    "https://kms.example.org@evil.example.org", "https://kms.example.org:443@evil.example.org/",
    "https://evil.example.org/kms.example.org", "https://kms.example.org.evil.example.org",
    "https://kms.example.org:0", "https://kms.example.org:65536", "https://kms.example.org:",
    "https://kms.example.org/path",
    "https://kms.example.org?x", "https://kms.example.org#x", "https://kms.example.org\\\\@evil.example.org",
    "http://kms.example.org", "ftp://kms.example.org", "file:///etc/passwd", "https://",
    "https://KMS.example.org",
    "https://kms.example.org%2eevil.example.org",
  ])
  func anEndpointBesideTheAllowList(_ endpoint: String) {
    let why = tenant("cmk_id: a\nendpoint: \"\(endpoint)\"\n")
    #expect(why.contains("t.yaml:2:11: 'endpoint': "), "\(why)")
  }

  @Test(arguments: [
    "https://kms.example.org", "https://kms.example.org/", "https://kms.example.org:8443",
    "http://localhost:4566",
  ])
  func anEndpointOfTheAllowList(_ endpoint: String) throws {
    let yaml = "cmk_id: a\nendpoint: \(endpoint)\n"
    let made = try TenantConfiguration(
      yaml: yaml,
      file: "t",
      allowedEndpoints: ["kms.example.org", "localhost"]
    )
    #expect(made.provider.endpoint == endpoint)
    #expect(throws: ConfigurationError.self) {
      try TenantConfiguration(yaml: yaml, file: "t", allowedEndpoints: [])
    }
  }

  @Test func aTenantsDefaults() throws {
    let made = try TenantConfiguration(yaml: "cmk_id: a", file: "t", allowedEndpoints: [])
    #expect(made.cmkID.text == "a" && made.provider == .local && made.profile == .keyringAWS)
    #expect(made.wrappingKeyTTL == .seconds(300) && made.outageGrace == .seconds(86_400))
    #expect(made.instances == .listed([]) && made.anchor == .writtenBehind && !made.isReadOnly)
    #expect(made.limits.isEmpty)
    #expect(made.storageFile == "keyring" && made.provider.credentialsFile == "credentials")
    #expect(
      try TenantConfiguration(yaml: "{cmk_id: a, instances: any}", file: "t", allowedEndpoints: []).instances
        == .any
    )
  }

  // MARK: The service's file

  static let good = """
    trust_domain: t.example
    tls: {certificate: c, key: k, client_ca: a}
    tenants_directory: tenants
    anchor_directory: /anchors

    """

  private func service(_ yaml: String) -> String {
    do throws(ConfigurationError) {
      _ = try ServiceConfiguration(yaml: yaml, file: "s.yaml", directory: "/d")
      return "it was taken"
    } catch {
      return "\(error)"
    }
  }

  @Test(arguments: [
    ("listen: 5\n", "s.yaml:5:9: 'listen': an address such as"),
    ("listen: a:65536\n", "s.yaml:5:9: 'listen'"),
    ("listen: ':1'\n", "s.yaml:5:9: 'listen'"),
    ("health_listen: nowhere\n", "s.yaml:5:16: 'health_listen': an address such as"),
    ("lissen: a:1\n", "s.yaml:5:9: unknown key 'lissen'"),
    ("local_provider: {}\n", "s.yaml:5:17: 'local_provider.directory' has to be set"),
    ("local_provider: {directory: d}\n", "s.yaml:5:17: 'local_provider' has one of root_key_file"),
    (
      "local_provider: {directory: d, root_key_file: a, passphrase_file: b}\n",
      "s.yaml:5:17: 'local_provider' has one of"
    ),
    (
      "local_provider: {directory: d, rootkey_file: a}\n",
      "s.yaml:5:46: unknown key 'local_provider.rootkey_file'; did you mean 'root_key_file'?"
    ),
    ("allowed_endpoints: ['https://a']\n", "s.yaml:5:21: 'allowed_endpoints': a host name is expected"),
    ("secure_memory_bytes: 100000\n", "s.yaml:5:22: 'secure_memory_bytes': a power of two"),
    ("secure_memory_bytes: 32768\n", "s.yaml:5:22: 'secure_memory_bytes': a power of two"),
    ("allow_unlocked_memory: 2\n", "s.yaml:5:24: 'allow_unlocked_memory': true or false"),
    ("event_loops: 257\n", "s.yaml:5:14: 'event_loops': a number from 0 to 256"),
    ("flush_threads: 0\n", "s.yaml:5:16: 'flush_threads': a number from 1 to 64"),
    ("limits: {connections: 0}\n", "s.yaml:5:23: 'limits.connections': a number from"),
    ("limits: {idle_timeout: 5}\n", "s.yaml:5:24: 'limits.idle_timeout': a time such as"),
    ("limits: {foo: 5}\n", "s.yaml:5:15: unknown key 'limits.foo'"),
    ("log_level: loud\n", "s.yaml:5:12: 'log_level': trace, debug,"),
  ])
  func theServicesFile(_ line: String, _ why: String) {
    #expect(service(Self.good) == "it was taken")
    let refusal = service(Self.good + line)
    #expect(refusal.hasPrefix(why), "\(refusal)")
  }

  @Test(arguments: ["trust_domain", "tls", "tenants_directory", "anchor_directory"])
  func aMandatoryKey(_ key: String) {
    let lines = Self.good.split(separator: "\n").filter { !$0.hasPrefix(key) }
    #expect(service(lines.joined(separator: "\n")) == "s.yaml:1:1: '\(key)' has to be set")
  }

  @Test func theServicesDefaultsAndPaths() throws {
    let made = try ServiceConfiguration(yaml: Self.good, file: "s", directory: "/d")
    #expect(made.listen.host == "127.0.0.1" && made.listen.port == 8550)
    #expect(made.healthListen?.port == 8551)
    #expect(
      made.tenantsDirectory == "/d/tenants" && made.anchorDirectory == "/anchors"
        && made.certificateFile == "/d/c"
    )
    #expect(made.secureMemoryBytes == 4 << 20 && !made.allowsUnlockedMemory && made.cmkDirectory == nil)
    #expect(made.limits.connections == 1024 && made.limits.connectionAge == .seconds(3600))
    let other = try ServiceConfiguration(
      yaml: Self.good
        + "listen: '[::1]:9'\nhealth_listen: off\nlocal_provider: {directory: c, passphrase_file: p}\n",
      file: "s",
      directory: "/d"
    )
    #expect(other.listen.host == "::1" && other.listen.port == 9)
    #expect(other.healthListen == nil)
    #expect(other.rootKey == .passphrase("/d/p") && other.cmkDirectory == "/d/c")
  }

  // MARK: persisted.json

  private func persisted(_ json: String) -> String {
    do throws(ConfigurationError) {
      _ = try PersistedState(json: json, file: "p.json", allowedEndpoints: [])
      return "it was taken"
    } catch {
      return "\(error)"
    }
  }

  @Test(arguments: [
    ("", "p.json: the file is empty"), ("{}", "p.json:1:1: 'version' is missing"),
    ("[]", "p.json:1:1: the file holds"),
    ("{\"version\": 2}", "p.json:1:13: 'version': a number from 1 to 1 is expected, not '2'"),
    (
      "{\"version\": 1, \"variables\": {\"provider\": \"aws\"}}",
      "p.json:1:1: 'variables' has no variable 'provider'"
    ),
    ("{\"version\": 1, \"variables\": {\"foo\": \"1\"}}", "p.json:1:1: 'variables' has no variable 'foo'"),
    (
      "{\"version\": 1, \"variables\": {\"profile\": []}}",
      "p.json:1:1: 'variables' has no variable 'profile'"
    ),
    ("{\"version\": 1, \"variables\": []}", "p.json:1:29: 'variables' holds"),
    ("{\"version\": 1, \"instances\": [\"../a\"]}", "p.json:1:30: 'instances': an instance's name is"),
    ("{\"version\": 1, \"disabled\": \"perhaps\"}", "p.json:1:28: 'disabled': true or false"),
    ("{\"version\": 1, \"foo\": 1}", "p.json:1:23: unknown key 'foo'"), ("{\"version\": 1", "p.json"),
    ("{\"version\": 1, \"version\": 1}", "p.json"),
  ])
  func aPersistedFile(_ json: String, _ why: String) {
    let refusal = persisted(json)
    #expect(refusal.hasPrefix(why), "\(refusal)")
  }

  @Test func whatIsPersistedIsReadAgain() throws {
    var state = PersistedState()
    #expect(try PersistedState(json: state.json, file: "p", allowedEndpoints: []) == state)
    state.variables = [.cmkID: #"a"b\c'{}:#"#, .wrappingKeyTTL: "5m", .readOnly: "true"]
    state.instances = try ["a", "null"].map { AllowedInstance(name: try TenantConfiguration.instance($0)) }
    state.isDisabled = true
    #expect(try PersistedState(json: state.json, file: "p", allowedEndpoints: []) == state)
    state.add(AllowedInstance(name: try TenantConfiguration.instance("b"), access: [.read, .shared]))
    state.revoke(try TenantConfiguration.instance("null"), at: 1_700_000_000)
    state.revoke(try TenantConfiguration.instance("c"), at: .max)
    #expect(try PersistedState(json: state.json, file: "p", allowedEndpoints: []) == state)
  }
}
