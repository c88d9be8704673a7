public import KeyringCore

/// A backup or a restore under way, on one connection.
public struct TransferID: Identifier128 {
  /// The bytes as a number.
  public let value: UInt128
  /// Takes 16 random bytes.
  public init(value: UInt128) { self.value = value }

  /// Bytes of a file that one call carries, at most: 48 KiB.
  public static let chunkBytes = 49_152
}

/// A call about a backup.
public enum BackupCall: Sendable, Equatable {
  case begin(allowUnproved: Bool)
  case read(TransferID, offset: UInt64)
  case end(TransferID)
}

/// A backup that is to be restored.
public struct RestoreBeginCall: Sendable, Equatable {
  /// Length of the file.
  public let bytes: UInt64
  /// SHA-256 of the file.
  public let digest: Digest
  /// In the place of a keyring that is newer, another one, or cannot be read.
  public let acceptRollback: Bool
  /// Also what cannot be proved to open.
  public let acceptUnproved: Bool
  /// Changes nothing.
  public let isDryRun: Bool

  /// Puts the parts together.
  public init(
    bytes: UInt64,
    digest: Digest,
    acceptRollback: Bool = false,
    acceptUnproved: Bool = false,
    isDryRun: Bool = false
  ) {
    self.bytes = bytes
    self.digest = digest
    self.acceptRollback = acceptRollback
    self.acceptUnproved = acceptUnproved
    self.isDryRun = isDryRun
  }
}

/// A call about a restore.
public enum RestoreCall: Sendable, Equatable {
  case begin(RestoreBeginCall)
  case write(TransferID, offset: UInt64, data: [UInt8])
  case end(TransferID)
}

/// What is in a backup.
public struct BackupSummary: Sendable, Equatable {
  /// 32 hexadecimal digits.
  public var keyringID = ""
  /// Where the storage file in it stands.
  public var sequence: UInt64 = 0
  /// 64 hexadecimal digits.
  public var digest = ""
  /// The server's own not counted.
  public var keys: UInt64 = 0
  /// Versions of keys, and the server's own.
  public var records: UInt64 = 0
  /// CMKs that it needs, and does not have in it.
  public var cmksNeeded: [String] = []
  /// CMKs that are in it.
  public var cmksIncluded: [String] = []
  /// Wrapping keys that could not be had.
  public var unprovedWrappingKeys: [String] = []

  /// All empty.
  public init() {}
}

/// A result of a call about a backup.
public enum BackupResult: Sendable, Equatable {
  case begun(TransferID, bytes: UInt64, digest: Digest, BackupSummary)
  case data([UInt8])
  case ended
}

/// What a restore did, or would do.
public struct RestoreReport: Sendable, Equatable {
  /// What was restored.
  public var summary = BackupSummary()
  /// Local CMKs that were made, or given versions that they lacked.
  public var cmksMade: [String] = []
  /// The sequence of the keyring that was there; 0 where there was none.
  public var replacedSequence: UInt64 = 0
  /// True where nothing was changed, as asked.
  public var isDryRun = false
  /// What an operator should know.
  public var notices: [String] = []

  /// All empty.
  public init() {}
}

/// A result of a call about a restore.
public enum RestoreResult: Sendable, Equatable {
  case begun(TransferID)
  case written
  case ended(RestoreReport)
}
