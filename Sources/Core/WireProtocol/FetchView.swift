public import KeyringCore

/// A fetch where it lies in its frame: what an event loop answers without taking the request apart.
public struct FetchView: Equatable, Sendable {
  /// Of the request.
  public let id: UInt64
  /// 0 where the caller has seen nothing.
  public let minSequence: UInt64
  /// 0 for the newest.
  public let version: UInt32
  /// Which key.
  public let identity: KeyIdentity

  /// Recognises the commonest of all requests: a well-formed `Fetch` in the shortest encoding, without traceparent or idempotency id.
  ///
  /// - Parameter instance: the caller's, for a key of its own.
  /// - Returns: nil for anything else, right or wrong: `RequestDecoder` judges that. Where this answers, that answers the same; a
  ///   test and a fuzz target hold both to it.
  public init?(_ message: UnsafeRawBufferPointer, instance: InstanceName) {
    var outer = unsafe FieldReader(message)
    id = outer.number(tag: 0x08)
    let timeoutMilliseconds = outer.number(tag: 0x10)
    minSequence = outer.number(tag: 0x28)
    guard id != 0, timeoutMilliseconds <= UInt32.max, outer.hasTag(0x82), var fetch = outer.nested(tag: 0x01),
      outer.isAtEnd, var name = fetch.nested(tag: 0x0a)
    else { return nil }
    let version = fetch.number(tag: 0x10)
    guard version <= UInt32.max, fetch.isAtEnd, let scope = RequestedScope(rawValue: name.number(tag: 0x08))
    else { return nil }
    self.version = UInt32(version)
    let owner = unsafe name.bytes(tag: 0x12)
    guard let keyID = unsafe name.bytes(tag: 0x1a), name.isAtEnd else { return nil }
    do {
      identity = try unsafe KeyIdentity(
        scope: scope == .shared ? .shared : .instance(instance),
        owner: owner ?? UnsafeRawBufferPointer(start: nil, count: 0),
        keyID: keyID
      )
    } catch {
      return nil
    }
  }
}

/// Reads fields in ascending order, in their shortest encoding only; what is wrong once is never at its end.
@safe
private struct FieldReader {
  private let memory: UnsafeRawBufferPointer
  private let count: Int
  private var offset = 0
  private var isWrong = false

  init(_ memory: UnsafeRawBufferPointer) {
    unsafe self.memory = memory
    count = memory.count
  }

  var isAtEnd: Bool { !isWrong && offset == count }

  /// Goes past a tag, or the first byte of one that has two.
  mutating func hasTag(_ tag: UInt8) -> Bool {
    guard offset < count, unsafe memory[offset] == tag else { return false }
    offset += 1
    return true
  }

  /// Of up to 9 bytes, the last of which is not 0: longer ones are left to the decoder.
  private mutating func varint() -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while offset < count, shift < 63 {
      let byte = unsafe memory[offset]
      offset += 1
      value |= UInt64(byte & 0x7f) << shift
      if byte < 0x80 {
        if byte == 0 { isWrong = true }
        return value
      }
      shift += 7
    }
    isWrong = true
    return 0
  }

  /// A number; 0 where it is left out.
  mutating func number(tag: UInt8) -> UInt64 { hasTag(tag) ? varint() : 0 }

  /// Bytes; nil where they are left out.
  mutating func bytes(tag: UInt8) -> UnsafeRawBufferPointer? {
    guard hasTag(tag) else { return nil }
    let length = varint()
    guard !isWrong, length <= UInt64(count - offset) else {
      isWrong = true
      return nil
    }
    defer { offset += Int(length) }
    // SAFETY: the range lies within the buffer, whose owner lends it for longer.
    return unsafe UnsafeRawBufferPointer(rebasing: memory[offset..<offset + Int(length)])
  }

  /// A message; nil where it is left out.
  mutating func nested(tag: UInt8) -> FieldReader? {
    unsafe bytes(tag: tag).map { unsafe FieldReader($0) }
  }
}
