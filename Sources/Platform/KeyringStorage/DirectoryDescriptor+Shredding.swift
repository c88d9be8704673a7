internal import Glibc

/// Destroying files: what they held is overwritten where it lies before their names go.
///
/// A file system that copies on write, a snapshot, or the blocks that a flash disk holds in reserve may keep what was there before. What lies in
/// these files is encrypted besides: destroying the key that it is encrypted under is what makes it unreadable, and this what makes that thorough.
extension DirectoryDescriptor {
  private static let chunkBytes = 65_536

  /// Overwrites a file with zeros, syncs it, and removes it; durable when it returns. Nothing but that where it is not there; what is no regular
  /// file is removed only.
  ///
  /// - Throws: `FileError`; the same call goes on where it ended.
  public func shred(_ name: String) throws(FileError) {
    do throws(FileError) {
      let file = try openFile(name, flags: O_WRONLY, requirePrivate: false)
      try overwrite(file, name)
    } catch .absent {
      return try synchronize()
    } catch .unacceptable {
      // A link, say: nothing of it lies here.
    }
    try removeFile(name)
  }

  private func overwrite(_ file: FileDescriptor, _ name: String) throws(FileError) {
    let size = try status(of: file, name).size
    let zeros = [UInt8](repeating: 0, count: Self.chunkBytes)
    var offset = 0
    while offset < size {
      let count = min(Self.chunkBytes, size - offset)
      try AtomicFile.writeAll(
        file,
        count == zeros.count ? zeros : Array(zeros[..<count]),
        at: offset,
        "\(path)/\(name)",
        calls
      )
      offset += count
    }
    guard calls.synchronize(.fsync, file.number) == 0 else {
      throw .unknown("cannot sync \(path)/\(name): \(lastErrorText())")
    }
  }

  /// Destroys every file in a directory of this one, and removes it; durable when it returns. Nothing where it is not there.
  ///
  /// - Throws: as `shred`; `.unacceptable` where a directory is in it, which is not looked into.
  public func shredDirectory(_ name: String) throws(FileError) {
    let doomed: DirectoryDescriptor
    do throws(FileError) {
      doomed = try directory(name, requirePrivate: false)
    } catch .absent {
      return try synchronize()
    }
    for each in try doomed.names() { try doomed.shred(each) }
    let removed = calls.make(.unlink) { unsafe unlinkat(descriptor.number, name, Int32(AT_REMOVEDIR)) }
    guard removed == 0 || errno == ENOENT else {
      throw .unchanged("cannot remove \(path)/\(name): \(lastErrorText())")
    }
    try synchronize()
  }
}
