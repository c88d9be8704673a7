internal import CLinux
internal import Glibc
public import SecureMemory

/// Files that hold a secret: read straight into locked memory, refused where others could read them.
public enum SecretFile {
  /// The longest secret file, in bytes.
  public static let bytesMax = 65_536

  /// The whole content of a regular file that only its owner may use; no symbolic link.
  ///
  /// - Parameter requirePrivate: false where others may read it.
  /// - Throws: `FileError.absent`, `.unacceptable`, `.unchanged`.
  public static func read(_ path: String, requirePrivate: Bool = true) throws(FileError) -> Secret {
    let parts = path.split(separator: "/", omittingEmptySubsequences: true)
    guard let name = parts.last.map(String.init) else { throw .unacceptable("'\(path)' is not a file name") }
    let parent = (path.hasPrefix("/") ? "/" : "") + parts.dropLast().joined(separator: "/")
    let directory = try DirectoryDescriptor(path: parent.isEmpty ? "." : parent, requirePrivate: false)
    return try directory.readSecret(name, bytesMax: bytesMax, requirePrivate: requirePrivate)
  }

  /// The whole content of a regular file that the platform puts there for this process and renews, as Kubernetes does with its tokens: behind
  /// symbolic links, of another user, with whatever mode it chose.
  ///
  /// - Throws: `FileError.absent`, `.unacceptable`, `.unchanged`.
  public static func readProvided(_ path: String) throws(FileError) -> Secret {
    let calls = SystemCalls()
    let number = calls.make(.open) {
      unsafe keyring_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0)
    }
    guard number >= 0 else { throw DirectoryDescriptor.openError(path) }
    let file = FileDescriptor(takingOwnership: number)
    return try readWhole(file, path, bytesMax: bytesMax, calls)
  }

  /// The first line of such a file, without its newline; the file has no other line.
  public static func firstLine(_ path: String) throws(FileError) -> Secret {
    let whole = try read(path)
    let (count, isOneLine) = unsafe whole.withUnsafeBytes { bytes -> (Int, Bool) in
      let end = unsafe bytes.firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
      return (end, bytes.count - end <= 1)
    }
    guard isOneLine else { throw .unacceptable("\(path) has more than one line") }
    do {
      return try unsafe whole.withUnsafeBytes { bytes throws(SecureMemoryError) in
        try unsafe Secret(copying: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
      }
    } catch {
      throw .unchanged("\(path): \(error)")
    }
  }

  /// All of an open regular file.
  fileprivate static func readWhole(
    _ file: FileDescriptor,
    _ path: String,
    bytesMax: Int,
    _ calls: SystemCalls
  ) throws(FileError) -> Secret {
    var status = stat()
    guard calls.make(.stat, { unsafe fstat(file.number, &status) }) == 0 else {
      throw .unchanged("cannot stat \(path): \(lastErrorText())")
    }
    guard status.st_mode & S_IFMT == S_IFREG else { throw .unacceptable("\(path) is not a regular file") }
    let size = Int(status.st_size)
    guard size <= bytesMax else { throw .unacceptable("\(path) is larger than \(bytesMax) bytes") }
    var read = 0
    let secret: Secret
    do {
      secret = try unsafe Secret(count: size) { room in
        unsafe read = calls.read(file.number, into: room, at: 0)
      }
    } catch {
      throw .unchanged("\(path): \(error)")
    }
    guard read == size else { throw .unchanged("cannot read all of \(path)") }
    return secret
  }
}

extension DirectoryDescriptor {
  /// Reads a whole file into locked memory.
  ///
  /// - Throws: `.absent`; `.unacceptable` where it is no regular file, larger than `bytesMax`, or (`requirePrivate`) open to others.
  public func readSecret(
    _ name: String,
    bytesMax: Int,
    requirePrivate: Bool = true
  ) throws(FileError) -> Secret {
    let file = try openFile(name, flags: O_RDONLY, requirePrivate: requirePrivate)
    return try SecretFile.readWhole(file, "\(path)/\(name)", bytesMax: bytesMax, calls)
  }
}
