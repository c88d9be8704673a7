import Foundation
import KeyringCore
import KeyringTestSupport
import Testing

@testable import KeyringStorage

/// Everything that can be done to a storage file and its anchor while no server runs: what is not the acknowledged keyring is refused, and not
/// touched; an empty keyring is never offered.
@Suite struct CorruptionCampaign {
  /// How the file came to be.
  enum Shape: CaseIterable { case appended, replaced }

  private struct Subject {
    let fixture: StoreFixture
    let acknowledged: StorePosition
    let good: [UInt8]
    let anchor: [UInt8]

    init(_ shape: Shape, _ tenant: String = "acme") throws {
      fixture = try StoreFixture(tenant)
      var (store, position) = try fixture.filled(4)
      if shape == .replaced {
        let image = try fixture.image(try store.read().state)
        position = try store.replace(with: image, expecting: position, authenticator: fixture.authenticator)
      }
      for operations in [
        [try fixture.put("last"), try fixture.put("k1", version: 2)], [try fixture.put("end")],
      ] {
        let commit = fixture.commit(position.sequence + 1, operations)
        position = try store.append([commit], expecting: position, authenticator: fixture.authenticator)
      }
      try store.close()
      acknowledged = position
      good = try fixture.bytes()
      anchor = Array(try Data(contentsOf: URL(filePath: fixture.anchor)))
    }

    /// What opening answers.
    enum Answer: Equatable {
      /// The keyring, as it was acknowledged; where HMACs are checked.
      case whole
      /// It is refused for good: the tenant is quarantined.
      case refused
      /// Another keyring, or none, is offered; or the disk is blamed.
      case wrong(String)
    }

    func open() throws -> Answer {
      let store = try fixture.store()
      do {
        guard let loaded = try store.load() else { return .wrong("an empty keyring is offered") }
        try store.close()
        // HMACs are checked with the wrapping key, before anything is read under it.
        for pending in loaded.pendingAuthentications {
          guard try fixture.authenticator.authenticate(pending.message) == pending.mac else {
            return .refused
          }
        }
        return loaded.position == acknowledged ? .whole : .wrong("it is at \(loaded.position)")
      } catch StoreError.changed, StoreError.damaged {
        return .refused
      } catch {
        return .wrong("\(error)")
      }
    }

    /// Expects `bytes` in the file's place to be refused and left as they are.
    func expectRefused(_ bytes: [UInt8], _ what: @autoclosure () -> String) throws {
      try fixture.overwrite(bytes)
      let answer = try open()
      #expect(answer == .refused, "\(what())")
      #expect(try fixture.bytes() == bytes, "\(what()) was touched")
    }

    func writeAnchor(_ bytes: [UInt8]?) throws {
      if FileManager.default.fileExists(atPath: fixture.anchor) {
        try FileManager.default.removeItem(atPath: fixture.anchor)
      }
      guard let bytes else { return }
      try Data(bytes).write(to: URL(filePath: fixture.anchor))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: fixture.anchor)
    }

