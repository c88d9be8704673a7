internal import ConfigurationFiles
internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry

/// The records of deletions, in memory as on the disk: every tenant asks for its own when it is found.
final class DeletionIndex: Sendable {
  private struct State {
    var files: TenantDeletions?
    var known: [TenantName: TenantDeletion] = [:]
    var failures: [TenantName: Failure] = [:]
  }

  /// Why the last try to carry one out failed, and when the next comes.
  private struct Failure {
    let why: String
    /// Nanoseconds.
    let pause: UInt64
    /// Monotonic nanoseconds.
    let retryAt: UInt64
  }

  /// The tenants directory.
  private let tenants: DirectoryDescriptor
  private let state = Mutex(State())

  /// After a try that failed, nanoseconds to the next: doubled each time.
  private static let pauses: ClosedRange<UInt64> = 2_000_000_000...60_000_000_000

  /// Reads them all.
  init(_ tenants: DirectoryDescriptor, _ logger: Logger) throws(FileError) {
    self.tenants = tenants
    guard let files = try TenantDeletions(existingIn: tenants) else { return }
    let all = try files.all()
    state.withLock { state in
      state.files = files
      for case .success(let deletion) in all { state.known[deletion.tenant] = deletion }
    }
    for case .failure(let error) in all {
      logger.error("a deletion is not carried out, since its record cannot be read: \(error)")
    }
  }

  // MARK: Asking

  /// The deletion that waits or was begun; nil where there is none.
  func standing(_ name: TenantName) -> TenantDeletion? {
    state.withLock { state in state.known[name].flatMap { $0.phase == .done ? nil : $0 } }
  }

  /// The last deletion that was carried out; nil where none was.
  func done(_ name: TenantName) -> TenantDeletion? {
    state.withLock { state in state.known[name].flatMap { $0.phase == .done ? $0 : nil } }
  }

  /// When a tenant of this name was last deleted, Unix seconds; 0 where none was.
  func tombstone(_ name: TenantName) -> UInt64 {
    state.withLock { state in
      guard let deletion = state.known[name] else { return 0 }
      return max(deletion.doneMilliseconds, deletion.formerMilliseconds) / 1000
    }
  }

  /// Why the last try to carry it out failed; empty where none did.
  func failure(_ name: TenantName) -> String { state.withLock { $0.failures[name]?.why ?? "" } }

  /// Those whose time has come, and which are not put off.
  func due(nowMilliseconds: UInt64, now: UInt64) -> [TenantDeletion] {
    state.withLock { state in
      state.known.values.filter { deletion in
        deletion.phase != .done && deletion.dueMilliseconds <= nowMilliseconds
          && state.failures[deletion.tenant].map { $0.retryAt <= now } ?? true
      }
    }
  }

  /// Puts one off that failed.
  func failed(_ name: TenantName, _ why: String) {
    state.withLock { state in
      let pause = min(
        state.failures[name].map { 2 * $0.pause } ?? Self.pauses.lowerBound,
        Self.pauses.upperBound
      )
      state.failures[name] = Failure(why: why, pause: pause, retryAt: monotonicNanoseconds() + pause)
    }
  }

  // MARK: Writing, on a thread that may block

  /// The directory, made where it is not there.
  func files() throws(FileError) -> TenantDeletions {
    if let files = state.withLock({ $0.files }) { return files }
    let made = try TenantDeletions(in: tenants)
    state.withLock { $0.files = made }
    return made
  }

  /// Durable when it returns; memory follows the file.
  func write(_ deletion: TenantDeletion) throws(FileError) {
    try files().write(deletion)
    state.withLock { state in
      state.known[deletion.tenant] = deletion
      if deletion.phase != .begun { state.failures[deletion.tenant] = nil }
    }
  }

  /// Signs the receipt of one that is carried out, and says so; durable when it returns.
  func finish(_ deletion: TenantDeletion) throws(FileError) {
    let files = try files()
    if let draft = try files.draft(deletion) {
      do {
        let signer = try files.signer()
        let receipt = try DeletionReceipt.signed(
          draft,
          doneMilliseconds: deletion.doneMilliseconds,
          signer
        )
        try files.write(receipt: receipt, deletion)
      } catch let error as FileError {
        throw error
      } catch {
        throw .unchanged("the receipt cannot be signed: \(error)")
      }
    }
    try write(deletion)
  }

  /// Takes back one that waits; what is known of a deletion before it stays.
  func takeBack(_ deletion: TenantDeletion) throws(FileError) {
    guard deletion.formerMilliseconds > 0 else {
      try files().remove(deletion.tenant)
      return state.withLock { state in
        state.known[deletion.tenant] = nil
        state.failures[deletion.tenant] = nil
      }
    }
    var former = deletion
    former.phase = .done
    former.doneMilliseconds = deletion.formerMilliseconds
    try write(former)
  }
}
