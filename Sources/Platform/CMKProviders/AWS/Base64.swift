internal import SecureMemory

/// Base64 with its standard alphabet (RFC 4648, section 4), padded, without line feeds.
package enum Base64 {
  /// The bytes that `coded` stands for; nil where it is not base64, or not the one encoding of those bytes.
  ///
  /// - Throws: `SecureMemoryError.exhausted`.
  static func decode(_ coded: Secret) throws(SecureMemoryError) -> Secret? {
    // SAFETY: the bytes are read during the call only.
    guard let padding: Int = unsafe coded.withUnsafeBytes({ unsafe padding(of: $0) }) else { return nil }
    var isCanonical = true
    let bytes = try unsafe Secret(count: coded.count / 4 * 3 - padding) { room in
      // SAFETY: both are live for the call; four characters at a time are read, and at most `room.count` bytes written.
      unsafe coded.withUnsafeBytes { coded in unsafe isCanonical = fill(room, from: coded) }
    }
    return isCanonical ? bytes : nil
  }

  /// How many of the last two characters are '='; nil where the length is none of base64.
  private static func padding(of coded: UnsafeRawBufferPointer) -> Int? {
    guard coded.count % 4 == 0 else { return nil }
    return unsafe coded.suffix(2).reversed().prefix { $0 == UInt8(ascii: "=") }.count
  }

  private static func fill(_ room: UnsafeMutableRawBufferPointer, from coded: UnsafeRawBufferPointer) -> Bool
  {
    var isBase64 = true
    for group in 0..<coded.count / 4 {
      var bits: UInt32 = 0
      let left = min(3, room.count - group * 3)
      for index in 0..<4 {
        // With n bytes left there are n + 1 characters, then padding.
        let sextet = index <= left ? unsafe sextet(coded[group * 4 + index]) : 0
        isBase64 = isBase64 && sextet != nil
        bits = bits << 6 | UInt32(sextet ?? 0)
      }
      for index in 0..<left {
        unsafe room[group * 3 + index] = UInt8(truncatingIfNeeded: bits >> (16 - 8 * index))
      }
      // Bits behind the last byte are zero (RFC 4648, section 3.5).
      if left < 3 { isBase64 = isBase64 && bits << (8 + 8 * left) == 0 }
    }
    return isBase64
  }

  /// The value of a character; nil where it is none of the alphabet. By comparisons, not by a table: which cache line is read would tell of a
  /// secret.
  package static func sextet(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): character - UInt8(ascii: "A")
    case UInt8(ascii: "a")...UInt8(ascii: "z"): character - UInt8(ascii: "a") + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0") + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }

  private static func character(_ sextet: UInt32) -> UInt8 {
    switch UInt8(sextet & 63) {
    case let value where value < 26: value + UInt8(ascii: "A")
    case let value where value < 52: value - 26 + UInt8(ascii: "a")
    case let value where value < 62: value - 52 + UInt8(ascii: "0")
    case 62: UInt8(ascii: "+")
    default: UInt8(ascii: "/")
    }
  }

  /// Appends the encoding of `bytes`.
  static func encode(_ bytes: UnsafeRawBufferPointer, into buffer: inout WipedBuffer) {
    let count = (bytes.count + 2) / 3 * 4
    unsafe buffer.append(minimum: count) { room in
      for group in 0..<count / 4 {
        let left = min(3, bytes.count - group * 3)
        var bits: UInt32 = 0
        for index in 0..<3 {
          bits = bits << 8 | UInt32(index < left ? unsafe bytes[group * 3 + index] : 0)
        }
        for index in 0..<4 {
          // SAFETY: `room` has at least `count` bytes, and the last index written is `count` - 1.
          let character = index <= left ? character(bits >> UInt32(18 - 6 * index)) : UInt8(ascii: "=")
          unsafe room[group * 4 + index] = character
        }
      }
      return count
    }
  }
}
