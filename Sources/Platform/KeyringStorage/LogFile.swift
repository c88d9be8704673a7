internal import Glibc

/// A file that grows at its end, and is never replaced: a log. Its calls block.
public final class LogFile: BackupSource, Sendable {
  private let file: FileDescriptor
  private let calls: SystemCalls
  private let place: String
  /// What it was when it was opened.
  public let status: FileStatus

  /// Opens one that is there, or makes a new one.
  ///
  /// - Parameters:
  ///   - name: of one component.
  ///   - isNew: makes it, mode 0600, and refuses one that is there; the caller syncs the directory.
  /// - Throws: `FileError.absent`, `.unacceptable` (a link, not a regular file, open to others), `.unchanged`.
  public init(_ name: String, in directory: DirectoryDescriptor, isNew: Bool = false) throws(FileError) {
    file = try directory.openFile(name, flags: isNew ? O_RDWR | O_CREAT | O_EXCL : O_RDWR)
    calls = directory.calls
    place = "\(directory.path)/\(name)"
    status = try directory.status(of: file, name)
  }

  /// Bytes, when it was opened.
  public var size: Int { status.size }

  /// Exactly `count` bytes at `offset`.
  public func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    do throws(FileError) {
      return try readExactly(file, count, at: offset, place, calls)
    } catch {
      throw .unavailable("\(error)")
    }
  }

  /// Writes all of `bytes` at `offset`, however many calls it takes.
  ///
  /// - Throws: `FileError.unchanged`, `.noRoom`, `.unknown`; but for the first, some of it may have been taken.
  public func write(_ bytes: [UInt8], at offset: Int) throws(FileError) {
    try AtomicFile.writeAll(file, bytes, at: offset, place, calls)
  }

  /// Cuts it off behind `size` bytes.
  public func truncate(to size: Int) throws(FileError) {
    guard calls.make(.ftruncate, { ftruncate(file.number, off_t(size)) }) == 0 else {
      throw .unknown("cannot cut off \(place): \(lastErrorText())")
    }
  }

  /// Makes what was written durable (fdatasync(2)).
  public func synchronize() throws(FileError) {
    guard calls.synchronize(.fdatasync, file.number) == 0 else {
      throw .unknown("cannot sync \(place): \(lastErrorText())")
    }
  }
}
