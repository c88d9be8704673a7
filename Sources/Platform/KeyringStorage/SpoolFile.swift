internal import Glibc
internal import Synchronization

/// A file without a name, gone with the process or when nobody holds it. Its calls block.
///
/// It is made with a name, which is taken away at once: what a crash between the two leaves, `SpoolFile.clean` removes.
public final class SpoolFile: BackupSource, Sendable {
  private let file: FileDescriptor
  private let calls: SystemCalls
  private let place: String
  private let written = Mutex(0)

  /// Makes an empty one.
  ///
  /// - Parameter name: of one component, nobody else's.
  public init(in directory: DirectoryDescriptor, name: String) throws(FileError) {
    file = try directory.openFile(name, flags: O_RDWR | O_CREAT | O_EXCL)
    calls = directory.calls
    place = "\(directory.path)/\(name)"
    guard directory.unlink(name) else { throw .unchanged("cannot unlink \(place): \(lastErrorText())") }
  }

  /// Removes what crashes left.
  public static func clean(_ directory: DirectoryDescriptor) throws(FileError) {
    for name in try directory.names() {
      guard directory.unlink(name) || errno == ENOENT else {
        throw .unchanged("cannot remove \(directory.path)/\(name): \(lastErrorText())")
      }
    }
  }

  /// Up to the end of what was written.
  public var size: Int { written.withLock { $0 } }

  /// Writes more at the end; by one caller at a time.
  public func append(_ bytes: [UInt8]) throws(BackupError) { try write(bytes, at: size) }

  /// Writes anywhere, in any order.
  public func write(_ bytes: [UInt8], at offset: Int) throws(BackupError) {
    do throws(FileError) {
      try AtomicFile.writeAll(file, bytes, at: offset, place, calls)
    } catch {
      throw .unavailable("\(error)")
    }
    written.withLock { $0 = max($0, offset + bytes.count) }
  }

  /// Exactly `count` bytes at `offset`.
  public func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    do throws(FileError) {
      return try readExactly(file, count, at: offset, place, calls)
    } catch {
      throw .unavailable("\(error)")
    }
  }
}

/// Reads `count` bytes, however many calls it takes.
func readExactly(
  _ file: FileDescriptor,
  _ count: Int,
  at offset: Int,
  _ path: String,
  _ calls: SystemCalls
) throws(FileError) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: count)
  var done = 0
  while done < count {
    let read = unsafe bytes.withUnsafeMutableBytes {
      unsafe calls.read(
        file.number,
        into: UnsafeMutableRawBufferPointer(rebasing: $0[done...]),
        at: offset + done
      )
    }
    guard read >= 0 else { throw .unchanged("cannot read \(path): \(lastErrorText())") }
    guard read > 0 else { throw .unchanged("\(path) is shorter than expected") }
    done += read
  }
  return bytes
}
