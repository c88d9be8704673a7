internal import CLinux
internal import Glibc
public import SecureMemory

// What several files made at once need: each is written without a sync of its own, and one `FileSystemSync` makes all of them durable. Nothing
// that is written so may be relied on, or be referred to by what is durable, before that.

extension DirectoryDescriptor {
  /// Writes a new file, mode 0600, that nothing makes durable yet.
  ///
  /// - Throws: where one of that name is there, among others; a part of it may then be there.
  public func writeUnsynced(_ name: String, _ bytes: [UInt8]) throws(FileError) {
    let file = try openFile(name, flags: O_WRONLY | O_CREAT | O_EXCL)
    try AtomicFile.writeAll(file, bytes, at: 0, "\(path)/\(name)", calls)
  }

  // SECRET: the secret's way to its file is one write(2) out of locked memory; no copy of it is made.
  /// As the other, of a secret.
  public func writeUnsynced(_ name: String, _ secret: Secret) throws(FileError) {
    let file = try openFile(name, flags: O_WRONLY | O_CREAT | O_EXCL)
    try unsafe secret.withUnsafeBytes { bytes throws(FileError) in
      try unsafe AtomicFile.writeAll(file, bytes, at: 0, "\(path)/\(name)", calls)
    }
  }

  /// Moves a directory in this one into another; durable once both are synced.
  ///
  /// - Throws: `FileError.unchanged`, where something that is not an empty directory stands there, among others.
  public func moveDirectory(
    _ name: String,
    into other: DirectoryDescriptor,
    as new: String
  ) throws(FileError) {
    try Self.check(name)
    try Self.check(new)
    guard rename(name, into: other, as: new) else {
      throw .unchanged("cannot move \(path)/\(name) to \(other.path)/\(new): \(lastErrorText())")
    }
  }

  /// Removes a file, which nothing makes durable yet; nothing where it is not there.
  public func removeUnsynced(_ name: String) throws(FileError) {
    try Self.check(name)
    guard unlink(name) || errno == ENOENT else {
      throw .unchanged("cannot remove \(path)/\(name): \(lastErrorText())")
    }
  }

  /// Removes an empty directory, which nothing makes durable yet.
  ///
  /// - Returns: false where it is not empty; true where it is gone, or was not there.
  public func removeDirectoryUnsynced(_ name: String) throws(FileError) -> Bool {
    try Self.check(name)
    if removeDirectory(name) || errno == ENOENT { return true }
    if errno == ENOTEMPTY || errno == EEXIST { return false }
    throw .unchanged("cannot remove \(path)/\(name): \(lastErrorText())")
  }

  /// Removes a directory with the files in it, which nothing makes durable yet; nothing where it is not there.
  public func removeTreeUnsynced(_ name: String) throws(FileError) {
    do throws(FileError) {
      let inner = try directory(name)
      for file in try inner.names() { try inner.removeUnsynced(file) }
    } catch .absent {
      return
    }
    guard try removeDirectoryUnsynced(name) else {
      throw .unchanged("cannot remove \(path)/\(name): something is written into it")
    }
  }
}

/// One sync of a whole file system (syncfs(2)), for what was written to it since this was made.
///
/// The kernel tells of a write that failed since the descriptor was opened, whoever's it was (Linux 5.8): so it is opened before the first
/// write. A failure may be of a file that is none of ours, and counts all the same.
public struct FileSystemSync: Sendable {
  /// st_dev of the file system.
  public let device: UInt64
  private let descriptor: FileDescriptor
  private let path: String
  private let calls: SystemCalls

  /// - Parameter directory: in the file system; it is this service's own.
  public init(of directory: DirectoryDescriptor) throws(FileError) {
    device = try directory.status().device
    descriptor = try directory.reopened()
    path = directory.path
    calls = directory.calls
  }

  /// Makes all that was written, made, renamed and removed durable.
  ///
  /// - Throws: `FileError.unknown`.
  public func synchronize() throws(FileError) {
    guard calls.synchronize(.syncfs, descriptor.number) == 0 else {
      throw .unknown("cannot sync the file system of \(path): \(lastErrorText())")
    }
  }
}
