internal import CLinux
internal import Glibc
public import SecureMemory

/// Files that hold a secret: read straight into locked memory, refused where others could read them.
public enum SecretFile {
  /// The longest secret file, in bytes.
  public static let bytesMax = 65_536

  /// The whole content of a regular file that only its owner may use; no symbolic link.
  ///
  /// - Throws: `FileError.absent`, `.unacceptable`, `.unchanged`.
  public static func read(_ path: String) throws(FileError) -> Secret {
    let parts = path.split(separator: "/", omittingEmptySubsequences: true)
    guard let name = parts.last.map(String.init) else { throw .unacceptable("'\(path)' is not a file name") }
    let parent = (path.hasPrefix("/") ? "/" : "") + parts.dropLast().joined(separator: "/")
    let directory = try DirectoryDescriptor(path: parent.isEmpty ? "." : parent, requirePrivate: false)
    let file = try directory.openFile(name, flags: O_RDONLY)
    let size = try directory.status(of: file, name).size
    guard size <= bytesMax else { throw .unacceptable("\(path) is larger than \(bytesMax) bytes") }
    var read = 0
    let secret: Secret
    do {
      secret = try unsafe Secret(count: size) { room in
        unsafe read = directory.calls.read(file.number, into: room, at: 0)
      }
    } catch {
      throw .unchanged("\(path): \(error)")
    }
    guard read == size else { throw .unchanged("cannot read all of \(path)") }
    return secret
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
}
