internal import Glibc
public import SecureMemory

/// The variables of this process.
public enum ProcessEnvironment {
  /// A variable's value, in locked memory; nil where it is not set, or empty. What the kernel put into the process's memory stays there.
  ///
  /// - Throws: `SecureMemoryError.exhausted`.
  public static func secret(_ name: String) throws(SecureMemoryError) -> Secret? {
    // SAFETY: nothing in this process changes its environment once it has threads, so the string that getenv(3) answers stays.
    guard let value = unsafe getenv(name), unsafe value.pointee != 0 else { return nil }
    return try unsafe Secret(copying: UnsafeRawBufferPointer(start: value, count: strlen(value)))
  }
}
