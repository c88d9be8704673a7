internal import CLinux
internal import Glibc
internal import Synchronization

/// What a file was when it was looked at.
public struct FileStatus: Sendable, Equatable {
  /// st_dev.
  public let device: UInt64
  /// st_ino.
  public let inode: UInt64
  /// Bytes.
  public let size: Int
}

/// A directory, opened once: everything in it is reached through its descriptor, by a name of one component.
public final class DirectoryDescriptor: Sendable {
  /// For messages only.
  public let path: String
  let descriptor: FileDescriptor
  let calls: SystemCalls

  /// The temporary files that are being written at this moment, by this process.
  private let writing = Mutex<Set<String>>([])

  /// Opens a directory; refuses a symbolic link as its last component.
  ///
  /// - Parameters:
  ///   - create: makes it, mode 0700, where it is not there; durable when it returns.
  ///   - requirePrivate: refuses one that others may enter, read or write.
  public convenience init(
    path: String,
    create: Bool = false,
    requirePrivate: Bool = true,
    calls: SystemCalls = SystemCalls()
  ) throws(FileError) {
    let isNew = unsafe create && access(path, F_OK) != 0
    try self.init(at: AT_FDCWD, path, path: path, create, requirePrivate, calls)
    guard isNew else { return }
    let parent = path.lastIndex(of: "/").map { path[..<$0] } ?? "."
    // The dot: a symbolic link on the way to it is the operator's affair. It may be another user's, so that its times cannot be set.
    let above = try DirectoryDescriptor(path: "\(parent)/.", requirePrivate: false, calls: calls)
    guard calls.make(.fsync, { fsync(above.descriptor.number) }) == 0 else {
      throw .unknown("cannot sync \(above.path): \(lastErrorText())")
    }
  }

  /// Opens a directory in this one.
  public func directory(
    _ name: String,
    create: Bool = false,
    requirePrivate: Bool = true
  ) throws(FileError) -> DirectoryDescriptor {
    try Self.check(name)
    return try DirectoryDescriptor(
      at: descriptor.number,
      name,
      path: "\(path)/\(name)",
      create,
      requirePrivate,
      calls
    )
  }

  private init(
    at parent: Int32,
    _ name: String,
    path: String,
    _ create: Bool,
    _ requirePrivate: Bool,
    _ calls: SystemCalls
  ) throws(FileError) {
    self.path = path
    self.calls = calls
    if create, calls.make(.mkdir, { unsafe mkdirat(parent, name, 0o700) }) == -1, errno != EEXIST {
      throw .unchanged("cannot create \(path): \(lastErrorText())")
    }
    let number = calls.make(.open) {
      unsafe keyring_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
    }
    guard number >= 0 else { throw Self.openError(path) }
    descriptor = FileDescriptor(takingOwnership: number)
    if requirePrivate { try Self.checkPrivate(number, path, calls) }
  }

  static func openError(_ path: String) -> FileError {
    switch errno {
    case ENOENT: .absent("\(path) is not there")
    case ELOOP, ENOTDIR: .unacceptable("\(path) is not a plain file or directory, as it must be")
    default: .unchanged("cannot open \(path): \(lastErrorText())")
    }
  }

  private static func checkPrivate(
    _ number: Int32,
    _ path: String,
    _ calls: SystemCalls
  ) throws(FileError) {
    var status = stat()
    guard calls.make(.stat, { unsafe fstat(number, &status) }) == 0 else {
      throw .unchanged("cannot stat \(path): \(lastErrorText())")
    }
    guard status.st_mode & 0o077 == 0 else {
      throw .unacceptable("\(path) may be used by others (mode \(octal(status.st_mode))): chmod go-rwx it")
    }
    guard status.st_uid == geteuid() else { throw .unacceptable("\(path) belongs to another user") }
  }

  private static func octal(_ mode: mode_t) -> String { "0" + String(mode & 0o7777, radix: 8) }

