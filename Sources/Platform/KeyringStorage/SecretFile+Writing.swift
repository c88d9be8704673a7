internal import Glibc
public import SecureMemory

extension DirectoryDescriptor {
  /// Makes a file, mode 0600, that holds a secret; durable when it returns, and there as a whole or not at all.
  ///
  /// - Throws: as `AtomicFile.replace`.
  public func writeSecret(_ name: String, _ secret: Secret) throws(FileError) {
    let file = try AtomicFile.begin(name, in: self)
    defer { end(name + AtomicFile.temporarySuffix) }
    let place = "\(path)/\(name + AtomicFile.temporarySuffix)"
    // SECRET: from locked memory into the file that is to hold it.
    let written = unsafe secret.withUnsafeBytes { unsafe calls.write(file.number, $0, at: 0) }
    guard written == secret.count, calls.synchronize(.fsync, file.number) == 0 else {
      let why = lastErrorText()
      _ = unlink(name + AtomicFile.temporarySuffix)  // the failure is what is told
      throw .unchanged("cannot write \(place): \(why)")
    }
    try AtomicFile.putInPlace(name, in: self)
  }
}
