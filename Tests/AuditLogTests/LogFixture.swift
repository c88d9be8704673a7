import AuditLog
import Cryptography
import Foundation
import KeyringStorage
import KeyringTestSupport
import Synchronization

/// Audit logs in a folder of their own, written by threads of their own.
final class LogFixture: Sendable {
  let folder: TestDirectory
  let notices = Mutex<[String]>([])

  init(_ folder: TestDirectory? = nil) throws { self.folder = try folder ?? TestDirectory() }

  static var quick: AuditLimits {
    var limits = AuditLimits()
    limits.gatherMilliseconds = 1
    limits.retryMilliseconds = 5
    limits.checkpointMilliseconds = 20
    return limits
  }

  func open(
    limits: AuditLimits = LogFixture.quick,
    syslog: SyslogAddress? = nil,
    calls: (@Sendable (String) -> SystemCalls)? = nil
  ) throws -> AuditDirectory {
    let run: @Sendable (@escaping @Sendable () -> Void) -> Void = { work in Thread.detachNewThread { work() }
    }
    return try AuditDirectory(
      path: folder("audit"),
      anchors: DirectoryDescriptor(path: folder("anchors"), create: true),
      limits: limits,
      syslog: syslog,
      AuditDirectory.Surroundings(
        run: run,
        runForHeads: run,
        notice: { notice in self.notices.withLock { $0.append(notice) } },
        calls: calls
      )
    )
  }

  static let caller = AuditCaller(
    identity: "spiffe://test/tenant/acme/instance/db1",
    certificate: String(repeating: "ab", count: 32),
    address: "127.0.0.1:1"
  )

  static func record(_ number: Int) -> AuditRecord {
    var record = AuditRecord(milliseconds: 1_700_000_000_000 + UInt64(number), caller: caller, call: "fetch")
    record.keys = [AuditKey(scope: "shared", owner: [], keyID: Array("key \(number)".utf8)[...], version: 1)]
    record.details = [("found", .flag(true)), ("number", .number(UInt64(number)))]
    record.status = "OK"
    return record
  }

  /// Writes entries, one after the other, and closes the log.
  func write(_ numbers: Range<Int>, limits: AuditLimits = LogFixture.quick) async throws {
    let directory = try open(limits: limits)
    let log = try directory.log("acme")
    for number in numbers { _ = try await log.write(Self.record(number)).get() }
    await directory.close()
  }

  func path(_ number: Int) -> String { folder("audit/acme.\(number).jsonl") }

  func bytes(_ number: Int) throws -> [UInt8] { try Array(Data(contentsOf: URL(filePath: path(number)))) }

  func put(_ bytes: [UInt8], _ number: Int) throws {
    let handle = try FileHandle(forWritingTo: URL(filePath: path(number)))
    try handle.truncate(atOffset: 0)
    try handle.write(contentsOf: Data(bytes))
    try handle.close()
  }

  /// The files of the log, whole, by number.
  func files() throws -> [(number: Int, bytes: [UInt8])] {
    var files: [(Int, [UInt8])] = []
    var number = 1
    while FileManager.default.fileExists(atPath: path(number)) {
      files.append((number, try bytes(number)))
      number += 1
    }
    return files
  }

  var key: VerifyingKey {
    get throws {
      try VerifyingKey(pem: String(contentsOfFile: folder("audit/checkpoint.pub"), encoding: .utf8))
    }
  }

  var head: AuditHead? {
    get throws {
      guard let data = FileManager.default.contents(atPath: folder("anchors/acme.audit")) else { return nil }
      return AuditHead(Array(data))
    }
  }

  func verify(head: Bool = true) throws -> AuditVerifier.Report {
    try Self.verify(try files().map(\.bytes), key: key, head: head ? self.head : nil)
  }

  static func verify(_ files: [[UInt8]], key: VerifyingKey, head: AuditHead?) throws -> AuditVerifier.Report {
    try AuditVerifier.verify(
      files.enumerated().map {
        AuditVerifier.File(name: "file \($0.offset + 1)", source: Memory($0.element))
      },
      key: key,
      head: head
    )
  }

  /// The numbers of the entries that are in the log, in its order.
  func numbers() throws -> [Int] {
    try files().flatMap { file in
      String(decoding: file.bytes, as: UTF8.self).matches(of: /"number":([0-9]+)/).compactMap { Int($0.1) }
    }
  }
}

struct Memory: BackupSource {
  let bytes: [UInt8]
  init(_ bytes: [UInt8]) { self.bytes = bytes }
  var size: Int { bytes.count }
  func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    Array(bytes[offset..<offset + count])
  }
}

/// Lines without their newlines.
func lines(_ bytes: [UInt8]) -> [[UInt8]] {
  bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).dropLast().map(Array.init)
}

func joined(_ lines: [[UInt8]]) -> [UInt8] { lines.flatMap { $0 + [UInt8(ascii: "\n")] } }
