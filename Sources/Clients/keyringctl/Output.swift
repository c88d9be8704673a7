import ArgumentParser
import Glibc
import KeyringCore
import SecureMemory

/// How results are shown.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
  case text
  case json
}

/// A JSON value (RFC 8259).
indirect enum JSON {
  case text(String)
  case number(UInt64)
  case flag(Bool)
  case list([JSON])
  case object([(String, JSON)])
  case null

  var rendered: String {
    switch self {
    case .text(let text): Self.quoted(text)
    case .number(let number): "\(number)"
    case .flag(let flag): "\(flag)"
    case .null: "null"
    case .list(let items): "[" + items.map(\.rendered).joined(separator: ",") + "]"
    case .object(let members):
      "{" + members.map { Self.quoted($0.0) + ":" + $0.1.rendered }.joined(separator: ",") + "}"
    }
  }

  private static func quoted(_ text: String) -> String {
    var quoted = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": quoted += "\\\""
      case "\\": quoted += "\\\\"
      case "\n": quoted += "\\n"
      case let control where control.value < 0x20:
        let digits = String(control.value, radix: 16)
        quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: quoted.unicodeScalars.append(scalar)
      }
    }
    return quoted + "\""
  }
}

/// Standard output and error.
enum Output {
  static func error(_ text: String) { write(STDERR_FILENO, Array(text.utf8)) }

  static func line(_ text: String) { write(STDOUT_FILENO, Array((text + "\n").utf8)) }

  /// Shows a result: `text` for people, `json` on one line for programs.
  static func show(_ format: OutputFormat, _ json: JSON, text: @autoclosure () -> String) {
    line(format == .json ? json.rendered : text())
  }

  /// Columns of equal width.
  static func table(_ cells: [[String]]) -> String {
    let rows = cells.map { $0.map { printable($0) } }
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in
      rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        line += cell
        if column < row.count - 1 { line += String(repeating: " ", count: widths[column] - cell.count + 2) }
      }
      return line
    }.joined(separator: "\n")
  }

  static var isErrorTerminal: Bool { isatty(STDERR_FILENO) == 1 }

  private static func write(_ descriptor: Int32, _ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { unsafe write(descriptor, $0) }
  }

  /// Writes all of the bytes; what a closed pipe does not take is lost, as everywhere.
  static func write(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) {
    var done = 0
    while done < bytes.count {
      // SAFETY: the rest of the buffer lies within it.
      let count = unsafe Glibc.write(
        descriptor,
        bytes.baseAddress.map { unsafe $0 + done },
        bytes.count - done
      )
      if count <= 0 { return }
      done += count
    }
  }
}

/// A UTC date and time of Unix milliseconds, as RFC 3339 has it.
func dateText(_ milliseconds: UInt64) -> String {
  var seconds = time_t(milliseconds / 1000)
  var parts = unsafe tm()
  // SAFETY: both live for the call.
  unsafe gmtime_r(&seconds, &parts)
  func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
  return
    unsafe "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
}