  /// A name is one path component.
  static func check(_ name: String) throws(FileError) {
    guard !name.isEmpty, name != ".", name != "..", name.utf8.count <= 255,
      name.utf8.allSatisfy({ $0 != UInt8(ascii: "/") && $0 != 0 })
    else { throw .unacceptable("'\(name)' is not a file name") }
  }

  // MARK: Files in it

  /// Opens a file: a regular one, with no link in its place, that nobody else may read or write.
  func openFile(_ name: String, flags: Int32, requirePrivate: Bool = true) throws(FileError) -> FileDescriptor
  {
    try Self.check(name)
    let number = calls.make(.open) {
      unsafe keyring_openat(descriptor.number, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0o600)
    }
    guard number >= 0 else { throw Self.openError("\(path)/\(name)") }
    let file = FileDescriptor(takingOwnership: number)
    var status = stat()
    guard calls.make(.stat, { unsafe fstat(number, &status) }) == 0 else {
      throw .unchanged("cannot stat \(path)/\(name): \(lastErrorText())")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw .unacceptable("\(path)/\(name) is not a regular file")
    }
    if requirePrivate { try Self.checkPrivate(number, "\(path)/\(name)", calls) }
    return file
  }

  /// What stands at a name now, without following a link; nil if nothing does.
  public func status(of name: String) throws(FileError) -> FileStatus? {
    try Self.check(name)
    var status = stat()
    let result = calls.make(.stat) { unsafe fstatat(descriptor.number, name, &status, AT_SYMLINK_NOFOLLOW) }
    if result == 0 {
      return FileStatus(
        device: UInt64(status.st_dev),
        inode: UInt64(status.st_ino),
        size: Int(status.st_size)
      )
    }
    if errno == ENOENT { return nil }
    throw .unchanged("cannot stat \(path)/\(name): \(lastErrorText())")
  }

  /// What the directory itself is.
  public func status() throws(FileError) -> FileStatus {
    var status = stat()
    guard calls.make(.stat, { unsafe fstat(descriptor.number, &status) }) == 0 else {
      throw .unchanged("cannot stat \(path): \(lastErrorText())")
    }
    return FileStatus(device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: 0)
  }

  /// What an open file is.
  func status(of file: FileDescriptor, _ name: String) throws(FileError) -> FileStatus {
    var status = stat()
    guard calls.make(.stat, { unsafe fstat(file.number, &status) }) == 0 else {
      throw .unchanged("cannot stat \(path)/\(name): \(lastErrorText())")
    }
    return FileStatus(device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: Int(status.st_size))
  }

  /// Reads a whole file.
  ///
  /// - Throws: `.absent`; `.unacceptable` where it is no regular file, larger than `bytesMax`, or (`requirePrivate`) open to others.
  public func readFile(_ name: String, bytesMax: Int, requirePrivate: Bool = true) throws(FileError)
    -> [UInt8]
  {
    let file = try openFile(name, flags: O_RDONLY, requirePrivate: requirePrivate)
    return try read(file, name, bytesMax: bytesMax)
  }

  func read(_ file: FileDescriptor, _ name: String, bytesMax: Int) throws(FileError) -> [UInt8] {
    let size = try status(of: file, name).size
    guard size <= bytesMax else { throw .unacceptable("\(path)/\(name) is larger than \(bytesMax) bytes") }
    return try readExactly(file, size, at: 0, "\(path)/\(name)", calls)
  }

  /// Makes what was renamed, created or removed in this directory durable.
  public func synchronize() throws(FileError) {
    guard calls.synchronize(.fsync, descriptor.number) == 0 else {
      throw .unknown("cannot sync \(path): \(lastErrorText())")
    }
  }

  func rename(_ old: String, to new: String) -> Bool {
    calls.make(.rename) { unsafe renameat(descriptor.number, old, descriptor.number, new) } == 0
  }

  func rename(_ name: String, into other: DirectoryDescriptor, as new: String) -> Bool {
    calls.make(.rename) { unsafe renameat(descriptor.number, name, other.descriptor.number, new) } == 0
  }

  func removeDirectory(_ name: String) -> Bool {
    calls.make(.unlink) { unsafe unlinkat(descriptor.number, name, AT_REMOVEDIR) } == 0
  }

