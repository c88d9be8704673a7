public import KeyringCore
internal import Glibc
internal import Synchronization

// The commit order of this store, on one page. Invariants:
//
//  1. What `append` acknowledged is on the disk: one write, one fdatasync, in this order, before it returns.
//  2. Nothing is appended to a file that is not, byte for byte by its digest, the one that memory was read from.
//  3. The anchor never runs ahead of the file: it is written after the file's sync. Its writes wait for no flush, nor a flush for them, but
//     where the anchor must come first (strict, replacement). Locks are taken in this order: state, anchored, late.
//  4. A file appears whole or not at all: create, replace and recovery all go through AtomicFile.
//  5. After a failed write, sync or rename nothing in memory is trusted: `load` reads the disk again and writes what it read to a new file.
//     Nothing is ever appended to the old one.
//  6. A storage file is created only where neither file nor anchor is, or the anchor says that a creation did not end.

/// A keyring in one file, with an anchor elsewhere: the embedded implementation of `KeyringStore`. docs/FILE_FORMAT.md.
public final class FileKeyringStore: KeyringStore {
  struct OpenFile {
    let file: FileDescriptor
    let status: FileStatus
    var size: Int
    var position: StorePosition
    let keyring: KeyringID
    /// The anchor is that of the creation: it must be brought up before anything is appended, and opens a file of one batch only.
    var isCreation = false
  }

  struct State {
    var lock: FileDescriptor?
    var open: OpenFile?
    /// Set by a failure after which the disk is not known; cleared by a successful `load` or `restore`.
    var mustRecover = false
    /// A replacement on its way; one that is not this one is over.
    var draft: FileReplacement?
  }

  struct LateAnchor {
    /// Where the file stands, durably, if the anchor is behind it.
    var anchor: Anchor?
    /// The last try to write it failed, and an operator was told.
    var isFailing = false
  }

  let directory: DirectoryDescriptor
  /// Of the storage file, in the directory.
  public let name: String
  let tenant: TenantName
  let anchorFile: AnchorFile
  let policy: AnchorPolicy
  let anchorWriter: AnchorWriter
  let notice: @Sendable (String) -> Void
  let fileBytesMax: Int
  let state = Mutex(State())
  /// Where the anchor on the disk stands; held while it is read or written, so that there is one write at a time.
  let anchored = Mutex<StorePosition?>(nil)
  /// Held for no call to a disk: a flush, which holds the state, and a writer of the anchor meet here.
  let late = Mutex(LateAnchor())
  /// Apart from the state, which a flush holds while it waits for the disk.
  private let bytes = Mutex<UInt64>(0)

  /// - Parameters:
  ///   - directory: the tenant's.
  ///   - name: of the storage file in it; `<name>.lock` beside it is the writer's lock.
  ///   - anchors: the directory of all tenants' anchors, best on another disk.
  ///   - fileBytesMax: a commit or replacement that would make the file larger is refused, as is reading one that is; at most 4 GiB.
  ///   - notice: told what an operator should know, a late anchor that could not be written for one.
  public init(
    directory: DirectoryDescriptor,
    name: String,
    tenant: TenantName,
    anchors: DirectoryDescriptor,
    policy: AnchorPolicy,
    anchorWriter: AnchorWriter,
    fileBytesMax: Int = .max,
    notice: @escaping @Sendable (String) -> Void
  ) {
    self.directory = directory
    self.name = name
    self.tenant = tenant
    anchorFile = AnchorFile(directory: anchors, tenant: tenant)
    self.policy = policy
    self.anchorWriter = anchorWriter
    self.fileBytesMax = min(fileBytesMax, StorageFormat.fileBytesMax)
    self.notice = notice
  }

  var path: String { "\(directory.path)/\(name)" }

  // MARK: Opening

  /// Opens and verifies the file; rewrites it where its tail is torn or where the server did not end in good order.
  public func load() throws(StoreError) -> LoadedKeyring? {
    try state.withLock { state throws(StoreError) in
      anchorWriter.forget(tenant)
      forgetDraft(&state)
      state.open = nil
      if state.lock == nil { state.lock = try takeLock() }
      let anchor = try readAnchor()
      guard let bytes = try readFile() else {
        guard let anchor else { return nil }
        guard anchor.position.sequence == 0 else {
          throw .changed(
            "\(path) is not there, but its anchor says that it was at \(anchor.position): it was deleted or not mounted"
          )
        }
        return nil
      }
      let content = try checked(bytes, anchor)
      var notices = unauthenticated(anchor)
      let isExact = content.tornTail == nil && anchor?.position == content.position && !state.mustRecover
      if isExact {
        try settleDirectory()
        state.open = try opened(content)
      } else {
        if let torn = content.tornTail {
          notices.append("\(path): cut a torn tail off that was never acknowledged: \(torn)")
        }
        state.open = try recovered(bytes, content)
      }
      state.open?.isCreation = anchor?.position.sequence == 0
      noteSize(state)
      state.mustRecover = false
      late.withLock { $0 = LateAnchor() }
      return try loaded(content, anchor, notices)
    }
  }

