public import KeyringCore
internal import Glibc
internal import Synchronization

// The commit order of this store, on one page. Invariants:
//
//  1. What `append` acknowledged is on the disk: one write, one fdatasync, in this order, before it returns.
//  2. Nothing is appended to a file that is not, byte for byte by its digest, the one that memory was read from.
//  3. The anchor never runs ahead of the file: it is written after the file's sync.
//  4. A file appears whole or not at all: create, replace and recovery all go through AtomicFile.
//  5. After a failed write, sync or rename nothing in memory is trusted: `load` reads the disk again and writes what it read to a new file.
//     Nothing is ever appended to the old one.
//  6. A storage file is created only where neither file nor anchor is, or the anchor says that a creation did not end.

/// A keyring in one file, with an anchor elsewhere: the embedded implementation of `KeyringStore`. docs/FILE_FORMAT.md.
public final class FileKeyringStore: KeyringStore {
  private struct OpenFile {
    let file: FileDescriptor
    let status: FileStatus
    var size: Int
    var position: StorePosition
    let keyring: KeyringID
    var garbageBytes: UInt64
  }

  private struct State {
    var lock: FileDescriptor?
    var open: OpenFile?
    /// Set by a failure after which the disk is not known; cleared by a successful `load`.
    var mustRecover = false
    var anchored: StorePosition?
    var lastAuthenticator: (any BatchAuthenticator)?
  }

  private let directory: DirectoryDescriptor
  private let name: String
  private let tenant: TenantName
  private let anchorFile: AnchorFile
  private let policy: AnchorPolicy
  private let anchorWriter: AnchorWriter
  private let notice: @Sendable (String) -> Void
  private let state = Mutex(State())

  /// - Parameters:
  ///   - directory: the tenant's.
  ///   - name: of the storage file in it; `<name>.lock` beside it is the writer's lock.
  ///   - anchors: the directory of all tenants' anchors, best on another disk.
  ///   - notice: told what an operator should know, a late anchor that could not be written for one.
  public init(
    directory: DirectoryDescriptor,
    name: String,
    tenant: TenantName,
    anchors: DirectoryDescriptor,
    policy: AnchorPolicy,
    anchorWriter: AnchorWriter,
    notice: @escaping @Sendable (String) -> Void
  ) {
    self.directory = directory
    self.name = name
    self.tenant = tenant
    anchorFile = AnchorFile(directory: anchors, tenant: tenant)
    self.policy = policy
    self.anchorWriter = anchorWriter
    self.notice = notice
  }

  private var path: String { "\(directory.path)/\(name)" }

  // MARK: Opening

  /// Opens and verifies the file; rewrites it where its tail is torn or where the server did not end in good order.
  public func load() throws(StoreError) -> LoadedKeyring? {
    try state.withLock { state throws(StoreError) in
      anchorWriter.forget(tenant)
      state.open = nil
      if state.lock == nil { state.lock = try takeLock() }
      let anchor = try anchorFile.read()
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
      var notices: [String] = []
      let isExact = content.tornTail == nil && anchor?.position == content.position && !state.mustRecover
      if isExact {
        state.open = try opened(content)
      } else {
        if let torn = content.tornTail {
          notices.append("\(path): cut a torn tail off that was never acknowledged: \(torn)")
        }
        state.open = try recovered(bytes, content)
      }
      state.mustRecover = false
      state.anchored = anchor?.position
      return try loaded(content, anchor, notices)
    }
  }

  /// Reads and verifies the file as it is, changing nothing.
  public func read() throws(StoreError) -> LoadedKeyring {
    guard let bytes = try readFile() else { throw .changed("\(path) is not there") }
    return try loaded(StorageFileReader.read(bytes, tenant: tenant), nil, [])
  }

