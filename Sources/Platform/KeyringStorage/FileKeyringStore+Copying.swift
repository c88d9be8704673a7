public import KeyringCore
internal import Synchronization

/// A storage file at one moment: the bytes up to `size` of its inode stay what they are, whatever is appended, and whether or not it is replaced.
public struct StorageCopy: Sendable {
  /// Where it stands.
  public let position: StorePosition
  /// Bytes that belong to that position.
  public let size: Int
  private let file: FileDescriptor
  private let path: String
  private let calls: SystemCalls

  init(position: StorePosition, size: Int, file: FileDescriptor, path: String, calls: SystemCalls) {
    self.position = position
    self.size = size
    self.file = file
    self.path = path
    self.calls = calls
  }

  /// All of it. Blocks, and holds up nobody else.
  public func bytes() throws(StoreError) -> [UInt8] {
    do {
      return try readExactly(file, size, at: 0, path, calls)
    } catch {
      throw .unavailable("\(error)")
    }
  }
}

/// What stands where a backup is to be restored.
public enum StandingKeyring: Sendable, Equatable {
  /// Neither file nor anchor.
  case none
  /// A keyring, and where file and anchor stand; both, where they differ.
  case keyring(KeyringID, [StorePosition])
  /// A file or an anchor that cannot be read, and why: how new it was cannot be told.
  case unreadable(String)
  /// File and anchor are of different keyrings.
  case mixed
}

extension FileKeyringStore {
  // MARK: Copying

  /// The file as it stands; waits for a flush that is under way.
  ///
  /// - Throws: `StoreError.busy` where it is not open.
  public func copy() throws(StoreError) -> StorageCopy {
    try state.withLock { state throws(StoreError) in
      let open = try opened(state)
      return StorageCopy(
        position: open.position,
        size: open.size,
        file: open.file,
        path: path,
        calls: directory.calls
      )
    }
  }

  /// What is open, as it stands; nil where nothing is. Waits for a flush that is under way.
  public func standingOpen() -> StandingKeyring? {
    state.withLock { $0.open.map { .keyring($0.keyring, [$0.position]) } }
  }

  // MARK: Restoring

  /// Takes the writer's lock, forgets what it had open, and says what is there.
  ///
  /// - Throws: `StoreError.busy`, `.unavailable`.
  public func standing() throws(StoreError) -> StandingKeyring {
    try state.withLock { state throws(StoreError) in
      anchorWriter.forget(tenant)
      forgetDraft(&state)
      state.open = nil
      noteSize(state)
      if state.lock == nil { state.lock = try takeLock() }
      do throws(StoreError) {
        let anchor = try readAnchor()
        guard let bytes = try readFile() else {
          guard let anchor else { return .none }
          return .keyring(anchor.keyring, [anchor.position])
        }
        let content = try StorageFileReader.read(bytes, tenant: tenant)
        guard let anchor else { return .keyring(content.state.id, [content.position]) }
        guard anchor.keyring == content.state.id else { return .mixed }
        guard anchor.position != content.position else { return .keyring(anchor.keyring, [content.position]) }
        return .keyring(anchor.keyring, [content.position, anchor.position])
      } catch .changed(let what), .damaged(let what) {
        return .unreadable(what)
      }
    }
  }

  /// Puts a storage file in the place of whatever is there, and its anchor with it. The store is not open; `standing` took its lock.
  ///
  /// The file comes first: until the anchor follows, what is there is another file than the anchor's, or one without, and the tenant is
  /// quarantined; the same call completes it. At no moment is there neither.
  ///
  /// - Parameters:
  ///   - bytes: verified, whole batches of this tenant's, at `position`.
  ///   - authenticator: for the anchor; nil where no wrapping key can be had.
  public func restore(
    _ bytes: [UInt8],
    keyring: KeyringID,
    position: StorePosition,
    authenticator: (any BatchAuthenticator)?
  ) throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      guard state.lock != nil, state.open == nil else {
        throw .busy("\(path) is open, or its lock is not held")
      }
      anchorWriter.forget(tenant)
      let anchor = try Anchor.make(
        tenant: tenant,
        keyring: keyring,
        position: position,
        authenticator: authenticator
      )
      do throws(FileError) {
        _ = try AtomicFile.write(name, in: directory, [bytes])
      } catch .unknown(let what) {
        throw failed(&state, what)
      } catch {
        throw .unavailable("\(error)")
      }
      do throws(StoreError) {
        try writeAnchor(anchor)
      } catch {
        throw failed(&state, "the storage file is restored, and its anchor is not: \(error)")
      }
      state.mustRecover = false
    }
  }
}

extension StandingKeyring {
  /// True where no anchor of the tenant is there. Nothing makes durable what is seen.
  public static func hasNoAnchor(_ tenant: TenantName, in anchors: DirectoryDescriptor) throws(FileError)
    -> Bool
  { try anchors.status(of: NewKeyring.anchorName(tenant)) == nil }

  /// What the anchor alone says, where the tenant has no directory.
  ///
  /// - Throws: `StoreError.unavailable`.
  public static func anchor(of tenant: TenantName, in anchors: DirectoryDescriptor) throws(StoreError)
    -> StandingKeyring
  {
    do throws(StoreError) {
      guard let anchor = try AnchorFile(directory: anchors, tenant: tenant).read() else { return .none }
      return .keyring(anchor.keyring, [anchor.position])
    } catch .changed(let what), .damaged(let what) {
      return .unreadable(what)
    }
  }
}
