import Foundation
import KeyringTestSupport
import SecureMemory
import Testing

@testable import HTTPTransport

/// Requests are signed as AWS's own library for Python, botocore, signs them.
@Suite struct SignatureTests {
  private struct Account {
    let keyID: String
    let secret: String
    let token: String?
    let region: String
    let service: String

    func signing() throws -> RequestSigning {
      RequestSigning(
        region: region,
        service: service,
        accessKeyID: keyID,
        secretAccessKey: try Secret(secret),
        sessionToken: try token.map { try Secret($0) }
      )
    }
  }

  private func server(_ accounts: [Account]) async throws -> (TestHTTPServer, TestDirectory) {
    let installed = try await TestProgram(path: "\(TestHTTPServer.scripts)/install-botocore").run([])
    try #require(installed.status == 0, "\(installed.error)")
    let folder = try TestDirectory()
    let known = accounts.map { ($0.keyID, [$0.secret, $0.token, $0.region, $0.service]) }
    let text = try JSONEncoder().encode(Dictionary(uniqueKeysWithValues: known))
    try text.write(to: URL(filePath: folder("accounts")))
    let python = String(try #require(installed.text.split(separator: "\n").last))
    return (try await TestHTTPServer("signature.py", [folder("accounts")], python: python), folder)
  }

  @Test(.timeLimit(.minutes(5))) func aThousandRandomRequestsAreSignedAsBotocoreSignsThem() async throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SplitMix(state: seed)
    let accounts = (0..<1000).map { index in
      Account(
        keyID: "AKID\(index)",
        secret: random.text(1...80, of: Self.printable),
        token: random.isHeads ? random.text(1...1500, of: Self.visible) : nil,
        region: random.text(1...20, of: "abcdefghijklmnopqrstuvwxyz-0123456789"),
        service: ["kms", "sts", "secretsmanager", "x"].randomElement(using: &random) ?? "kms"
      )
    }
    let (server, folder) = try await server(accounts)
    let connections = try HTTPLoop().connections()
    var requests: [HTTPRequest] = []
    for account in accounts {
      var request = server.request(
        random.target(),
        [.get, .post, .put].randomElement(using: &random) ?? .get
      )
      request.headers = random.headers()
      if request.method != .get, random.isHeads {
        request.body = try Secret((0..<Int.random(in: 0...2000, using: &random)).map { _ in random.byte })
      }
      request.signing = try account.signing()
      requests.append(request)
    }
    for batch in stride(from: 0, to: 1000, by: 50) {
      let answers = try await withThrowingTaskGroup(of: String?.self) { group in
        for request in requests[batch..<batch + 50] {
          group.addTask {
            let response = try await connections.send(request)
            return response.status == 200 ? nil : "\(response.status) \(request.url): \(response.text)"
          }
        }
        return try await group.reduce(into: []) { $0 += $1.map { [$0] } ?? [] }
      }
      #expect(answers.isEmpty, "seed \(seed)")
    }
    withExtendedLifetime(folder) {}
  }

  @Test func whatWasChangedIsRefused() async throws {
    let good = Account(
      keyID: "AKIDEXAMPLE",
      secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY:",
      token: "token==",
      region: "eu-central-1",
      service: "kms"
    )
    let (server, folder) = try await server([good])
    let connections = try HTTPLoop().connections()
    func status(_ account: Account) async throws -> (Int, String) {
      var request = server.request("/", .post)
      request.headers = [("X-Amz-Target", "TrentService.Decrypt")]
      request.body = try Secret("{}")
      request.signing = try account.signing()
      let response = try await connections.send(request)
      return (response.status, response.text)
    }
    func changed(
      keyID: String? = nil,
      secret: String? = nil,
      token: String?? = .none,
      region: String? = nil
    ) -> Account {
      Account(
        keyID: keyID ?? good.keyID,
        secret: secret ?? good.secret,
        token: token ?? good.token,
        region: region ?? good.region,
        service: good.service
      )
    }
    #expect(try await status(good) == (200, ""))
    let other = try await status(changed(secret: String(good.secret.dropLast())))
    #expect(other.0 == 403 && other.1.hasPrefix("signature"))
    #expect(try await status(changed(token: .some(nil))) == (403, "token"))
    #expect(try await status(changed(region: "eu-central-2")) == (403, "scope"))
    #expect(try await status(changed(keyID: "AKIDOTHER")) == (403, "unknown access key id"))
    withExtendedLifetime(folder) {}
  }

