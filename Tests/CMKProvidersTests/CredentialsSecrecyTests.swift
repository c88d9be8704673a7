import Foundation
import Glibc
import HTTPTransport
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

/// 32 letters, in no constant: what stands for each secret.
private func marked(_ index: Int) -> UInt8 { UInt8(0x41 + (index * index * 5 + index * 11 + 7) % 26) }

private func mark() throws -> Secret {
  try unsafe Secret(count: 32) { room in for index in 0..<32 { unsafe room[index] = marked(index) } }
}

/// Texts, a secret in each place of nil.
private func secret(_ parts: [String?]) throws -> Secret {
  try Secret(joining: parts.map { part in try part.map { try .testing($0) } ?? mark() })
}

/// A file, written past everything that would keep a copy.
private func write(_ path: String, _ parts: [String?], mode: mode_t = 0o600) throws {
  let content = try secret(parts)
  let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
  defer { _ = Glibc.close(file) }
  let written = unsafe content.withUnsafeBytes { unsafe Glibc.write(file, $0.baseAddress, $0.count) }
  guard file >= 0, written == content.count else { throw POSIXError(.EIO) }
}

/// Always the same answer.
private struct FixedAnswer: HTTPSending {
  let status: Int
  let body: Secret
  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    HTTPResponse(status: status, headers: [:], body: body)
  }
}

private let expiration = "2100-01-01T00:00:00Z"
private let xml: [String?] = [
  "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE",
  "</AccessKeyId><SecretAccessKey>", nil, "</SecretAccessKey><SessionToken>", nil,
  "</SessionToken><Expiration>\(expiration)",
  "</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
]
private let json: [String?] = [
  #"{"AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":""#, nil, #"","Token":""#, nil,
  #"","Expiration":"\#(expiration)"}"#,
]

/// One way to credentials in a folder, with the secret in each place that can hold one; `damage` is put where it makes them unusable.
private struct Way: Sendable {
  let name: String
  var variables: [String: [String?]] = [:]
  var files: [String: [String?]] = [:]
  var answer: [String?] = json
  var status = 200
  var source: AWSCredentialsConfiguration.Source?

  func cache(_ folder: TestDirectory) throws -> AWSCredentialsCache {
    for (name, content) in files { try write(folder(name), content) }
    let http = FixedAnswer(status: status, body: try secret(answer))
    let twoLines = AWSCredentialsConfiguration.Source.file(
      directory: try DirectoryDescriptor(path: folder.path),
      name: "credentials"
    )
    return AWSCredentialsCache(
      try AWSCredentialsConfiguration(
        source ?? twoLines,
        tenant: try TenantName("acme"),
        region: "eu-central-1"
      ),
      http: http,
      metadata: http,
      variable: { name throws(SecureMemoryError) in
        guard let value = variables[name] else { return nil }
        do {
          return try secret(value.map { $0?.replacing("FOLDER", with: folder.path) })
        } catch {
          throw .exhausted(bytes: 0)
        }
      },
      nowMilliseconds: { CredentialsFixture.start }
    )
  }
}

private let role: [String: [String?]] = ["AWS_ROLE_ARN": ["arn:aws:iam::123456789012:role/keyring"]]
private let tokenFile: [String: [String?]] = ["AWS_WEB_IDENTITY_TOKEN_FILE": ["FOLDER/token"]]
private let container: [String: [String?]] = [
  "AWS_CONTAINER_CREDENTIALS_FULL_URI": ["http://127.0.0.1/"], "AWS_CONTAINER_AUTHORIZATION_TOKEN": [nil],
]
private let shared: [String: [String?]] = ["AWS_SHARED_CREDENTIALS_FILE": ["FOLDER/shared"]]
private let keys: [String?] = [
  "[default]\naws_access_key_id=AKIAIOSFODNN7EXAMPLE\naws_secret_access_key=", nil,
]

/// All that give credentials.
private let ways = [
  Way(name: "file", files: ["credentials": ["AKIAIOSFODNN7EXAMPLE\n", nil, "\n", nil, "\n"]]),
  Way(
    name: "environment",
    variables: [
      "AWS_ACCESS_KEY_ID": ["AKIAIOSFODNN7EXAMPLE"], "AWS_SECRET_ACCESS_KEY": [nil],
      "AWS_SESSION_TOKEN": [nil],
    ],
    source: .environment
  ),
  Way(
    name: "profile",
    variables: shared,
    files: ["shared": keys + ["\naws_session_token=", nil]],
    source: .profile(nil)
  ),
  Way(
    name: "web identity",
    variables: role.merging(tokenFile) { $1 },
    files: ["token": [nil, "\n"]],
    answer: xml,
    source: .webIdentity
  ),
  Way(name: "container", variables: container, source: .container),
]

