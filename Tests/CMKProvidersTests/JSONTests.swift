import Foundation
import SecureMemory
import Testing

@testable import CMKProviders

extension Secret {
  /// A secret of a test: the bytes are in its source.
  static func testing(_ bytes: some Sequence<UInt8>) throws -> Secret {
    let bytes = Array(bytes)
    return try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
  }

  static func testing(_ text: String) throws -> Secret { try testing(text.utf8) }

  /// What a test compares.
  var revealed: [UInt8] { unsafe withUnsafeBytes { unsafe Array($0) } }
}

@Suite struct JSONTests {
  private func object(_ text: String) throws -> JSONObject { try JSONObject(try .testing(text)) }

  /// Everything that a document can have.
  private static let whole = #"""
    { "text" : "a\"\\\/\b\f\n\r\tz" , "unicode":"\u00e9\u20AC\ud83d\uDE00 é€😀\u0000", "base64":"AP\u002b\/", "flag":true,
      "no":false,"nothing":null,"n":-9223372036854775808,"e":1.5e+10,"f":0.5E-1,"z":-0, "list":[1,[],{"a":[{}]},"x",null],
      "inner":{"Plaintext":"c2VjcmV0","deeper":{"KeyId":"k"}},"":"empty name","\u004beyId":"escaped name" }
    """#

  @Test func everyKindOfMemberIsRead() throws {
    let json = try object(Self.whole)
    #expect(try json.text("text") == "a\"\\/\u{8}\u{c}\n\r\tz")
    #expect(try json.text("unicode") == "é€😀 é€😀\0")
    #expect(try json.secret("unicode")?.revealed == Array("é€😀 é€😀\0".utf8))
    #expect(try json.base64("base64")?.revealed == [0x00, 0xff, 0xbf])
    #expect(try json.flag("flag") == true && json.flag("no") == false)
    #expect(try json.integer("n") == Int.min && json.integer("z") == 0)
    #expect(try json.object("inner")?.base64("Plaintext")?.revealed == Array("secret".utf8))
    #expect(try json.object("inner")?.object("deeper")?.text("KeyId") == "k")
    #expect(try json.text("") == "empty name" && json.text("KeyId") == "escaped name")
  }

  @Test(arguments: ["absent", "nothing"]) func whatIsAbsentOrNullIsNil(_ member: String) throws {
    let json = try object(Self.whole)
    #expect(try json.text(member) == nil && json.secret(member) == nil && json.base64(member) == nil)
    #expect(try json.integer(member) == nil && json.flag(member) == nil && json.object(member) == nil)
  }

  @Test(arguments: ["text", "flag", "n", "e", "list", "inner"]) func anotherTypeIsRefused(_ member: String)
    throws
  {
    let json = try object(Self.whole)
    let isString = member == "text"
    #expect(((try? json.text(member)) != nil) == isString)  // nil on an error, which is what is asked
    #expect(((try? json.secret(member)) != nil) == isString)  // the same below
    #expect(throws: JSONObject.Malformed.self) { try json.base64(member) }
    #expect(((try? json.integer(member)) != nil) == (member == "n"))
    #expect(((try? json.flag(member)) != nil) == (member == "flag"))
    #expect(((try? json.object(member)) != nil) == (member == "inner"))
  }

  @Test(arguments: [
    "", " ", "{", "}", "[]", "1", "\"a\"", "null", "{} {}", "{}x", "\u{feff}{}", "{\"a\"}", "{\"a\":}",
    "{\"a\":1,}", "{,}",
    "{a:1}", "{'a':1}", "{\"a\":1 \"b\":2}", "{\"a\":01}", "{\"a\":-}", "{\"a\":+1}", "{\"a\":.5}",
    "{\"a\":1.}", "{\"a\":1e}",
    "{\"a\":1e+}", "{\"a\":0x1}", "{\"a\":NaN}", "{\"a\":Infinity}", "{\"a\":tru}", "{\"a\":TRUE}",
    "{\"a\":nul}", "{\"a\":[1,]}",
    "{\"a\":[1 2]}", "{\"a\":[}", "{\"a\":\"\t\"}", "{\"a\":\"\n\"}", "{\"a\":\"\u{0}\"}", "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12\"}",
    "{\"a\":\"\\u12g4\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\ud800x\"}", "{\"a\":\"\\ud800\\n\"}",
    "{\"a\":\"\\ud800\\u0041\"}",
    "{\"a\":\"\\udc00\"}", "{\"a\":\"\\\"}", "{\"a\":1}/**/", "// \n{}", "{\"a\":1,\"a\":2}",
    "{\"a\":1,\"\\u0061\":2}",
    "{\"a\":{\"b\":1,\"b\":1}}", "{\"a\":null,\"a\":null}", "\u{c}{}", "\u{a0}{}",
  ])
  func malformedDocumentsAreRefused(_ text: String) throws {
    #expect(throws: JSONObject.Malformed.self) { try object(text) }
  }

  @Test(
    arguments: [
      [0x80], [0xbf], [0xc0, 0x80], [0xc1, 0xbf], [0xc3], [0xe0, 0x9f, 0xbf], [0xe2, 0x82],
      [0xed, 0xa0, 0x80],
      [0xf0, 0x8f, 0xbf, 0xbf], [0xf4, 0x90, 0x80, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xff],
      [0xe2, 0x28, 0xa1],
    ] as [[UInt8]]
  )
  func whatIsNotUTF8IsRefused(_ bytes: [UInt8]) throws {
    let document = try Secret.testing(Array("{\"a\":\"".utf8) + bytes + Array("\"}".utf8))
    #expect(throws: JSONObject.Malformed.self) { try JSONObject(document) }
  }

  @Test(arguments: [("{\"a\":", "}"), ("[", "]")]) func sixteenLevelsAreReadAndNoMore(
    _ open: String,
    _ close: String
  ) throws {
    func nested(_ levels: Int) -> String {
      let inner =
        String(repeating: open, count: levels - 1) + "1" + String(repeating: close, count: levels - 1)
      return "{\"top\":\(inner)}"
    }
    _ = try object(nested(16))
    #expect(throws: JSONObject.Malformed.self) { try object(nested(17)) }
    #expect(throws: JSONObject.Malformed.self) { try object(nested(20_000)) }
  }

  /// `String` says that the Kelvin sign is a K, and that an accent may stand for itself: names are bytes.
  @Test func aNameIsItsBytes() throws {
    let json = try object("{\"\u{212a}eyId\":\"forged\",\"e\u{301}\":\"two\",\"\u{e9}\":\"one\"}")
    #expect(try json.text("KeyId") == nil)
    #expect(try json.text("\u{e9}") == "one" && json.text("e\u{301}") == "two")
  }

  @Test(
    arguments: [
      ("", []), ("Zg==", Array("f".utf8)), ("Zm8=", Array("fo".utf8)), ("Zm9v", Array("foo".utf8)),
      ("Zm9vYg==", Array("foob".utf8)), ("Zm9vYmE=", Array("fooba".utf8)), ("Zm9vYmFy", Array("foobar".utf8)),
    ] as [(String, [UInt8])]
  )
  func vectorsOfRFC4648(_ coded: String, _ bytes: [UInt8]) throws {
    #expect(try object("{\"a\":\"\(coded)\"}").base64("a")?.revealed == bytes)
  }

  @Test(arguments: [
    "Z", "Zg", "Zg=", "Zm9", "Zm9vY", "Zg===", "====", "=", "Z===", "=Zg=", "Zg=v", "Zh==", "Zm9=",
    "Zg==Zg==", "Zm9v\\n",
    "Zm 9v", " Zm9v", "Zm-v", "Zm_v", "Zm9v====", "Zm9\u{e9}", "AAAA=AAA", "Zm9v\\u0000",
  ])
  func whatIsNotBase64IsRefused(_ coded: String) throws {
    let json = try object("{\"a\":\"\(coded)\"}")
    #expect(throws: JSONObject.Malformed.self) { try json.base64("a") }
  }

  @Test func everyByteAndLengthGoesThroughBase64() throws {
    for count in 0...67 {
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 61 &+ count) }
      var writer = JSONWriter()
      writer.base64("a", bytes)
      writer.base64("b", try Secret.testing(bytes))
      let document = try writer.finished()
      let coded = Data(bytes).base64EncodedString()
      #expect(document.revealed == Array("{\"a\":\"\(coded)\",\"b\":\"\(coded)\"}".utf8))
      #expect(try JSONObject(document).base64("b")?.revealed == bytes)
    }
  }

  @Test func whatIsWrittenIsReadAgain() throws {
    let strange = String(String.UnicodeScalarView((0...0x2ff).compactMap { Unicode.Scalar($0) })) + "\"\\/😀"
    var writer = JSONWriter()
    writer.text("plain", strange)
    writer.texts("pairs", [(name: strange, value: "v"), (name: "n", value: strange)])
    writer.texts("none", [])
    writer.integer("count", -32)
    let document = try writer.finished()
    let json = try JSONObject(document)
    #expect(try json.text("plain") == strange && json.integer("count") == -32)
    #expect(try json.object("pairs")?.text(strange) == "v" && json.object("pairs")?.text("n") == strange)
    let foundation = try JSONSerialization.jsonObject(with: Data(document.revealed)) as? [String: Any]
    #expect(
      foundation?["plain"] as? String == strange && (foundation?["none"] as? [String: Any])?.isEmpty == true
    )
  }

  // MARK: Damage

  @Test func everyTruncationIsRefused() throws {
    let bytes = Array(Self.whole.utf8)
    for count in bytes.indices {
      #expect(throws: JSONObject.Malformed.self, "\(count) bytes") {
        try JSONObject(try .testing(bytes.prefix(count)))
      }
    }
  }

  /// Every byte with each of its bits changed, and as each character of the grammar: what is still taken, another reader takes as well, with
  /// the same members.
  @Test func everyFlippedByteIsRefusedOrReadAsAnotherReaderReadsIt() throws {
    // Numbers that Foundation can represent, whatever digit is changed.
    let small = Self.whole.replacing("-9223372036854775808", with: "-12").replacing("e+10", with: "e+7")
    let bytes = Array(small.utf8)
    var taken = 0
    for index in bytes.indices {
      let flipped = (0..<8).map { bytes[index] ^ 1 << UInt8($0) }
      for value in flipped + Array("{}[]:,\"\\0-.eu ".utf8) where value != bytes[index] {
        var bad = bytes
        bad[index] = value
        let secret = try Secret.testing(bad)
        guard let json = try? JSONObject(secret) else { continue }  // refused, as most are
        taken += 1
        let other = try JSONSerialization.jsonObject(with: Data(bad)) as? [String: Any]
        for (name, value) in other ?? [:] {
          if let text = value as? String { #expect(try json.text(name) == text, "byte \(index)") }
          _ = try? json.base64(name)  // whatever it is, it ends
          _ = try? json.integer(name)
        }
        #expect(other != nil, "byte \(index)")
      }
    }
    #expect(taken > 500)
  }

  @Test func errorsSayWhereAndNeverWhat() throws {
    let json = try object("{\"Plaintext\":\"hunter2\"}")
    #expect(throws: JSONObject.Malformed.self) { try json.base64("Plaintext") }
    for read in [
      { _ = try json.base64("Plaintext") }, { _ = try json.integer("Plaintext") },
      { _ = try self.object("{\"a\":\"hunter2") },
    ] {
      do {
        try read()
        Issue.record("it was taken")
      } catch {
        #expect(
          !"\(error)".contains("hunter")
            && ("\(error)".contains("Plaintext") || "\(error)".contains("byte 13"))
        )
      }
    }
  }
}
