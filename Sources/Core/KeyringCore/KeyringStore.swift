/// Where a keyring stands: the sequence of its last commit and the checksum of the whole of it.
public struct StorePosition: Sendable, Hashable, CustomStringConvertible {
  /// Of the last commit.
  public let sequence: UInt64
  /// SHA-256 chained over every batch.
  public let digest: Digest

  /// Puts both together.
  public init(sequence: UInt64, digest: Digest) {
    self.sequence = sequence
    self.digest = digest
  }

  /// For a log.
  public var description: String { "sequence \(sequence), digest \(digest)" }
}

/// Makes and checks the HMACs that bind batches to a wrapping key.
public protocol BatchAuthenticator: Sendable {
  /// The wrapping key whose HMAC key this is.
  var wrappingKeyID: WrappingKeyID { get }
  /// HMAC-SHA-256 of `message`.
  ///
  /// - Throws: `StoreError.authenticatorUnavailable` when the wrapping key was wiped meanwhile.
  func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest
}

/// An HMAC read from storage, to be checked once its wrapping key is held.
public struct PendingAuthentication: Sendable, Equatable {
  /// The wrapping key that made it.
  public let wrappingKeyID: WrappingKeyID
  /// What it was made over.
  public let message: [UInt8]
  /// The HMAC.
  public let mac: Digest
  /// For the log: "batch at byte 512", "anchor".
  public let place: String

  /// Puts the parts together.
  public init(wrappingKeyID: WrappingKeyID, message: [UInt8], mac: Digest, place: String) {
    self.wrappingKeyID = wrappingKeyID
    self.message = message
    self.mac = mac
    self.place = place
  }
}

/// What opening a keyring found.
public struct LoadedKeyring: Sendable {
  /// The keys and wrapping keys.
  public let state: KeyringState
  /// What is remembered of requests.
  public let idempotency: IdempotencyWindow
  /// Where it stands.
  public let position: StorePosition
  /// The HMACs of its batches and of its anchor; nothing may be decrypted or written before those of a held wrapping key are checked.
  public let pendingAuthentications: [PendingAuthentication]
  /// Bytes of storage.
  public let storageBytes: UInt64
  /// For the log: a torn tail that was cut off, say.
  public let notices: [String]

  /// Puts the parts together.
  public init(
    state: KeyringState,
    idempotency: IdempotencyWindow,
    position: StorePosition,
    pendingAuthentications: [PendingAuthentication],
    storageBytes: UInt64,
    notices: [String]
  ) {
    self.state = state
    self.idempotency = idempotency
    self.position = position
    self.pendingAuthentications = pendingAuthentications
    self.storageBytes = storageBytes
    self.notices = notices
  }
}

/// Why storage failed, by what the caller must do about it.
public enum StoreError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The storage is not what it was, or not what the anchor says; nothing was changed. The tenant is quarantined.
  case changed(String)
  /// It is damaged where no crash damages it; nothing was changed. The tenant is quarantined.
  case damaged(String)
  /// Another process holds it.
  case busy(String)
  /// It could not be read or written; nothing was changed, and it may be tried again.
  case unavailable(String)
  /// A write, sync or rename failed: the change may or may not be there. Only loading again tells.
  case outcomeUnknown(String)
  /// The wrapping key that authenticates batches is not held.
  case authenticatorUnavailable

  /// For the log and the operator; names files, never key material.
  public var description: String {
    switch self {
    case .changed(let what), .damaged(let what), .busy(let what), .unavailable(let what),
      .outcomeUnknown(let what):
      what
    case .authenticatorUnavailable: "the wrapping key is not held"
    }
  }
}

/// Storage that is being written anew beside what is there, which goes on being appended to meanwhile. Its calls block, one at a time.
public protocol KeyringReplacement: Sendable {
  /// Adds commits that were made durable since, in order: durable when it returns.
  func append(_ commits: [Commit], authenticator: any BatchAuthenticator) throws(StoreError)
  /// Adds the last of those commits, which ends in one that says what was replaced (`Operation.replaced`, `expecting`), and puts this in the
  /// place of what is there, in one step; of no more use afterwards, whatever the outcome.
  ///
  /// - Parameters:
  ///   - expecting: where what is there must stand.
  ///   - former: authenticates what is there.
  func finish(
    _ commits: [Commit],
    expecting: StorePosition,
    former: any BatchAuthenticator,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition
  /// Gives it up: what is there stays.
  func abandon()
}

/// Durable storage of one keyring. Its calls block: they run on a thread made for that, one at a time.
public protocol KeyringStore: Sendable {
  /// Opens and verifies the keyring; after any error but `unavailable` of `append` and `finish`, this is the only way on.
  ///
  /// - Returns: nil where there is no keyring, and one may be created.
  func load() throws(StoreError) -> LoadedKeyring?
  /// Creates the keyring with its first commits (sequence 1 onwards); only after `load` answered nil.
  func create(
    tenant: TenantName,
    id: KeyringID,
    commits: [Commit],
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition
  /// Appends commits as one batch: durable, all or none, when it returns.
  func append(
    _ commits: [Commit],
    expecting: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition
  /// Begins to write all of it anew, beside what is there; it may be appended to meanwhile. One at a time: an unfinished one is given up.
  ///
  /// - Parameters:
  ///   - image: the keyring at `position`.
  ///   - position: where storage stood when the image was made.
  /// - Throws: `unavailable`, with what is there untouched; `busy` where it is not open.
  func beginReplacement(
    with image: KeyringImage,
    at position: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> any KeyringReplacement
  /// Reads and verifies what is stored now, without changing anything: for proofs and checks.
  func read() throws(StoreError) -> LoadedKeyring
  /// Takes what is stored as it is, though the anchor or the expectation says otherwise; an operator's decision.
  ///
  /// - Throws: `StoreError.changed` unless the stored sequence is `sequence`; `.damaged` where it does not verify.
  func accept(sequence: UInt64) throws(StoreError)
  /// Brings what guards the storage against being put back (a file's anchor) to where the storage stands; does nothing where it is there. For
  /// the time after opening, once a wrapping key is held.
  ///
  /// - Throws: `StoreError.unavailable`, with the storage as usable as before; it is tried again later.
  func anchor(authenticator: any BatchAuthenticator) throws(StoreError)
  /// Bytes of storage now.
  var storageBytes: UInt64 { get }
  /// Lets go of it: the lock, descriptors, the anchor's last state written.
  func close() throws(StoreError)
}
