import AuditLog
import Cryptography
import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import Testing

/// What is written, and that it goes on after whatever ends the writer.
@Suite struct ChainTests {
  @Test func aLogIsWholeAndSigned() async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<20)
    let report = try fixture.verify()
    #expect(report.faults == [] && report.notices == [])
    #expect(report.entries == 20 && report.log == "acme" && report.linesUnsigned == 0)
    #expect(report.headSerial == report.lastSerial && report.lastSerial == report.lines)
    #expect(try fixture.numbers() == Array(0..<20))
    let first = lines(try fixture.bytes(1))[0]
    #expect(
      String(decoding: first, as: UTF8.self).hasPrefix("{\"type\":\"begin\",\"log\":\"acme\",\"serial\":1,")
    )
    let attributes = try FileManager.default.attributesOfItem(atPath: fixture.folder("audit/checkpoint.key"))
    #expect(attributes[.posixPermissions] as? Int == 0o600)
  }

  @Test func eachLineIsJSONAndNamesTheHashOfTheOneBefore() async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<10)
    var previous = String(repeating: "0", count: 64)
    for (index, line) in lines(try fixture.bytes(1)).enumerated() {
      let object = try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])
      #expect(object["prev"] as? String == previous && object["serial"] as? Int == index + 1)
      previous = hexadecimal(try SHA256.hash(line).bytes)
    }
  }

  @Test func theChainGoesOnAcrossRotationAndRestarts() async throws {
    let fixture = try LogFixture()
    var limits = LogFixture.quick
    limits.fileBytesMax = 4096
    for start in stride(from: 0, to: 60, by: 15) {
      try await fixture.write(start..<start + 15, limits: limits)
    }
    #expect(try fixture.files().count > 4)
    let report = try fixture.verify()
    #expect(report.faults == [] && report.entries == 60)
    #expect(try fixture.numbers() == Array(0..<60))
    // In any order.
    let files = try fixture.files().map(\.bytes)
    #expect(try LogFixture.verify(files.reversed(), key: fixture.key, head: fixture.head).isWhole)
  }

  @Test func checkpointsComeWithinAndAfterAWhile() async throws {
    let fixture = try LogFixture()
    var limits = LogFixture.quick
    limits.checkpointLines = 8
    let directory = try fixture.open(limits: limits)
    let log = try directory.log("acme")
    for number in 0..<100 { log.note(LogFixture.record(number)) }
    // The last of them is signed though nothing follows.
    while try fixture.head.map({ $0.serial < 100 }) ?? true { try await Task.sleep(for: .milliseconds(5)) }
    let report = try fixture.verify()
    #expect(
      report.faults == [] && report.entries == 100 && report.checkpoints > 12 && report.linesUnsigned == 0
    )
    await directory.close()
    #expect(try fixture.verify().isWhole)
  }

  /// Cut at every byte of the last two entries: no whole entry is lost, what is torn is told, and the chain goes on.
  @Test func aTornEndIsCutOffAndSaidSo() async throws {
    let fixture = try LogFixture()
    var limits = LogFixture.quick
    limits.checkpointMilliseconds = 60_000
    let directory = try fixture.open(limits: limits)
    let log = try directory.log("acme")
    for number in 0..<4 {
      // Short, since each byte is a case; with an object within, whose end is not the line's.
      var record = AuditRecord(milliseconds: 0, caller: nil, call: "e")
      record.keys = [AuditKey(scope: "shared", owner: [], keyID: [0x6b], version: 0)]
      record.details = [("number", .number(UInt64(number)))]
      _ = try await log.write(record).get()
    }
    let crashed = try fixture.bytes(1)
    let all = lines(crashed)
    let end = crashed.count
    let start = end - all.suffix(2).reduce(0) { $0 + $1.count + 1 }
    await directory.close()
    for cut in start...end {
      let copy = try LogFixture()
      try FileManager.default.copyItem(atPath: fixture.folder("audit"), toPath: copy.folder("audit"))
      try copy.put(Array(crashed[..<cut]), 1)
      try await copy.write(100..<101)
      let secondIsWhole = cut >= end - 1 - all[all.count - 1].count - 1
      let whole = cut >= end - 1 ? 4 : secondIsWhole ? 3 : 2
      #expect(try copy.numbers() == Array(0..<whole) + [100], "cut at \(cut - start)")
      let report = try copy.verify()
      #expect(report.faults == [], "cut at \(cut - start)")
      let isAtLine =
        cut == start || cut == end || cut == end - 1
        || cut == end - all[all.count - 1].count - 1 || cut == end - all[all.count - 1].count - 2
      #expect(report.notices.isEmpty == isAtLine, "cut at \(cut - start): \(report.notices)")
    }
  }

  /// What a crash leaves of a new file: nothing, or a part of its first line.
  @Test(arguments: [0, 1, 50, 120]) func aFileThatWasOnlyBegunIsCompleted(_ count: Int) async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<5)
    let begun = Array(try fixture.bytes(1).prefix(count))
    try fixture.folder.write("audit/acme.2.jsonl", "")
    try fixture.put(begun, 2)
    try await fixture.write(5..<8)
    #expect(try fixture.numbers() == Array(0..<8))
    let report = try fixture.verify()
    #expect(report.faults == [] && report.notices.isEmpty == (count == 0))
  }

  /// A log that is shorter than its head says was not torn: it stays as it is, the server says so, and the verifier misses the lines.
  @Test func aLogBehindItsHeadIsNotBuiltOn() async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<10)
    let short = joined(Array(lines(try fixture.bytes(1)).dropLast(4)))
    try fixture.put(short, 1)
    try await fixture.write(10..<12)
    #expect(try fixture.bytes(1) == short)
    let report = try fixture.verify()
    #expect(report.faults.contains { $0.contains("lines are missing before it") })
    #expect(report.notices.contains { $0.contains("shorter than it had been") })
  }

  @Test func aLogThatIsGoneAndALineThatWasChangedAreSaidAtTheNextStart() async throws {
    let gone = try LogFixture()
    try await gone.write(0..<5)
    try FileManager.default.removeItem(atPath: gone.path(1))
    try await gone.write(5..<6)
    let found = try AuditVerifier.verify(
      [.init(name: "2", source: Memory(gone.bytes(2)))],
      key: gone.key,
      head: gone.head
    )
    #expect(found.faults.contains { $0.contains("file 1 of the log is missing") })
    #expect(found.notices.contains { $0.contains("found the log gone") })
    let changed = try LogFixture()
    try await changed.write(0..<5)
    var bytes = try changed.bytes(1)
    bytes[bytes.count / 2] ^= 1
    try changed.put(bytes, 1)
    try await changed.write(5..<6)
    #expect(try changed.bytes(1) == bytes)
    #expect(try !changed.verify().isWhole)
    #expect(try changed.numbers().last == 5)
  }

  @Test func namesOfAnyBytesAreLossless() async throws {
    let fixture = try LogFixture()
    let directory = try fixture.open()
    let log = try directory.log("acme")
    let names: [[UInt8]] = [
      Array("plain".utf8), Array("a\\b".utf8), Array("a\"b".utf8), Array("\\xff".utf8), [0xff], [0xc3],
      [0xe2, 0x82],
      Array("ключ".utf8), Array("🔑".utf8), [0, 10, 13, 0x7f], [0x61, 0x80, 0x62], [0xf0, 0x9f, 0x94],
    ]
    for name in names {
      var record = AuditRecord(milliseconds: 0, caller: LogFixture.caller, call: "fetch")
      record.keys = [AuditKey(scope: "shared", owner: [], keyID: name[...], version: 0)]
      _ = try await log.write(record).get()
    }
    await directory.close()
    let shown = try lines(try fixture.bytes(1)).compactMap { line -> String? in
      #expect(line.allSatisfy { (0x20...0x7e).contains($0) })
      let object = try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any]
      return (object?["key"] as? [String: Any])?["key_id"] as? String
    }
    #expect(shown.count == names.count && Set(shown).count == names.count)
    #expect(shown.map(unescaped) == names)
  }

  /// As docs/AUDIT.md says.
  private func unescaped(_ text: String) -> [UInt8] {
    let bytes = Array(text.utf8)
    var (name, index): ([UInt8], Int) = ([], 0)
    while index < bytes.count {
      if bytes[index] != UInt8(ascii: "\\") {
        name.append(bytes[index])
        index += 1
      } else if bytes[index + 1] == UInt8(ascii: "\\") {
        name.append(UInt8(ascii: "\\"))
        index += 2
      } else {
        name.append(UInt8(String(decoding: bytes[index + 2...index + 3], as: UTF8.self), radix: 16) ?? 0)
        index += 4
      }
    }
    return name
  }

  @Test func aKeyThatIsGoneIsNotReplacedBesideLogs() async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<1)
    try FileManager.default.removeItem(atPath: fixture.folder("audit/checkpoint.key"))
    #expect(throws: AuditError.self) { try fixture.open() }
    let other = try LogFixture()
    let directory = try other.open()
    #expect(throws: AuditError.self) { try other.open() }  // locked
    await directory.close()
  }
}
