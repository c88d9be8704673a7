import Cryptography
import Foundation
import SecureMemory
import Testing

/// The lines of a file of published vectors, as bytes.
func vectors(_ name: String) throws -> [[Substring]] {
  let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Vectors")
  let text = try String(contentsOf: folder.appending(path: name), encoding: .utf8)
  return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { $0.split(separator: " ") }
}

/// Bytes of hexadecimal digits; none of a dash.
func bytes(_ digits: Substring) throws -> [UInt8] {
  guard digits != "-" else { return [] }
  let digits = Array(digits)
  return try stride(from: 0, to: digits.count, by: 2).map { index in
    try #require(UInt8(String(digits[index...index + 1]), radix: 16))
  }
}

func secret(_ bytes: [UInt8]) throws -> Secret {
  try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
}

func revealed(_ secret: Secret) -> [UInt8] { unsafe secret.withUnsafeBytes { unsafe Array($0) } }

@Suite struct VectorTests {
  @Test func sha256() throws {
    let lines = try vectors("sha256.txt")
    #expect(lines.count == 4)
    for line in lines {
      let part = try bytes(line[0])
      let count = try #require(Int(line[1]))
      let hash = try SHA256()
      for _ in 0..<count { try hash.update(part) }
      #expect(try hash.finish().bytes == bytes(line[2]))
      if count == 1 { #expect(try SHA256.hash(part).bytes == bytes(line[2])) }
    }
  }

  @Test func hmac() throws {
    let lines = try vectors("hmac.txt")
    #expect(lines.count == 6)
    for line in lines {
      let (key, data, mac) = (try secret(bytes(line[0])), try bytes(line[1]), try bytes(line[2]))
      #expect(try HMACSHA256.authenticate(data, key: key).bytes == mac)
      #expect(try HMACSHA256.isValid(mac, for: data, key: key))
      #expect(try !HMACSHA256.isValid(Array(mac.dropLast()), for: data, key: key))
      var bad = mac
      bad[31] ^= 1
      #expect(try !HMACSHA256.isValid(bad, for: data, key: key))
      let parts = try HMACSHA256.Context(key: key)
      try parts.update(Array(data.prefix(3)))
      try parts.update(try secret(Array(data.dropFirst(3))))
      #expect(try parts.finish().bytes == mac)
      let asKey = try HMACSHA256.Context(key: key)
      try asKey.update(data)
      #expect(revealed(try asKey.finishSecret()) == mac)
    }
  }

  @Test func hkdf() throws {
    let lines = try vectors("hkdf.txt")
    #expect(lines.count == 3)
    for line in lines {
      let expected = try bytes(line[3])
      let derived = try HKDFSHA256.derive(
        from: try secret(bytes(line[0])),
        salt: try bytes(line[1]),
        info: try bytes(line[2]),
        count: expected.count
      )
      #expect(revealed(derived) == expected)
    }
    for count in [0, -1, 255 * 32 + 1] {
      #expect(throws: CryptographyError.self) {
        try HKDFSHA256.derive(from: try secret([1]), salt: [], info: [], count: count)
      }
    }
  }

  @Test func scrypt() throws {
    let lines = try vectors("scrypt.txt")
    #expect(lines.count == 3)
    for line in lines {
      let expected = try bytes(line[5])
      let derived = try Scrypt.derive(
        from: try secret(bytes(line[0])),
        salt: try bytes(line[1]),
        n: try #require(UInt64(line[2])),
        r: try #require(UInt64(line[3])),
        p: try #require(UInt64(line[4])),
        count: expected.count
      )
      #expect(revealed(derived) == expected)
    }
    for (n, r, p) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (1 << 23, 8, 1), (16, 0, 1), (16, 8, 0), (16, 8, 17)]
      as [(UInt64, UInt64, UInt64)]
    {
      #expect(throws: CryptographyError.self) {
        try Scrypt.derive(from: try secret([1]), salt: [], n: n, r: r, p: p, count: 32)
      }
    }
  }

  @Test func aes256GCM() throws {
    let lines = try vectors("aes256gcm.txt")
    #expect(lines.count == 4)
    for line in lines {
      let cipher = try RecordCipher(key: try secret(bytes(line[0])))
      let (nonce, plaintext, data) = (try bytes(line[1]), try bytes(line[2]), try bytes(line[3]))
      let sealed = try bytes(line[4]) + bytes(line[5])
      let made = try cipher.seal(try secret(plaintext), nonce: nonce, authenticatedData: data)
      #expect(made == sealed)
      #expect(try open(cipher, sealed, nonce, data) == plaintext)
      for index in sealed.indices {
        var bad = sealed
        bad[index] ^= 1
        #expect(throws: CryptographyError.authenticationFailed) { try open(cipher, bad, nonce, data) }
      }
      #expect(throws: CryptographyError.authenticationFailed) { try open(cipher, sealed, nonce, data + [0]) }
      var otherNonce = nonce
      otherNonce[0] ^= 1
      #expect(throws: CryptographyError.authenticationFailed) { try open(cipher, sealed, otherNonce, data) }
      #expect(try open(cipher, sealed, nonce, data) == plaintext, "a failure leaves the cipher as it was")
    }
  }

  private func open(_ cipher: RecordCipher, _ sealed: [UInt8], _ nonce: [UInt8], _ data: [UInt8]) throws
    -> [UInt8]
  {
    var output = [UInt8](repeating: 0xee, count: sealed.count - 16)
    let result = unsafe output.withUnsafeMutableBytes { room in
      Result { () throws(CryptographyError) in
        try unsafe cipher.open(
          ciphertextAndTag: sealed,
          nonce: nonce,
          authenticatedData: data,
          into: room
        )
      }
    }
    if case .failure(.authenticationFailed) = result {
      #expect(output.allSatisfy { $0 == 0 }, "what did not authenticate is wiped")
    }
    try result.get()
    return output
  }

  @Test func aCipherRefusesWrongLengthsAndIsUselessOnceWiped() throws {
    for count in [0, 16, 31, 33] {
      #expect(throws: CryptographyError.invalidLength("an AES-256 key has 32 bytes")) {
        try RecordCipher(key: try secret([UInt8](repeating: 1, count: count)))
      }
    }
    let cipher = try RecordCipher(key: try secret([UInt8](repeating: 1, count: 32)))
    for count in [0, 11, 13, 16] {
      #expect(throws: CryptographyError.self) {
        try cipher.seal(
          try secret([1]),
          nonce: [UInt8](repeating: 0, count: count),
          authenticatedData: []
        )
      }
    }
    let nonce = [UInt8](repeating: 0, count: 12)
    let sealed = try cipher.seal(try secret([1]), nonce: nonce, authenticatedData: [])
    cipher.wipe()
    #expect(throws: CryptographyError.wiped) { try open(cipher, sealed, nonce, []) }
    #expect(throws: CryptographyError.wiped) {
      try cipher.seal(try secret([1]), nonce: nonce, authenticatedData: [])
    }
  }

  @Test func randomBytesDiffer() throws {
    let made = try (0..<100).map { _ in try SystemRandom.bytes(count: 16) }
    #expect(Set(made).count == 100)
    #expect(try revealed(SystemRandom.secret(count: 32)) != revealed(SystemRandom.secret(count: 32)))
    #expect(try SystemRandom.secret(count: 0).count == 0)
    #expect(try SystemRandom.uint128() != SystemRandom.uint128())
  }
}
