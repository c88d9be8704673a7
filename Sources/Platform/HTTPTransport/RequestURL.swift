internal import CCurl
internal import Glibc

/// A URL that was checked, in the parts that are sent, signed and connected to.
struct RequestURL: Sendable {
  /// All of it, as libcurl is given it: without dot segments.
  let text: String
  /// False for plain HTTP.
  let isSecure: Bool
  /// Name or address; an IPv6 address in brackets.
  let host: String
  /// Of TCP.
  let port: Int
  /// Value of the header `Host`: with the port where it is not the scheme's own.
  let hostHeader: String
  /// Begins with a slash; as it is sent.
  let path: String
  /// Without the question mark; as it is sent.
  let query: String

  /// Takes a URL apart with libcurl's own parser, so that what is checked here is what is connected to.
  ///
  /// - Parameter allowsPlain: whether plain HTTP may go to a host, which is given as libcurl's parser gives it: addresses in their usual form.
  /// - Throws: `HTTPError.configuration` where it is none, or none that is allowed. The text has no query.
  init(_ url: String, allowsPlain: (_ host: String) -> Bool) throws(HTTPError) {
    guard url.utf8.allSatisfy({ (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "#") }) else {
      throw .configuration("a URL is printable ASCII, without a fragment")
    }
    // SAFETY: the handle is this function's own.
    guard let parsed = unsafe curl_url() else { throw .local("out of memory") }
    defer { unsafe curl_url_cleanup(parsed) }
    guard unsafe curl_url_set(parsed, CURLUPART_URL, url, UInt32(CURLU_DISALLOW_USER)) == CURLUE_OK,
      Self.hasPlainAuthority(url)
    else { throw .configuration("not a URL of a host alone, without user name") }
    guard let name = unsafe Self.part(parsed, CURLUPART_SCHEME),
      let host = unsafe Self.part(parsed, CURLUPART_HOST), let text = unsafe Self.part(parsed, CURLUPART_URL),
      let path = unsafe Self.part(parsed, CURLUPART_PATH), ["https", "http"].contains(name)
    else { throw .configuration("neither an https URL nor an http one") }
    (self.text, self.host, self.path) = (text, host, path)
    isSecure = name == "https"
    query = unsafe Self.part(parsed, CURLUPART_QUERY) ?? ""
    let ownPort = isSecure ? 443 : 80
    port = unsafe Self.part(parsed, CURLUPART_PORT).flatMap { Int($0) } ?? ownPort
    hostHeader = port == ownPort ? host : "\(host):\(port)"
    guard isSecure || allowsPlain(host) else {
      throw .configuration("\(host): plain HTTP is not allowed to this host")
    }
  }

  /// No user name, not even an empty one, no zone of an IPv6 address, nothing encoded, nothing that other parsers take for a slash.
  private static func hasPlainAuthority(_ url: String) -> Bool {
    let parts = url.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2 else { return false }
    let authority = parts[1].prefix { $0 != "/" && $0 != "?" }
    return !authority.isEmpty && authority.utf8.allSatisfy { "@%\\".utf8.contains($0) == false }
  }

  /// nil where there is none.
  private static func part(_ parsed: OpaquePointer, _ which: CURLUPart) -> String? {
    var text: UnsafeMutablePointer<CChar>?
    // SAFETY: what curl_url_get gives is a C string, ours to free.
    guard unsafe curl_url_get(parsed, which, &text, 0) == CURLUE_OK, let text = unsafe text else {
      return nil
    }
    defer { unsafe curl_free(text) }
    return unsafe String(cString: text)
  }

  /// What must be looked up before `host` can be connected to; nil for an address, and for localhost, which libcurl knows to be
  /// loopback (RFC 6761, section 6.3).
  var nameToLookUp: String? {
    var address = in_addr()
    let isAddress = unsafe host.hasPrefix("[") || inet_pton(AF_INET, host, &address) == 1
    return isAddress || host.lowercased() == "localhost" ? nil : host
  }
}

extension HTTPRequest.Scheme {
  /// Where AWS hands out credentials: IMDS, ECS, EKS Pod Identity.
  private static let metadata = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[fd00:ec2::23]",
  ]

  /// Whether `http` may go to `host`.
  func allowsPlain(_ host: String) -> Bool {
    switch self {
    case .secure: false
    case .plainToLoopback: Self.isLoopback(host)
    case .plainToMetadata: Self.isLoopback(host) || Self.metadata.contains(host.lowercased())
    }
  }

  private static func isLoopback(_ host: String) -> Bool {
    if host == "[::1]" || host.lowercased() == "localhost" { return true }
    var address = in_addr()
    // SAFETY: inet_pton takes a C string and writes one in_addr; it accepts four decimal numbers and nothing else.
    return unsafe inet_pton(AF_INET, host, &address) == 1 && UInt32(bigEndian: address.s_addr) >> 24 == 127
  }
}
