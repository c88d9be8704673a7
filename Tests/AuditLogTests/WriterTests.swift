import AuditLog
import Foundation
import Glibc
import KeyringStorage
import KeyringTestSupport
import Synchronization
import Testing

/// What becomes of entries where the disk does not take them.
@Suite struct WriterTests {
  /// Decides what becomes of the calls of one log.
  final class Disk: Sendable {
    private let decide = Mutex<(@Sendable (SystemCall) -> Interception)?>(nil)

    func set(_ decide: (@Sendable (SystemCall) -> Interception)?) { self.decide.withLock { $0 = decide } }

    var calls: SystemCalls {
      SystemCalls { call in
        let decide = self.decide.withLock { $0 }
        return decide?(call) ?? .proceed
      }
    }
  }

  private func until(_ isDone: () throws -> Bool) async throws {
    while try !isDone() { try await Task.sleep(for: .milliseconds(2)) }
  }

  @Test(arguments: [SystemCall.write, .fdatasync, .open, .stat, .ftruncate])
  func aFailingDiskRefusesThoseWhoWaitAndSaysLaterWhatIsMissing(_ failing: SystemCall) async throws {
    let fixture = try LogFixture()
    let disk = Disk()
    var limits = LogFixture.quick
    limits.checkpointMilliseconds = 60_000  // it stays open
    let directory = try fixture.open(limits: limits, calls: { _ in disk.calls })
    let log = try directory.log("acme")
    for number in 0..<3 { _ = try await log.write(LogFixture.record(number)).get() }
    // A cut only comes after something failed.
    disk.set { $0 == failing || (failing == .ftruncate && $0 == .fdatasync) ? .fail(EIO) : .proceed }
    var refused = 0
    for number in 10..<14 {
      if case .failure = await log.write(LogFixture.record(number)) { refused += 1 }
    }
    // A file that is open needs no more of these.
    #expect(refused == ([.open, .stat].contains(failing) ? 0 : 4))
    disk.set(nil)
    _ = try await log.write(LogFixture.record(20)).get()
    #expect(log.counts.dropped == UInt64(refused) && log.counts.lastFailure.isEmpty)
    await directory.close()
    let report = try fixture.verify()
    #expect(report.faults == [] && report.entriesDropped == UInt64(refused))
    #expect(try fixture.numbers() == [0, 1, 2] + (refused == 0 ? Array(10..<14) : []) + [20])
    #expect(refused == 0 || fixture.notices.withLock { !$0.isEmpty })
  }

  /// However many were refused, and however many entries come: the disk is tried once in a while, and once for each who waits.
  @Test func aFailingDiskIsNotTriedMoreOftenTheMoreItFails() async throws {
    let fixture = try LogFixture()
    let disk = Disk()
    let tries = Atomic(0)
    var limits = LogFixture.quick
    (limits.retryMilliseconds, limits.batchItems) = (100, 4)
    let directory = try fixture.open(limits: limits, calls: { _ in disk.calls })
    let log = try directory.log("acme")
    _ = try await log.write(LogFixture.record(0)).get()
    disk.set { call in
      guard call == .write else { return .proceed }
      tries.add(1, ordering: .relaxed)
      return .fail(ENOSPC)
    }
    for number in 1...200 {
      guard case .failure = await log.write(LogFixture.record(number)) else { throw UnexpectedSuccess() }
    }
    tries.store(0, ordering: .relaxed)
    for number in 0..<50 {
      log.note(LogFixture.record(1000 + number))
      try await Task.sleep(for: .milliseconds(10))
    }
    // 500 ms, or more on a busy machine.
    #expect(tries.load(ordering: .relaxed) <= 25)
    disk.set(nil)
    _ = try await log.write(LogFixture.record(20)).get()
    try await until { log.counts.lastFailure.isEmpty }
    await directory.close()
    #expect(try fixture.verify().faults == [])
  }

  private struct UnexpectedSuccess: Error {}

  /// A torn write of a batch, then success: nothing of it stays.
  @Test func aShortWriteLeavesNothingBehind() async throws {
    let fixture = try LogFixture()
    let disk = Disk()
    let directory = try fixture.open(calls: { _ in disk.calls })
    let log = try directory.log("acme")
    _ = try await log.write(LogFixture.record(0)).get()
    let isFirst = Atomic(true)
    disk.set { call in
      guard call == .write else { return .proceed }
      return isFirst.exchange(false, ordering: .relaxed) ? .short : .fail(ENOSPC)
    }
    var long = LogFixture.record(1)  // longer than what comes in its place
    long.details.append(("text", .text(String(repeating: "x", count: 4000))))
    if case .success = await log.write(long) { Issue.record("it was said to be durable") }
    disk.set(nil)
    _ = try await log.write(LogFixture.record(2)).get()
    await directory.close()
    #expect(try fixture.numbers() == [0, 2])
    #expect(try fixture.verify().faults == [])
  }

