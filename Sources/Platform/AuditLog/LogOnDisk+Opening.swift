internal import Cryptography
internal import KeyringCore
internal import KeyringStorage

/// Where a log ended when that was last known.
struct KnownEnd {
  let file: UInt64
  let end: ChainEnd
}

extension LogOnDisk {
  /// What is in a file.
  private struct Scan {
    var end = ChainEnd.none
    var lines = 0
    var linesSinceCheckpoint: UInt64 = 0
    /// Bytes of the lines that follow from each other.
    var valid = 0
    /// The last of them has no newline.
    var lacksNewline = false
    /// Bytes behind them, and the first of these.
    var restBytes = 0
    var rest: [UInt8] = []
    /// There are whole lines behind them.
    var isBroken = false
    /// Another line stands where a known one was.
    var contradicts = false
  }

  /// Opens the log at the server's start, or where its file is not as it was left: what is whole is kept, what is torn is cut off and said so in
  /// a line, and the chain goes on.
  ///
  /// - Parameter known: from memory; nil for what the head in the anchor directory says.
  mutating func openAnew(_ known: KnownEnd?, _ milliseconds: UInt64) throws {
    let known = try known ?? headEnd()
    guard let latest = try latestFile(from: known?.file ?? 1) else {
      guard let known else {
        return try startFile(1, begin(1), from: .none, milliseconds)
      }
      return try startAnew(.missing, after: known.file, from: known.end, milliseconds)
    }
    number = latest
    let opened = try LogFile(Self.fileName(log, latest), in: directory)
    let scan = try scan(opened, latest, known)
    isInDoubt = false
    guard scan.lines > 0, !scan.isBroken else {
      if scan.isBroken {
        let end = scan.lines > 0 ? scan.end : known?.end ?? .none
        return try startAnew(.broken, after: latest, from: end, milliseconds)
      }
      return try complete(opened, scan, known, milliseconds)
    }
    if let known, known.end.serial > scan.end.serial {
      return try startAnew(.behind, after: latest, from: known.end, milliseconds)
    }
    if scan.contradicts { return try startAnew(.broken, after: latest, from: scan.end, milliseconds) }
    (file, status, end) = (opened, opened.status, scan.end)
    (size, linesSinceCheckpoint) = (scan.valid, scan.linesSinceCheckpoint)
    if scan.lacksNewline { try endLine(opened) }
    if scan.restBytes > 0 { try cut(opened, scan, milliseconds) }
  }

  private func headEnd() throws(AuditError) -> KnownEnd? {
    try AuditHead.read(log, in: anchors, signer.verifier).map { KnownEnd(file: $0.file, end: $0.end) }
  }

  private func isThere(_ number: UInt64) throws(FileError) -> Bool {
    try directory.status(of: Self.fileName(log, number)) != nil
  }

  private func latestFile(from first: UInt64) throws(FileError) -> UInt64? {
    var next = first
    while try isThere(next) { next += 1 }
    return next > first ? next - 1 : nil
  }

  private func freeNumber(_ first: UInt64) throws(FileError) -> UInt64 {
    var number = first
    while try isThere(number) { number += 1 }
    return number
  }

  private func begin(_ number: UInt64) -> ParsedLine.Content {
    .begin(file: number, key: signer.verifier.name)
  }

  /// Goes on in a new file: the one before is evidence, and stays as it is.
  private mutating func startAnew(
    _ why: Recovery.Why,
    after number: UInt64,
    from end: ChainEnd,
    _ milliseconds: UInt64
  ) throws {
    let next = try freeNumber(number + 1)
    let recovery = Recovery(file: next, key: signer.verifier.name, why: why)
    try startFile(next, .recovered(recovery), from: end, milliseconds)
  }

