internal import CLinux
internal import Glibc

/// Replaces files so that a crash, a full disk or a power cut leaves the old content or the new one: a new file beside it, written, synced
/// (fsync(2)), renamed over it (rename(2)), the directory synced. The one place that does this.
public enum AtomicFile {
  static let temporarySuffix = ".new"

  /// Replaces, or creates, `name` in `directory` with the concatenation of `parts`; mode 0600. Durable when it returns.
  ///
  /// - Throws: `FileError.unchanged` where the old content stands; `.unknown` where rename or the directory's sync failed: the old
  ///   or the new content stands.
  public static func replace(
    _ name: String,
    in directory: DirectoryDescriptor,
    with parts: [[UInt8]]
  ) throws(FileError) {
    _ = try write(name, in: directory, parts)
  }

  /// As `replace`; answers the open new file.
  static func write(
    _ name: String,
    in directory: DirectoryDescriptor,
    _ parts: [[UInt8]]
  ) throws(FileError) -> FileDescriptor {
    let file = try begin(name, in: directory)
    defer { directory.end(name + temporarySuffix) }
    do throws(FileError) {
      try fill(file, parts, "\(directory.path)/\(name + temporarySuffix)", directory.calls)
    } catch {
      // A leftover is removed by the next replacement or opening.
      _ = directory.unlink(name + temporarySuffix)
      throw .unchanged("\(error)")  // whatever became of the new file, the old one stands
    }
    try putInPlace(name, in: directory)
    return file
  }

  /// Makes the new file, empty; until `DirectoryDescriptor.end` it is nobody's leftover.
  static func begin(_ name: String, in directory: DirectoryDescriptor) throws(FileError) -> FileDescriptor {
    try DirectoryDescriptor.check(name)
    let temporary = name + temporarySuffix
    // One writer a directory (the tenant's lock): what stands here is what a crash left.
    guard directory.unlink(temporary) || errno == ENOENT else {
      throw .unchanged("cannot remove \(directory.path)/\(temporary): \(lastErrorText())")
    }
    directory.begin(temporary)
    do {
      return try directory.openFile(temporary, flags: O_RDWR | O_CREAT | O_EXCL)
    } catch {
      directory.end(temporary)
      throw error
    }
  }

  /// The new file, written and synced, takes the place of the old one; durable when it returns.
  static func putInPlace(_ name: String, in directory: DirectoryDescriptor) throws(FileError) {
    let temporary = name + temporarySuffix
    guard directory.rename(temporary, to: name) else {
      let text = lastErrorText()
      _ = directory.unlink(temporary)
      throw .unknown("cannot rename \(directory.path)/\(temporary): \(text)")
    }
    try directory.synchronize()
  }

  private static func fill(
    _ file: FileDescriptor,
    _ parts: [[UInt8]],
    _ path: String,
    _ calls: SystemCalls
  ) throws(FileError) {
    var offset = 0
    for part in parts {
      try writeAll(file, part, at: offset, path, calls)
      offset += part.count
    }
    guard calls.synchronize(.fsync, file.number) == 0 else {
      throw .unchanged("cannot sync \(path): \(lastErrorText())")
    }
  }

  /// Writes all of `bytes` at `offset`, however many calls it takes.
  static func writeAll(
    _ file: FileDescriptor,
    _ bytes: [UInt8],
    at offset: Int,
    _ path: String,
    _ calls: SystemCalls
  ) throws(FileError) {
    // Array.withUnsafeBytes erases the type of the error.
    let result = unsafe bytes.withUnsafeBytes { bytes in
      Result { () throws(FileError) in try unsafe writeAll(file, bytes, at: offset, path, calls) }
    }
    try result.get()
  }

  /// As the other; `bytes` live for the call.
  static func writeAll(
    _ file: FileDescriptor,
    _ bytes: UnsafeRawBufferPointer,
    at offset: Int,
    _ path: String,
    _ calls: SystemCalls
  ) throws(FileError) {
    var done = 0
    while done < bytes.count {
      // SAFETY: the rest of the buffer lies within it.
      let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[done...])
      let count = unsafe calls.write(file.number, rest, at: offset + done)
      guard count > 0 else {
        let code = errno
        let what = "cannot write \(path): \(count == 0 ? "nothing was taken" : lastErrorText())"
        if count < 0, [ENOSPC, EDQUOT, EFBIG].contains(code) { throw .noRoom(what) }
        throw done == 0 ? .unchanged(what) : .unknown(what)
      }
      done += count
    }
  }
}
