import SecureMemory
import WireProtocol

/// Protobuf fields by hand, defaults and all, so that a message can be wrong in one way only.
enum Field {
  static func varint(_ value: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    return bytes + [UInt8(truncatingIfNeeded: rest)]
  }

  static func number(_ field: UInt64, _ value: UInt64) -> [UInt8] { varint(field << 3) + varint(value) }

  static func bytes(_ field: UInt64, _ value: [UInt8]) -> [UInt8] {
    varint(field << 3 | 2) + varint(UInt64(value.count)) + value
  }

  static func text(_ field: UInt64, _ value: String) -> [UInt8] { bytes(field, Array(value.utf8)) }
}

extension RequestDecoder {
  func decode(_ bytes: [UInt8]) throws(WireError) -> Request {
    // SAFETY: the array lives for the call.
    try unsafe bytes.span.withUnsafeBytes { bytes throws(WireError) in try unsafe decode(bytes) }
  }

  /// Why a message is refused; nil where it is not.
  func refusal(_ bytes: [UInt8]) -> WireError? {
    do throws(WireError) {
      _ = try decode(bytes)
      return nil
    } catch {
      return error
    }
  }
}

extension ReplyDecoder {
  func decode(_ bytes: [UInt8]) throws(WireError) -> Reply {
    // SAFETY: the array lives for the call.
    try unsafe bytes.span.withUnsafeBytes { bytes throws(WireError) in try unsafe decode(bytes) }
  }
}

extension WipedBuffer {
  borrowing func copied() -> [UInt8] {
    // SAFETY: copied within the call.
    unsafe withUnsafeBytes { unsafe Array($0) }
  }
}

extension Request {
  /// The whole frame.
  var frame: [UInt8] {
    var output = WipedBuffer()
    RequestEncoder.appendFrame(self, to: &output)
    return output.copied()
  }

  /// The message alone.
  var message: [UInt8] { Array(frame.dropFirst(Frame.prefixBytes)) }

  /// All of it in words, key material too: requests are equal where these are.
  var everything: String { "\(self) \(call.secrets)" }
}

extension Call {
  fileprivate var secrets: [[UInt8]] {
    switch self {
    case .change(let change): [change.secret]
    case .transact(let changes): changes.map(\.secret)
    case .importKeys(let keys):
      keys.map { Change.store($0.name, type: $0.type, value: $0.value).secret }
    case .fetch, .describe, .list, .whoAmI, .admin: []
    }
  }
}

extension Change {
  fileprivate var secret: [UInt8] {
    guard case .store(_, _, let value) = self else { return [] }
    // SAFETY: of a test, none of anybody's.
    return unsafe value.withUnsafeBytes { unsafe Array($0) }
  }
}

/// Key material of a test.
func secret(_ bytes: [UInt8]) throws -> Secret {
  // SAFETY: the array lives for the call.
  try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
}
