internal import COpenSSL

/// Secret bytes in locked memory with one owner; wiped when the owner lets go.
///
/// It cannot be copied, printed, compared with `==` or encoded, so that no second copy comes to be by accident.
/// To share one secret between owners, use `Secret`.
@safe
public struct SecretBytes: ~Copyable, @unchecked Sendable {
  // SAFETY: @unchecked Sendable because the pointer is this value's own and is never written after `init`.
  private let base: UnsafeMutableRawPointer?
  /// Length in bytes.
  public let count: Int

  /// Makes a secret of `count` bytes, zeroed, then written by `fill`.
  ///
  /// - Throws: `SecureMemoryError.exhausted` when the locked arena is full.
  public init(count: Int, fill: (UnsafeMutableRawBufferPointer) -> Void) throws(SecureMemoryError) {
    precondition(count >= 0, "a secret's length cannot be negative")
    self.count = count
    guard count > 0 else {
      unsafe base = nil
      return
    }
    // SAFETY: the allocation is owned by this value alone and freed in deinit.
    guard let memory = unsafe CRYPTO_secure_zalloc(count, #fileID, #line) else {
      throw .exhausted(bytes: count)
    }
    unsafe base = memory
    unsafe fill(UnsafeMutableRawBufferPointer(start: memory, count: count))
  }

  /// Makes a secret that is a copy of `bytes`; the caller still owns, and wipes, its own.
  ///
  /// - Throws: `SecureMemoryError.exhausted` when the locked arena is full.
  public init(copying bytes: UnsafeRawBufferPointer) throws(SecureMemoryError) {
    // SAFETY: both buffers are live for the call, and `fill` is given exactly `bytes.count` bytes.
    try unsafe self.init(count: bytes.count) { unsafe $0.copyMemory(from: bytes) }
  }

  deinit {
    // SAFETY: `base` came from CRYPTO_secure_zalloc with this count, and nobody else holds it.
    unsafe CRYPTO_secure_clear_free(base, count, #fileID, #line)
  }

  /// Lends the bytes for the length of the call; they must not escape it.
  public borrowing func withUnsafeBytes<R: ~Copyable, E: Error>(
    _ body: (UnsafeRawBufferPointer) throws(E) -> R
  ) throws(E) -> R {
    // SAFETY: `self` is borrowed for the call, so the memory lives as long.
    try unsafe body(UnsafeRawBufferPointer(start: base, count: count))
  }

  /// Compares in time that depends on the lengths only (CRYPTO_memcmp(3)).
  public borrowing func isEqual(to other: borrowing SecretBytes) -> Bool {
    guard count == other.count else { return false }
    guard count > 0 else { return true }
    // SAFETY: both regions are `count` bytes long and live for the call.
    return unsafe CRYPTO_memcmp(base, other.base, count) == 0
  }
}

/// One secret with several owners: a reference to `SecretBytes` that can cross tasks and closures.
public final class Secret: Sendable, CustomStringConvertible, CustomDebugStringConvertible {
  /// The bytes; borrow them, never copy them out.
  public let bytes: SecretBytes

  /// Takes over `bytes`.
  public init(takingOwnership bytes: consuming SecretBytes) { self.bytes = bytes }

  /// Makes a secret of `count` bytes, written by `fill`.
  ///
  /// - Throws: `SecureMemoryError.exhausted` when the locked arena is full.
  public convenience init(
    count: Int,
    fill: (UnsafeMutableRawBufferPointer) -> Void
  ) throws(SecureMemoryError) {
    self.init(takingOwnership: try unsafe SecretBytes(count: count, fill: fill))
  }

  /// Makes a secret that is a copy of `bytes`.
  ///
  /// - Throws: `SecureMemoryError.exhausted` when the locked arena is full.
  public convenience init(copying bytes: UnsafeRawBufferPointer) throws(SecureMemoryError) {
    self.init(takingOwnership: try unsafe SecretBytes(copying: bytes))
  }

  /// Makes a secret of several, one after the other.
  ///
  /// - Throws: `SecureMemoryError.exhausted` when the locked arena is full.
  public convenience init(joining parts: [Secret]) throws(SecureMemoryError) {
    try unsafe self.init(count: parts.reduce(0) { $0 + $1.count }) { room in
      var offset = 0
      for part in parts {
        // SAFETY: `room` has the length of all parts together.
        unsafe part.withUnsafeBytes {
          unsafe UnsafeMutableRawBufferPointer(rebasing: room[offset...]).copyMemory(from: $0)
        }
        offset += part.count
      }
    }
  }

  /// Length in bytes.
  public var count: Int { bytes.count }

  /// Lends the bytes for the length of the call; they must not escape it.
  public func withUnsafeBytes<R: ~Copyable, E: Error>(
    _ body: (UnsafeRawBufferPointer) throws(E) -> R
  ) throws(E) -> R {
    try unsafe bytes.withUnsafeBytes(body)
  }

  /// Compares in time that depends on the lengths only.
  public func isEqual(to other: Secret) -> Bool { bytes.isEqual(to: other.bytes) }

  /// Says how long it is, and no more.
  public var description: String { "<secret, \(count) bytes>" }
  /// Says how long it is, and no more.
  public var debugDescription: String { description }
}