  /// The example of AWS's documentation ("Signature Version 4 signing process": ListUsers), which ends in a known signature.
  @Test func theDocumentedExampleIsSignedAsDocumented() throws {
    let signing = RequestSigning(
      region: "us-east-1",
      service: "iam",
      accessKeyID: "AKIDEXAMPLE",
      secretAccessKey: try Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
      sessionToken: nil
    )
    let url = try RequestURL("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08") { _ in false }
    var request = HTTPRequest(.get, url.text)
    request.headers = [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]
    var headers = try HeaderFields(request)
    try headers.add("Host", .text(url.hostHeader))
    let signer = try RequestSigner(signing, unixSeconds: 1_440_938_160)
    #expect(signer.time == "20150830T123600Z")
    try signer.sign(&headers, method: .get, url: url, body: nil)
    guard case .text(let authorization) = headers.fields.last?.value else {
      throw HTTPError.malformed("none")
    }
    #expect(
      authorization
        == "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        + "SignedHeaders=content-type;host;x-amz-date, "
        + "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )
  }

  @Test func whatCannotBeSignedIsRefused() async throws {
    let server = try await TestHTTPServer()
    let connections = try HTTPLoop().connections()
    func kind(
      _ path: String = "/echo",
      headers: [(String, String)] = [],
      region: String = "r",
      keyID: String = "k"
    ) async throws -> String? {
      var request = server.request(path)
      request.headers = headers
      request.signing = RequestSigning(
        region: region,
        service: "s",
        accessKeyID: keyID,
        secretAccessKey: try Secret("x"),
        sessionToken: try Secret("y")
      )
      return await failure(connections, request)?.kind
    }
    #expect(try await kind() == nil)
    for query in [
      "a+b", "a=b=c", "a=%3a", "a=%41", "a=%", "a=%4", "a=b/c", "a=b:c", "a&&b", "&", "=a", "a=%+1",
    ] {
      #expect(try await kind("/echo?\(query)") == "configuration", "\(query)")
    }
    #expect(try await kind("/echo?b=%3A&a&a=%2F") == nil)
    for name in ["Authorization", "x-amz-security-token", "X-Amz-Date"] {
      #expect(try await kind(headers: [(name, "z")]) == "configuration")
    }
    for bad in ["", "a/b", "a,b", "a b", "a=b", "a\r\nb"] {
      #expect(try await kind(region: bad) == "configuration")
      #expect(try await kind(keyID: bad) == "configuration")
    }
  }

  static let visible = String(decoding: (0x21...0x7e).map { UInt8($0) }, as: UTF8.self)
  static let printable = visible + " \t"
}

/// Random parts of requests, from one number.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  var isHeads: Bool { mutating get { Bool.random(using: &self) } }
  var byte: UInt8 { mutating get { UInt8.random(in: 0...255, using: &self) } }

  mutating func text(_ length: ClosedRange<Int>, of characters: String) -> String {
    let all = Array(characters)
    return String(
      (0..<Int.random(in: length, using: &self)).map { _ in all.randomElement(using: &self) ?? "-" }
    )
  }

  /// A path of any characters that a URL has, dots and empty segments among them, and sometimes a query in canonical form.
  mutating func target() -> String {
    let unreserved = "abcXYZ019-._~"
    var path = ""
    for _ in 0..<Int.random(in: 1...5, using: &self) {
      switch Int.random(in: 0..<6, using: &self) {
      case 0: path += "/"
      case 1: path += ["/.", "/..", "/%2e%2E", "/a%20b%2Fc%"].randomElement(using: &self) ?? ""
      case 2: path += "/" + text(1...10, of: unreserved + "!$&'()*+,;=:@\"<>[]^`{|}")
      default: path += "/" + text(1...10, of: unreserved)
      }
    }
    guard isHeads else { return path }
    let parameters = (0..<Int.random(in: 1...4, using: &self)).map { _ in
      let value =
        text(0...6, of: unreserved) + (["", "%2F", "%C3%A9", "%25"].randomElement(using: &self) ?? "")
      return text(1...2, of: "ab-A1") + (isHeads ? "=\(value)" : "")
    }
    return path + "?" + parameters.joined(separator: "&")
  }

  /// Names that are beginnings of others, in any order, and values with blanks.
  mutating func headers() -> [(name: String, value: String)] {
    let names = [
      "Content-Type", "X-Amz-Target", "x-amz-a", "X-Amz-A-B", "x-amz-a1", "x-amz-date-not", "X-Other",
      "hosts", "A",
    ]
    return names.shuffled(using: &self).prefix(Int.random(in: 0...names.count, using: &self)).map { name in
      let middle = text(0...30, of: SignatureTests.printable)
      return (name, "<\(middle)>")
    }
  }
}
