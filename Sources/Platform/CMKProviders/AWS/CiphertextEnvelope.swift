/// What the provider gives out as wrapped: KMS's ciphertext, and which key made it, so that an alias that is moved, or another region in the
/// configuration, loses nothing. Format (1 byte: 1), length of the ARN (2, big-endian), ARN, ciphertext.
package struct CiphertextEnvelope: Equatable {
  /// KMS's own limit (CiphertextBlob of Decrypt).
  static let ciphertextBytesMax = 6144

  let key: KeyARN
  let ciphertext: [UInt8]

  init(key: KeyARN, ciphertext: [UInt8]) {
    self.key = key
    self.ciphertext = ciphertext
  }

  /// Nil where `bytes` are none: another format, no ARN of a key, no ciphertext or too long a one.
  package init?(_ bytes: [UInt8]) {
    guard bytes.count > 3, bytes[0] == 1 else { return nil }
    let end = 3 + (Int(bytes[1]) << 8 | Int(bytes[2]))
    guard end < bytes.count, bytes.count - end <= Self.ciphertextBytesMax,
      let text = String(validating: bytes[3..<end], as: UTF8.self), let key = KeyARN(text)
    else { return nil }
    self.init(key: key, ciphertext: Array(bytes[end...]))
  }

  /// What is stored: the one encoding.
  package var bytes: [UInt8] {
    let arn = Array(key.description.utf8)
    return [1, UInt8(arn.count >> 8), UInt8(arn.count & 0xff)] + arn + ciphertext
  }
}
