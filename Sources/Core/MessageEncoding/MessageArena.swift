public import CProtobufC

/// Memory for one unpacked protobuf-c message at a time: bounded, and wiped when the next one begins.
///
/// protobuf-c makes up to 68 bytes of objects of one byte of hostile input; the budget stops that. Not safe to share between threads.
@safe
public final class MessageArena {
  private let arena: OpaquePointer

  /// The system has no memory for it.
  public struct OutOfMemory: Error {}

  /// - Parameters:
  ///   - firstBlockBytes: kept between messages.
  ///   - budgetBytes: what the objects of one message may take.
  /// - Throws: `OutOfMemory`.
  public init(firstBlockBytes: Int = 4096, budgetBytes: Int) throws(OutOfMemory) {
    guard let arena = unsafe keyring_arena_create(firstBlockBytes, budgetBytes) else { throw OutOfMemory() }
    unsafe self.arena = arena
  }

  deinit { unsafe keyring_arena_destroy(arena) }

  /// To be passed to a message's unpack function.
  public var allocator: UnsafeMutablePointer<ProtobufCAllocator> { unsafe keyring_arena_allocator(arena) }

  /// Wipes and forgets the message before.
  public func reset() { unsafe keyring_arena_reset(arena) }

  /// True where the system had no memory for the message before, which may be a good one.
  public var isStarved: Bool { unsafe keyring_arena_starved(arena) }

  /// True where the message before did not fit the budget.
  public var isExhausted: Bool { unsafe keyring_arena_exhausted(arena) }
}
