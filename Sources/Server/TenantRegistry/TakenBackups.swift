public import ConfigurationFiles
internal import KeyringStorage

/// `backups.json`: what backups were taken of a tenant, so that its deletion can name those that nobody can read any more.
public struct TakenBackups: Sendable, Equatable {
  /// One backup file, wherever it is now.
  public struct Entry: Sendable, Equatable {
    /// When, Unix milliseconds.
    public let takenMilliseconds: UInt64
    /// Where the storage file in it stands.
    public let sequence: UInt64
    /// SHA-256 of the file, 64 hexadecimal digits.
    public let sha256: String
    /// True where the CMKs are in it, under the service's backup passphrase.
    public let hasCMKs: Bool

    /// Puts the parts together.
    public init(takenMilliseconds: UInt64, sequence: UInt64, sha256: String, hasCMKs: Bool) {
      self.takenMilliseconds = takenMilliseconds
      self.sequence = sequence
      self.sha256 = sha256
      self.hasCMKs = hasCMKs
    }
  }

  static let fileName = "backups.json"
  /// The newest are kept.
  static let entriesMax = 300

  /// The oldest first.
  public private(set) var entries: [Entry] = []
  /// Older ones, which are not named any more.
  public private(set) var forgotten = 0

  /// None.
  public init() {}

  mutating func add(_ entry: Entry) {
    entries.append(entry)
    let over = max(0, entries.count - Self.entriesMax)
    entries.removeFirst(over)
    forgotten += over
  }

  init(json: String, file: String) throws(ConfigurationError) {
    var document = try StrictYAML(json, file: file)  // JSON is YAML
    guard try document.number("version", 1...1) == 1 else { throw document.error("'version' is missing") }
    let times = 0...Int(1 << 53)
    forgotten = try document.number("forgotten", times) ?? 0
    for mapping in try document.list("backups") ?? [] {
      var entry = mapping
      guard let taken = try entry.number("taken_ms", times),
        let sequence = try entry.number("sequence", times),
        let sha256 = try entry.text("sha256"), let hasCMKs = try entry.flag("has_cmks")
      else { throw entry.error("this is no backup") }
      try entry.finish(known: ["taken_ms", "sequence", "sha256", "has_cmks"])
      entries.append(
        Entry(
          takenMilliseconds: UInt64(taken),
          sequence: UInt64(sequence),
          sha256: sha256,
          hasCMKs: hasCMKs
        )
      )
    }
    try document.finish(known: ["version", "forgotten", "backups"])
  }

  var json: String {
    let lines = entries.map { entry in
      "    {\"taken_ms\": \(entry.takenMilliseconds), \"sequence\": \(entry.sequence), \"sha256\": \"\(entry.sha256)\", \"has_cmks\": \(entry.hasCMKs)}"
    }
    return """
      {
        "version": 1,
        "forgotten": \(forgotten),
        "backups": [
      \(lines.joined(separator: ",\n"))
        ]
      }

      """
  }
}

extension TenantFiles {
  /// The backups that were taken of the tenant, as far as it was written down.
  public func takenBackups() throws(ConfigurationError) -> TakenBackups {
    guard let json = try read(TakenBackups.fileName) else { return TakenBackups() }
    return try TakenBackups(json: json, file: "\(directory.path)/\(TakenBackups.fileName)")
  }

  /// Writes one down; durable when it returns. For one caller at a time.
  public func note(_ backup: TakenBackups.Entry) throws(ConfigurationError) {
    var backups = try takenBackups()
    backups.add(backup)
    do {
      try AtomicFile.replace(TakenBackups.fileName, in: directory, with: [Array(backups.json.utf8)])
    } catch {
      throw ConfigurationError("\(error)")
    }
  }
}
