import HTTPTransport
import KeyringTestSupport
import Testing

@testable import HTTPTransport

/// Where requests may go.
@Suite struct URLTests {
  private func host(_ url: String, _ scheme: HTTPRequest.Scheme) throws(HTTPError) -> String {
    try RequestURL(url, allowsPlain: scheme.allowsPlain).host
  }

  @Test func partsAreThoseThatAreConnectedTo() throws {
    let url = try RequestURL("HTTPS://KMS.eu-central-1.example:8443/a/../b/./c%2Fd?x=%2e.&y") { _ in false }
    #expect(url.isSecure && url.host == "KMS.eu-central-1.example" && url.port == 8443)
    #expect(url.hostHeader == "KMS.eu-central-1.example:8443")
    #expect(url.path == "/b/c%2Fd" && url.query == "x=%2e.&y")
    #expect(url.text == "https://KMS.eu-central-1.example:8443/b/c%2Fd?x=%2e.&y")
    let plain = try RequestURL("http://[::1]") { $0 == "[::1]" }
    #expect(!plain.isSecure && plain.port == 80 && plain.hostHeader == "[::1]" && plain.path == "/")
    #expect(try RequestURL("https://kms.example:443/") { _ in false }.hostHeader == "kms.example")
    #expect(plain.nameToLookUp == nil && url.nameToLookUp == "KMS.eu-central-1.example")
    #expect(try RequestURL("https://LocalHost/") { _ in false }.nameToLookUp == nil)
    #expect(try RequestURL("https://10.0.0.1/") { _ in false }.nameToLookUp == nil)
  }

  @Test(
    arguments: [
      "", "kms.example", "//kms.example/", "ftp://kms.example/", "file:///etc/passwd",
      "gopher://kms.example/",
      "https://", "https:///", "https:///kms.example/", "https:/kms.example/", "https://user@kms.example/",
      "https://user:word@kms.example/", "https://@kms.example/", "https://localhost@kms.example/",
      "https://kms.example/#part", "https://kms.example/#", "https://kms.example#@other.example/",
      "https://kms.example\\@other.example/", "https://kms.example /", "https://kms.example/a b",
      "https://kms.example/\r\nX: y", "https://kms.ex\u{e4}mple/", "https://kms.example:0x50/",
      "https://kms.example:99999/", "https://kms.example:-1/", "https://[fe80::1%25eth0]/",
      "https://%6cocalhost/", "javascript:alert(1)",
    ]
  ) func whatIsNoPlainURLIsRefused(_ url: String) {
    for scheme in [HTTPRequest.Scheme.secure, .plainToLoopback, .plainToMetadata] {
      #expect(throws: HTTPError.self, "\(url)") { try host(url, scheme) }
    }
  }

  @Test func plainHTTPGoesToTheHostsThatAreListed() throws {
    let loopback = [
      "127.0.0.1", "127.255.0.9", "[::1]", "localhost", "LOCALHOST", "127.1", "0x7f.0.0.1", "2130706434",
    ]
    let metadata = [
      "169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[FD00:EC2::23]",
      "[fd00:0ec2::0:254]",
    ]
    let others = [
      "kms.example", "128.0.0.1", "126.255.255.255", "10.0.0.1", "169.254.169.253", "169.254.1.1", "[::2]",
      "[::ffff:127.0.0.1]", "[fd00:ec2::255]", "localhost.example", "evil.localhost", "localhost.",
      "127.0.0.1.example",
      "2886729728", "0.0.0.0",
    ]
    for name in loopback {
      #expect(throws: HTTPError.self, "\(name)") { try host("http://\(name)/", .secure) }
      #expect(throws: Never.self, "\(name)") { try host("http://\(name):81/", .plainToLoopback) }
      #expect(throws: Never.self, "\(name)") { try host("http://\(name)/", .plainToMetadata) }
    }
    for name in metadata {
      #expect(throws: HTTPError.self, "\(name)") { try host("http://\(name)/", .plainToLoopback) }
      #expect(throws: Never.self, "\(name)") { try host("http://\(name)/", .plainToMetadata) }
    }
    for name in others {
      #expect(throws: HTTPError.self, "\(name)") { try host("http://\(name)/", .plainToMetadata) }
      #expect(throws: HTTPError.self, "\(name)") { try host("http://\(name)/", .plainToLoopback) }
    }
    for name in loopback + metadata + others {
      #expect(throws: Never.self, "\(name)") { try host("https://\(name)/", .secure) }
    }
  }

  @Test func whatIsRefusedIsNotSentAndItsQueryIsNotSaid() async throws {
    let server = try await TestHTTPServer()
    let connections = try HTTPLoop().connections()
    for url in [
      "http://127.0.0.1:\(server.port)/echo?hidden", "http://user@127.0.0.1:\(server.port)/echo?hidden",
      "http://localhost@127.0.0.1:\(server.port)/echo?hidden", "ftp://127.0.0.1:\(server.port)/echo?hidden",
    ] {
      let error = await failure(connections, HTTPRequest(.get, url))
      #expect(error?.kind == "configuration" && error?.description.contains("hidden") == false, "\(url)")
    }
    #expect(try Echo(await connections.send(server.request("/echo"))).requests == 1)
  }
}
