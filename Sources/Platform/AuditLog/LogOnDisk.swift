internal import Cryptography
internal import KeyringCore
internal import KeyringStorage

/// The files of one log, written by one thread at a time. What is known of them is what is durable; after a failed write the file is cut back to
/// that, and written anew: what a failed sync left in memory only is not built on.
struct LogOnDisk: Sendable {
  let log: String
  let directory: DirectoryDescriptor
  let anchors: DirectoryDescriptor
  let signer: SigningKey
  let fileBytesMax: Int
  let checkpointLines: UInt64

  /// Of the file that is written.
  var number: UInt64 = 0
  /// Of its durable lines.
  var end = ChainEnd.none
  /// Their bytes.
  var size = 0
  var status: FileStatus?
  var linesSinceCheckpoint: UInt64 = 0
  /// Nil between uses.
  var file: LogFile?
  /// Lines that became durable and were not given out yet; kept where they are wanted elsewhere too.
  var taken: [[UInt8]] = []
  let keepsTaken: Bool
  /// A write failed: behind `size` there may be more.
  var isInDoubt = false

  init(
    log: String,
    directory: DirectoryDescriptor,
    anchors: DirectoryDescriptor,
    signer: SigningKey,
    fileBytesMax: Int,
    checkpointLines: UInt64,
    keepsTaken: Bool
  ) {
    self.keepsTaken = keepsTaken

    self.log = log
    self.directory = directory
    self.anchors = anchors
    self.signer = signer
    self.fileBytesMax = fileBytesMax
    self.checkpointLines = checkpointLines
  }

  /// What is to be appended.
  enum Item: Sendable {
    case record(AuditRecord)
    case gap(UInt64)
  }

  /// What was appended, and is durable.
  struct Appended {
    /// Of the items, in their order; a gap's own.
    var serials: [UInt64] = []
    /// All lines, those of openings and rotations among them, where they are wanted elsewhere too.
    var lines: [[UInt8]] = []
    /// Where the last line is a checkpoint.
    var head: AuditHead?
  }

  static func fileName(_ log: String, _ number: UInt64) -> String { "\(log).\(number).jsonl" }

  /// Appends lines; they are durable when it returns.
  ///
  /// - Parameter mustSign: adds a checkpoint, unless nothing came since the last.
  /// - Throws: `AuditError.unavailable`: none of them counts.
  mutating func append(
    _ items: [Item],
    mustSign: Bool,
    milliseconds: UInt64
  ) throws(AuditError) -> Appended {
    let before = end
    do {
      try prepare(milliseconds)
      if size >= fileBytesMax { try rotate(milliseconds) }
      var builder = builder()
      var appended = Appended()
      for item in items {
        switch item {
        case .record(let record): appended.serials.append(try builder.add(record))
        case .gap(let missing):
          try builder.addGap(missing, milliseconds)
          appended.serials.append(builder.end.serial)
        }
        if builder.linesSinceCheckpoint >= checkpointLines { try builder.addCheckpoint(milliseconds) }
      }
      if mustSign, builder.linesSinceCheckpoint > 0 { try builder.addCheckpoint(milliseconds) }
      try write(builder)
      swap(&appended.lines, &taken)
      // Also where it is the checkpoint of a file that was just begun.
      if linesSinceCheckpoint == 0, end != before { appended.head = try head(milliseconds) }
      return appended
    } catch {
      file = nil
      isInDoubt = true
      throw .unavailable("\(error)")
    }
  }

  /// Lets the file go; it is opened again with the next append.
  mutating func close() { file = nil }

  func builder() -> ChainBuilder {
    ChainBuilder(log: log, signer: signer, end: end, linesSinceCheckpoint: linesSinceCheckpoint)
  }

  private func head(_ milliseconds: UInt64) throws(CryptographyError) -> AuditHead {
    let time = AuditText.dateText(milliseconds)
    return try AuditHead(log: log, file: number, end: end, time: time, signer: signer)
  }

  /// Writes what was built behind what is durable.
  private mutating func write(_ builder: ChainBuilder) throws {
    guard !builder.bytes.isEmpty else { return }
    guard let file else { throw AuditError.unavailable("the log is not open") }
    try file.write(builder.bytes, at: size)
    try file.synchronize()
    take(builder, at: size)
  }

  mutating func take(_ builder: ChainBuilder, at offset: Int) {
    end = builder.end
    size = offset + builder.bytes.count
    linesSinceCheckpoint = builder.linesSinceCheckpoint
    if keepsTaken { taken += builder.lines.map { Array(builder.bytes[$0]) } }
  }

  private mutating func rotate(_ milliseconds: UInt64) throws {
    var builder = builder()
    if builder.linesSinceCheckpoint > 0 { try builder.addCheckpoint(milliseconds) }
    try write(builder)
    // Made before, and its first lines not written.
    if try directory.status(of: Self.fileName(log, number + 1)) != nil {
      return try openAnew(KnownEnd(file: number, end: end), milliseconds)
    }
    let content = ParsedLine.Content.continued(file: number + 1, key: signer.verifier.name)
    try startFile(number + 1, content, from: end, milliseconds)
  }

  /// Makes a new file, durable with its first lines when it returns.
  mutating func startFile(
    _ wanted: UInt64,
    _ content: ParsedLine.Content,
    from end: ChainEnd,
    _ milliseconds: UInt64
  ) throws {
    var builder = ChainBuilder(log: log, signer: signer, end: end, linesSinceCheckpoint: 0)
    try builder.addOpening(content, milliseconds)
    let name = Self.fileName(log, wanted)
    let made = try LogFile(name, in: directory, isNew: true)
    try made.write(builder.bytes, at: 0)
    try made.synchronize()
    try directory.synchronize()
    (file, status, number, isInDoubt) = (made, made.status, wanted, false)
    take(builder, at: 0)
  }

  /// Has the file open, as it was left.
  private mutating func prepare(_ milliseconds: UInt64) throws {
    if file != nil { return }
    guard let known = status else { return try openAnew(nil, milliseconds) }
    let name = Self.fileName(log, number)
    let found = try directory.status(of: name)
    let isSame = found.map { $0.device == known.device && $0.inode == known.inode } ?? false
    guard isSame, let found, isInDoubt ? found.size >= size : found.size == size else {
      return try openAnew(KnownEnd(file: number, end: end), milliseconds)
    }
    let opened = try LogFile(name, in: directory)
    guard opened.status.inode == known.inode else {
      throw AuditError.unavailable("\(directory.path)/\(name) was replaced while it was opened")
    }
    if isInDoubt {
      try opened.truncate(to: size)
      try opened.synchronize()
    }
    isInDoubt = false
    file = opened
  }
}