  /// A file that was made, and its first lines not written: it is completed.
  private mutating func complete(
    _ opened: LogFile,
    _ scan: Scan,
    _ known: KnownEnd?,
    _ milliseconds: UInt64
  ) throws {
    var former = ChainEnd.none
    if number > 1, try isThere(number - 1) {
      let file = try LogFile(Self.fileName(log, number - 1), in: directory)
      former = try self.scan(file, number - 1, known).end
    }
    var why: Recovery.Why? = scan.restBytes > 0 ? .torn : nil
    if let known, known.end.serial > former.serial { (why, former) = (.behind, known.end) }
    let content: ParsedLine.Content
    if let why {
      content = .recovered(recovery(why, scan))
    } else {
      content = number == 1 ? begin(1) : .continued(file: number, key: signer.verifier.name)
    }
    var builder = ChainBuilder(log: log, signer: signer, end: former, linesSinceCheckpoint: 0)
    try builder.addOpening(content, milliseconds)
    try overwrite(opened, builder, at: 0, longest: scan.restBytes)
    try directory.synchronize()
    (file, status) = (opened, opened.status)
  }

  private func recovery(_ why: Recovery.Why, _ scan: Scan) -> Recovery {
    Recovery(
      file: number,
      key: signer.verifier.name,
      why: why,
      cutBytes: UInt64(scan.restBytes),
      cut: scan.rest
    )
  }

  /// Ends a last line that lacks nothing but its newline.
  private mutating func endLine(_ opened: LogFile) throws {
    try opened.write([UInt8(ascii: "\n")], at: size)
    try opened.synchronize()
    size += 1
  }

  /// Puts a line that says so in the place of what is torn. The line comes first, and the rest is cut off behind it: there is no moment at which
  /// neither is there.
  private mutating func cut(_ opened: LogFile, _ scan: Scan, _ milliseconds: UInt64) throws {
    var builder = builder()
    try builder.addOpening(.recovered(recovery(.torn, scan)), milliseconds)
    try overwrite(opened, builder, at: size, longest: scan.restBytes)
  }

  private mutating func overwrite(
    _ opened: LogFile,
    _ builder: ChainBuilder,
    at offset: Int,
    longest: Int
  ) throws {
    try opened.write(builder.bytes, at: offset)
    try opened.synchronize()
    if longest > builder.bytes.count {
      try opened.truncate(to: offset + builder.bytes.count)
      try opened.synchronize()
    }
    take(builder, at: offset)
  }

  private func scan(_ opened: LogFile, _ number: UInt64, _ known: KnownEnd?) throws -> Scan {
    var scan = Scan()
    var reader = LineReader(opened)
    while let line = try reader.next() {
      guard let parsed = AuditLine.parse(line.bytes), parsed.header.log == log,
        isNext(parsed, after: scan, number)
      else {
        scan.restBytes = opened.size - line.offset
        scan.rest = Array(line.bytes.prefix(Recovery.cutBytesMax))
        scan.isBroken = line.isEnded || line.bytes.count > AuditLine.bytesMax
        break
      }
      scan.end = ChainEnd(serial: parsed.header.serial, hash: try AuditLine.hash(line.bytes))
      scan.lines += 1
      scan.linesSinceCheckpoint = parsed.header.kind == .checkpoint ? 0 : scan.linesSinceCheckpoint + 1
      scan.valid = line.offset + line.bytes.count + (line.isEnded ? 1 : 0)
      scan.lacksNewline = !line.isEnded
      if let known, known.end.serial == scan.end.serial, known.end.hash != scan.end.hash {
        scan.contradicts = true
      }
    }
    return scan
  }

  private func isNext(_ line: ParsedLine, after scan: Scan, _ number: UInt64) -> Bool {
    guard scan.lines > 0 else { return line.startsFile == number }
    guard line.header.previous == scan.end.hash else { return false }
    switch line.content {
    case .begin, .continued: return false
    case .gap(let missing): return line.header.serial == scan.end.serial &+ missing &+ 1
    case .checkpoint, .other: return line.header.serial == scan.end.serial + 1
    case .recovered(let recovery):
      return line.header.serial == scan.end.serial + 1 && recovery.file == number
    }
  }
}