  /// The directory, opened once more.
  func reopened() throws(FileError) -> FileDescriptor {
    let number = calls.make(.open) {
      unsafe keyring_openat(descriptor.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    }
    guard number >= 0 else { throw Self.openError(path) }
    return FileDescriptor(takingOwnership: number)
  }

  func unlink(_ name: String) -> Bool {
    calls.make(.unlink) { unsafe unlinkat(descriptor.number, name, 0) } == 0
  }

  /// Removes a file, durably; nothing where it is not there.
  public func removeFile(_ name: String) throws(FileError) {
    try Self.check(name)
    guard unlink(name) || errno == ENOENT else {
      throw .unchanged("cannot remove \(path)/\(name): \(lastErrorText())")
    }
    try synchronize()
  }

  // MARK: Temporary files

  func begin(_ temporary: String) { writing.withLock { _ = $0.insert(temporary) } }
  func end(_ temporary: String) { writing.withLock { _ = $0.remove(temporary) } }

  /// Removes what a crash left of replacements of these files, unless they are being written in this process. For one who is the only writer.
  public func removeLeftovers(of names: [String]) throws(FileError) {
    for name in names { try removeLeftover(name + AtomicFile.temporarySuffix) }
  }

  /// Removes one temporary file, unless it is being written.
  func removeLeftover(_ temporary: String) throws(FileError) {
    try writing.withLock { writing throws(FileError) in
      guard !writing.contains(temporary), !unlink(temporary), errno != ENOENT else { return }
      throw .unchanged("cannot remove \(path)/\(temporary): \(lastErrorText())")
    }
  }

  /// The names in it, sorted, without `.` and `..`.
  public func names() throws(FileError) -> [String] {
    let number = calls.make(.open) {
      unsafe keyring_openat(descriptor.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    }
    // SAFETY: the stream owns the new descriptor, once there is one, and is closed here; entries are copied at once.
    guard number >= 0, let stream = unsafe fdopendir(number) else {
      let what = "cannot list \(path): \(lastErrorText())"
      if number >= 0 { _ = Glibc.close(number) }
      throw .unchanged(what)
    }
    defer { _ = unsafe closedir(stream) }
    var names: [String] = []
    errno = 0  // the end of the list leaves it as it is, an error does not: readdir(3)
    while let entry = unsafe readdir(stream) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != "." && name != ".." { names.append(name) }
      errno = 0
    }
    guard errno == 0 else { throw .unchanged("cannot list \(path): \(lastErrorText())") }
    return names.sorted()
  }

  private static let lockAttempts = 20
  private static let lockPauseMicroseconds: UInt32 = 10_000

  /// Takes the writer's lock: an open file description lock (fcntl(2)) that ends with the descriptor, however the process ends.
  func lock(_ name: String) throws(FileError) -> FileDescriptor {
    let file = try openFile(name, flags: O_RDWR | O_CREAT)
    for attempt in 1...Self.lockAttempts {
      if calls.make(.lock, { keyring_lock_exclusive(file.number) }) == 0 { return file }
      guard [EAGAIN, EACCES].contains(errno) else {
        throw .unchanged("cannot lock \(path)/\(name): \(lastErrorText())")
      }
      // A child that is between fork(2) and exec(2) holds what its parent held, and lets go in a moment.
      if attempt < Self.lockAttempts { usleep(Self.lockPauseMicroseconds) }
    }
    throw .unacceptable("\(path)/\(name) is locked by another server")
  }

  /// Takes a lock that lasts until it is released, or let go of.
  ///
  /// - Throws: `FileError.unacceptable` where another process, or this one, holds it.
  public func lockFile(_ name: String) throws(FileError) -> FileLock { FileLock(try lock(name)) }
}

/// A writer's lock.
public final class FileLock: Sendable {
  private let descriptor: Mutex<FileDescriptor?>

  init(_ descriptor: FileDescriptor) { self.descriptor = Mutex(descriptor) }

  /// Lets others have it.
  public func release() { descriptor.withLock { $0 = nil } }
}