  /// Reads and verifies the file as it is, changing nothing.
  public func read() throws(StoreError) -> LoadedKeyring {
    guard let bytes = try readFile() else { throw .changed("\(path) is not there") }
    return try loaded(StorageFileReader.read(bytes, tenant: tenant), nil, [])
  }

  func loaded(
    _ content: StorageFileContent,
    _ anchor: Anchor?,
    _ notices: [String]
  ) throws(StoreError) -> LoadedKeyring {
    var pending = content.pendingAuthentications
    if let anchor, anchor.position != content.replaced, let proof = anchor.pendingAuthentication(tenant) {
      pending.append(proof)
    }
    return LoadedKeyring(
      state: content.state,
      idempotency: content.idempotency,
      position: content.position,
      pendingAuthentications: pending,
      storageBytes: UInt64(content.validBytes),
      notices: notices
    )
  }

  /// Gives up a replacement that is being written; it notices when it is finished.
  func forgetDraft(_ state: inout State) {
    guard state.draft != nil else { return }
    state.draft = nil
    // A leftover is removed by the next replacement or opening.
    _ = directory.unlink(name + AtomicFile.temporarySuffix)
    directory.end(name + AtomicFile.temporarySuffix)
  }

  func takeLock() throws(StoreError) -> FileDescriptor {
    do {
      return try directory.lock(name + ".lock")
    } catch .unacceptable(let what) {
      throw .busy(what)
    } catch {
      throw .unavailable("\(error)")
    }
  }

  func readFile() throws(StoreError) -> [UInt8]? {
    do {
      return try directory.readFile(name, bytesMax: fileBytesMax)
    } catch .absent {
      return nil
    } catch .unacceptable(let what) {
      throw .changed(what)
    } catch {
      throw .unavailable("\(error)")
    }
  }

  /// The file's content, where it and the anchor agree.
  func checked(_ bytes: [UInt8], _ anchor: Anchor?) throws(StoreError) -> StorageFileContent {
    let content: StorageFileContent
    do {
      content = try StorageFileReader.read(bytes, tenant: tenant)
    } catch .damaged(let what) {
      throw .damaged("\(path): \(what)")
    } catch .changed(let what) {
      throw .changed("\(path): \(what)")
    }
    guard let anchor else {
      throw .changed("\(path) has no anchor: it was not written by this server, or the anchor was deleted")
    }
    try anchor.check(content, path)
    return content
  }

  /// A process that ended between rename and sync of the directory left a file that a power cut would take away again.
  private func settleDirectory() throws(StoreError) {
    do {
      try directory.synchronize()
    } catch {
      throw .unavailable("\(error)")
    }
  }

  func opened(_ content: StorageFileContent) throws(StoreError) -> OpenFile {
    do {
      let file = try directory.openFile(name, flags: O_RDWR)
      let status = try directory.status(of: file, name)
      guard status.size == content.validBytes else {
        throw FileError.unchanged("\(path) changed while it was read")
      }
      try directory.removeLeftovers(of: [name, "persisted.json", "tenant.yaml"])
      return OpenFile(
        file: file,
        status: status,
        size: content.validBytes,
        position: content.position,
        keyring: content.state.id
      )
    } catch {
      throw .unavailable("\(error)")
    }
  }

  /// Writes what was read to a new file: the old one may show what the disk has lost (fsync(2) after an error).
  func recovered(_ bytes: [UInt8], _ content: StorageFileContent) throws(StoreError) -> OpenFile {
    let verified = content.validBytes == bytes.count ? bytes : Array(bytes[..<content.validBytes])
    do {
      _ = try AtomicFile.write(name, in: directory, [verified])
    } catch {
      throw .unavailable("recovery could not write \(path) anew: \(error)")
    }
    return try opened(content)
  }

  // MARK: Size, closing

  /// Bytes of the file; 0 where it is not open.
  public var storageBytes: UInt64 { bytes.withLock { $0 } }

  func noteSize(_ state: State) { bytes.withLock { $0 = UInt64(state.open?.size ?? 0) } }

  /// Writes the anchor's last state and lets go of file and lock.
  public func close() throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      anchorWriter.forget(tenant)
      forgetDraft(&state)
      defer {
        state = State(mustRecover: state.mustRecover)  // what is not known stays so for the next `load`
        late.withLock { $0 = LateAnchor() }
        noteSize(state)
      }
      try writeLateAnchor()
    }
  }
}
