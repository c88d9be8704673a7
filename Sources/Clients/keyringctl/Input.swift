internal import CMKProviders
import Glibc
import SecureMemory

/// Files and standard input.
enum Input {
  static let bytesMax = 1 << 20

  /// A public text file.
  static func text(_ path: String, bytesMax: Int = Input.bytesMax) throws -> String {
    let buffer = try read(path, bytesMax)
    return unsafe buffer.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
  }

  /// All bytes of a file, or of standard input for `-`, straight into locked memory.
  static func secret(_ path: String) throws -> Secret {
    let buffer = try read(path, bytesMax)
    return try unsafe buffer.withUnsafeBytes { bytes in try unsafe Secret(copying: bytes) }
  }

  private static func read(_ path: String, _ bytesMax: Int) throws -> WipedBuffer {
    let descriptor = path == "-" ? STDIN_FILENO : unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Failure("cannot open \(path): \(unsafe String(cString: strerror(errno)))")
    }
    defer { if path != "-" { _ = Glibc.close(descriptor) } }  // read only: nothing to lose
    var buffer = WipedBuffer(capacity: 65_536)
    while buffer.count <= bytesMax {
      var count = 0
      // SAFETY: `room` is as long as it says.
      unsafe buffer.append(minimum: 16_384) { room in
        repeat {
          count = unsafe Glibc.read(descriptor, room.baseAddress, room.count)
        } while count == -1 && errno == EINTR
        return max(0, count)
      }
      guard count >= 0 else {
        throw Failure("cannot read \(path): \(unsafe String(cString: strerror(errno)))")
      }
      if count == 0 { break }
    }
    guard buffer.count <= bytesMax else { throw Failure("\(path) is larger than \(bytesMax) bytes") }
    return buffer
  }
}

/// How key material is written down.
enum KeyFormat: String, CaseIterable {
  case hex
  case base64
  case raw

  /// Appends `value`, written down.
  // SECRET: key material leaves locked memory here, for standard output: what `key fetch` is for.
  func append(_ value: Secret, to output: inout WipedBuffer) {
    unsafe value.withUnsafeBytes { bytes in
      switch self {
      case .raw: unsafe output.append(bytes)
      case .hex:
        let digits = Array("0123456789abcdef".utf8)
        for index in bytes.indices {
          let byte = unsafe bytes[index]
          // SAFETY: there is room for two; no array holds them in between.
          unsafe output.append(minimum: 2) { room in
            unsafe room[0] = digits[Int(byte >> 4)]
            unsafe room[1] = digits[Int(byte & 15)]
            return 2
          }
        }
        output.append([UInt8(ascii: "\n")])
      case .base64:
        unsafe Self.appendBase64(bytes, to: &output)
        output.append([UInt8(ascii: "\n")])
      }
    }
  }

  private static func appendBase64(_ bytes: UnsafeRawBufferPointer, to output: inout WipedBuffer) {
    let letters = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let count = min(3, bytes.count - start)
      let group = (0..<3).reduce(0) { $0 << 8 | ($1 < count ? Int(unsafe bytes[start + $1]) : 0) }
      // SAFETY: there is room for four; no array holds them in between.
      unsafe output.append(minimum: 4) { room in
        for index in 0..<4 {
          unsafe room[index] = index <= count ? letters[group >> (18 - 6 * index) & 63] : UInt8(ascii: "=")
        }
        return 4
      }
    }
  }

  /// Reads what was written down; raw is taken as it is, hex and base64 without white space at the end.
  func parse(_ text: Secret) throws -> Secret {
    switch self {
    case .raw: return text
    case .hex: return try decode(text, bitsPerDigit: 4) { Self.hexadecimalDigit($0) }
    case .base64: return try decode(text, bitsPerDigit: 6) { Base64.sextet($0) }
    }
  }

  private func decode(_ text: Secret, bitsPerDigit: Int, _ digit: (UInt8) -> UInt8?) throws -> Secret {
    var decoded = WipedBuffer(capacity: text.count)
    let isGood = unsafe text.withUnsafeBytes { bytes in
      var end = bytes.count
      while end > 0, unsafe [0x0a, 0x0d, 0x20, UInt8(ascii: "=")].contains(bytes[end - 1]) { end -= 1 }
      var bits = 0
      var held = 0
      for index in 0..<end {
        guard let value = unsafe digit(bytes[index]) else { return false }
        held = held << bitsPerDigit | Int(value)
        bits += bitsPerDigit
        if bits >= 8 {
          bits -= 8
          decoded.append([UInt8(truncatingIfNeeded: held >> bits)])
          held &= (1 << bits) - 1
        }
      }
      return held == 0 && bits < bitsPerDigit
    }
    guard isGood else { throw Failure("the key is not in \(rawValue)") }
    return try unsafe decoded.withUnsafeBytes { bytes in try unsafe Secret(copying: bytes) }
  }

  private static func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
