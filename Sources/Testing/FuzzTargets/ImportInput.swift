internal import Cryptography
internal import ImportFormats
internal import SecureMemory

/// Key files of other keyrings. A component's file is taken as it is; of a plugin's, the records, between what a file begins and ends with, and
/// their right SHA-256.
enum ImportInput {
  static let componentSeeds: [[UInt8]] = [
    #"{"version":"1.0","elements":[]}"#,
    #"{"version":"1.0","elements":[{"user":"","data_id":"k","data_type":"AES","data":"00FF","extension":[]}]}"#,
    #" { "elements" : [ {"user":"a\u0040b","data_id":"1","data_type":"SECRET","data":"aB","extension":[]}, {"user":"","data_id":"1","data_type":"AES","data":"01","extension":[] } ] , "version" : "1.0" }"#,
  ].map { Array($0.utf8) }

  static let pluginSeeds: [[UInt8]] = [
    [], record("k", "AES", "", 16, words: 8),
    record("k", "AES", "u@h", 5, words: 8) + record("k2", "SECRET", "", 40, words: 8),
    record("key", "AES", "", 32, words: 4),
  ]

  private static func record(_ id: String, _ type: String, _ owner: String, _ count: Int, words: Int)
    -> [UInt8]
  {
    let parts = [Array(id.utf8), Array(type.utf8), Array(owner.utf8), [UInt8](repeating: 7, count: count)]
    let bytes = 5 * words + parts.reduce(0) { $0 + $1.count }
    let padding = (words - bytes % words) % words
    let numbers = [bytes + padding] + parts.map(\.count)
    return numbers.flatMap { [UInt8($0)] + [UInt8](repeating: 0, count: words - 1) } + parts.joined()
      + [UInt8](repeating: 0, count: padding)
  }

  static func component(_ bytes: [UInt8]) -> Bool { run(bytes) }

  static func plugin(_ records: [UInt8]) -> Bool {
    do {
      let digest = try SHA256.hash(records).bytes
      return run(Array("Keyring file version:2.0".utf8) + records + Array("EOF".utf8) + digest)
    } catch {
      preconditionFailure("\(error)")
    }
  }

  private struct Name: Hashable {
    let owner: [UInt8]
    let keyID: [UInt8]
  }

  /// What is accepted are keys, each once, and no more of them than the file has bytes for; what is refused is refused in one line.
  private static func run(_ bytes: [UInt8]) -> Bool {
    let file: KeyFile
    do {
      file = try KeyFile(content: try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) })
    } catch {
      let why = "\(error)"
      precondition(
        !why.contains(where: \.isNewline) && (1...1000).contains(why.count),
        "an error of several lines: \(why)"
      )
      return false
    }
    var names: Set<Name> = []
    var size = 0
    for key in file.keys {
      precondition(!key.keyID.isEmpty && !key.type.isEmpty && key.value.count > 0, "a key without a part")
      precondition(names.insert(Name(owner: key.owner, keyID: key.keyID)).inserted, "a key is there twice")
      size += key.owner.count + key.keyID.count + key.type.utf8.count + key.value.count
    }
    precondition(size <= bytes.count, "keys that are longer than their file")
    return true
  }
}
