internal import Cryptography
internal import Glibc
internal import SecureMemory

/// AWS Signature Version 4 (AWS General Reference, "Create a signed AWS API request").
///
/// Not libcurl's own (CURLOPT_AWS_SIGV4): 7.88.1 keeps the secret access key on the ordinary heap, in the connection, for as long as that stays
/// open; it signs a path as it is sent, not encoded once more; and it orders headers by name and value together.
struct RequestSigner {
  let signing: RequestSigning
  /// `20260131T235959Z`.
  let time: String

  /// Signs for the time given, in Unix seconds.
  ///
  /// - Throws: `HTTPError.configuration` where a part of the credential scope has bytes that would make it another.
  init(_ signing: RequestSigning, unixSeconds: Int) throws(HTTPError) {
    for (what, text) in [
      ("region", signing.region), ("service", signing.service), ("access key id", signing.accessKeyID),
    ] {
      let isPlain = text.utf8.allSatisfy { (0x21...0x7e).contains($0) && !"/,=".utf8.contains($0) }
      guard isPlain, !text.isEmpty else { throw .configuration("not a \(what) that can sign") }
    }
    self.signing = signing
    var (seconds, parts) = unsafe (time_t(unixSeconds), tm())
    var text = [CChar](repeating: 0, count: 17)
    // SAFETY: `text` has room for the 16 characters of a year of four digits, and the zero that ends them.
    guard unsafe gmtime_r(&seconds, &parts) != nil, unsafe strftime(&text, 17, "%Y%m%dT%H%M%SZ", &parts) == 16
    else { throw .configuration("the clock is not set") }
    time = String(decoding: text.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Adds what signs the request to its headers, all of which are signed: the last thing that is done to them.
  ///
  /// - Throws: `HTTPError.configuration` where the query cannot be signed as it is sent, or the caller has set one of these headers.
  func sign(
    _ headers: inout HeaderFields,
    method: HTTPRequest.Method,
    url: RequestURL,
    body: Secret?
  ) throws(HTTPError) {
    guard let query = Self.canonicalQuery(url.query) else {
      throw .configuration("\(url.host): a query that is signed has only unreserved characters, %XX, & and =")
    }
    try headers.add("X-Amz-Date", .text(time))
    if let token = signing.sessionToken { try headers.add("x-amz-security-token", .secret(token)) }
    let signed = headers.fields.sorted { $0.lowerName.utf8.lexicographicallyPrecedes($1.lowerName.utf8) }
    let names = signed.map(\.lowerName).joined(separator: ";")
    let signature: String
    do throws(CryptographyError) {
      let canonical = try SHA256()
      try canonical.update("\(method.rawValue)\n\(Self.canonicalPath(url.path))\n\(query)\n")
      for field in signed {
        try canonical.update("\(field.lowerName):")
        try canonical.update(field.value)
        try canonical.update("\n")
      }
      let payload = try SHA256()
      if let body { try payload.update(.secret(body)) }
      try canonical.update("\n\(names)\n\(try payload.finish().hexadecimal)")
      signature = try sign(digest: canonical.finish())
    } catch {
      throw .local("the request could not be signed: \(error)")
    }
    try headers.add(
      "Authorization",
      .text(
        "AWS4-HMAC-SHA256 Credential=\(signing.accessKeyID)/\(scope), SignedHeaders=\(names), Signature=\(signature)"
      )
    )
  }

  private var date: String { String(time.prefix(8)) }
  private var scope: String { "\(date)/\(signing.region)/\(signing.service)/aws4_request" }

  /// The signature of the request whose canonical form has this digest. SECRET: every key on the way is in locked memory.
  private func sign(digest: SHA256Digest) throws(CryptographyError) -> String {
    var key: Secret
    do throws(SecureMemoryError) {
      let prefix = Array("AWS4".utf8)
      key = try Secret(joining: [
        try unsafe Secret(count: prefix.count) { unsafe $0.copyBytes(from: prefix) }, signing.secretAccessKey,
      ])
    } catch {
      throw .memory(error)
    }
    for part in [date, signing.region, signing.service, "aws4_request"] {
      let context = try HMACSHA256.Context(key: key)
      try context.update(Array(part.utf8))
      key = try context.finishSecret()
    }
    let text = "AWS4-HMAC-SHA256\n\(time)\n\(scope)\n\(digest.hexadecimal)"
    return try HMACSHA256.authenticate(Array(text.utf8), key: key).hexadecimal
  }

  // MARK: Canonical form

  /// The path without empty segments, encoded once more than it is sent: what every service but S3 expects.
  static func canonicalPath(_ path: String) -> String {
    let segments = path.split(separator: "/").map { segment in
      segment.utf8.reduce(into: "") { text, byte in
        text += isUnreserved(byte) ? String(UnicodeScalar(byte)) : "%\(hexadecimal(byte).uppercased())"
      }
    }
    let isFolder = path.hasSuffix("/") && !segments.isEmpty
    return "/" + segments.joined(separator: "/") + (isFolder ? "/" : "")
  }

  /// The parameters sorted; nil where one is not as the canonical form has it, so that signing it as it is sent would be wrong.
  static func canonicalQuery(_ query: String) -> String? {
    guard !query.isEmpty else { return "" }
    var parameters: [(name: Substring, value: Substring)] = []
    for parameter in query.split(separator: "&", omittingEmptySubsequences: false) {
      let parts = parameter.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.allSatisfy(isCanonical), !parts[0].isEmpty else { return nil }
      parameters.append((parts[0], parts.count == 2 ? parts[1] : ""))
    }
    parameters.sort { ($0.name, $0.value) < ($1.name, $1.value) }
    return parameters.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
  }

  /// Unreserved characters as they are, others as %XX in upper case (RFC 3986, section 2).
  private static func isCanonical(_ text: Substring) -> Bool {
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if isUnreserved(byte) { continue }
      let digits = rest.prefix(2)
      guard byte == UInt8(ascii: "%"), digits.count == 2,
        let encoded = UInt8(String(decoding: digits, as: UTF8.self), radix: 16), !isUnreserved(encoded),
        digits.elementsEqual(hexadecimal(encoded).uppercased().utf8)
      else { return false }
      rest = rest.dropFirst(2)
    }
    return true
  }

  private static func isUnreserved(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: "-._~".utf8.contains(byte)
    }
  }
}

/// Two digits, in lower case.
private func hexadecimal(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

extension SHA256Digest {
  fileprivate var hexadecimal: String { bytes.map(HTTPTransport.hexadecimal).joined() }
}

extension SHA256 {
  fileprivate func update(_ text: String) throws(CryptographyError) { try update(Array(text.utf8)) }

  /// Adds a header's value in its canonical form: each run of blanks is one.
  fileprivate func update(_ value: HeaderFields.Value) throws(CryptographyError) {
    switch value {
    case .text(let text):
      try update(text.split { $0 == " " || $0 == "\t" }.joined(separator: " "))
    case .secret(let secret):
      try unsafe secret.withUnsafeBytes { bytes throws(CryptographyError) in try unsafe update(bytes) }
    }
  }
}
