import AuditLog
import Cryptography
import KeyringCore
import KeyringTestSupport
import Testing

/// Whatever is done to a log, the verifier finds it.
@Suite struct TamperingTests {
  /// A log of several files.
  private static func log() async throws -> LogFixture {
    let fixture = try LogFixture()
    var limits = LogFixture.quick
    limits.fileBytesMax = 4096
    limits.checkpointLines = 6
    try await fixture.write(0..<40, limits: limits)
    #expect(try fixture.verify().isWhole)
    return fixture
  }

  private static func check(_ fixture: LogFixture, _ files: [[UInt8]]) throws -> [String] {
    try LogFixture.verify(files, key: fixture.key, head: fixture.head).faults
  }

  @Test func oneWayAfterTheOther() async throws {
    let fixture = try await Self.log()
    let files = try fixture.files().map(\.bytes)
    #expect(files.count >= 4)
    func tampered(_ file: Int, _ change: (inout [[UInt8]]) -> Void) throws -> [String] {
      var copy = files
      var changed = lines(copy[file])
      change(&changed)
      copy[file] = joined(changed)
      return try Self.check(fixture, copy)
    }
    let last = files.count - 1
    #expect(try !tampered(1) { $0[3][60] ^= 1 }.isEmpty)
    #expect(try !tampered(1) { $0.remove(at: 3) }.isEmpty)
    #expect(try !tampered(1) { $0.swapAt(3, 4) }.isEmpty)
    #expect(try !tampered(1) { $0.insert($0[3], at: 4) }.isEmpty)
    #expect(try !tampered(last) { $0.removeLast() }.isEmpty)
    #expect(try !tampered(last) { $0.removeLast(2) }.isEmpty)
    for file in 0...last {
      var copy = files
      copy.remove(at: file)
      #expect(try !Self.check(fixture, copy).isEmpty, "without file \(file + 1)")
      copy = files
      copy.append(files[file])
      #expect(try !Self.check(fixture, copy).isEmpty, "file \(file + 1) twice")
      copy = files
      copy[file].removeLast(3)
      #expect(try !Self.check(fixture, copy).isEmpty, "file \(file + 1) cut")
    }
    // A rotated file of another server's log of the same name.
    let other = try await Self.log()
    var mixed = files
    mixed[1] = try other.bytes(2)
    #expect(try !Self.check(fixture, mixed).isEmpty)
    let otherKey = try other.key
    #expect(try !LogFixture.verify(files, key: otherKey, head: nil).isWhole)
  }

  /// Without the key: entries changed and every hash computed anew.
  @Test func aForgeryWithRightHashesIsFound() async throws {
    let fixture = try await Self.log()
    let files = try fixture.files().map(\.bytes)
    for isWithoutCheckpoints in [false, true] {
      var serial = 0
      var previous = String(repeating: "0", count: 64)
      let forged = try files.map { file in
        try joined(
          lines(file).compactMap { line in
            var text = String(decoding: line, as: UTF8.self)
            if isWithoutCheckpoints, text.hasPrefix("{\"type\":\"checkpoint\"") { return nil }
            serial += 1
            text.replace(/"serial":[0-9]+/, with: "\"serial\":\(serial)", maxReplacements: 1)
            text.replace(/"prev":"[0-9a-f]+"/, with: "\"prev\":\"\(previous)\"", maxReplacements: 1)
            text.replace(/"former_serial":[0-9]+/, with: "\"former_serial\":\(serial - 1)")
            text.replace("\"number\":7,", with: "\"number\":8,")
            previous = hexadecimal(try SHA256.hash(Array(text.utf8)).bytes)
            return Array(text.utf8)
          }
        )
      }
      // The head would say so too: the signatures have to find it.
      let report = try LogFixture.verify(forged, key: fixture.key, head: nil)
      let isFound = report.faults.contains { $0.contains(isWithoutCheckpoints ? "checkpoint" : "signature") }
      #expect(isFound, "\(report.faults.prefix(3))")
    }
  }