  /// Nobody waits; what the queue does not hold is counted, and said in its place.
  @Test func aFullQueueDropsAndCounts() async throws {
    let fixture = try LogFixture()
    let disk = Disk()
    var limits = LogFixture.quick
    limits.queueItems = 10
    limits.batchItems = 4
    let directory = try fixture.open(limits: limits, calls: { _ in disk.calls })
    let log = try directory.log("acme")
    disk.set { $0 == .write ? .fail(ENOSPC) : .proceed }
    for number in 0..<50 { log.note(LogFixture.record(number)) }
    try await until { !log.counts.lastFailure.isEmpty }
    #expect(log.counts.written == 0)
    disk.set(nil)
    try await until { log.counts.written > 0 && log.counts.lastFailure.isEmpty }
    log.note(LogFixture.record(100))
    await directory.close()
    let (numbers, report) = (try fixture.numbers(), try fixture.verify())
    #expect(report.faults == [] && report.entriesDropped == log.counts.dropped && report.entriesDropped > 0)
    #expect(
      numbers.count + Int(report.entriesDropped) == 51 && numbers.last == 100 && numbers == numbers.sorted()
    )
  }

  /// A write that hangs holds its own log only, and those who wait for it are told in time.
  @Test func aDiskThatHangsHoldsItsOwnLog() async throws {
    let fixture = try LogFixture()
    let (disk, gate) = (Disk(), DispatchSemaphore(value: 0))
    var limits = LogFixture.quick
    limits.patienceMilliseconds = 1000
    let directory = try fixture.open(limits: limits) { $0 == "stuck" ? disk.calls : SystemCalls() }
    let (stuck, free) = (try directory.log("stuck"), try directory.log("acme"))
    _ = try await stuck.write(LogFixture.record(0)).get()
    disk.set { call in
      if call == .write { gate.wait() }
      return .proceed
    }
    guard case .failure = await stuck.write(LogFixture.record(1)) else {
      Issue.record("it was said to be durable")
      return
    }
    for number in 0..<20 {
      stuck.note(LogFixture.record(number))
      _ = try await free.write(LogFixture.record(number)).get()
    }
    disk.set(nil)
    gate.signal()
    await directory.close()
    #expect(try fixture.numbers() == Array(0..<20) && fixture.verify().isWhole)
  }

  /// A file that another one takes the place of while the server runs is not written to.
  @Test func aFileThatIsReplacedWhileItIsIdleIsNotBuiltOn() async throws {
    let fixture = try LogFixture()
    let directory = try fixture.open()
    let log = try directory.log("acme")
    _ = try await log.write(LogFixture.record(0)).get()
    try await until {  // signed, and let go
      let last = lines(try fixture.bytes(1)).last ?? []
      return String(decoding: last, as: UTF8.self).contains("\"checkpoint\"")
    }
    try await Task.sleep(for: .milliseconds(50))
    try FileManager.default.removeItem(atPath: fixture.path(1))
    _ = try await log.write(LogFixture.record(1)).get()
    await directory.close()
    #expect(!FileManager.default.fileExists(atPath: fixture.path(1)))
    let report = try LogFixture.verify([fixture.bytes(2)], key: fixture.key, head: fixture.head)
    #expect(report.faults.contains { $0.contains("file 1 of the log is missing") })
  }

  @Test func linesGoToSyslogAsTheyAre() async throws {
    let fixture = try LogFixture()
    let path = fixture.folder("log.socket")
    let listener = try Listener(path)
    let directory = try fixture.open(syslog: .unix(path: path))
    let log = try directory.log("acme")
    _ = try await log.write(LogFixture.record(0)).get()
    await directory.close()
    let written = lines(try fixture.bytes(1))
    let received = (0..<written.count).map { _ in listener.receive() }
    let pattern = /<110>1 [0-9T:.Z-]{24} [!-~]+ keyringd [0-9]+ audit - (.*)/
    #expect(
      received.map { $0.wholeMatch(of: pattern).map { String($0.1) } }
        == written.map { String(decoding: $0, as: UTF8.self) }
    )
    #expect(directory.syslogDropped == 0)
    // Nobody listens: counted, and nothing waits.
    let other = try LogFixture()
    let silent = try other.open(syslog: .unix(path: other.folder("nobody")))
    _ = try await silent.log("acme").write(LogFixture.record(0)).get()
    await silent.close()
    #expect(silent.syslogDropped == UInt64(lines(try other.bytes(1)).count))
  }

  private final class Listener: Sendable {
    private let socket: Int32

    init(_ path: String) throws {
      socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      // SAFETY: of a test; the path is shorter than its place.
      unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: Array(path.utf8)) }
      let size = socklen_t(MemoryLayout<sockaddr_un>.size)
      let bound = unsafe withUnsafePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(socket, $0, size) }
      }
      try #require(bound == 0)
    }

    deinit { close(socket) }

    func receive() -> String {
      var bytes = [UInt8](repeating: 0, count: 65_536)
      // SAFETY: the array has as many bytes.
      let count = unsafe recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
      return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
  }
}
