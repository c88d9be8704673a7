public import Cryptography
internal import Dispatch
internal import Glibc
public import KeyringStorage
internal import Synchronization

/// How much is kept and waited for.
public struct AuditLimits: Sendable {
  /// Bytes after which a log goes on in a new file.
  public var fileBytesMax = 64 << 20
  /// Lines between two checkpoints; 1,024 at most.
  public var checkpointLines: UInt64 = 512
  /// Until what came is signed.
  public var checkpointMilliseconds: UInt64 = 10_000
  /// For how long entries are gathered that nobody waits for.
  public var gatherMilliseconds: UInt64 = 100
  /// Until a disk that failed is tried again.
  public var retryMilliseconds: UInt64 = 1000
  /// For how long a caller waits for a disk.
  public var patienceMilliseconds: UInt64 = 5000
  /// Entries that wait, of one log.
  public var queueItems = 16_384
  /// Their bytes, roughly.
  public var queueBytes = 8 << 20
  /// Entries that are written at once.
  public var batchItems = 1024

  /// The defaults.
  public init() {}
}

/// What a log needs from around it.
struct AuditEnvironment: Sendable {
  let limits: AuditLimits
  let run: @Sendable (@escaping @Sendable () -> Void) -> Void
  let runForHeads: @Sendable (@escaping @Sendable () -> Void) -> Void
  let notice: @Sendable (String) -> Void
  let anchors: DirectoryDescriptor
  let syslog: SyslogSink?
  private static let timers = DispatchQueue(label: "keyring.audit")

  func after(_ milliseconds: UInt64, _ work: @escaping @Sendable () -> Void) {
    Self.timers.asyncAfter(deadline: .now() + .milliseconds(Int(clamping: milliseconds)), execute: work)
  }

  func monotonicMilliseconds() -> UInt64 { DispatchTime.now().uptimeNanoseconds / 1_000_000 }

  func unixMilliseconds() -> UInt64 { AuditDirectory.unixMilliseconds() }

  func write(_ head: AuditHead) throws(AuditError) {
    do {
      try AtomicFile.replace(AuditHead.fileName(head.log), in: anchors, with: [head.encoded])
    } catch {
      throw .unavailable("\(error)")
    }
  }

  func export(_ lines: [[UInt8]]) {
    guard let syslog else { return }
    for line in lines { syslog.send(line[...]) }
  }
}

/// The audit logs of one server: a directory that it locks, with the key that signs their checkpoints.
public final class AuditDirectory: Sendable {
  /// The log of the service itself; no tenant has such a name.
  public static let serviceLog = "_service"
  /// The private key, PKCS #8 in PEM.
  public static let keyFile = "checkpoint.key"
  /// The public key, SubjectPublicKeyInfo in PEM.
  public static let publicKeyFile = "checkpoint.pub"

  /// What the logs need of the service.
  public struct Surroundings: Sendable {
    let run: @Sendable (@escaping @Sendable () -> Void) -> Void
    let runForHeads: @Sendable (@escaping @Sendable () -> Void) -> Void
    let notice: @Sendable (String) -> Void
    let calls: (@Sendable (String) -> SystemCalls)?

    /// - Parameters:
    ///   - run: on a thread that may block on the disk of the logs.
    ///   - runForHeads: on one that may block on the disk of the anchors.
    ///   - notice: for the service's own log.
    ///   - calls: the way of a log to its disk; a test makes some fail; nil in production.
    public init(
      run: @escaping @Sendable (@escaping @Sendable () -> Void) -> Void,
      runForHeads: @escaping @Sendable (@escaping @Sendable () -> Void) -> Void,
      notice: @escaping @Sendable (String) -> Void,
      calls: (@Sendable (String) -> SystemCalls)? = nil
    ) {
      self.run = run
      self.runForHeads = runForHeads
      self.notice = notice
      self.calls = calls
    }
  }

