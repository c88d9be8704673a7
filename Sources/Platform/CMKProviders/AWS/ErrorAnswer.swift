package import HTTPTransport
internal import KeyringCore
internal import SecureMemory

/// What an error's response says of itself: by AWS in a header and in JSON, by emulators and older services in XML, by what stands between not
/// at all.
package struct ErrorAnswer {
  /// Without `Exception` at its end, and without what stands around it; nil where there is none.
  package let code: String?
  /// The first line of it, at most 300 printable characters; empty where there is none. Behind the first line AWS repeats what was signed, the
  /// session token among it.
  package let message: String
  /// Of the request; nil where there is none.
  package let requestID: String?
  /// How long AWS wants to be left alone, at most a minute; nil where it does not say.
  package let retryAfterMilliseconds: Int?

  /// Reads what there is; nothing of it has to be there.
  package init(_ response: HTTPResponse) {
    var code = response.headers["x-amzn-errortype"]
    var message: String?
    if let body = response.body {
      let (bodyCode, bodyMessage) = Self.json(body) ?? Self.xml(body)
      code = code ?? bodyCode
      message = bodyMessage
    }
    self.code = code.flatMap(Self.bareCode)
    self.message = message ?? ""
    requestID = Self.requestID(response)
    retryAfterMilliseconds = Self.retryAfter(response.headers)
  }

  /// AWS's id of the request that this is the response to.
  static func requestID(_ response: HTTPResponse) -> String? {
    response.headers["x-amzn-requestid"].map { String(printable($0).prefix(128)) }
  }

  /// `namespace#Code:http://...` without its surroundings, and `CodeException` as `Code`: both are the same error.
  private static func bareCode(_ text: String) -> String? {
    let code = text.prefix { $0 != ":" }.split(separator: "#").last.map(String.init) ?? ""
    let isCode = code.unicodeScalars.allSatisfy {
      $0.isASCII && ($0.properties.isAlphabetic || $0.properties.numericType != nil)
    }
    guard (1...100).contains(code.utf8.count), isCode else { return nil }
    return code.hasSuffix("Exception") && code != "Exception" ? String(code.dropLast(9)) : code
  }

  private static func json(_ body: Secret) -> (code: String?, message: String?)? {
    guard let json = try? JSONObject(body) else { return nil }  // then it may be XML
    // What is not a string tells nothing: as if it were not there.
    let codes = ["__type", "code", "Code"].compactMap { (try? json.text($0)) ?? nil }
    let messages = ["message", "Message"].compactMap { (try? json.secret($0)) ?? nil }
    return (codes.first, messages.first.map { firstLine($0, 0..<$0.count) })
  }

  // MARK: Text that may go on with secrets

  /// Up to the first control character, as printable characters.
  private static func firstLine(_ text: Secret, _ range: Range<Int>) -> String {
    // SAFETY: the range lies within the text; nothing leaves but the first line.
    let line = unsafe text.withUnsafeBytes { bytes in
      unsafe Array(bytes[range].prefix { $0 >= 0x20 && $0 != 0x7f }.prefix(1200))
    }
    return String(printable(String(decoding: line, as: UTF8.self)).prefix(300))
  }

  private static func xml(_ body: Secret) -> (code: String?, message: String?) {
    (element("Code", of: body), element("Message", of: body))
  }

  /// The text of the first element of this name, which has an end.
  private static func element(_ name: String, of body: Secret) -> String? {
    let (start, end) = (Array("<\(name)>".utf8), Array("</\(name)>".utf8))
    // SAFETY: nothing leaves but positions.
    let range: Range<Int>? = unsafe body.withUnsafeBytes { bytes in
      guard let opening = unsafe bytes.firstRange(of: start) else { return nil }
      guard let closing = unsafe bytes[opening.upperBound...].firstRange(of: end) else { return nil }
      return opening.upperBound..<closing.lowerBound
    }
    return range.map { firstLine(body, $0) }
  }

  /// `x-amz-retry-after` in milliseconds, `Retry-After` in seconds (RFC 9110, section 10.2.3); its date is not taken.
  private static func retryAfter(_ headers: [String: String]) -> Int? {
    if let milliseconds = headers["x-amz-retry-after"].flatMap({ UInt32($0) }) {
      return min(Int(milliseconds), 60_000)
    }
    return headers["retry-after"].flatMap { UInt32($0) }.map { min(Int($0), 60) * 1000 }
  }
}