/// All that give none, with a secret in the place that is wrong or beside it.
private let wrongWays = [
  Way(name: "file: line 1", files: ["credentials": [nil, "!\n", nil]]),
  Way(name: "file: line 2", files: ["credentials": ["AKIAIOSFODNN7EXAMPLE\n", nil, " ", nil]]),
  Way(name: "file: line 3", files: ["credentials": ["AKIAIOSFODNN7EXAMPLE\n", nil, "\n \t", nil]]),
  Way(name: "file: lines", files: ["credentials": [nil]]),
  Way(
    name: "environment: id",
    variables: ["AWS_ACCESS_KEY_ID": [nil, "!"], "AWS_SECRET_ACCESS_KEY": [nil]],
    source: .environment
  ),
  Way(
    name: "environment: secret",
    variables: ["AWS_ACCESS_KEY_ID": ["AKIAIOSFODNN7EXAMPLE"], "AWS_SECRET_ACCESS_KEY": [nil, " "]],
    source: .environment
  ),
  Way(name: "environment: half", variables: ["AWS_SECRET_ACCESS_KEY": [nil]], source: .environment),
  Way(
    name: "profile: no section",
    variables: shared,
    files: ["shared": [nil, "=x\n"]],
    source: .profile(nil)
  ),
  Way(
    name: "profile: no line",
    variables: shared,
    files: ["shared": ["[default]\n", nil]],
    source: .profile(nil)
  ),
  Way(
    name: "profile: a space",
    variables: shared,
    files: ["shared": keys + [" # ", nil]],
    source: .profile(nil)
  ),
  Way(
    name: "profile: goes on",
    variables: shared,
    files: ["shared": keys + ["\n ", nil]],
    source: .profile(nil)
  ),
  Way(
    name: "profile: twice",
    variables: shared,
    files: ["shared": keys + ["\naws_secret_access_key=", nil]],
    source: .profile(nil)
  ),
  Way(
    name: "profile: a process",
    variables: shared,
    files: ["shared": ["[default]\ncredential_process=x ", nil]],
    source: .profile(nil)
  ),
  Way(
    name: "web identity: token",
    variables: role.merging(tokenFile) { $1 },
    files: ["token": [nil, " x\n"]],
    source: .webIdentity
  ),
  Way(
    name: "web identity: JSON",
    variables: role.merging(tokenFile) { $1 },
    files: ["token": [nil]],
    source: .webIdentity
  ),
  Way(
    name: "web identity: cut",
    variables: role.merging(tokenFile) { $1 },
    files: ["token": [nil]],
    answer: Array(xml.prefix(5)),
    source: .webIdentity
  ),
  Way(
    name: "web identity: refused",
    variables: role.merging(tokenFile) { $1 },
    files: ["token": [nil]],
    answer: [
      "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>not good: ", nil,
      "</Message></Error></ErrorResponse>",
    ],
    status: 400,
    source: .webIdentity
  ),
  Way(
    name: "container: refused",
    variables: container,
    answer: [#"{"code":"x","message":""#, nil, #""}"#],
    status: 400,
    source: .container
  ),
  Way(name: "container: cut", variables: container, answer: Array(json.prefix(4)), source: .container),
  Way(
    name: "container: code",
    variables: container,
    answer: [#"{"Code":1,"SecretAccessKey":""#, nil, #""}"#],
    source: .container
  ),
  Way(
    name: "container: no id",
    variables: container,
    answer: [#"{"SecretAccessKey":""#, nil, #""}"#],
    source: .container
  ),
  Way(
    name: "container: header",
    variables: container.merging(["AWS_CONTAINER_AUTHORIZATION_TOKEN": [nil, "\r\n"]]) { $1 },
    source: .container
  ),
]

@Suite struct CredentialsSecrecyTests {
  private let needle = String(decoding: (0..<32).map(marked), as: UTF8.self)

  /// Everything that can be printed of something.
  private func texts(_ thing: Any) -> String {
    var dumped = ""
    dump(thing, to: &dumped)
    return "\(thing)\n\(String(reflecting: thing))\n\(dumped)"
  }

  @Test func nothingThatCanBePrintedHasASecret() async throws {
    for way in ways {
      let folder = try TestDirectory()
      let cache = try way.cache(folder)
      let credentials = try await cache.credentials()
      #expect(credentials.secretAccessKey.revealed == Array(needle.utf8), "\(way.name): the secret is there")
      #expect(credentials.sessionToken?.revealed == Array(needle.utf8))
      let all = [credentials, cache, cache.status].map(texts).joined()
      #expect(!all.contains(needle) && all.contains("EXAMPLE"), "\(way.name)")
    }
  }

  @Test func noRefusalHasASecret() async throws {
    for way in wrongWays {
      let folder = try TestDirectory()
      let cache = try way.cache(folder)
      let call = await #expect(throws: CMKError.self, "\(way.name)") { _ = try await cache.credentials() }
      let all = [call as Any, cache.status, cache].map(texts).joined()
      for part in [needle.prefix(12), needle.suffix(12), needle.prefix(4)] {
        #expect(!all.contains(part), "\(way.name): \(all)")
      }
      #expect(all.contains("credentials: "), "\(way.name)")
    }
  }

  @Test func noCopyOfASecretIsLeftInMemory() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      _ = SecureHeap.initialize(bytes: 1 << 20)
      let folder = try TestDirectory()
      for way in ways {
        var cache: AWSCredentialsCache? = try way.cache(folder)
        _ = try await cache?.credentials()
        // The two of the credentials, and what the way itself goes on holding: variables are made at each call, an answer is kept.
        let held = MemoryScan.count(marked)
        if held < 2 { failures.append("\(way.name): the scan finds \(held)") }
        cache = nil
        let left = MemoryScan.count(marked)
        if left != 0 { failures.append("\(way.name): \(left) copies are left") }
      }
      for way in wrongWays {
        do {
          _ = try await way.cache(folder).credentials()
          failures.append("\(way.name) was taken")
        } catch {}
        let left = MemoryScan.count(marked)
        if left != 0 { failures.append("\(way.name): \(left) copies are left") }
      }
      for failure in failures { print(failure) }
      exit(failures.isEmpty ? 0 : 1)
    }
  }
}
