internal import Glibc
public import KeyringCore
internal import Synchronization

extension FileKeyringStore {
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
      try writeAnchor(Anchor.make(tenant: tenant, keyring: id, position: nothing, authenticator: nil))
      try writeFirst(&state, id, commits, authenticator)
      return try opened(state).position
    }
  }

  private func writeFirst(
    _ state: inout State,
    _ id: KeyringID,
    _ commits: [Commit],
    _ authenticator: any BatchAuthenticator
  ) throws(StoreError) {
    let new = try NewKeyring(tenant: tenant, id: id, commits: commits, authenticator: authenticator)
    try checkSize(new.file.count)
    let file: FileDescriptor
    do {
      file = try AtomicFile.write(name, in: directory, [new.file])
    } catch .unknown(let what) {
      throw failed(&state, what)
    } catch {
      throw .unavailable("\(error)")
    }
    try stand(&state, file, size: new.file.count, new.position, id)
    try anchor(&state, authenticator, .strict)
  }

  /// From here on a new file stands: whatever fails now, the old state is no more.
  func stand(
    _ state: inout State,
    _ file: FileDescriptor,
    size: Int,
    _ position: StorePosition,
    _ id: KeyringID
  ) throws(StoreError) {
    let status: FileStatus
    do {
      status = try directory.status(of: file, name)
    } catch {
      throw failed(&state, "\(error)")
    }
    state.open = OpenFile(file: file, status: status, size: size, position: position, keyring: id)
    noteSize(state)
  }

  /// - Throws: `StoreError.busy` where it was closed, or failed, since whoever asks loaded it: that one must load it again.
  func opened(_ state: State) throws(StoreError) -> OpenFile {
    guard let open = state.open else { throw .busy("\(path) is not open") }
    return open
  }

  // MARK: Appending

  /// Appends one batch: the file is checked to be the expected one, written once and synced once.
  public func append(
    _ commits: [Commit],
    expecting: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try state.withLock { state throws(StoreError) in
      precondition(!commits.isEmpty, "a batch has at least one commit")
      let open = try opened(state)
      try check(open, expecting)
      if open.isCreation {
        try noteLate(open, authenticator)
        try writeLateAnchor()
        state.open?.isCreation = false
      }
      let batch = try EncodedBatch.make(
        commits.map(CommitCodec.encode),
        firstSequence: commits[0].sequence,
        previous: open.position.digest,
        tenant: tenant,
        keyring: open.keyring,
        authenticator: authenticator
      )
      try checkSize(open.size + batch.bytes.count)
      try write(batch, &state, open)
      state.open?.size = open.size + batch.bytes.count
      state.open?.position = batch.position
      noteSize(state)
      try anchor(&state, authenticator, policy)
      return batch.position
    }
  }

  /// What is written can be read again: a larger file is refused by reading it.
  func checkSize(_ size: Int) throws(StoreError) {
    guard size <= fileBytesMax else {
      throw .unavailable(
        "\(path) would have \(size) bytes, and may have \(fileBytesMax): nothing was written; remove keys, or move some to another tenant"
      )
    }
  }

  /// The file at the path is the one that was opened, as long as it was left, ending in the digest that it was left with.
  func check(_ open: OpenFile, _ expecting: StorePosition) throws(StoreError) {
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
      if isAsLongAsItWas(open) { throw .unavailable(what) }
      throw failed(&state, what)
    } catch .noRoom(let what) {
      // What was taken is less than a batch: once it is durably cut off, it did not happen, and readers go on. Without the sync a crash could
      // leave it behind the next batch.
      let calls = directory.calls
      let isCutOff = calls.make(.ftruncate) { ftruncate(open.file.number, off_t(open.size)) } == 0
      if isCutOff, isAsLongAsItWas(open), calls.synchronize(.fsync, open.file.number) == 0 {
        throw .unavailable(what)
      }
      throw failed(&state, what)
    } catch {
      throw failed(&state, "\(error)")
    }
    guard directory.calls.synchronize(.fdatasync, open.file.number) == 0 else {
      throw failed(&state, "cannot sync \(path): \(lastErrorText())")
    }
  }

  private func isAsLongAsItWas(_ open: OpenFile) -> Bool {
    do {
      return try directory.status(of: open.file, name).size == open.size
    } catch {
      return false
    }
  }

  func failed(_ state: inout State, _ what: String) -> StoreError {
    state.open = nil
    state.mustRecover = true
    return .outcomeUnknown(what)
  }
}