  private func loaded(
    _ content: StorageFileContent,
    _ anchor: Anchor?,
    _ notices: [String]
  ) throws(StoreError) -> LoadedKeyring {
    var pending = content.pendingAuthentications
    if let anchor, let authentication = anchor.authentication, anchor.position != content.replaced {
      pending.append(
        PendingAuthentication(
          wrappingKeyID: authentication.wrappingKeyID,
          message: Anchor.message(tenant: tenant, keyring: anchor.keyring, position: anchor.position),
          mac: authentication.mac,
          place: "anchor"
        )
      )
    }
    return LoadedKeyring(
      state: content.state,
      idempotency: content.idempotency,
      position: content.position,
      pendingAuthentications: pending,
      storageBytes: UInt64(content.validBytes),
      garbageBytes: content.garbageBytes,
      notices: notices
    )
  }

  private func takeLock() throws(StoreError) -> FileDescriptor {
    do {
      return try directory.lock(name + ".lock")
    } catch .unacceptable(let what) {
      throw .busy(what)
    } catch {
      throw .unavailable("\(error)")
    }
  }

  private func readFile() throws(StoreError) -> [UInt8]? {
    do {
      return try directory.readFile(name, bytesMax: StorageFormat.fileBytesMax)
    } catch .absent {
      return nil
    } catch .unacceptable(let what) {
      throw .changed(what)
    } catch {
      throw .unavailable("\(error)")
    }
  }

  /// The file's content, where it and the anchor agree.
  private func checked(_ bytes: [UInt8], _ anchor: Anchor?) throws(StoreError) -> StorageFileContent {
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
    guard anchor.keyring == content.state.id else {
      throw .changed("\(path) is another keyring than its anchor's")
    }
    let at = anchor.position
    if at.sequence == 0 && content.replaced.sequence == 0 { return content }
    guard at.sequence <= content.position.sequence else {
      throw .changed(
        "\(path) is behind its anchor: it is at sequence \(content.position.sequence), and was at \(at.sequence); an older file was put back, or acknowledged commits are missing"
      )
    }
    guard at == content.replaced || content.positions.contains(at) else {
      throw .changed(
        "\(path) is not the file that its anchor knows: it has another history at sequence \(at.sequence)"
      )
    }
    return content
  }

  private func opened(_ content: StorageFileContent) throws(StoreError) -> OpenFile {
    do {
      let file = try directory.openFile(name, flags: O_RDWR)
      let status = try directory.status(of: file, name)
      guard status.size == content.validBytes else {
        throw FileError.unchanged("\(path) changed while it was read")
      }
      try AtomicFile.removeLeftover(name, in: directory)
      return OpenFile(
        file: file,
        status: status,
        size: content.validBytes,
        position: content.position,
        keyring: content.state.id,
        garbageBytes: content.garbageBytes
      )
    } catch {
      throw .unavailable("\(error)")
    }
  }

  /// Writes what was read to a new file: the old one may show what the disk has lost (fsync(2) after an error).
  private func recovered(_ bytes: [UInt8], _ content: StorageFileContent) throws(StoreError) -> OpenFile {
    let verified = content.validBytes == bytes.count ? bytes : Array(bytes[..<content.validBytes])
    do {
      _ = try AtomicFile.write(name, in: directory, [verified])
    } catch {
      throw .unavailable("recovery could not write \(path) anew: \(error)")
    }
    return try opened(content)
  }

  // MARK: Creating

  /// Creates the file with its first commits. The anchor comes first, at sequence 0 and durable.
  public func create(
    tenant: TenantName,
    id: KeyringID,
    commits: [Commit],
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try state.withLock { state throws(StoreError) in
      guard state.lock != nil, state.open == nil, tenant == self.tenant, try readFile() == nil else {
        throw .changed("\(path) exists already, or was not looked for")
      }
      let nothing = StorePosition(sequence: 0, digest: .zero)
      try anchorFile.write(Anchor.make(tenant: tenant, keyring: id, position: nothing, authenticator: nil))
      let header = StorageHeader(
        tenant: tenant,
        keyring: id,
        createdMilliseconds: commits[0].timeMilliseconds,
        replaced: nothing
      )
      try writeFile(&state, header, messages: commits.map(CommitCodec.encode), first: 1, authenticator)
      return try position(state)
    }
  }

