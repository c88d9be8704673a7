internal import CCurl
internal import SecureMemory

/// What has come of one response; its body in memory that is wiped.
struct ResponseParts: ~Copyable {
  /// What callers of AWS look at; everything else is forgotten.
  private static let kept: Set<String> = [
    "x-amzn-requestid", "x-amzn-errortype", "retry-after", "x-amz-retry-after", "date", "content-type",
    "content-length",
  ]
  private static let headerBytesMax = 32_768

  private var headers: [String: String] = [:]
  private var headerBytes = 0
  /// libcurl takes a connection that ends within the head for the end of a good response.
  private var isHeadWhole = false
  private var body = WipedBuffer()
  private var isBodyTooLarge = false

  /// Takes bytes of the body; false where they are more than `max` with those before.
  mutating func append(_ bytes: UnsafeRawBufferPointer, max: Int) -> Bool {
    isBodyTooLarge = bytes.count > max - body.count
    if !isBodyTooLarge { unsafe body.append(bytes) }
    return !isBodyTooLarge
  }

  /// Takes a line of the head, the status line among them; false where there are too many.
  mutating func appendLine(_ bytes: UnsafeRawBufferPointer) -> Bool {
    headerBytes += bytes.count
    guard headerBytes <= Self.headerBytesMax else { return false }
    // The head of a response is not secret.
    let line = unsafe String(decoding: bytes, as: UTF8.self)
    // The status line, perhaps after that of an interim response (RFC 9110, section 15.2) or of a proxy.
    if line.hasPrefix("HTTP/") {
      headers = [:]
      isHeadWhole = false
    }
    if line == "\r\n" || line == "\n" { isHeadWhole = true }
    let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, let name = parts.first?.lowercased(), Self.kept.contains(name) else {
      return true
    }
    let value = parts[1].split { $0.isWhitespace }.joined(separator: " ")
    if value.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) { headers[name] = value }
    return true
  }

  /// Why its bytes were not taken; nil where they were.
  func refusal(host: String) -> HTTPError? {
    if isBodyTooLarge { return .malformed("\(host): the response is larger than allowed") }
    if headerBytes > Self.headerBytesMax {
      return .malformed("\(host): the response's headers are too large")
    }
    return nil
  }

  /// The response, once all of it is there; its body is not here any more.
  ///
  /// - Throws: `HTTPError.unreachable` where it ended within its head; `.local` where there is no locked memory left for the body; `.malformed`
  ///   where it has no status.
  mutating func whole(status: Int, host: String) throws(HTTPError) -> HTTPResponse {
    defer { body.removeAll(keeping: 0) }
    guard isHeadWhole else { throw .unreachable("\(host): the connection ended within the response's head") }
    guard (100...599).contains(status) else { throw .malformed("\(host): a response without a status") }
    guard !body.isEmpty else { return HTTPResponse(status: status, headers: headers, body: nil) }
    do throws(SecureMemoryError) {
      let secret = try unsafe body.withUnsafeBytes { bytes throws(SecureMemoryError) in
        try unsafe Secret(copying: bytes)
      }
      return HTTPResponse(status: status, headers: headers, body: secret)
    } catch {
      throw .local("\(host): the response cannot be kept: \(error)")
    }
  }
}

extension HTTPError {
  /// What libcurl's result means. Its own words are used where they can be of the network, of TLS and of names only.
  static func of(_ code: CURLcode, said: UnsafePointer<CChar>, host: String) -> HTTPError {
    let isOfConnection = [
      CURLE_COULDNT_CONNECT, CURLE_OPERATION_TIMEDOUT, CURLE_SSL_CONNECT_ERROR,
      CURLE_PEER_FAILED_VERIFICATION, CURLE_SEND_ERROR, CURLE_RECV_ERROR,
    ].contains(code)
    let own = unsafe String(cString: said)
    let general = unsafe String(cString: curl_easy_strerror(code))
    // A certificate's names are in it, and whoever issued the certificate chose them.
    let isPrintable = !own.isEmpty && own.utf8.allSatisfy { (0x20...0x7e).contains($0) }
    let text = "\(host): \(isOfConnection && isPrintable ? own : general)"
    return switch code {
    case CURLE_FILESIZE_EXCEEDED, CURLE_WEIRD_SERVER_REPLY, CURLE_UNSUPPORTED_PROTOCOL:
      .malformed(text)
    case CURLE_OUT_OF_MEMORY: .local(text)
    case CURLE_URL_MALFORMAT, CURLE_NOT_BUILT_IN, CURLE_BAD_FUNCTION_ARGUMENT: .configuration(text)
    default: .unreachable(text)
    }
  }
}
