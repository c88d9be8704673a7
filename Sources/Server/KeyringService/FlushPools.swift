internal import Glibc
internal import NIOPosix
import Synchronization

/// The threads that write storage: a small fixed number for each file system, so that a disk that hangs holds its own tenants only.
///
/// Nothing that blocks on a disk runs anywhere else: not on a tenant's queue, an event loop, or Swift's own threads.
public final class FlushPools: Sendable {
  private let threadsPerFileSystem: Int
  private let pools = Mutex<[UInt64: NIOThreadPool]>([:])

  /// Makes no thread yet; each file system's are made at its first use.
  public init(threadsPerFileSystem: Int) { self.threadsPerFileSystem = threadsPerFileSystem }

  /// Runs `work` on a thread of the file system `device` (its st_dev).
  public func run(device: UInt64, _ work: @escaping @Sendable () -> Void) {
    let pool = pools.withLock { pools in
      if let pool = pools[device] { return pool }
      let pool = NIOThreadPool(numberOfThreads: threadsPerFileSystem)
      pool.start()
      pools[device] = pool
      return pool
    }
    pool.submit { _ in work() }  // state `.cancelled` comes at shutdown: work that was accepted is still done
  }

  /// Runs `work` and returns what it returned.
  func value<Value: Sendable>(device: UInt64, _ work: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
      run(device: device) { continuation.resume(returning: work()) }
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
