internal import Glibc
internal import NIOPosix
import Synchronization

/// The threads that read and write storage: a small fixed number for each file system, so that a disk that hangs holds its own tenants only;
/// and of each, some for commits alone, and some for writing files anew, so that opening a large keyring holds up nobody's commit, and writing
/// one anew nobody's opening.
///
/// Nothing that blocks on a disk runs anywhere else: not on a tenant's queue, an event loop, or Swift's own threads.
public final class FlushPools: Sendable {
  private let threadsPerFileSystem: Int
  private let pools = Mutex<[Place: NIOThreadPool]>([:])

  /// What the work is.
  public enum Kind: Sendable {
    /// The append and sync of one batch.
    case commit
    /// What may take longer: opening, settings.
    case long
    /// What may take seconds, and is waited for by nobody who opens a tenant: writing a whole file anew.
    case rewriting
    /// The audit logs' appends and syncs, each of which may hang: more threads, so that one log's disk is not another's.
    case audit
    /// Where the audit logs end, written behind them.
    case auditHead
    /// The copying, proving and stretching of backups and restores, which neither an opening nor a compaction waits for.
    case backup
    /// The making of tenants, which nobody else waits for.
    case onboarding
  }

  private struct Place: Hashable {
    let device: UInt64
    let kind: Kind
  }

  private static let auditThreads = 8

  /// Makes no thread yet; each file system's are made at its first use.
  public init(threadsPerFileSystem: Int) { self.threadsPerFileSystem = threadsPerFileSystem }

  /// Runs `work` on a thread of the file system `device` (its st_dev).
  public func run(device: UInt64, _ kind: Kind, _ work: @escaping @Sendable () -> Void) {
    let place = Place(device: device, kind: kind)
    let pool = pools.withLock { pools in
      if let pool = pools[place] { return pool }
      let pool = NIOThreadPool(
        numberOfThreads: kind == .audit ? max(Self.auditThreads, threadsPerFileSystem) : threadsPerFileSystem
      )
      pool.start()
      pools[place] = pool
      return pool
    }
    pool.submit { _ in work() }  // state `.cancelled` comes at shutdown: work that was accepted is still done
  }

  /// Runs `work`, which may take long, and returns what it returned.
  func value<Value: Sendable>(
    device: UInt64,
    _ kind: Kind = .long,
    _ work: @escaping @Sendable () -> Value
  ) async -> Value {
    await withCheckedContinuation { continuation in
      run(device: device, kind) { continuation.resume(returning: work()) }
    }
  }

  /// Ends all threads, once what was submitted is done.
  public func shutdown() async {
    let all = pools.withLock { pools in
      defer { pools = [:] }
      return Array(pools.values)
    }
    for pool in all {
      await withCheckedContinuation { continuation in
        pool.shutdownGracefully { _ in continuation.resume() }
      }
    }
  }
}

/// Nanoseconds of a clock that only goes forward; its zero is arbitrary.
@inline(__always)
func monotonicNanoseconds() -> UInt64 { clock_gettime_nsec(CLOCK_MONOTONIC) }

/// Unix milliseconds.
func unixMilliseconds() -> UInt64 { clock_gettime_nsec(CLOCK_REALTIME) / 1_000_000 }

@inline(__always)
private func clock_gettime_nsec(_ clock: clockid_t) -> UInt64 {
  var time = timespec()
  // SAFETY: `time` lives for the call; both clocks exist on every Linux.
  unsafe clock_gettime(clock, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
