internal import Cryptography
internal import KeyringCore

/// Puts lines at the end of a chain, in memory.
struct ChainBuilder {
  let log: String
  let signer: SigningKey
  private(set) var end: ChainEnd
  /// The lines, each with its newline.
  private(set) var bytes: [UInt8] = []
  /// Where each line lies in `bytes`, without its newline.
  private(set) var lines: [Range<Int>] = []
  private(set) var linesSinceCheckpoint: UInt64

  init(log: String, signer: SigningKey, end: ChainEnd, linesSinceCheckpoint: UInt64) {
    self.log = log
    self.signer = signer
    self.end = end
    self.linesSinceCheckpoint = linesSinceCheckpoint
  }

  private func header(_ kind: LineHeader.Kind, _ milliseconds: UInt64, skipping missing: UInt64 = 0)
    -> LineHeader
  {
    LineHeader(
      kind: kind,
      log: log,
      serial: end.serial + missing + 1,
      time: AuditText.dateText(milliseconds),
      previous: end.hash
    )
  }

  private mutating func add(_ line: [UInt8], serial: UInt64) throws(CryptographyError) {
    end = ChainEnd(serial: serial, hash: try AuditLine.hash(line))
    lines.append(bytes.count..<bytes.count + line.count)
    bytes += line
    bytes.append(UInt8(ascii: "\n"))
    linesSinceCheckpoint += 1
  }

  /// - Returns: its serial.
  mutating func add(_ record: AuditRecord) throws(CryptographyError) -> UInt64 {
    let header = header(record.caller == nil ? .event : .call, record.milliseconds)
    var line = AuditLine.start(header)
    record.appendMembers(to: &line)
    line.append(UInt8(ascii: "}"))
    try add(line, serial: header.serial)
    return header.serial
  }

  mutating func addGap(_ missing: UInt64, _ milliseconds: UInt64) throws(CryptographyError) {
    let header = header(.gap, milliseconds, skipping: missing)
    try add(AuditLine.encode(header, .gap(missing: missing)), serial: header.serial)
  }

  mutating func addCheckpoint(_ milliseconds: UInt64) throws(CryptographyError) {
    let header = header(.checkpoint, milliseconds)
    let signature = try signer.sign(AuditLine.checkpointMessage(header))
    let content = ParsedLine.Content.checkpoint(key: signer.verifier.name, signature: signature)
    try add(AuditLine.encode(header, content), serial: header.serial)
    linesSinceCheckpoint = 0
  }

  /// The first line of a file, or what was found at an opening; a checkpoint follows it at once.
  mutating func addOpening(_ content: ParsedLine.Content, _ milliseconds: UInt64) throws(CryptographyError) {
    let kind: LineHeader.Kind
    switch content {
    case .begin: kind = .begin
    case .continued: kind = .continued
    case .recovered: kind = .recovered
    case .checkpoint, .gap, .other: preconditionFailure("no line to open a log with")
    }
    let header = header(kind, milliseconds)
    try add(AuditLine.encode(header, content), serial: header.serial)
    try addCheckpoint(milliseconds)
  }
}