  private func writeFile(
    _ state: inout State,
    _ header: StorageHeader,
    messages: [[UInt8]],
    first: UInt64,
    _ authenticator: any BatchAuthenticator
  ) throws(StoreError) {
    let head = try header.encode()
    guard let before = Digest(bytes: head[144...]) else { preconditionFailure("a header ends in 32 bytes") }
    let batch = try EncodedBatch.make(
      messages,
      firstSequence: first,
      previous: before,
      tenant: tenant,
      keyring: header.keyring,
      authenticator: authenticator
    )
    do {
      let file = try AtomicFile.write(name, in: directory, [head, batch.bytes])
      let status = try directory.status(of: file, name)
      state.open = OpenFile(
        file: file,
        status: status,
        size: head.count + batch.bytes.count,
        position: batch.position,
        keyring: header.keyring,
        garbageBytes: 0
      )
    } catch .unknown(let what) {
      state.open = nil
      state.mustRecover = true
      throw .outcomeUnknown(what)
    } catch {
      throw .unavailable("\(error)")
    }
    try anchor(&state, authenticator)
  }

  private func position(_ state: State) throws(StoreError) -> StorePosition {
    guard let open = state.open else { throw .unavailable("\(path) is not open") }
    return open.position
  }

  // MARK: Appending

  /// Appends one batch: the file is checked to be the expected one, written once and synced once.
  public func append(
    _ commits: [Commit],
    expecting: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try state.withLock { state throws(StoreError) in
      guard let open = state.open, !commits.isEmpty else { throw .unavailable("\(path) is not open") }
      try check(open, expecting)
      let batch = try EncodedBatch.make(
        commits.map(CommitCodec.encode),
        firstSequence: commits[0].sequence,
        previous: open.position.digest,
        tenant: tenant,
        keyring: open.keyring,
        authenticator: authenticator
      )
      try write(batch, &state, open)
      state.open?.size = open.size + batch.bytes.count
      state.open?.position = batch.position
      state.open?.garbageBytes += garbage(commits)
      try anchor(&state, authenticator)
      return batch.position
    }
  }

  /// What commits make superfluous, roughly: a remove's own bytes, and those of the record that it removes.
  private func garbage(_ commits: [Commit]) -> UInt64 {
    commits.reduce(0) { sum, commit in
      sum + 250 + commit.operations.reduce(0) { if case .remove = $1 { $0 + 300 } else { $0 } }
    }
  }

  /// The file at the path is the one that was opened, as long as it was left, ending in the digest that it was left with.
  private func check(_ open: OpenFile, _ expecting: StorePosition) throws(StoreError) {
    guard open.position == expecting else { throw .changed("\(path) is not at \(expecting)") }
    do {
      guard let now = try directory.status(of: name) else { throw StoreError.changed("\(path) is gone") }
      guard now.device == open.status.device, now.inode == open.status.inode else {
        throw StoreError.changed("\(path) is another file than the one that was opened")
      }
      guard now.size == open.size else {
        throw StoreError.changed("\(path) has \(now.size) bytes instead of \(open.size)")
      }
      var trailer = [UInt8](repeating: 0, count: StorageFormat.trailerBytes)
      let count = unsafe trailer.withUnsafeMutableBytes {
        unsafe directory.calls.read(open.file.number, into: $0, at: open.size - StorageFormat.trailerBytes)
      }
      guard count == trailer.count else {
        throw StoreError.unavailable("cannot read \(path): \(lastErrorText())")
      }
      guard Array(trailer[..<32]) == open.position.digest.bytes else {
        throw StoreError.changed("\(path) does not end in the expected digest")
      }
    } catch let error as StoreError {
      throw error
    } catch {
      throw .unavailable("\(error)")
    }
  }

  private func write(_ batch: EncodedBatch, _ state: inout State, _ open: OpenFile) throws(StoreError) {
    do {
      try AtomicFile.writeAll(open.file, batch.bytes, at: open.size, path, directory.calls)
    } catch .unchanged(let what) {
      // Not a byte was taken; if the length proves it, nothing changed.
      if let now = statusIfKnown(open), now.size == open.size { throw .unavailable(what) }
      throw failed(&state, what)
    } catch {
      throw failed(&state, "\(error)")
    }
    guard directory.calls.make(.fdatasync, { fdatasync(open.file.number) }) == 0 else {
      throw failed(&state, "cannot sync \(path): \(lastErrorText())")
    }
  }

