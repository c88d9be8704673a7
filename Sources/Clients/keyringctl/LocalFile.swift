import CLinux
import Glibc
import KeyringStorage

/// A file of the operator's, read with pread(2).
final class LocalFile: BackupSource {
  let path: String
  let size: Int
  private let descriptor: Int32

  init(_ path: String) throws {
    self.path = path
    // A FIFO without a writer is not waited for.
    let opened = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    var status = stat()
    let isOpen = unsafe opened >= 0 && fstat(opened, &status) == 0
    descriptor = opened
    size = Int(status.st_size)
    guard isOpen else { throw Failure("cannot open \(path): \(errorText())") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw Failure("\(path) is not a regular file") }
  }

  // Read only: nothing to lose.
  deinit { if descriptor >= 0 { _ = Glibc.close(descriptor) } }

  /// Exactly `count` bytes.
  func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    try readExactly(descriptor, path, at: offset, count: count)
  }

  /// All of it.
  func bytes() throws -> [UInt8] { try read(at: 0, count: size) }
}

/// A new file of the operator's, mode 0600, that appears under its name once it is whole and on the disk. Until then it has a name that nobody
/// else chose; what is under another's name is left alone.
final class NewFile {
  let path: String
  private let replaces: Bool
  private let partial: String
  private let descriptor: Int32

  /// Makes it, and tries before anything is written whether it can appear under its name.
  ///
  /// - Parameter replaces: a file of that name is replaced; else it must not be there, now or later.
  init(_ path: String, replaces: Bool) throws {
    if !replaces, unsafe access(path, F_OK) == 0 {
      throw Failure("\(path) is there already: name another file, or --force")
    }
    self.path = path
    self.replaces = replaces
    let random = String(UInt64.random(in: .min ... .max), radix: 36)
    let first = "\(path).\(random).new"
    partial = "\(path).\(random).partial"
    descriptor = unsafe open(first, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw Failure("cannot make \(first): \(errorText())") }
    do {
      try Self.move(first, to: partial, replaces: replaces)
    } catch {
      _ = unsafe unlink(first)  // made above; the failure is what is told
      throw error
    }
  }

  deinit {
    // Of a command that failed; after success nothing of ours is there.
    if descriptor >= 0, isOurs(partial) { _ = unsafe unlink(partial) }
    if descriptor >= 0 { _ = Glibc.close(descriptor) }  // what counts was synced before
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
  func finish() throws {
    guard fsync(descriptor) == 0 else { throw Failure("cannot sync \(partial): \(errorText())") }
    guard isOurs(partial) else { throw Failure("\(partial) was moved, or another file put there: try again") }
    try Self.move(partial, to: path, replaces: replaces)
    let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
    let directory = unsafe open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    defer { if directory >= 0 { _ = Glibc.close(directory) } }
    guard directory >= 0, fsync(directory) == 0 else {
      throw Failure("cannot sync \(folder): \(errorText())")
    }
  }

  /// True where a name is this file's, whatever was done to names since.
  private func isOurs(_ name: String) -> Bool {
    var (open, named) = (stat(), stat())
    guard unsafe fstat(descriptor, &open) == 0, unsafe lstat(name, &named) == 0 else { return false }
    return open.st_dev == named.st_dev && open.st_ino == named.st_ino
  }

  /// Gives a file another name in its directory, in one step.
  private static func move(_ from: String, to name: String, replaces: Bool) throws {
    if replaces {
      guard unsafe rename(from, name) == 0 else { throw Failure("cannot rename \(from): \(errorText())") }
      return
    }
    if unsafe keyring_rename_new(from, name) == 0 { return }
    // Some file systems know only one of the two ways that do not replace what came there meanwhile.
    guard errno == EINVAL || errno == ENOSYS else {
      throw Failure("cannot make \(name): \(errorText())")
    }
    guard unsafe link(from, name) == 0 else {
      let (number, why) = (errno, errorText())
      guard number == EEXIST else {
        throw Failure(
          "cannot make \(name) without the risk of replacing a file (\(why)): --force, or a folder on another file system"
        )
      }
      throw Failure("cannot make \(name): \(why)")
    }
    guard unsafe unlink(from) == 0 else { throw Failure("cannot remove \(from): \(errorText())") }
  }
}

/// What was written, whatever the names of files are now.
extension NewFile: BackupSource {
  /// Bytes; 0 where they cannot be counted.
  var size: Int {
    var status = stat()
    return unsafe fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
  }

  /// Exactly `count` bytes.
  func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    try readExactly(descriptor, partial, at: offset, count: count)
  }
}

private func readExactly(
  _ descriptor: Int32,
  _ path: String,
  at offset: Int,
  count: Int
) throws(BackupError) -> [UInt8] {
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

/// errno in words.
func errorText() -> String {
  // SAFETY: strerror answers a C string that is copied at once.
  unsafe String(cString: strerror(errno))
}
