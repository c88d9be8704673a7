internal import CLinux
internal import Glibc

/// The system calls that change a disk or read it, by name: what a test makes fail.
public enum SystemCall: String, Sendable, CaseIterable {
  case open, read, write, fsync, fdatasync, utimens, ftruncate, rename, unlink, stat, lock, mkdir, syncfs
}

/// What becomes of a system call in a test.
public enum Interception: Sendable {
  /// It is made.
  case proceed
  /// It fails with this errno, and is not made.
  case fail(Int32)
  /// A write writes half of what it was given.
  case short
}

/// The one way from this module to the disk. In production nothing intercepts.
public struct SystemCalls: Sendable {
  private let intercept: (@Sendable (SystemCall) -> Interception)?

  /// - Parameter intercept: asked before each call; nil in production.
  public init(intercept: (@Sendable (SystemCall) -> Interception)? = nil) { self.intercept = intercept }

  private func allowed(_ call: SystemCall) -> Bool {
    guard let intercept else { return true }
    if case .fail(let code) = intercept(call) {
      errno = code
      return false
    }
    return true
  }

  /// Makes a call that answers -1 on failure, again where a signal interrupted it.
  func make(_ call: SystemCall, _ body: () -> Int32) -> Int32 {
    while true {
      let result = allowed(call) ? body() : -1
      if result == -1, errno == EINTR { continue }
      return result
    }
  }

  /// Syncs, and then makes two calls that a file system whose log failed refuses: ext4 looks for that when a sync begins, and answers 0 where
  /// another file's sync let the log fail meanwhile; a sync of the whole file system waits for the log in the same way. Setting the time of the last change writes nothing to the disk by itself. Two, since
  /// the call that is the first to meet the failed log shuts the file system down and may answer 0 itself (docs/RELIABILITY.md).
  ///
  /// - Returns: 0 where what was written is on the disk.
  func synchronize(_ call: SystemCall, _ descriptor: Int32) -> Int32 {
    let result = make(call) {
      switch call {
      case .syncfs: keyring_syncfs(descriptor)
      case .fdatasync: fdatasync(descriptor)
      default: fsync(descriptor)  // nothing else is asked for
      }
    }
    guard result == 0 else { return -1 }
    guard touch(descriptor) == 0 else { return -1 }
    return touch(descriptor)
  }

  private func touch(_ descriptor: Int32) -> Int32 {
    make(.utimens) {
      // SAFETY: both times live for the call. UTIME_OMIT leaves the time of the last access as it is; UTIME_NOW: utimensat(2).
      let times = [timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2), timespec(tv_sec: 0, tv_nsec: (1 << 30) - 1)]
      return unsafe futimens(descriptor, times)
    }
  }

  /// One write(2) at `offset`, perhaps of fewer bytes than given.
  func write(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int {
    while true {
      var count = bytes.count
      switch intercept?(.write) ?? .proceed {
      case .proceed: break
      case .short: count = max(1, count / 2)
      case .fail(let code):
        errno = code
        if code == EINTR { continue }
        return -1
      }
      // SAFETY: `count` is at most `bytes.count`.
      let written = unsafe pwrite(descriptor, bytes.baseAddress, count, off_t(offset))
      if written == -1, errno == EINTR { continue }
      return written
    }
  }

  /// One pread(2).
  func read(_ descriptor: Int32, into bytes: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
    while true {
      // SAFETY: the buffer has `bytes.count` bytes.
      let count =
        allowed(.read) ? unsafe pread(descriptor, bytes.baseAddress, bytes.count, off_t(offset)) : -1
      if count == -1, errno == EINTR { continue }
      return count
    }
  }
}

/// Why a file could not be used, by what is known after.
public enum FileError: Error, Sendable, Equatable, CustomStringConvertible {
  /// It is not there.
  case absent(String)
  /// It is not a file that this server may use: a link, a directory, readable by others, too large.
  case unacceptable(String)
  /// A step failed before anything changed.
  case unchanged(String)
  /// A write found no room (ENOSPC, EDQUOT, EFBIG); some of it may have been taken.
  case noRoom(String)
  /// A step failed after which the disk may hold the old state or the new one.
  case unknown(String)

  /// Names the file and the step.
  public var description: String {
    switch self {
    case .absent(let what), .unacceptable(let what), .unchanged(let what), .noRoom(let what),
      .unknown(let what):
      what
    }
  }
}

/// errno in words.
func lastErrorText() -> String {
  // SAFETY: strerror answers a string that is copied at once.
  unsafe String(cString: strerror(errno))
}

/// An open file, closed when let go.
@safe
public final class FileDescriptor: Sendable {
  let number: Int32
  init(takingOwnership number: Int32) { self.number = number }
  // Nothing was written through it that a failed close could still lose: writes are synced first. close(2) is not repeated: on Linux the
  // descriptor is gone whatever it answers.
  deinit { _ = Glibc.close(number) }
}
