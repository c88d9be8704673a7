/// The five bytes before each message, as gRPC has them: flags (0), then the length, big-endian.
public enum Frame {
  /// Bytes of the prefix.
  public static let prefixBytes = 5
  /// The longest message by default, and the longest reply to an instance: 64 KiB.
  public static let messageBytesDefault = 64 * 1024
  /// The longest `Transact`, and the longest message of an administrator or to one: 4 MiB.
  public static let messageBytesMax = 4 * 1024 * 1024

  /// What the bytes received so far are.
  public enum Next: Equatable, Sendable {
    /// Not a whole frame yet.
    case incomplete
    /// A message of this many bytes follows the prefix, all of it there.
    case message(bytes: Int)
  }

  /// Looks at the front of what was received. The length is judged as soon as it can be read, before its payload is waited for.
  ///
  /// - Throws: `WireError.compressed`, `.flags`, `.empty`, `.tooLarge`.
  public static func next(in bytes: UnsafeRawBufferPointer, messageBytesMax: Int) throws(WireError) -> Next {
    guard let flags = unsafe bytes.first else { return .incomplete }
    guard flags == 0 else { throw flags == 1 ? .compressed : .flags(flags) }
    guard bytes.count >= prefixBytes else { return .incomplete }
    let length = (1..<prefixBytes).reduce(0) { unsafe $0 << 8 | Int(bytes[$1]) }
    guard length > 0 else { throw .empty }
    guard length <= messageBytesMax else { throw .tooLarge(bytes: length, max: messageBytesMax) }
    return bytes.count >= prefixBytes + length ? .message(bytes: length) : .incomplete
  }

  /// The prefix of a message of `count` bytes.
  public static func prefix(count: Int) -> [UInt8] {
    [
      0, UInt8(truncatingIfNeeded: count >> 24), UInt8(truncatingIfNeeded: count >> 16),
      UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count),
    ]
  }
}

/// Why what came over the wire is not part of the protocol.
public enum WireError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The flag of a compressed message.
  case compressed
  /// Flags that there are not.
  case flags(UInt8)
  /// A message of no bytes.
  case empty
  /// A message over the limit.
  case tooLarge(bytes: Int, max: Int)
  /// A message that is not one, with the request's id where it could be read.
  case malformed(String, requestID: UInt64)
  /// A message that takes more memory than it may.
  case overBudget(requestID: UInt64)
  /// A large frame, while the tenant has as many bytes in flight as it may.
  case overShare(bytes: Int)
  /// No memory for it, or no locked memory for the secrets in it.
  case noMemory(requestID: UInt64)

  /// Safe for a client.
  public var description: String {
    switch self {
    case .compressed: "compressed messages are not part of keyring/1"
    case .flags(let flags): "a frame begins with the flags 0, not \(flags)"
    case .empty: "a frame has at least one byte of message"
    case .tooLarge(let bytes, let max): "a message of \(bytes) bytes is over the limit of \(max)"
    case .malformed(let what, _): what
    case .overBudget: "the message takes more memory than a request may"
    case .overShare(let bytes): "no room for a message of \(bytes) bytes beside what the tenant has in flight"
    case .noMemory: "no memory left for this request, or no locked memory for the secrets in it"
    }
  }

  /// The id of the request that it came in; 0 where that is not known.
  public var requestID: UInt64 {
    switch self {
    case .malformed(_, let id), .overBudget(let id), .noMemory(let id): id
    case .compressed, .flags, .empty, .tooLarge, .overShare: 0
    }
  }
}
