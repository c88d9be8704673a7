internal import KeyringCore

/// JSON of printable ASCII alone (RFC 8259), so that a line has one encoding and goes through any transport of text.
public enum AuditText {
  private static let digits = Array("0123456789abcdef".utf8)

  /// A string.
  public static func append(_ text: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for scalar in text.unicodeScalars { append(scalar, to: &bytes) }
    bytes.append(UInt8(ascii: "\""))
  }

  /// Bytes that are text as a rule: what is no UTF-8 becomes `\xNN` in the string, and a backslash two, so that each string stands for one
  /// sequence of bytes.
  static func append(name: ArraySlice<UInt8>, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    var parser = Unicode.UTF8.ForwardParser()
    var rest = name.makeIterator()
    var index = name.startIndex
    loop: while true {
      switch parser.parseScalar(from: &rest) {
      case .valid(let encoded):
        let scalar = Unicode.UTF8.decode(encoded)
        append(scalar, to: &bytes)
        if scalar == "\\" { append(scalar, to: &bytes) }
        index += encoded.count
      case .error(let count):
        for byte in name[index..<index + count] {
          bytes += [0x5c, 0x5c, UInt8(ascii: "x"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
        index += count
      case .emptyInput: break loop
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }

  private static func append(_ scalar: Unicode.Scalar, to bytes: inout [UInt8]) {
    switch scalar {
    case "\"", "\\": bytes += [0x5c, UInt8(scalar.value)]
    case " "..."~": bytes.append(UInt8(scalar.value))
    default: for unit in String(scalar).utf16 { appendEscape(unit, to: &bytes) }
    }
  }

  private static func appendEscape(_ unit: UInt16, to bytes: inout [UInt8]) {
    bytes += [0x5c, UInt8(ascii: "u")]
    for shift in [12, 8, 4, 0] { bytes.append(digits[Int(unit >> UInt16(shift)) & 15]) }
  }

  /// Lower-case hexadecimal digits, without quotation marks.
  static func append(hexadecimal: [UInt8], to bytes: inout [UInt8]) {
    for byte in hexadecimal {
      bytes.append(digits[Int(byte >> 4)])
      bytes.append(digits[Int(byte & 15)])
    }
  }

  /// A decimal number.
  static func append(_ number: UInt64, to bytes: inout [UInt8]) {
    var text: [UInt8] = []
    var rest = number
    repeat {
      text.append(UInt8(ascii: "0") + UInt8(rest % 10))
      rest /= 10
    } while rest > 0
    bytes += text.reversed()
  }

  /// As `date`, as a string.
  public static func dateText(_ milliseconds: UInt64) -> String {
    String(decoding: date(milliseconds), as: UTF8.self)
  }

  /// Unix milliseconds as `2026-01-02T03:04:05.678Z` (RFC 3339), 24 bytes up to the year 9999.
  ///
  /// The calendar: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
  static func date(_ milliseconds: UInt64) -> [UInt8] {
    let (days, rest) = (Int(milliseconds / 86_400_000), Int(milliseconds % 86_400_000))
    let shifted = days + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    var text: [UInt8] = []
    text.reserveCapacity(24)
    func put(_ number: Int, _ width: Int, _ mark: Unicode.Scalar) {
      var divisor = 1
      for _ in 1..<width { divisor *= 10 }
      while divisor > 0 {
        text.append(UInt8(ascii: "0") + UInt8(number / divisor % 10))
        divisor /= 10
      }
      text.append(UInt8(ascii: mark))
    }
    put(year, 4, "-")
    put(month, 2, "-")
    put(day, 2, "T")
    put(rest / 3_600_000, 2, ":")
    put(rest / 60_000 % 60, 2, ":")
    put(rest / 1000 % 60, 2, ".")
    put(rest % 1000, 3, "Z")
    return text
  }
}