    func restore() throws {
      try fixture.overwrite(good)
      try writeAnchor(anchor)
      #expect(try open() == .whole)
    }
  }

  // MARK: Bytes

  @Test(arguments: Shape.allCases) func everyFlippedBitIsRefused(_ shape: Shape) async throws {
    let subject = try Subject(shape)
    var generator = Campaign.generator("corruption, bits")
    var flips = 0
    for index in subject.good.indices {
      await Task.yield()  // servers of other tests in this process have the same few threads
      let bits = Campaign.isLong ? Array(0..<8) : [Int.random(in: 0..<8, using: &generator)]
      for bit in bits {
        var bad = subject.good
        bad[index] ^= 1 << UInt8(bit)
        try subject.expectRefused(bad, "bit \(bit) of byte \(index)")
        flips += 1
      }
    }
    try subject.restore()
    Campaign.report("corruption, bits flipped, \(shape)", ["refused": flips])
  }

  @Test(arguments: Shape.allCases) func everyTruncationIsRefused(_ shape: Shape) async throws {
    let subject = try Subject(shape)
    for count in 0..<subject.good.count {
      await Task.yield()
      try subject.expectRefused(Array(subject.good[..<count]), "\(count) bytes")
    }
    try subject.restore()
    Campaign.report("corruption, truncations, \(shape)", ["refused": subject.good.count])
  }

  /// A run of bytes of another place, of zeros, or gone.
  @Test(arguments: Shape.allCases) func randomDamageIsRefused(_ shape: Shape) async throws {
    let subject = try Subject(shape)
    var generator = Campaign.generator("corruption, random")
    let rounds = Campaign.rounds(short: 200, long: 20_000)
    for round in 1...rounds {
      await Task.yield()
      var bad = subject.good
      let length = Int.random(in: 1...600, using: &generator)
      let start = Int.random(in: 0...(bad.count - length), using: &generator)
      let from = Int.random(in: 0...(bad.count - length), using: &generator)
      switch Int.random(in: 0..<4, using: &generator) {
      case 0: bad.replaceSubrange(start..<start + length, with: repeatElement(0, count: length))
      case 1: bad.replaceSubrange(start..<start + length, with: subject.good[from..<from + length])
      case 2: bad.removeSubrange(start..<start + length)
      default: bad.insert(contentsOf: subject.good[from..<from + length], at: start)
      }
      guard bad != subject.good else { continue }
      // What is whole but for something behind its end: a tail that was never acknowledged, and no other.
      guard !bad.starts(with: subject.good) else { continue }
      try subject.expectRefused(bad, "round \(round), seed \(Campaign.seed)")
    }
    try subject.restore()
    Campaign.report("corruption, random damage, \(shape)", ["rounds": rounds])
  }

  // MARK: Batches

  /// The file's batches: their commits, and their bytes.
  private func batches(_ bytes: [UInt8]) -> [(messages: [[UInt8]], range: Range<Int>)] {
    var found: [(messages: [[UInt8]], range: Range<Int>)] = []
    var at = StorageFormat.headerBytes
    while at < bytes.count {
      let body = Int(number(bytes[at + 8..<at + 16]))
      let start = at + StorageFormat.batchHeaderBytes
      var messages: [[UInt8]] = []
      var offset = start
      while offset < start + body {
        let length = Int(number(bytes[offset..<offset + 4]))
        messages.append(Array(bytes[offset + 4..<offset + 4 + length]))
        offset += 4 + length
      }
      let end = start + body + StorageFormat.trailerBytes
      found.append((messages, at..<end))
      at = end
    }
    return found
  }

  /// Every checksum right, made by someone who has the disk and no wrapping key.
  private func forged(_ subject: Subject, _ batches: [[[UInt8]]]) throws -> [UInt8] {
    let origin = StorePosition(
      sequence: number(subject.good[104..<112]),
      digest: try #require(Digest(bytes: subject.good[112..<144]))
    )
    var bytes = try StorageHeader(
      tenant: subject.fixture.tenant,
      keyring: subject.fixture.keyring,
      createdMilliseconds: 1,
      origin: origin
    ).encode()
    var position = StorePosition(
      sequence: origin.sequence - min(1, origin.sequence),
      digest: try #require(Digest(bytes: bytes[144...]))
    )
    for messages in batches {
      let batch = try EncodedBatch.make(
        messages,
        firstSequence: position.sequence + 1,
        previous: position.digest,
        tenant: subject.fixture.tenant,
        keyring: subject.fixture.keyring,
        authenticator: Forger(wrappingKeyID: subject.fixture.authenticator.wrappingKeyID)
      )
      bytes += batch.bytes
      position = batch.position
    }
    return bytes
  }

  private struct Forger: BatchAuthenticator {
    let wrappingKeyID: WrappingKeyID
    func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest { .zero }
  }

  /// As they are, and with every checksum put right; with the anchor there, and with one forged to fit.
  @Test(arguments: Shape.allCases) func batchesThatAreSwappedRepeatedOrLeftOutAreRefused(_ shape: Shape)
    throws
  {
    let subject = try Subject(shape)
    let batches = batches(subject.good)
    #expect(batches.count >= 3)
    var count = 0
    func tryOrder(_ order: [Int]) throws {
      let moved =
        subject.good[..<StorageFormat.headerBytes] + order.flatMap { subject.good[batches[$0].range] }
      try subject.expectRefused(Array(moved), "batches \(order)")
      let forged = try forged(subject, order.map { batches[$0].messages })
      try subject.expectRefused(forged, "batches \(order), checksums put right")
      // What cannot be read has nothing to anchor.
      if let content = try? StorageFileReader.read(forged, tenant: subject.fixture.tenant) {
        try subject.writeAnchor(
          Anchor(keyring: subject.fixture.keyring, position: content.position, authentication: nil)
            .encode(tenant: subject.fixture.tenant)
        )
        try subject.expectRefused(forged, "batches \(order), anchored")
        try subject.writeAnchor(subject.anchor)
      }
      count += 1
    }
    let all = Array(batches.indices)
    for first in all {
      for second in all where first < second {
        var order = all
        order.swapAt(first, second)
        try tryOrder(order)
      }
      try tryOrder(all.filter { $0 != first })
      try tryOrder(all + [first])
    }
    try subject.restore()
    Campaign.report("corruption, batches moved, \(shape)", ["refused": count])
  }

  /// Every two records exchanged, every checksum put right: the HMAC says no.
  @Test func recordsThatAreSwappedAreRefused() throws {
    let subject = try Subject(.appended)
    let messages = batches(subject.good).map(\.messages)
    let ids = try ["k1", "k2", "k3", "k4", "last", "end"].map { id -> [UInt8] in
      guard case .put(_, _, let record) = try subject.fixture.put(id) else { return [] }
      return record.id.bytes  // all else of these records is the same
    }
    var count = 0
    for (index, first) in ids.enumerated() {
      for second in ids[(index + 1)...] {
        let swapped = messages.map { batch in
          batch.map { message in exchanging(first[...], second[...], in: message) }
        }
        try #require(swapped != messages)
        try subject.expectRefused(try forged(subject, swapped), "records \(index)")
        count += 1
      }
    }
    try subject.restore()
    Campaign.report("corruption, records swapped", ["refused": count])
  }

  private func exchanging(_ first: ArraySlice<UInt8>, _ second: ArraySlice<UInt8>, in bytes: [UInt8])
    -> [UInt8]
  {
    var bytes = bytes
    var at = 0
    while at + first.count <= bytes.count {
      if bytes[at..<at + first.count] == first {
        bytes.replaceSubrange(at..<at + first.count, with: second)
        at += first.count
      } else if bytes[at..<at + first.count] == second {
        bytes.replaceSubrange(at..<at + first.count, with: first)
        at += first.count
      } else {
        at += 1
      }
    }
    return bytes
  }

  // MARK: Other files

  @Test(arguments: Shape.allCases) func anotherTenantsFileIsRefused(_ shape: Shape) throws {
    let (subject, other) = (try Subject(shape), try Subject(shape, "globex"))
    try subject.expectRefused(other.good, "as it is")
    // Its header rewritten for this tenant, its checksum put right.
    let header = Array(subject.good[..<StorageFormat.headerBytes])
    try subject.expectRefused(header + other.good[StorageFormat.headerBytes...], "with this tenant's header")
    let forged = try forged(subject, batches(other.good).map(\.messages))
    try subject.expectRefused(forged, "with every checksum put right")
    // With its own anchor beside it, and with that one renamed for this tenant.
    try subject.writeAnchor(other.anchor)
    try subject.expectRefused(other.good, "with its anchor")
    try subject.expectRefused(subject.good, "another's anchor")
    try subject.writeAnchor(subject.anchor)
    try subject.restore()
  }

  /// From before a replacement, and from before each commit.
  @Test func anOlderFileIsRefused() throws {
    let fixture = try StoreFixture()
    var (store, position) = try fixture.filled(3)
    var older = [try fixture.bytes()]
    let image = try fixture.image(try store.read().state)
    position = try store.replace(with: image, expecting: position, authenticator: fixture.authenticator)
    older.append(try fixture.bytes())
    let commit = fixture.commit(position.sequence + 1, [try fixture.put("k9")])
    position = try store.append([commit], expecting: position, authenticator: fixture.authenticator)
    try store.close()
    let good = try fixture.bytes()
    for bytes in older {
      try fixture.overwrite(bytes)
      #expect(throws: StoreError.self) { try fixture.store().load() }
      #expect(try fixture.bytes() == bytes)
    }
    try fixture.overwrite(good)
    #expect(try fixture.store().load()?.position == position)
  }

  // MARK: The anchor

  @Test func everyDamageOfAnAnchorIsRefused() async throws {
    let subject = try Subject(.appended)
    var generator = Campaign.generator("corruption, anchor")
    var count = 0
    for index in subject.anchor.indices {
      await Task.yield()
      let bits = Campaign.isLong ? Array(0..<8) : [Int.random(in: 0..<8, using: &generator)]
      for bit in bits {
        var bad = subject.anchor
        bad[index] ^= 1 << UInt8(bit)
        try subject.writeAnchor(bad)
        #expect(try subject.open() == .refused, "bit \(bit) of byte \(index)")
        count += 1
      }
      try subject.writeAnchor(Array(subject.anchor[..<index]))
      #expect(try subject.open() == .refused, "\(index) bytes")
      count += 1
    }
    try subject.writeAnchor(nil)
    #expect(try subject.open() == .refused, "missing")
    #expect(try subject.fixture.bytes() == subject.good)
    try subject.restore()
    Campaign.report("corruption, anchor", ["refused": count + 1])
  }

  /// One that is behind is what a crash leaves; one that is ahead, of another history or of no keyring's beginning is not.
  @Test func anAnchorOfAnotherTimeIsRefusedUnlessACrashLeavesIt() throws {
    let subject = try Subject(.appended)
    let positions = try StorageFileReader.read(subject.good, tenant: subject.fixture.tenant).positions
    func answer(_ position: StorePosition, _ keyring: KeyringID) throws -> Subject.Answer {
      let anchor = try Anchor.make(
        tenant: subject.fixture.tenant,
        keyring: keyring,
        position: position,
        authenticator: position.sequence == 0 ? nil : subject.fixture.authenticator
      )
      try subject.writeAnchor(anchor.encode(tenant: subject.fixture.tenant))
      return try subject.open()
    }
    let mine = subject.fixture.keyring
    for position in positions { #expect(try answer(position, mine) == .whole, "\(position)") }
    let last = subject.acknowledged
    let foreign = try #require(Digest(bytes: [UInt8](repeating: 7, count: 32)))
    let zero = StorePosition(sequence: 0, digest: .zero)
    for (what, position, keyring) in [
      ("ahead", StorePosition(sequence: last.sequence + 1, digest: last.digest), mine),
      ("far ahead", StorePosition(sequence: .max, digest: foreign), mine),
      ("of another history", StorePosition(sequence: last.sequence, digest: foreign), mine),
      ("of an older history", StorePosition(sequence: positions[1].sequence, digest: foreign), mine),
      ("of another keyring", last, KeyringID(value: 99)),
      ("of another creation", zero, KeyringID(value: 99)), ("of its creation", zero, mine),
    ] {
      #expect(try answer(position, keyring) == .refused, "\(what)")
      #expect(try subject.fixture.bytes() == subject.good, "\(what)")
    }
    try subject.restore()
  }

  // MARK: What is no file of this server's

  @Test(arguments: ["tenant/keyring", "anchors/acme.anchor"])
  func whatIsNoRegularFileOfThisUserIsRefused(_ name: String) throws {
    let subject = try Subject(.appended)
    let (path, aside) = (subject.fixture.folder(name), subject.fixture.folder("aside"))
    let manager = FileManager.default
    func expectRefused(_ what: String, _ make: () throws -> Void) throws {
      try manager.moveItem(atPath: path, toPath: aside)
      try make()
      #expect(try subject.open() == .refused, "\(what)")
      try manager.removeItem(atPath: path)
      try manager.moveItem(atPath: aside, toPath: path)
    }
    try expectRefused("nothing at all") { try Data().write(to: URL(filePath: path)) }
    try expectRefused("zero length") {
      try Data().write(to: URL(filePath: path))
      try manager.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
    }
    try expectRefused("a symbolic link") {
      try manager.createSymbolicLink(atPath: path, withDestinationPath: aside)
    }
    try expectRefused("a directory") {
      try manager.createDirectory(atPath: path, withIntermediateDirectories: false)
    }
    try expectRefused("a FIFO") { unsafe #expect(mkfifo(path, 0o600) == 0) }
    for mode in [0o644, 0o640, 0o604, 0o602] {
      try expectRefused("mode \(String(mode, radix: 8))") {
        try manager.copyItem(atPath: aside, toPath: path)
        try manager.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
      }
    }
    try expectRefused("another's hard link") {
      let other = try Subject(.appended, "globex")
      let theirs = name.hasPrefix("tenant") ? other.fixture.file : other.fixture.anchor
      try manager.linkItem(atPath: theirs, toPath: path)
    }
    try expectRefused("larger than any file") {
      try manager.copyItem(atPath: aside, toPath: path)
      let handle = try FileHandle(forWritingTo: URL(filePath: path))
      try handle.truncate(atOffset: UInt64(StorageFormat.fileBytesMax) + 1)
      try handle.close()
    }
    if geteuid() == 0 {
      try expectRefused("another user's") {
        try manager.copyItem(atPath: aside, toPath: path)
        unsafe #expect(chown(path, 65_534, 65_534) == 0)
      }
    }
    #expect(try subject.open() == .whole)
    #expect(try subject.fixture.bytes() == subject.good)
  }

  @Test func aFileThatIsGoneIsNotMadeAnew() throws {
    let subject = try Subject(.appended)
    try FileManager.default.removeItem(atPath: subject.fixture.file)
    #expect(try subject.open() == .refused)
    #expect(!FileManager.default.fileExists(atPath: subject.fixture.file))
  }
}
