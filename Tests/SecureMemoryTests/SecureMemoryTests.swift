import Glibc
import KeyringTestSupport
import SecureMemory
import Testing

/// Whether secrets are gone is looked for in the memory of a process of its own.
@Suite struct SecureMemoryTests {
  // MARK: The locked heap

  @Test func theHeapIsLockedLimitedAndGivenBack() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      func need(_ condition: Bool, _ what: String) { if !condition { failures.append(what) } }
      need(!SecureHeap.isInitialized, "there is no heap yet")
      let outcome = SecureHeap.initialize(bytes: 65_536)
      need(outcome == .locked, "64 KiB can be locked everywhere: \(outcome)")
      need(SecureHeap.isInitialized, "there is a heap")
      let before = SecureHeap.bytesInUse
      var secret: Secret? = try unsafe Secret(count: 1000) { room in unsafe room[999] = 1 }
      need(SecureHeap.bytesInUse >= before + 1000, "a secret lives on it")
      need(secret?.count == 1000, "it is there")
      var refused = false
      do throws(SecureMemoryError) {
        _ = try unsafe Secret(count: 65_536) { _ in }
      } catch {
        refused = error == .exhausted(bytes: 65_536)
      }
      need(refused, "more than there is is refused, and not taken from elsewhere")
      secret = nil
      need(SecureHeap.bytesInUse == before, "it is given back")
      finish(failures)
    }
  }

  // MARK: Wiping

  @Test func noSecretIsLeftWhenItsOwnersLetGo() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      _ = SecureHeap.initialize(bytes: 1 << 20)
      func fill(_ room: UnsafeMutableRawBufferPointer) {
        for index in 0..<32 { unsafe room[index] = marked(index) }
      }
      var one: Secret? = try unsafe Secret(count: 32, fill: fill)
      if MemoryScan.count(marked) != 1 { failures.append("the scan finds what is there: once") }
      var copy: Secret? = try one.map { one in
        try unsafe one.withUnsafeBytes { try unsafe Secret(copying: $0) }
      }
      var joined: Secret? = try Secret(joining: [copy, one].compactMap { $0 })
      if MemoryScan.count(marked) != 4 { failures.append("copies are copies: \(MemoryScan.count(marked))") }
      if joined?.count != 64 || copy.flatMap({ one?.isEqual(to: $0) }) != true {
        failures.append("they are equal")
      }
      one = nil
      copy = nil
      joined = nil
      let left = MemoryScan.count(marked)
      if left != 0 { failures.append("\(left) copies are left") }
      finish(failures)
    }
  }

  @Test func noByteOfABufferIsLeftByGrowingConsumingCuttingAndEnding() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      func look(_ expected: Int, _ when: String) {
        let found = MemoryScan.count(marked)
        if found != expected { failures.append("\(when): \(found) instead of \(expected)") }
      }
      func append(_ buffer: inout WipedBuffer) {
        unsafe buffer.append(minimum: 32) { room in
          for index in 0..<32 { unsafe room[index] = marked(index) }
          return 32
        }
      }
      do {
        var buffer = WipedBuffer(capacity: 32)
        append(&buffer)
        look(1, "appended")
        for _ in 0..<100 { append(&buffer) }
        look(101, "grown, several times")
        buffer.consume(32 * 60)
        look(41, "consumed in part")
        buffer.consume(16)
        look(40, "consumed half of one")
        append(&buffer)
        buffer.truncate(to: 16 + 32 * 30)
        look(30, "cut off")
        // Room is made by moving what is held to the front: the place it was in is wiped.
        unsafe buffer.append(minimum: buffer.capacity - buffer.count) { _ in 0 }
        look(30, "moved to the front")
        var other = WipedBuffer()
        other.append(buffer)
        look(60, "copied")
        buffer.removeAll(keeping: 16)
        look(30, "emptied")
        if buffer.capacity != 16 || !buffer.isEmpty { failures.append("it gives memory back") }
        append(&buffer)
      }
      look(0, "ended")
      finish(failures)
    }
  }

  // MARK: Content

  @Test func aBufferIsAQueueOfBytes() {
    var buffer = WipedBuffer()
    var model: [UInt8] = []
    var next: UInt8 = 0
    for round in 0..<500 {
      let more = (0..<(round * 7 % 23)).map { _ -> UInt8 in
        next &+= 1
        return next
      }
      if round % 2 == 0 { buffer.append(more) } else { for byte in more { buffer.append(byte: byte) } }
      model += more
      let gone = min(model.count, round * 5 % 19)
      buffer.consume(gone)
      model.removeFirst(gone)
      if round % 50 == 49 {
        buffer.truncate(to: model.count / 2)
        model.removeLast(model.count - model.count / 2)
      }
      let (count, isEmpty) = (buffer.count, buffer.isEmpty)
      #expect(count == model.count && isEmpty == model.isEmpty)
      let held = unsafe buffer.withUnsafeBytes { unsafe Array($0) }
      #expect(held == model)
    }
    #expect(!model.isEmpty)
  }

  @Test func whatThrowsAppendsNothing() {
    struct Stop: Error {}
    var buffer = WipedBuffer(capacity: 8)
    #expect(throws: Stop.self) {
      try unsafe buffer.append(minimum: 4) { room throws(Stop) in
        unsafe room[0] = 1
        throw Stop()
      }
    }
    let isEmpty = buffer.isEmpty
    #expect(isEmpty)
  }

  @Test func secretsAreComparedByContent() throws {
    func secret(_ bytes: [UInt8]) throws -> Secret {
      try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
    }
    let (one, same) = (try secret([1, 2, 3]), try secret([1, 2, 3]))
    #expect(one.isEqual(to: same) && one.isEqual(to: one))
    for other in [[1, 2], [1, 2, 3, 4], [1, 2, 4], [0, 2, 3], []] as [[UInt8]] {
      #expect(try !one.isEqual(to: secret(other)))
    }
    #expect(try secret([]).isEqual(to: secret([])))
    let zeroed = try unsafe Secret(count: 4) { _ in }
    #expect(try zeroed.isEqual(to: secret([0, 0, 0, 0])), "a secret begins zeroed")
  }

  @Test func aSecretIsNotPrinted() throws {
    let secret = try unsafe Array("hunter2-hunter2".utf8).withUnsafeBytes { try unsafe Secret(copying: $0) }
    var dumped = ""
    dump(secret, to: &dumped)
    for text in ["\(secret)", String(describing: secret), String(reflecting: secret), "\([secret])", dumped] {
      #expect(!text.contains("hunter2") && text.contains("15"), "\(text)")
    }
  }

  // MARK: Defects of a caller

  @Test func consumingMoreThanThereIsStopsTheProcess() async {
    await #expect(processExitsWith: .failure) {
      var buffer = WipedBuffer()
      buffer.append([1, 2])
      buffer.consume(3)
    }
    await #expect(processExitsWith: .failure) {
      var buffer = WipedBuffer()
      buffer.append([1, 2])
      buffer.truncate(to: 3)
    }
    await #expect(processExitsWith: .failure) {
      var buffer = WipedBuffer(capacity: 8)
      unsafe buffer.append(minimum: 4) { room in room.count + 1 }
    }
  }
}
