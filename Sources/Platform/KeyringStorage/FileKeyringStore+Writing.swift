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
    try checkSize(head.count + batch.bytes.count)
    let file: FileDescriptor
    do {
      file = try AtomicFile.write(name, in: directory, [head, batch.bytes])
    } catch .unknown(let what) {
      throw failed(&state, what)
    } catch {
      throw .unavailable("\(error)")
    }
    // From here on the new file stands: whatever fails now, the old state is no more.
    let status: FileStatus
    do {
      status = try directory.status(of: file, name)
    } catch {
      throw failed(&state, "\(error)")
    }
    state.open = OpenFile(
      file: file,
      status: status,
      size: head.count + batch.bytes.count,
      position: batch.position,
      keyring: header.keyring
    )
    noteSize(state)
    try anchor(&state, authenticator, header.replaced.sequence == 0 ? .strict : policy)
  }

  private func position(_ state: State) throws(StoreError) -> StorePosition { try opened(state).position }

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
  private func checkSize(_ size: Int) throws(StoreError) {
    guard size <= fileBytesMax else {
      throw .unavailable(
        "\(path) would have \(size) bytes, and may have \(fileBytesMax): nothing was written; remove keys, or move some to another tenant"
      )
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
      if isAsLongAsItWas(open) { throw .unavailable(what) }
      throw failed(&state, what)
    } catch .noRoom(let what) {
      // What was taken is less than a batch, and never was synced: cut off again, it did not happen, and readers go on.
      let isCutOff = directory.calls.make(.ftruncate) { ftruncate(open.file.number, off_t(open.size)) } == 0
      if isCutOff, isAsLongAsItWas(open) { throw .unavailable(what) }
      throw failed(&state, what)
    } catch {
      throw failed(&state, "\(error)")
    }
    guard directory.calls.make(.fdatasync, { fdatasync(open.file.number) }) == 0 else {
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

  /// A replacement is opened by an anchor at the position that it replaces, so that this one must be durable before.
  private func bringAnchorUp(
    _ open: OpenFile,
    _ authenticator: any BatchAuthenticator
  ) throws(StoreError) {
    if anchored.withLock({ $0 }) != open.position { try noteLate(open, authenticator) }
    try writeLateAnchor()
  }

  // MARK: Replacing

  /// Replaces the file by a new one that holds `image` alone. The anchor is first brought to where the old file stands.
  public func replace(
    with image: KeyringImage,
    expecting: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try state.withLock { state throws(StoreError) in
      let open = try opened(state)
      try check(open, expecting)
      try bringAnchorUp(open, authenticator)
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
}
