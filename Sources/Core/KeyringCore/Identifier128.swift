/// An identifier of 16 random bytes, written as 32 hexadecimal digits.
public protocol Identifier128: Hashable, Sendable, CustomStringConvertible {
  /// The bytes, the first being the most significant.
  var value: UInt128 { get }
  /// Takes 16 random bytes.
  init(value: UInt128)
}

extension Identifier128 {
  /// Reads exactly 16 bytes; nil for any other count.
  public init?(bytes: [UInt8]) {
    guard bytes.count == 16 else { return nil }
    self.init(value: UInt128(bigEndian: bytes, at: 0))
  }

  /// Reads exactly 16 bytes of a longer array; nil for any other count.
  public init?(bytes: ArraySlice<UInt8>) { self.init(bytes: Array(bytes)) }

  /// The 16 bytes.
  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(16)
    appendBigEndian(value, to: &bytes)
    return bytes
  }

  /// 32 hexadecimal digits.
  public var description: String { hexadecimal(bytes) }
}

extension UInt128 {
  /// Of 16 bytes, the most significant first; in halves: shifting 64 bits is one instruction.
  fileprivate init(bigEndian bytes: [UInt8], at start: Int) {
    var halves: (UInt64, UInt64) = (0, 0)
    for index in start..<start + 8 { halves.0 = halves.0 << 8 | UInt64(bytes[index]) }
    for index in start + 8..<start + 16 { halves.1 = halves.1 << 8 | UInt64(bytes[index]) }
    self = UInt128(halves.0) << 64 | UInt128(halves.1)
  }
}

/// Names a wrapping key.
public struct WrappingKeyID: Identifier128 {
  /// The bytes as a number.
  public let value: UInt128
  /// Takes 16 random bytes.
  public init(value: UInt128) { self.value = value }
}

/// Names one encryption of one version of a key.
public struct RecordID: Identifier128 {
  /// The bytes as a number.
  public let value: UInt128
  /// Takes 16 random bytes.
  public init(value: UInt128) { self.value = value }
}

/// Names a keyring for as long as it exists.
public struct KeyringID: Identifier128 {
  /// The bytes as a number.
  public let value: UInt128
  /// Takes 16 random bytes.
  public init(value: UInt128) { self.value = value }
}

/// A SHA-256 value or an HMAC-SHA-256 value: 32 bytes.
public struct Digest: Hashable, Sendable, CustomStringConvertible {
  private let high: UInt128
  private let low: UInt128

  /// 32 zero bytes: what the first batch of a file names as the digest before it.
  public static let zero = Digest(high: 0, low: 0)

  private init(high: UInt128, low: UInt128) {
    self.high = high
    self.low = low
  }

  /// Reads exactly 32 bytes; nil for any other count.
  public init?(bytes: [UInt8]) {
    guard bytes.count == 32 else { return nil }
    high = UInt128(bigEndian: bytes, at: 0)
    low = UInt128(bigEndian: bytes, at: 16)
  }

  /// Reads exactly 32 bytes of a longer array; nil for any other count.
  public init?(bytes: ArraySlice<UInt8>) { self.init(bytes: Array(bytes)) }

  /// The 32 bytes.
  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(32)
    appendBigEndian(high, to: &bytes)
    appendBigEndian(low, to: &bytes)
    return bytes
  }

  /// 64 hexadecimal digits.
  public var description: String { hexadecimal(bytes) }
}

/// Lower-case hexadecimal digits, two a byte.
public func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  let digits = Array("0123456789abcdef".utf8)
  var text: [UInt8] = []
  for byte in bytes {
    text.append(digits[Int(byte >> 4)])
    text.append(digits[Int(byte & 15)])
  }
  return String(decoding: text, as: UTF8.self)
}