  private func statusIfKnown(_ open: OpenFile) -> FileStatus? {
    do {
      return try directory.status(of: open.file, name)
    } catch {
      return nil
    }
  }

  private func failed(_ state: inout State, _ what: String) -> StoreError {
    state.open = nil
    state.mustRecover = true
    return .outcomeUnknown(what)
  }

  // MARK: Replacing

  /// Replaces the file by a new one that holds `image` alone. The anchor is first brought to where the old file stands.
  public func replace(
    with image: KeyringImage,
    expecting: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try state.withLock { state throws(StoreError) in
      guard let open = state.open else { throw .unavailable("\(path) is not open") }
      try check(open, expecting)
      if state.anchored != expecting {
        let last = state.lastAuthenticator ?? authenticator
        try anchorNow(&state, expecting, open.keyring, last)
      }
      let header = StorageHeader(
        tenant: tenant,
        keyring: image.id,
        createdMilliseconds: image.timeMilliseconds,
        replaced: expecting
      )
      try writeFile(
        &state,
        header,
        messages: [CommitCodec.encode(image)],
        first: image.sequence,
        authenticator
      )
      return try position(state)
    }
  }

  // MARK: Anchoring

  private func anchor(_ state: inout State, _ authenticator: any BatchAuthenticator) throws(StoreError) {
    guard let open = state.open else { return }
    state.lastAuthenticator = authenticator
    switch policy {
    case .strict:
      do {
        try anchorNow(&state, open.position, open.keyring, authenticator)
      } catch {
        throw failed(&state, "\(error)")
      }
    case .writtenBehind:
      anchorWriter.schedule(tenant) { [weak self] in self?.anchorBehind() }
    }
  }

  private func anchorNow(
    _ state: inout State,
    _ position: StorePosition,
    _ keyring: KeyringID,
    _ authenticator: any BatchAuthenticator
  ) throws(StoreError) {
    try anchorFile.write(
      Anchor.make(tenant: tenant, keyring: keyring, position: position, authenticator: authenticator)
    )
    state.anchored = position
  }

  private func anchorBehind() {
    do throws(StoreError) {
      try state.withLock { state throws(StoreError) in try anchorIfLate(&state) }
    } catch {
      notice("\(error); it will be tried again after the next commit")
    }
  }

  private func anchorIfLate(_ state: inout State) throws(StoreError) {
    guard let open = state.open, let authenticator = state.lastAuthenticator, state.anchored != open.position
    else { return }
    try anchorNow(&state, open.position, open.keyring, authenticator)
  }

  /// Takes the file as it is; an operator's decision, after it was quarantined.
  public func accept(sequence: UInt64) throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      if state.lock == nil { state.lock = try takeLock() }
      guard let bytes = try readFile() else {
        throw .changed("\(path) is not there: there is nothing to accept")
      }
      let content = try StorageFileReader.read(bytes, tenant: tenant)
      guard content.position.sequence == sequence else {
        throw .changed("\(path) is at sequence \(content.position.sequence), not \(sequence)")
      }
      // At sequence 0 an anchor needs no HMAC: there may be no wrapping key at hand now. The first commit brings it up.
      try anchorFile.write(
        Anchor(
          keyring: content.state.id,
          position: content.replaced.sequence == 0
            ? StorePosition(sequence: 0, digest: .zero) : content.replaced,
          authentication: nil
        )
      )
      state.open = nil
      state.mustRecover = true
    }
  }

  // MARK: Size, closing

  /// Bytes of the file, and those that a compaction would save, roughly.
  public var size: (storageBytes: UInt64, garbageBytes: UInt64) {
    state.withLock { state in
      guard let open = state.open else { return (0, 0) }
      return (UInt64(open.size), open.garbageBytes)
    }
  }

  /// Writes the anchor's last state and lets go of file and lock.
  public func close() throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      anchorWriter.forget(tenant)
      defer { state = State() }
      try anchorIfLate(&state)
    }
  }
}
