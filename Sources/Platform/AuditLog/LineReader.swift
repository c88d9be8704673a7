internal import KeyringStorage

/// Reads a file line by line, in pieces.
struct LineReader {
  struct Line {
    let bytes: ArraySlice<UInt8>
    /// Where it begins in the file.
    let offset: Int
    /// True where a newline ends it; false for the last bytes of a file that has none there, and for a line that is longer than any.
    let isEnded: Bool
  }

  private static let pieceBytes = 256 * 1024

  private let source: any BackupSource
  private var buffer: [UInt8] = []
  private var start = 0
  private var offset = 0
  private var searched = 0

  init(_ source: any BackupSource) { self.source = source }

  /// The next line; nil at the end.
  mutating func next() throws(BackupError) -> Line? {
    while true {
      if let newline = buffer[max(start, searched)...].firstIndex(of: UInt8(ascii: "\n")) {
        defer {
          start = newline + 1
          searched = start
        }
        return line(start..<newline, isEnded: true)
      }
      searched = buffer.count
      let isTooLong = buffer.count - start > AuditLine.bytesMax
      guard !isTooLong, offset < source.size else {
        guard start < buffer.count else { return nil }
        defer { start = buffer.count }
        return line(start..<buffer.count, isEnded: false)
      }
      let count = min(Self.pieceBytes, source.size - offset)
      let piece = try source.read(at: offset, count: count)
      searched -= start
      buffer.removeSubrange(..<start)
      start = 0
      buffer += piece
      offset += count
    }
  }

  private func line(_ range: Range<Int>, isEnded: Bool) -> Line {
    Line(bytes: buffer[range], offset: offset - buffer.count + range.lowerBound, isEnded: isEnded)
  }
}
