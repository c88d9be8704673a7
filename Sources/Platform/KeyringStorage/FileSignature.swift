internal import CLinux
internal import Glibc

/// What tells that a file is another one than it was, or has another content: looked at, not read.
public struct FileSignature: Sendable, Hashable {
  private let device: UInt64
  private let inode: UInt64
  private let size: Int64
  /// Nanoseconds: of the last change of the content, and of the last change of anything (which no program can set back).
  private let modified: Int64
  private let changed: Int64

  /// Of what a path leads to, symbolic links followed; nil where nothing is there, or where it cannot be looked at.
  public init?(path: String) {
    var status = stat()
    // SAFETY: the path is a C string for the call, and `status` lives for it.
    guard unsafe stat(path, &status) == 0 else { return nil }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    size = Int64(status.st_size)
    modified = Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    changed = Int64(status.st_ctim.tv_sec) * 1_000_000_000 + Int64(status.st_ctim.tv_nsec)
  }
}