  private let directory: DirectoryDescriptor
  private let anchors: DirectoryDescriptor
  private let surroundings: Surroundings
  private let environment: AuditEnvironment
  private let signer: SigningKey
  private let lock: FileLock
  private let syslog: SyslogSink?
  private let logs = Mutex<[String: AuditLogWriter]>([:])

  /// Opens the directory, and makes it and its key where there are none.
  ///
  /// - Parameters:
  ///   - anchors: where the heads of the logs are kept.
  ///   - syslog: where each line goes too; nil for nowhere.
  /// - Throws: `AuditError.unusable`.
  public init(
    path: String,
    anchors: DirectoryDescriptor,
    limits: AuditLimits,
    syslog: SyslogAddress?,
    _ surroundings: Surroundings
  ) throws(AuditError) {
    self.anchors = anchors
    self.surroundings = surroundings
    self.syslog = syslog.map(SyslogSink.init)
    environment = AuditEnvironment(
      limits: limits,
      run: surroundings.run,
      runForHeads: surroundings.runForHeads,
      notice: surroundings.notice,
      anchors: anchors,
      syslog: self.syslog
    )
    do {
      directory = try DirectoryDescriptor(path: path, create: true)
      lock = try directory.lockFile(".lock")
      signer = try Self.signer(directory)
    } catch {
      throw .unusable("\(error)")
    }
  }

  /// The key, made at the first start.
  private static func signer(_ directory: DirectoryDescriptor) throws -> SigningKey {
    try SigningKeyFile.load(keyFile, public: publicKeyFile, in: directory) {
      if let log = try directory.names().first(where: { $0.hasSuffix(".jsonl") }) {
        throw SigningKeyFile.Failure.unusable(
          "\(directory.path)/\(keyFile) is not there, and \(log) is: put it back, or move the logs elsewhere, with their public key"
        )
      }
    }
  }

  /// What checks the signatures of its logs.
  public var verifier: VerifyingKey { signer.verifier }

  /// Lines that syslog did not take.
  public var syslogDropped: UInt64 { syslog?.dropped ?? 0 }

  /// The log of a name, of which nothing is read or written yet.
  ///
  /// - Throws: `AuditError.unusable` where the directory cannot be opened.
  public func log(_ name: String) throws(AuditError) -> AuditLogWriter {
    if let known = logs.withLock({ $0[name] }) { return known }
    var directory = self.directory
    if let calls = surroundings.calls {
      do {
        directory = try DirectoryDescriptor(path: directory.path, calls: calls(name))
      } catch {
        throw .unusable("\(error)")
      }
    }
    let disk = LogOnDisk(
      log: name,
      directory: directory,
      anchors: anchors,
      signer: signer,
      fileBytesMax: environment.limits.fileBytesMax,
      checkpointLines: environment.limits.checkpointLines,
      keepsTaken: syslog != nil
    )
    return logs.withLock { logs in
      if let first = logs[name] { return first }
      let made = AuditLogWriter(name: name, environment: environment, disk: disk)
      logs[name] = made
      return made
    }
  }

  /// Of all logs together.
  public var counts: AuditLogWriter.Counts {
    var sum = AuditLogWriter.Counts()
    for log in logs.withLock({ Array($0.values) }) {
      let counts = log.counts
      sum.written += counts.written
      sum.dropped += counts.dropped
      if !counts.lastFailure.isEmpty { sum.lastFailure = "\(log.name): \(counts.lastFailure)" }
    }
    return sum
  }

  /// Writes and signs what is queued, at one time: a disk that hangs holds up its own logs only.
  public func close() async {
    let all = logs.withLock { Array($0.values) }
    await withTaskGroup(of: Void.self) { group in
      for log in all { group.addTask { await log.close() } }
    }
    lock.release()
  }
}

extension AuditDirectory {
  static func unixMilliseconds() -> UInt64 {
    var now = timespec()
    // SAFETY: it lives for the call; the clock exists on every Linux.
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
  }
}
