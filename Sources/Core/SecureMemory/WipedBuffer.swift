internal import Glibc

/// A growing byte buffer for plaintext in flight; every byte it ever held is wiped before its memory is let go.
///
/// A queue of bytes: append at the end, consume from the front. Not safe to share between threads: the
/// connection that owns it uses it on one event loop.
@safe
public struct WipedBuffer: ~Copyable {
  private var memory: UnsafeMutableRawBufferPointer
  private var start = 0
  private var end = 0

  /// Makes an empty buffer with room for `capacity` bytes.
  public init(capacity: Int = 0) {
    unsafe memory = .allocate(byteCount: capacity, alignment: 16)
  }

  deinit {
    // SAFETY: the whole capacity was allocated here and is released once.
    unsafe Self.release(memory)
  }

  private static func release(_ memory: UnsafeMutableRawBufferPointer) {
    if let base = memory.baseAddress { unsafe explicit_bzero(base, memory.count) }
    unsafe memory.deallocate()
  }

  /// Bytes held.
  public var count: Int { end - start }
  /// True when nothing is held.
  public var isEmpty: Bool { end == start }
  /// Bytes of memory behind it.
  public var capacity: Int { unsafe memory.count }

  /// The bytes held, front first; valid until the next mutation.
  public borrowing func withUnsafeBytes<R: ~Copyable, E: Error>(
    _ body: (UnsafeRawBufferPointer) throws(E) -> R
  ) throws(E) -> R {
    // SAFETY: `start..<end` lies within the allocation, which `self` keeps alive.
    try unsafe body(UnsafeRawBufferPointer(rebasing: memory[start..<end]))
  }

  /// Makes room for `minimum` more bytes, lets `body` write into it and takes the count that it returns.
  ///
  /// `body` is given at least `minimum` bytes and returns how many of them it wrote.
  public mutating func append<E: Error>(
    minimum: Int,
    _ body: (UnsafeMutableRawBufferPointer) throws(E) -> Int
  ) throws(E) {
    reserve(minimum)
    // SAFETY: `end...` lies within the allocation.
    let written = try unsafe body(UnsafeMutableRawBufferPointer(rebasing: memory[end...]))
    precondition(written >= 0 && end + written <= capacity, "more bytes reported than there was room for")
    end += written
  }

  /// Appends a copy of `bytes`.
  public mutating func append(_ bytes: UnsafeRawBufferPointer) {
    unsafe append(minimum: bytes.count) { room in
      unsafe room.copyMemory(from: bytes)
      return bytes.count
    }
  }

  /// Appends a copy of public bytes.
  public mutating func append(_ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { unsafe append($0) }
  }

  /// Appends one byte.
  public mutating func append(byte: UInt8) {
    unsafe append(minimum: 1) { room in
      // SAFETY: there is room for one byte at least.
      unsafe room[0] = byte
      return 1
    }
  }

  /// Appends a copy of another buffer's bytes.
  public mutating func append(_ other: borrowing WipedBuffer) {
    unsafe append(UnsafeRawBufferPointer(rebasing: other.memory[other.start..<other.end]))
  }

  /// Forgets, and wipes, the first `count` bytes.
  public mutating func consume(_ count: Int) {
    precondition(count >= 0 && count <= self.count, "cannot consume more than the buffer holds")
    if count > 0, let base = unsafe memory.baseAddress { unsafe explicit_bzero(base + start, count) }
    start += count
    if start == end {
      start = 0
      end = 0
    }
  }

  /// Forgets, and wipes, everything past the first `count` bytes.
  public mutating func truncate(to count: Int) {
    precondition(count >= 0 && count <= self.count, "cannot truncate to more than the buffer holds")
    let kept = start + count
    if kept < end, let base = unsafe memory.baseAddress { unsafe explicit_bzero(base + kept, end - kept) }
    end = kept
  }

  /// Forgets and wipes all, and gives the memory back when it has grown past `keeping` bytes.
  public mutating func removeAll(keeping keptCapacity: Int) {
    consume(count)
    guard capacity > keptCapacity else { return }
    unsafe Self.release(memory)
    unsafe memory = .allocate(byteCount: keptCapacity, alignment: 16)
  }

  private mutating func reserve(_ more: Int) {
    guard unsafe memory.count - end < more else { return }
    let held = count
    if unsafe memory.count >= held + more && start >= held {
      // SAFETY: source and target do not overlap because `start >= held`; the source is wiped after.
      if let base = unsafe memory.baseAddress {
        unsafe base.copyMemory(from: base + start, byteCount: held)
        unsafe explicit_bzero(base + start, held)
      }
    } else {
      let grown = unsafe UnsafeMutableRawBufferPointer.allocate(
        byteCount: max(held + more, memory.count * 2),
        alignment: 16
      )
      // SAFETY: `grown` has room for `held` bytes; the old block is wiped before it is freed.
      unsafe grown.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[start..<end]))
      unsafe Self.release(memory)
      unsafe memory = grown
    }
    start = 0
    end = held
  }
}
