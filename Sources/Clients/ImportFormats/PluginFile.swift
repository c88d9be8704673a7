internal import Cryptography
internal import SecureMemory

/// A file of MySQL's plugin `keyring_file`, version 2.0: "Keyring file version:2.0", records, "EOF", and the SHA-256 of the records.
///
/// A record is five numbers (its length, and those of key id, type, user and key), the four, and padding to a multiple of a number's length.
/// Numbers are as wide, and in the order, as on the machine that wrote: 4 or 8 bytes, the least significant first or last. Key material is
/// XORed with a fixed text.
///
/// Source: MySQL 8.0, plugin/keyring.
enum PluginFile {
  private static let family = Array("Keyring file version:".utf8)
  private static let version = Array("Keyring file version:2.0".utf8)
  private static let end = Array("EOF".utf8)
  private static let digestBytes = 32
  private static let obfuscation = Array("*305=Ljt0*!@$Hnm(*-9-w;:".utf8)

  /// How the machine that wrote writes numbers.
  private struct Layout {
    let wordBytes: Int
    let isBigEndian: Bool

    static let all = [
      Layout(wordBytes: 8, isBigEndian: false), Layout(wordBytes: 4, isBigEndian: false),
      Layout(wordBytes: 8, isBigEndian: true), Layout(wordBytes: 4, isBigEndian: true),
    ]
  }

  /// True for a file of this plugin, of whatever version.
  static func isOne(_ content: Secret) -> Bool {
    // SAFETY: the bytes are read during the call only.
    unsafe content.withUnsafeBytes { unsafe $0.starts(with: family) }
  }

  /// The keys of a file whose digest is right.
  ///
  /// - Throws: `ImportError`, which says at which byte it is wrong.
  static func keys(_ content: Secret) throws(ImportError) -> [FoundKey] {
    // SAFETY: the bytes are read during the call only; keys are copied into locked memory.
    try unsafe content.withUnsafeBytes { bytes throws(ImportError) in
      let area = try unsafe checkedArea(bytes)
      var failures: [(at: Int, what: String)] = []
      for layout in Layout.all {
        do throws(RecordFailure) {
          return try unsafe records(bytes, area, layout)
        } catch {
          switch error {
          case .key(let error): throw error
          case .structure(let at, let what): failures.append((at, what))
          }
        }
      }
      // That of the layout that made most sense.
      let furthest = failures.max { $0.at < $1.at }
      throw .damaged("the file is not whole at byte \(furthest?.at ?? 0): \(furthest?.what ?? "no record")")
    }
  }

  /// Where the records are, once version, end and digest are as they must be.
  private static func checkedArea(_ bytes: UnsafeRawBufferPointer) throws(ImportError) -> Range<Int> {
    guard unsafe bytes.starts(with: version) else {
      throw .unsupported(
        "a file of keyring_file of another version than 2.0: MySQL 8.0 writes it as 2.0 with its next change of a key"
      )
    }
    let recordsEnd = bytes.count - end.count - digestBytes
    guard recordsEnd >= version.count else {
      throw .damaged("the file ends at byte \(bytes.count), before its end mark and SHA-256")
    }
    let records = version.count..<recordsEnd
    let tail = unsafe UnsafeRawBufferPointer(rebasing: bytes[records.upperBound...])
    guard unsafe tail.starts(with: end) else {
      throw .damaged(
        "the file has no end mark at byte \(records.upperBound): it is cut off, or something was added"
      )
    }
    let digest: SHA256Digest
    do {
      let hash = try SHA256()
      try unsafe hash.update(UnsafeRawBufferPointer(rebasing: bytes[records]))
      digest = try hash.finish()
    } catch {
      throw .unreadable("\(error)")
    }
    guard unsafe tail.dropFirst(end.count).elementsEqual(digest.bytes) else {
      throw .damaged(
        "bytes \(records.lowerBound) to \(records.upperBound) of the file are not those that its SHA-256 at byte \(records.upperBound + end.count) is of"
      )
    }
    return records
  }

  private enum RecordFailure: Error {
    case structure(at: Int, String)
    case key(ImportError)
  }

  private static func records(
    _ bytes: UnsafeRawBufferPointer,
    _ area: Range<Int>,
    _ layout: Layout
  ) throws(RecordFailure) -> [FoundKey] {
    var keys: [FoundKey] = []
    var at = area.lowerBound
    while at < area.upperBound {
      let (key, next) = try unsafe record(bytes, at..<area.upperBound, layout)
      keys.append(key)
      at = next
    }
    return keys
  }

  private static func record(
    _ bytes: UnsafeRawBufferPointer,
    _ rest: Range<Int>,
    _ layout: Layout
  ) throws(RecordFailure) -> (FoundKey, next: Int) {
    let start = rest.lowerBound
    guard rest.count >= 5 * layout.wordBytes else {
      throw .structure(at: start, "a record's numbers are cut off")
    }
    var numbers: [Int] = []
    for index in 0..<5 {
      // No number of a record is larger than the file: nothing below overflows.
      guard let number = unsafe number(bytes, start + index * layout.wordBytes, layout), number <= rest.count
      else {
        throw .structure(at: start + index * layout.wordBytes, "a length beyond the end of the file")
      }
      numbers.append(number)
    }
    let needed = 5 * layout.wordBytes + numbers[1...].reduce(0, +)
    let padded = (needed + layout.wordBytes - 1) / layout.wordBytes * layout.wordBytes
    guard numbers[0] == padded, padded <= rest.count else {
      throw .structure(at: start, "a record whose length is not that of its parts")
    }
    var offset = start + 5 * layout.wordBytes
    func part(_ count: Int) -> UnsafeRawBufferPointer {
      defer { offset += count }
      // SAFETY: all parts together end within the record, which ends within `rest`.
      return unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }
    let (id, type) = unsafe (Array(part(numbers[1])), Array(part(numbers[2])))
    let owner = unsafe Array(part(numbers[3]))
    let obfuscated = unsafe part(numbers[4])
    do throws(ImportError) {
      let key = try FoundKeys.make(
        owner: owner,
        keyID: id,
        type: type,
        value: try unsafe clear(obfuscated),
        place: "the record at byte \(start)"
      )
      return (key, start + padded)
    } catch {
      throw .key(error)
    }
  }

  private static func number(_ bytes: UnsafeRawBufferPointer, _ at: Int, _ layout: Layout) -> Int? {
    let word = (0..<layout.wordBytes).reduce(UInt64(0)) { sum, index in
      // SAFETY: the caller saw that the number lies within the file.
      let place = layout.isBigEndian ? index : layout.wordBytes - 1 - index
      return sum << 8 | UInt64(unsafe bytes[at + place])
    }
    return Int(exactly: word)
  }

  /// The key without what it is XORed with.
  private static func clear(_ obfuscated: UnsafeRawBufferPointer) throws(ImportError) -> Secret {
    do {
      return try unsafe Secret(count: obfuscated.count) { room in
        for index in room.indices {
          // SAFETY: both have the same length.
          unsafe room[index] = obfuscated[index] ^ obfuscation[index % obfuscation.count]
        }
      }
    } catch {
      throw .unreadable("\(error)")
    }
  }
}
