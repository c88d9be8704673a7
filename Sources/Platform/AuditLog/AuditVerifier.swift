public import Cryptography
internal import KeyringCore
public import KeyringStorage

/// Checks the files of one audit log, and needs nothing but them and the public key: reads, and changes nothing.
public struct AuditVerifier {
  /// A file of the log.
  public struct File {
    let name: String
    let source: any BackupSource

    /// - Parameter name: for messages.
    public init(name: String, source: any BackupSource) {
      self.name = name
      self.source = source
    }
  }

  /// What was found.
  public struct Report: Sendable, Equatable {
    /// Whose log it is; empty where no line says.
    public var log = ""
    /// What is wrong; empty where all that was checked is as it was written.
    public var faults: [String] = []
    /// Faults that are not listed, since there are so many.
    public var faultsOmitted: UInt64 = 0
    /// What the server itself said that it found.
    public var notices: [String] = []
    /// Lines.
    public var lines: UInt64 = 0
    /// Those of them that are entries.
    public var entries: UInt64 = 0
    /// Those of them that are checkpoints with a right signature.
    public var checkpoints: UInt64 = 0
    /// Entries that the server could not write, as it says itself.
    public var entriesDropped: UInt64 = 0
    /// Of the last line.
    public var lastSerial: UInt64 = 0
    /// Of the last line, 64 hexadecimal digits.
    public var lastHash = ""
    /// Lines behind the last checkpoint, which nothing signs.
    public var linesUnsigned: UInt64 = 0
    /// The serial that the head knows; nil where none was given.
    public var headSerial: UInt64?
    /// True where the log is whole, as far as could be checked.
    public var isWhole: Bool { faults.isEmpty }

    static let faultsMax = 100
    /// Entries and checkpoints that one file or another has.
    static let noticesMax = 100
  }

  private let verifier: VerifyingKey
  private let head: AuditHead?
  private var report = Report()
  private var end = ChainEnd.none
  private var nextFile: UInt64 = 1
  private var sinceCheckpoint: UInt64 = 0
  private var mustBeCheckpoint = false
  private var hasSeenHead = false
  private var place = ""

  private init(_ verifier: VerifyingKey, _ head: AuditHead?) {
    self.verifier = verifier
    self.head = head
  }

  /// Checks all files of a log, given in any order.
  ///
  /// - Parameters:
  ///   - key: the public key of the server that wrote it.
  ///   - head: the end of the log as the server knew it; without it, nothing shows that lines are missing at the end.
  /// - Throws: where a file cannot be read, or libcrypto fails.
  public static func verify(_ files: [File], key: VerifyingKey, head: AuditHead?) throws -> Report {
    var checker = AuditVerifier(key, head)
    var known: [(number: UInt64, file: File)] = []
    for file in files {
      if let number = try checker.number(of: file) { known.append((number, file)) }
    }
    for (number, file) in known.sorted(by: { $0.number < $1.number }) { try checker.check(file, number) }
    try checker.finish(isEmpty: files.isEmpty)
    return checker.report
  }

  private mutating func fault(_ what: String) {
    guard report.faults.count < Report.faultsMax else { return report.faultsOmitted += 1 }
    report.faults.append(what)
  }

  private mutating func notice(_ what: String) {
    if report.notices.count < Report.noticesMax { report.notices.append(what) }
  }

  /// Which file of the log it is, as its first line says.
  private mutating func number(of file: File) throws -> UInt64? {
    var reader = LineReader(file.source)
    guard let line = try reader.next(), let parsed = AuditLine.parse(line.bytes),
      let number = parsed.startsFile
    else {
      fault("\(file.name): its first line is none that a file begins with")
      return nil
    }
    return number
  }

  // MARK: Files

  private mutating func check(_ file: File, _ number: UInt64) throws {
    if number < nextFile {
      fault("\(file.name): file \(number) of the log is there twice")
    } else if number > nextFile {
      let missing = number == nextFile + 1 ? "file \(nextFile)" : "files \(nextFile) to \(number - 1)"
      fault("\(missing) of the log \(number == nextFile + 1 ? "is" : "are") missing before \(file.name)")
    }
    if mustBeCheckpoint { fault("\(place): the file ends without the checkpoint that has to follow") }
    nextFile = number + 1
    mustBeCheckpoint = false
    var reader = LineReader(file.source)
    var count = 0
    while let line = try reader.next() {
      count += 1
      place = "\(file.name), line \(count)"
      guard let parsed = AuditLine.parse(line.bytes) else {
        fault("\(place): not a line that a server wrote")
        continue
      }
      if !line.isEnded { fault("\(place): the line is not ended: the file was cut off, or is being written") }
      try check(parsed, line.bytes, isFirst: count == 1, number)
    }
  }

