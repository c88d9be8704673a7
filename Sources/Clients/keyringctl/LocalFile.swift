import Glibc
import KeyringStorage

/// A file of the operator's, read with pread(2).
final class LocalFile: BackupSource {
  let path: String
  let size: Int
  private let descriptor: Int32

  init(_ path: String) throws {
    self.path = path
    descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    var status = stat()
    guard descriptor >= 0, unsafe fstat(descriptor, &status) == 0 else {
      let why = errorText()
      if descriptor >= 0 { _ = Glibc.close(descriptor) }
      size = 0
      throw Failure("cannot open \(path): \(why)")
    }
    size = Int(status.st_size)
    guard status.st_mode & S_IFMT == S_IFREG else { throw Failure("\(path) is not a regular file") }
  }

  // Read only: nothing to lose.
  deinit { if descriptor >= 0 { _ = Glibc.close(descriptor) } }

  /// Exactly `count` bytes.
  func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var done = 0
    while done < count {
      // SAFETY: the rest of the array lies within it.
      let read = unsafe bytes.withUnsafeMutableBytes {
        unsafe pread(descriptor, $0.baseAddress.map { unsafe $0 + done }, count - done, off_t(offset + done))
      }
      if read == -1, errno == EINTR { continue }
      guard read > 0 else {
        throw .unavailable("cannot read \(path): \(read == 0 ? "it became shorter" : errorText())")
      }
      done += read
    }
    return bytes
  }

  /// All of it.
  func bytes() throws -> [UInt8] { try read(at: 0, count: size) }
}

/// A new file of the operator's, mode 0600, that appears under its name once it is whole and on the disk.
final class NewFile {
  let path: String
  let partial: String
  private let descriptor: Int32

  /// - Parameter replaces: a file of that name is replaced; else it must not be there, now or later.
  init(_ path: String, replaces: Bool) throws {
    self.path = path
    partial = path + ".partial"
    if !replaces, unsafe access(path, F_OK) == 0 {
      throw Failure("\(path) is there already: name another file, or --force")
    }
    guard unsafe unlink(partial) == 0 || errno == ENOENT else {
      throw Failure("cannot remove \(partial): \(errorText())")
    }
    descriptor = unsafe open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw Failure("cannot make \(partial): \(errorText())") }
  }

  deinit {
    _ = Glibc.close(descriptor)  // what counts was synced before
    _ = unsafe unlink(partial)  // of a command that failed; after success nothing is there
  }

  /// Writes all of the bytes at `offset`.
  func write(_ bytes: [UInt8], at offset: Int) throws {
    var done = 0
    while done < bytes.count {
      // SAFETY: the rest of the array lies within it.
      let count = unsafe bytes.withUnsafeBytes {
        unsafe pwrite(
          descriptor,
          $0.baseAddress.map { unsafe $0 + done },
          bytes.count - done,
          off_t(offset + done)
        )
      }
      if count == -1, errno == EINTR { continue }
      guard count > 0 else { throw Failure("cannot write \(partial): \(errorText())") }
      done += count
    }
  }

  /// Makes it durable under its name.
  func finish(replaces: Bool) throws {
    guard fsync(descriptor) == 0 else { throw Failure("cannot sync \(partial): \(errorText())") }
    if replaces {
      guard unsafe rename(partial, path) == 0 else {
        throw Failure("cannot rename \(partial): \(errorText())")
      }
    } else {
      // link(2) does not replace what came there meanwhile.
      guard unsafe link(partial, path) == 0 else { throw Failure("cannot make \(path): \(errorText())") }
      guard unsafe unlink(partial) == 0 else { throw Failure("cannot remove \(partial): \(errorText())") }
    }
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let directory = unsafe open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    defer { if directory >= 0 { _ = Glibc.close(directory) } }
    guard directory >= 0, fsync(directory) == 0 else {
      throw Failure("cannot sync \(folder): \(errorText())")
    }
  }
}

/// errno in words.
func errorText() -> String {
  // SAFETY: strerror answers a C string that is copied at once.
  unsafe String(cString: strerror(errno))
}