  /// The end cut off at a checkpoint shows by the head alone, and the head of another time or key does not serve.
  /// Numbers that nobody can count on from: found as anything else, by the server too.
  @Test(arguments: [
    ("\"serial\":1,", "\"serial\":\(UInt64.max),"), ("\"file\":1,", "\"file\":\(UInt64.max),"),
  ])
  func theHighestNumbersEndNobody(_ change: (from: String, to: String)) async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<1)
    var forged = lines(try fixture.bytes(1))
    forged[0] = Array(String(decoding: forged[0], as: UTF8.self).replacing(change.from, with: change.to).utf8)
    try fixture.put(joined([forged[0]]), 1)
    #expect(try !fixture.verify().isWhole)
    try await fixture.write(1..<2)
    #expect(try fixture.numbers() == [1])
    #expect(try !fixture.verify().isWhole)
  }

  @Test func theHeadFindsAnEndThatIsMissing() async throws {
    let fixture = try LogFixture()
    try await fixture.write(0..<5)
    let (oldFile, oldHead) = (try fixture.bytes(1), try #require(try fixture.head))
    try await fixture.write(5..<10)
    let key = try fixture.key
    #expect(try LogFixture.verify([oldFile], key: key, head: nil).isWhole)
    #expect(try LogFixture.verify([oldFile], key: key, head: oldHead).isWhole)
    let report = try LogFixture.verify([oldFile], key: key, head: fixture.head)
    #expect(report.faults.contains { $0.contains("the end is missing") })
    #expect(try fixture.verify().isWhole)
    #expect(try LogFixture.verify([fixture.bytes(1)], key: key, head: oldHead).isWhole)
    let other = try LogFixture()
    try await other.write(0..<5)
    #expect(try !LogFixture.verify([oldFile], key: key, head: other.head).isWhole)
  }

  /// Random changes of one to three kinds, hundreds of times.
  /// A log that is closed when its next line would begin a file: the head knows that file, and the entries before it.
  @Test func theHeadKnowsAFileThatWasBegunAtTheEnd() async throws {
    let fixture = try LogFixture()
    var limits = LogFixture.quick
    (limits.fileBytesMax, limits.checkpointMilliseconds) = (4096, 60_000)
    let directory = try fixture.open(limits: limits)
    let log = try directory.log("acme")
    var number = 0
    repeat {
      _ = try await log.write(LogFixture.record(number)).get()
      number += 1
    } while try fixture.bytes(1).count < 4096
    await directory.close()
    #expect(try fixture.verify().isWhole && fixture.head?.serial == fixture.verify().lastSerial)
    let first = try fixture.bytes(1)
    #expect(try !Self.check(fixture, [first]).isEmpty)
    #expect(try !Self.check(fixture, [joined(lines(first).dropLast(2))]).isEmpty)
  }

  @Test func randomTamperingIsAlwaysFound() async throws {
    let fixture = try await Self.log()
    let files = try fixture.files().map(\.bytes)
    let (key, head) = (try fixture.key, try fixture.head)
    var tried = 0
    for seed in 0..<400 {
      var generator = Seeded(seed: UInt64(seed))
      var copy = files
      for _ in 0..<Int.random(in: 1...3, using: &generator) { Self.tamper(&copy, &generator) }
      guard copy != files else { continue }
      // In another order it is the same log.
      guard
        copy.sorted(by: { $0.lexicographicallyPrecedes($1) })
          != files.sorted(by: { $0.lexicographicallyPrecedes($1) })
      else { continue }
      tried += 1
      #expect(try !LogFixture.verify(copy, key: key, head: head).isWhole, "seed \(seed)")
    }
    #expect(tried > 330)
  }

  private static func tamper(_ files: inout [[UInt8]], _ generator: inout Seeded) {
    guard !files.isEmpty else { return }
    let file = Int.random(in: files.indices, using: &generator)
    guard !files[file].isEmpty else { return }
    let place = Int.random(in: files[file].indices, using: &generator)
    var changed = lines(files[file])
    guard !changed.isEmpty else { return }
    let line = Int.random(in: changed.indices, using: &generator)
    switch Int.random(in: 0..<9, using: &generator) {
    case 0: files[file][place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
    case 1: files[file].remove(at: place)
    case 2: files[file].insert(UInt8.random(in: 0...255, using: &generator), at: place)
    case 3: files[file].removeSubrange(place...)
    case 4:
      changed.remove(at: line)
      files[file] = joined(changed)
    case 5:
      changed.swapAt(line, Int.random(in: changed.indices, using: &generator))
      files[file] = joined(changed)
    case 6:
      changed.insert(changed[line], at: Int.random(in: changed.indices, using: &generator))
      files[file] = joined(changed)
    case 7: files.remove(at: file)
    default: files[file] += files[Int.random(in: files.indices, using: &generator)]  // the rest
    }
  }
}

/// SplitMix64, so that a seed is a case.
struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word >> 31)
  }
}
