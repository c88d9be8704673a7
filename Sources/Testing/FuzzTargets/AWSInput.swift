internal import CMKProviders
internal import HTTPTransport
internal import KeyringCore
internal import SecureMemory

/// What AWS, or whoever answers in its place, and the operator's files for it say.
enum AWSInput {
  private static func secret(_ bytes: [UInt8]) -> Secret {
    do {
      return try unsafe bytes.withUnsafeBytes { bytes throws(SecureMemoryError) in
        try unsafe Secret(copying: bytes)
      }
    } catch {
      preconditionFailure("an input does not fit locked memory: \(error)")
    }
  }

  private static func revealed(_ secret: Secret) -> [UInt8] {
    unsafe secret.withUnsafeBytes { unsafe Array($0) }
  }

  /// An error's text is one line of a bounded length.
  private static func check(message: String) {
    precondition(!message.contains(where: \.isNewline) && (1...1000).contains(message.utf8.count), message)
  }

  private static func isSpace(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0a, 0x0d].contains(byte) }

  // MARK: JSON

  private static func document(_ bytes: [UInt8]) -> JSONObject? {
    do {
      return try JSONObject(secret(bytes))
    } catch {
      check(message: error.description)
      return nil
    }
  }

  /// A document ends where its last brace is, space around it is nothing, and each member is of one kind.
  static func json(_ bytes: [UInt8]) -> Bool {
    guard let object = document(bytes) else { return false }
    let end = bytes.lastIndex { !isSpace($0) } ?? 0
    precondition(document(Array(bytes[..<end])) == nil, "a part of a document is one")
    precondition(document(bytes + [0x7d]) == nil, "more than a document is one")
    precondition(document([0x0a] + bytes + [0x20]) != nil, "space around a document matters")
    check(object)
    return true
  }

  private static func check(_ object: JSONObject) {
    for name in AWSSeeds.members {
      let text = value { () throws(JSONObject.Malformed) in try object.text(name) }
      let bytes = value { () throws(JSONObject.Malformed) in try object.secret(name) }
      let coded = value { () throws(JSONObject.Malformed) in try object.base64(name) }
      let inner = value { () throws(JSONObject.Malformed) in try object.object(name) }
      let number = value { () throws(JSONObject.Malformed) in try object.integer(name) }
      let flag = value { () throws(JSONObject.Malformed) in try object.flag(name) }
      let kinds = [text != nil, inner != nil, number != nil, flag != nil]
      precondition(kinds.count { $0 } <= 1, "a member of several kinds")
      precondition(text.map { Array($0.utf8) } == bytes.map(revealed), "a string is not UTF-8")
      if let coded {
        precondition(base64(revealed(coded)) == text, "bytes that have two texts")
      }
      if let inner { check(inner) }
    }
  }

  /// Nil where it is absent, null, or something else.
  private static func value<Value>(_ get: () throws(JSONObject.Malformed) -> Value?) -> Value? {
    do {
      return try get()
    } catch {
      check(message: error.description)
      return nil
    }
  }

  private static func base64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    var text = ""
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
      for index in 0...3 {
        text.append(index <= group.count ? alphabet[Int(bits >> UInt32(18 - 6 * index) & 63)] : "=")
      }
    }
    return text
  }

  // MARK: Ciphertexts

  /// What is taken is written again as it was.
  static func envelope(_ bytes: [UInt8]) -> Bool {
    guard let envelope = CiphertextEnvelope(bytes) else { return false }
    precondition(envelope.bytes == bytes, "an envelope has one encoding")
    return true
  }

  // MARK: Errors

  /// Three headers, a line each, an empty one for one that is not there; the body. Whatever it is, what is made of it is short and printable.
  static func errorAnswer(_ bytes: [UInt8]) -> Bool {
    let parts = bytes.split(separator: 0x0a, maxSplits: 3, omittingEmptySubsequences: false)
    guard parts.count == 4 else { return false }
    var headers: [String: String] = [:]
    for (name, value) in zip(["x-amzn-errortype", "x-amzn-requestid", "retry-after"], parts)
    where !value.isEmpty {
      headers[name] = String(decoding: value, as: UTF8.self)
    }
    let body = parts[3].isEmpty ? nil : secret(Array(parts[3]))
    let answer = ErrorAnswer(HTTPResponse(status: 400, headers: headers, body: body))
    for text in [answer.message, answer.requestID ?? ""] {
      let isPrintable = text.unicodeScalars.allSatisfy {
        ![.control, .format, .lineSeparator, .paragraphSeparator].contains($0.properties.generalCategory)
      }
      precondition(isPrintable && text.count <= 300, "not printable: \(text)")
    }
    precondition((answer.requestID ?? "").count <= 128)
    precondition((0...60_000).contains(answer.retryAfterMilliseconds ?? 0), "a pause of more than a minute")
    guard let code = answer.code else { return false }
    let isCode = code.utf8.allSatisfy {
      (0x30...0x39).contains($0) || (0x41...0x5a).contains($0 & 0xdf)
    }
    precondition(isCode && (1...100).contains(code.utf8.count), "no code: \(code)")
    return true
  }

  // MARK: XML

  private static func xmlDocument(_ bytes: [UInt8]) -> XMLDocument? {
    do {
      return try XMLDocument(secret(bytes))
    } catch {
      check(message: error.description)
      return nil
    }
  }

  /// A document ends where its root ends, and what an element says can be written so that it is read the same.
  static func xml(_ bytes: [UInt8]) -> Bool {
    guard let document = xmlDocument(bytes) else { return false }
    let end = bytes.lastIndex { !isSpace($0) } ?? 0
    precondition(xmlDocument(Array(bytes[..<end])) == nil, "a part of a document is one")
    precondition(xmlDocument(bytes + Array("<a/>".utf8)) == nil, "more than a document is one")
    for path in AWSSeeds.elements {
      do {
        guard let text = try document.secret(path).map(revealed) else { continue }
        precondition(text.count <= bytes.count, "more text than there is")
        let again = Array("<a><b>".utf8) + text.flatMap(escaped) + Array("</b></a>".utf8)
        let read = try xmlDocument(again)?.secret("a/b").map(revealed)
        precondition(again.count > 65_536 || read == text, "what was written is read as something else")
      } catch {
        check(message: "\(error)")
      }
    }
    return true
  }

  private static func escaped(_ byte: UInt8) -> [UInt8] {
    switch byte {
    case UInt8(ascii: "&"): Array("&amp;".utf8)
    case UInt8(ascii: "<"): Array("&lt;".utf8)
    case UInt8(ascii: ">"): Array("&gt;".utf8)
    case UInt8(ascii: "\""): Array("&quot;".utf8)
    case UInt8(ascii: "'"): Array("&apos;".utf8)
    default: [byte]
    }
  }

  // MARK: Profiles

  private static func file(_ bytes: [UInt8], _ kind: ProfileFile.Kind) -> ProfileFile? {
    do {
      return try ProfileFile(secret(bytes), path: "f", kind: kind)
    } catch {
      check(message: "\(error)")
      return nil
    }
  }

  /// Its values, by profile and key.
  private static func values(_ file: ProfileFile, _ bytes: [UInt8]) -> [String: [ProfileKey: [UInt8]]] {
    file.profiles.mapValues { profile in
      profile.mapValues { property in
        let value = Array(bytes[property.value])
        let line = bytes[..<property.value.lowerBound].count { $0 == 0x0a } + 1
        precondition(property.line == line && !value.contains(0x0a), "a value of another line")
        precondition(
          !value.isEmpty && ![0x20, 0x09].contains(value[0]) && ![0x20, 0x09].contains(value.last)
        )
        return value
      }
    }
  }

  /// The first byte says which of the two files. What it says can be written so that it is read the same.
  static func profiles(_ bytes: [UInt8]) -> Bool {
    guard let first = bytes.first else { return false }
    let kind: ProfileFile.Kind = first == UInt8(ascii: "c") ? .configuration : .credentials
    let content = Array(bytes.dropFirst())
    guard let file = file(content, kind) else { return false }
    let values = values(file, content)
    var again: [UInt8] = []
    for (name, profile) in values {
      let section = kind == .credentials || name == "default" ? name : "profile \(name)"
      again += Array("[\(section)]\n".utf8)
      for (key, value) in profile { again += Array("\(key.name) = ".utf8) + value + [0x0a] }
    }
    let read = Self.file(again, kind).map { Self.values($0, again) }
    precondition(read == values, "what was written is read as something else")
    precondition(values.isEmpty || Self.file(again + again, kind) == nil, "a profile is there twice")
    return true
  }
}