  // MARK: Lines

  private mutating func check(
    _ line: ParsedLine,
    _ bytes: ArraySlice<UInt8>,
    isFirst: Bool,
    _ file: UInt64
  ) throws {
    report.lines += 1
    if report.log.isEmpty { report.log = line.header.log }
    if line.header.log != report.log { fault("\(place): a line of the log '\(line.header.log)'") }
    checkOrder(line, isFirst: isFirst, file)
    if mustBeCheckpoint, line.header.kind != .checkpoint {
      fault("\(place): a checkpoint has to follow the line before")
    }
    mustBeCheckpoint = false
    try checkContent(line)
    end = ChainEnd(serial: line.header.serial, hash: try AuditLine.hash(bytes))
    if let head, head.end.serial == end.serial {
      hasSeenHead = true
      if head.end.hash != end.hash {
        fault("\(place): not the line that the head says has serial \(end.serial)")
      }
    }
  }

  private mutating func checkOrder(_ line: ParsedLine, isFirst: Bool, _ file: UInt64) {
    var expected = end.serial &+ 1
    if case .gap(let missing) = line.content {
      expected = expected &+ missing
      report.entriesDropped &+= missing
    }
    let serial = line.header.serial
    if serial > expected {
      fault("\(place): serial \(serial) comes after \(end.serial): lines are missing before it")
    } else if serial < expected {
      fault("\(place): serial \(serial) comes after \(end.serial): lines were reordered, or are there twice")
    } else if line.header.previous != end.hash {
      fault("\(place): it follows another line than the one before it, which was changed")
    }
    guard !isFirst else {
      let isBeginning = line.header.kind == .begin
      if isBeginning != (serial == 1 && file == 1), line.header.kind != .recovered {
        fault("\(place): a log begins with serial 1 in its file 1, and nowhere else")
      }
      return
    }
    switch line.content {
    case .begin, .continued: fault("\(place): a line that begins a file stands within one")
    case .recovered(let recovery) where recovery.file != file: fault("\(place): a line of another file")
    case .recovered, .checkpoint, .gap, .other: break
    }
  }

  private mutating func checkContent(_ line: ParsedLine) throws {
    sinceCheckpoint += 1
    switch line.content {
    case .begin(_, let key), .continued(_, let key):
      mustBeCheckpoint = true
      checkKey(key)
    case .recovered(let recovery):
      mustBeCheckpoint = true
      checkKey(recovery.key)
      notice("\(place): \(recovery.words)")
    case .checkpoint(let key, let signature):
      checkKey(key)
      if try verifier.isValid(signature, of: AuditLine.checkpointMessage(line.header)) {
        report.checkpoints += 1
      } else {
        fault("\(place): the signature of the checkpoint is not right: this line or those before were forged")
      }
      sinceCheckpoint = 0
    case .gap(let missing):
      notice("\(place): the server could not write \(missing) entries before it")
    case .other: report.entries += 1
    }
    if sinceCheckpoint == AuditLine.checkpointLinesMax + 1 {
      fault("\(place): no checkpoint in \(AuditLine.checkpointLinesMax) lines, which no server leaves out")
    }
  }

  private mutating func checkKey(_ key: String) {
    if key != verifier.name { fault("\(place): signed by key \(key), and the one given is \(verifier.name)") }
  }

  // MARK: The end

  private mutating func finish(isEmpty: Bool) throws {
    report.lastSerial = end.serial
    report.lastHash = "\(end.hash)"
    report.linesUnsigned = sinceCheckpoint
    if mustBeCheckpoint { fault("\(place): the checkpoint that has to follow is missing") }
    if isEmpty { fault("there is no file of the log") }
    guard let head else { return }
    report.headSerial = head.end.serial
    guard try head.isValid(verifier) else { return fault("the head is not signed by the key given") }
    if !report.log.isEmpty, head.log != report.log {
      return fault("the head is of the log '\(head.log)'")
    }
    if end.serial < head.end.serial {
      fault(
        "the log ends with serial \(end.serial), and the head knows \(head.end.serial): the end is missing"
      )
    } else if !hasSeenHead {
      fault("the line that the head knows, serial \(head.end.serial), is not there")
    }
  }
}

extension Recovery {
  /// For people.
  fileprivate var words: String {
    switch why {
    case .torn: "the server cut off a torn line of \(cutBytes) bytes, as a crash leaves it"
    case .behind: "the server found the log shorter than it had been"
    case .missing: "the server found the log gone"
    case .broken: "the server found lines before this that do not follow from each other"
    }
  }
}
