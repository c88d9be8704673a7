/// A caller's id of one request: 16 bytes in the layout of a UUIDv7 (RFC 9562 section 5.7).
public struct IdempotencyID: Identifier128 {
  /// The bytes as a number.
  public let value: UInt128
  /// Takes 16 bytes.
  public init(value: UInt128) { self.value = value }
  /// The id's own time: its first 48 bits, Unix milliseconds.
  public var timeMilliseconds: UInt64 { UInt64(value >> 80) }
}

/// What a keyring remembers of requests with an idempotency id: 24 hours or 10,000 of them, whichever is less.
///
/// An id that is not remembered is new only if its own time is after that of every id ever forgotten (the
/// horizon); otherwise it may have been executed, and must not be again.
public struct IdempotencyWindow: Sendable, Equatable {
  /// Ids remembered, at most.
  public static let entriesMax = 10_000
  /// How long an id is remembered, at most.
  public static let ageMillisecondsMax: UInt64 = 24 * 3600 * 1000
  /// How far ahead of the server's clock an id's time may be.
  public static let aheadMillisecondsMax: UInt64 = 5 * 60 * 1000

  /// One remembered request.
  public struct Entry: Sendable, Equatable {
    /// Who sent it: ids of different callers never meet.
    public let caller: String
    /// Its id, the hash of the request, and the versions it made.
    public let idempotency: Commit.Idempotency
    /// The commit that it became.
    public let sequence: UInt64
    /// When, Unix milliseconds.
    public let timeMilliseconds: UInt64

    /// Puts the parts together.
    public init(caller: String, idempotency: Commit.Idempotency, sequence: UInt64, timeMilliseconds: UInt64) {
      self.caller = caller
      self.idempotency = idempotency
      self.sequence = sequence
      self.timeMilliseconds = timeMilliseconds
    }
  }

  private struct Name: Hashable {
    let caller: String
    let id: IdempotencyID
  }

  private var byName: [Name: Entry] = [:]
  private var order: [Name] = []
  private var oldest = 0
  /// What `Compaction` counts as useful of the entries.
  public private(set) var usefulBytes: UInt64 = 0
  /// Ids whose time is not after this, Unix milliseconds, may have been forgotten.
  public private(set) var horizonMilliseconds: UInt64

  /// A window without entries.
  public init(horizonMilliseconds: UInt64 = 0) { self.horizonMilliseconds = horizonMilliseconds }

  /// The window that an image of a keyring holds: nothing more is forgotten, whatever the entries' times.
  ///
  /// - Throws: `KeyringError.inconsistent` where there are more than `entriesMax`, or one is there twice.
  public init(restoring entries: [Entry], horizonMilliseconds: UInt64) throws(KeyringError) {
    self.horizonMilliseconds = horizonMilliseconds
    guard entries.count <= Self.entriesMax else {
      throw .inconsistent("more idempotency ids than are ever remembered")
    }
    for entry in entries {
      let name = Name(caller: entry.caller, id: entry.idempotency.id)
      guard byName.updateValue(entry, forKey: name) == nil else {
        throw .inconsistent("an idempotency id is there twice")
      }
      order.append(name)
      usefulBytes += Compaction.usefulBytes(of: entry)
    }
  }

  /// What is remembered, oldest first.
  public var entries: [Entry] { order[oldest...].compactMap { byName[$0] } }

  /// Looks a request up.
  ///
  /// - Returns: the remembered request, or nil if it is new.
  /// - Throws: `KeyringError.idempotencyMismatch` where the id was another request's; `.idempotencyExpired` where
  ///   the id is too old to be known, or from the future.
  public func find(
    caller: String,
    id: IdempotencyID,
    requestHash: Digest,
    nowMilliseconds: UInt64
  ) throws(KeyringError) -> Entry? {
    if let entry = byName[Name(caller: caller, id: id)] {
      guard entry.idempotency.requestHash == requestHash else { throw .idempotencyMismatch }
      return entry
    }
    guard id.timeMilliseconds > horizonMilliseconds else {
      throw .idempotencyExpired(
        "this idempotency id is older than what is remembered: whether it was executed is unknown"
      )
    }
    guard id.timeMilliseconds + Self.ageMillisecondsMax > nowMilliseconds else {
      throw .idempotencyExpired(
        "this idempotency id is more than 24 hours old: whether it was executed is unknown"
      )
    }
    guard id.timeMilliseconds <= nowMilliseconds + Self.aheadMillisecondsMax else {
      throw .nameInvalid("this idempotency id is of the future: check the clock of its maker")
    }
    return nil
  }

  /// Remembers a commit that carries an idempotency id; another changes nothing.
  public mutating func insert(_ commit: Commit) {
    guard let idempotency = commit.idempotency else { return }
    insert(
      Entry(
        caller: commit.caller,
        idempotency: idempotency,
        sequence: commit.sequence,
        timeMilliseconds: commit.timeMilliseconds
      )
    )
  }

  /// Remembers what a commit became, and forgets what is too old or too much.
  ///
  /// What is forgotten depends on the commits alone, never on the clock, so that every reader of a file agrees.
  public mutating func insert(_ entry: Entry) {
    let name = Name(caller: entry.caller, id: entry.idempotency.id)
    guard byName.updateValue(entry, forKey: name) == nil else { return }
    order.append(name)
    usefulBytes += Compaction.usefulBytes(of: entry)
    while byName.count > Self.entriesMax || isExpired(order[oldest], at: entry.timeMilliseconds) {
      forgetOldest()
    }
    if oldest > Self.entriesMax {
      order.removeFirst(oldest)
      oldest = 0
    }
  }

  private func isExpired(_ name: Name, at timeMilliseconds: UInt64) -> Bool {
    guard let entry = byName[name] else { return false }
    // By subtraction: times come from a file, and a sum of them could overflow.
    return timeMilliseconds > entry.timeMilliseconds
      && timeMilliseconds - entry.timeMilliseconds > Self.ageMillisecondsMax
  }

  private mutating func forgetOldest() {
    let name = order[oldest]
    if let entry = byName.removeValue(forKey: name) { usefulBytes -= Compaction.usefulBytes(of: entry) }
    oldest += 1
    horizonMilliseconds = max(horizonMilliseconds, name.id.timeMilliseconds)
  }
}
