import Foundation
import ImportFormats
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

/// The files of other keyrings: read as they are, and refused where they are damaged.
@Suite struct KeyFileTests {
  private static func value(_ number: Int) -> [UInt8] {
    (0..<32).map { UInt8(truncatingIfNeeded: $0 * 7 + number * 31) }
  }
  private static let keys = MySQLKeyFiles.keysOfAServer(value)

  private func read(_ bytes: [UInt8]) throws -> KeyFile {
    try KeyFile(content: try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) })
  }

  private func revealed(_ key: FoundKey) -> [UInt8] { unsafe key.value.withUnsafeBytes { unsafe Array($0) } }

  private func expect(
    _ file: KeyFile,
    toHold keys: [MySQLKeyFiles.Key],
    _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(file.keys.count == keys.count, sourceLocation: location)
    for (found, key) in zip(file.keys, keys) {
      #expect(
        found.owner == Array(key.owner.utf8) && found.keyID == Array(key.id.utf8),
        sourceLocation: location
      )
      #expect(found.type == key.type && revealed(found) == key.value, sourceLocation: location)
    }
  }

  // MARK: As they are

  @Test func aComponentsFileIsRead() throws {
    let file = try read(MySQLKeyFiles.component(Self.keys))
    #expect(file.format == .component)
    expect(file, toHold: Self.keys)
  }

  /// What MySQL 9.7.4 wrote: an encrypted table's master key, and keys that `root@localhost` had made and stored by the SQL functions.
  @Test func aFileThatMySQLWroteIsRead() throws {
    let path = URL(filePath: #filePath).deletingLastPathComponent().appending(
      path: "Files/component_keyring_file-9.7.4"
    )
    let file = try KeyFile(path: path.path, owner: [], type: "SECRET")
    #expect(file.format == .component)
    let found = file.keys.map { key in
      "\(String(decoding: key.owner, as: UTF8.self)) \(String(decoding: key.keyID, as: UTF8.self)) \(key.type) \(key.value.count)"
    }
    #expect(
      found == [
        "root@localhost MyAES AES 32", "root@localhost My \"quoted\" é SECRET 9",
        "root@localhost MyRSA RSA 128",
        " INNODBKey-cc91721c-e876-11f1-be6f-02fc00000001-1 AES 32",
      ]
    )
    // As its keyring_key_fetch gave it.
    #expect(
      hexadecimal(revealed(file.keys[0]))
        == "5329cf32cc9b1241e035507e5173bab725291f32d8a7af46aad8f4bdb79d7cac"
    )
    #expect(revealed(file.keys[1]) == Array("s3cr3t-é".utf8))
  }

  /// Spaces, escapes and lower-case digits are JSON as well.
  @Test func aComponentsFileMayBeWrittenInOtherWays() throws {
    let text = #"""
       { "elements" : [ { "extension" : [ ], "data" : "00fF", "user" : "a\u0040b", "data_type" : "SECRET",
         "data_id" : "k\"1" } ], "version" : "1.0" }
      """#
    let key = MySQLKeyFiles.Key("k\"1", owner: "a@b", type: "SECRET", value: [0, 0xff])
    expect(try read(Array(text.utf8)), toHold: [key])
  }

  @Test(arguments: [(8, false), (4, false), (8, true), (4, true)])
  func aPluginsFileOfAnyMachineIsRead(_ wordBytes: Int, _ isBigEndian: Bool) throws {
    let bytes = try MySQLKeyFiles.plugin(Self.keys, wordBytes: wordBytes, isBigEndian: isBigEndian)
    let file = try read(bytes)
    #expect(file.format == .plugin)
    expect(file, toHold: Self.keys)
  }

  /// 16 KiB, which the fixed text is repeated over; and lengths that need no padding, and all that it can have.
  @Test func keysOfEveryLengthAreRead() throws {
    let keys = [1, 2, 3, 7, 8, 23, 24, 25, 48, 4096, 16_384].map { count in
      MySQLKeyFiles.Key(
        "k\(count)",
        type: "SECRET",
        value: (0..<count).map { UInt8(truncatingIfNeeded: $0 * 5) }
      )
    }
    expect(try read(try MySQLKeyFiles.plugin(keys)), toHold: keys)
    expect(try read(MySQLKeyFiles.component(keys)), toHold: keys)
  }

  @Test func twoThousandKeysAreRead() throws {
    let keys = (0..<2000).map { MySQLKeyFiles.Key("key-\($0)", value: Self.value($0)) }
    expect(try read(try MySQLKeyFiles.plugin(keys)), toHold: keys)
    expect(try read(MySQLKeyFiles.component(keys)), toHold: keys)
  }

  @Test func aDirectoryOfRawKeysIsRead() throws {
    let folder = try TestDirectory()
    for (name, text) in [("b", "two"), ("a", "one"), (".hidden", "no key")] { try folder.write(name, text) }
    let file = try KeyFile(path: folder.path, owner: Array("u@h".utf8), type: "AES")
    #expect(file.format == .directory && file.passedOver == 1)
    expect(
      file,
      toHold: [("a", "one"), ("b", "two")].map {
        MySQLKeyFiles.Key($0, owner: "u@h", type: "AES", value: Array($1.utf8))
      }
    )
  }

  // MARK: Damaged

  /// SHA-256 is over the records, and everything around them is fixed.
  @Test func noByteOfAPluginsFileCanChange() throws {
    let bytes = try MySQLKeyFiles.plugin(Self.keys)
    for index in bytes.indices {
      var changed = bytes
      changed[index] ^= 1 << UInt8(index % 8)
      #expect(throws: ImportError.self, "byte \(index)") { try read(changed) }
      #expect(throws: ImportError.self, "cut at \(index)") { try read(Array(bytes[..<index])) }
      #expect(throws: ImportError.self, "without \(index)") {
        try read(Array(bytes[..<index] + bytes[(index + 1)...]))
      }
    }
    #expect(throws: ImportError.self) { try read(bytes + [0]) }
  }

  /// What lies about its lengths, with the right SHA-256: refused by its structure, or other keys, never a crash.
  @Test(arguments: [(8, false), (4, true)])
  func aPluginsFileThatLiesIsNoCrash(_ wordBytes: Int, _ isBigEndian: Bool) throws {
    let whole = try MySQLKeyFiles.plugin(
      Array(Self.keys[..<2]),
      wordBytes: wordBytes,
      isBigEndian: isBigEndian
    )
    let records = Array(whole[24..<(whole.count - 35)])
    var refused = 0
    for index in records.indices {
      for value in [0, 1, 0x7f, 0x80, 0xff, records[index] ^ 0x10] as [UInt8] where value != records[index] {
        var changed = records
        changed[index] = value
        let framed = try MySQLKeyFiles.framed(changed)
        if (try? read(framed)) == nil { refused += 1 }  // refused, or keys of other names and bytes
      }
    }
    #expect(refused > 10 * wordBytes)
  }

  /// It has no checksum. What is not JSON any more, or not of this form, is refused; within a string it is another string.
  @Test func aDamagedComponentsFileIsRefusedOrAnotherString() throws {
    let bytes = MySQLKeyFiles.component(Self.keys)
    let strings = Set(["owner", "id", "type", "data"])
    #expect(strings.count == 4)
    var refused = 0
    for index in bytes.indices {
      var changed = bytes
      changed[index] ^= 1 << UInt8(index % 7)
      do {
        let file = try read(changed)
        #expect(file.keys.count == Self.keys.count)
      } catch is ImportError {
        refused += 1
      }
      #expect(throws: ImportError.self, "cut at \(index)") { try read(Array(bytes[..<index])) }
    }
    // Everything but ids, owners, types and digits that became other digits.
    #expect(refused > bytes.count / 3)
  }

  @Test(arguments: [
    (#"{"version":"1.0"}"#, "no file of component_keyring_file"), ("", "is empty"),
    ("[]", "not JSON at byte 0"),
    (#"{"version":"2.0","elements":[]}"#, "another version"),
    (#"{"version":"1.0","elements":[],"more":1}"#, "no file of component_keyring_file"),
    (#"{"version":"1.0","elements":[1]}"#, "objects"), (#"{"version":"1.0","elements":[{}]}"#, "element 1"),
    ("Keyring file version:1.0EOF", "another version than 2.0"),
    ("Keyring file version:2.0EOF", "ends at byte 27"),
  ])
  func whatIsNoneIsRefusedWithWhere(_ text: String, _ why: String) throws {
    let error = #expect(throws: ImportError.self) { try read(Array(text.utf8)) }
    #expect(error?.description.contains(why) == true, "\(String(describing: error))")
  }

  private func element(_ change: (inout [String: String]) -> Void) throws -> String {
    var members = [
      "user": #""""#, "data_id": #""k""#, "data_type": #""AES""#, "data": #""00""#, "extension": "[]",
    ]
    change(&members)
    let object = members.map { "\"\($0)\":\($1)" }.joined(separator: ",")
    return "{\"version\":\"1.0\",\"elements\":[{\(object)}]}"
  }

  /// Each rule of the form, one at a time; and no error has key material.
  @Test func everyRuleOfAComponentsFileHolds() throws {
    let aws = "\"0102020078" + String(repeating: "ab", count: 150) + "\""
    for (name, value, why) in [
      ("data_id", #""""#, "no key id"), ("data_type", #""""#, "no key type"),
      ("data_type", #""a\u0000""#, "no key type"),
      ("data", #""""#, "no key material"), ("data", #""0""#, "hexadecimal"),
      ("data", #""c0ffeeXX""#, "hexadecimal"),
      ("data", "1", "not a string"), ("user", "null", "does not have"),
      ("extension", "[{}]", "another component"),
      ("data", aws, "component_keyring_aws"),
    ] {
      let text = try element { $0[name] = value }
      let error = #expect(throws: ImportError.self, "\(name) \(value)") { try read(Array(text.utf8)) }
      #expect(error?.description.contains(why) == true, "\(String(describing: error))")
      #expect(error?.description.contains("c0ffee") == false)
    }
    for name in ["user", "data_id", "data_type", "data", "extension"] {
      let text = try element { $0[name] = nil }
      #expect(throws: ImportError.self) { try read(Array(text.utf8)) }
    }
    _ = try read(Array(try element { _ in }.utf8))
  }

  @Test func aKeyThatIsThereTwiceIsRefused() throws {
    let twice = [
      MySQLKeyFiles.Key("k", value: [1]), MySQLKeyFiles.Key("j", value: [1]),
      MySQLKeyFiles.Key("k", value: [2]),
    ]
    for bytes in [MySQLKeyFiles.component(twice), try MySQLKeyFiles.plugin(twice)] {
      let error = #expect(throws: ImportError.self) { try read(bytes) }
      #expect(error?.description.contains("of the same id and owner") == true)
    }
    // "ab" of "c" and "a" of "bc" are two keys, whatever MySQL's plugin makes of them.
    let apart = [
      MySQLKeyFiles.Key("ab", owner: "c", value: [1]), MySQLKeyFiles.Key("a", owner: "bc", value: [2]),
    ]
    expect(try read(MySQLKeyFiles.component(apart)), toHold: apart)
  }

  @Test func whatIsNoFileOfKeysIsRefusedByPath() throws {
    let folder = try TestDirectory()
    try folder.write("keyring", String(decoding: MySQLKeyFiles.component(Self.keys), as: UTF8.self))
    func error(_ name: String) -> String {
      do {
        return "read \(try KeyFile(path: folder(name), owner: [], type: "AES").keys.count)"
      } catch {
        return error.description
      }
    }
    #expect(error("keyring") == "read 6")
    #expect(error("absent").contains("is not there"))
    try folder.write("keyring.backup", "")
    #expect(error("keyring").contains("keyring.backup is there"))
    try FileManager.default.createSymbolicLink(atPath: folder("link"), withDestinationPath: folder("keyring"))
    #expect(error("link") != "read 6")
    let inner = folder("inner")
    try FileManager.default.createDirectory(atPath: inner, withIntermediateDirectories: false)
    #expect(error("inner") == "read 0")
    try FileManager.default.createSymbolicLink(
      atPath: inner + "/link",
      withDestinationPath: folder("keyring")
    )
    #expect(!error("inner").hasPrefix("read"))
    try FileManager.default.removeItem(atPath: inner + "/link")
    try folder.write("inner/empty", "")
    #expect(error("inner").contains("has no key material"))
    try folder.write("inner/empty", String(repeating: "x", count: 16_385))
    #expect(error("inner").contains("larger than 16384"))
  }
}
