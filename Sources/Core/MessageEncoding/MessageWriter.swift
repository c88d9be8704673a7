/// Writes protobuf messages in their canonical form: fields in order of their numbers, defaults left out, shortest varints.
///
/// Source: protobuf.dev/programming-guides/encoding. The caller writes fields in ascending order. Inlinable, because a generic
/// collection across modules would be read byte by byte.
public struct MessageWriter: Sendable {
  @usableFromInline var written: [UInt8]

  /// What was written.
  public var bytes: [UInt8] { written }

  /// An empty message.
  public init(capacity: Int = 0) {
    written = []
    written.reserveCapacity(capacity)
  }

  @usableFromInline
  mutating func varint(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      written.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    written.append(UInt8(truncatingIfNeeded: rest))
  }

  @usableFromInline
  mutating func tag(_ field: Int, _ wireType: Int) { varint(UInt64(field << 3 | wireType)) }

  /// An integer, bool or enum field; left out where it is 0.
  public mutating func number(_ field: Int, _ value: UInt64) {
    guard value != 0 else { return }
    tag(field, 0)
    varint(value)
  }

  /// A bytes or string field; left out where it is empty.
  @inlinable
  public mutating func bytes(_ field: Int, _ value: some Collection<UInt8>) {
    guard !value.isEmpty else { return }
    element(field, value)
  }

  /// An element of a repeated bytes or string field, or a message that is present though empty.
  @inlinable
  public mutating func element(_ field: Int, _ value: some Collection<UInt8>) {
    tag(field, 2)
    varint(UInt64(value.count))
    written.append(contentsOf: value)
  }

  /// A message field, present even where it is empty.
  public mutating func message(_ field: Int, _ write: (inout MessageWriter) -> Void) {
    var inner = MessageWriter(capacity: 192)
    write(&inner)
    element(field, inner.written)
  }

  /// A packed repeated integer field; left out where it is empty.
  public mutating func packed(_ field: Int, _ values: [UInt32]) {
    guard !values.isEmpty else { return }
    var inner = MessageWriter()
    for value in values { inner.varint(UInt64(value)) }
    element(field, inner.written)
  }
}
