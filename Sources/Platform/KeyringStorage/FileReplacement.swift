internal import Glibc
public import KeyringCore
internal import Synchronization

extension FileKeyringStore {
  /// Writes a new file beside the one that stands, with `image` as its first batch.
  public func beginReplacement(
    with image: KeyringImage,
    at position: StorePosition,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> any KeyringReplacement {
    let head = try StorageHeader(
      tenant: tenant,
      keyring: image.id,
      createdMilliseconds: image.timeMilliseconds,
      origin: position
    ).encode()
    let draft = try state.withLock { state throws(StoreError) in
      _ = try opened(state)
      do throws(FileError) {
        let file = try AtomicFile.begin(name, in: directory)
        let draft = FileReplacement(
          self,
          file,
          image.id,
          StorePosition(sequence: image.sequence - 1, digest: StorageHeader.digest(head))
        )
        state.draft = draft
        return draft
      } catch {
        throw .unavailable("\(error)")
      }
    }
    try draft.begin(head, CommitCodec.encode(image), authenticator)
    return draft
  }
}

/// A storage file on its way: named as a leftover until it takes the place of the one that stands.
final class FileReplacement: KeyringReplacement {
  private struct State {
    var size = 0
    /// Of the last batch in it.
    var position: StorePosition
  }

  private let store: FileKeyringStore
  private let file: FileDescriptor
  private let keyring: KeyringID
  private let state: Mutex<State>

  init(_ store: FileKeyringStore, _ file: FileDescriptor, _ keyring: KeyringID, _ position: StorePosition) {
    self.store = store
    self.file = file
    self.keyring = keyring
    state = Mutex(State(position: position))
  }

  func begin(_ head: [UInt8], _ image: [UInt8], _ authenticator: any BatchAuthenticator) throws(StoreError) {
    try orAbandon { () throws(StoreError) in
      try write(head)
      try write([image], authenticator)
    }
  }

  func append(_ commits: [Commit], authenticator: any BatchAuthenticator) throws(StoreError) {
    try orAbandon { () throws(StoreError) in
      try write(commits.map(CommitCodec.encode), authenticator)
    }
  }

  func finish(
    _ commits: [Commit],
    expecting: StorePosition,
    former: any BatchAuthenticator,
    authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try append(commits, authenticator: authenticator)
    return try store.finish(self, expecting, former, authenticator)
  }

  func abandon() { store.abandon(self) }

  private func orAbandon(_ body: () throws(StoreError) -> Void) throws(StoreError) {
    do throws(StoreError) {
      try body()
    } catch {
      abandon()
      throw error
    }
  }

  // MARK: Writing

  /// One batch, durable when it returns.
  private func write(_ messages: [[UInt8]], _ authenticator: any BatchAuthenticator) throws(StoreError) {
    let position = state.withLock { $0.position }
    let batch = try EncodedBatch.make(
      messages,
      firstSequence: position.sequence + 1,
      previous: position.digest,
      tenant: store.tenant,
      keyring: keyring,
      authenticator: authenticator
    )
    try write(batch.bytes)
    guard store.directory.calls.synchronize(.fsync, file.number) == 0 else {
      throw .unavailable("cannot sync \(store.path)\(AtomicFile.temporarySuffix): \(lastErrorText())")
    }
    state.withLock { $0.position = batch.position }
  }

  private func write(_ bytes: [UInt8]) throws(StoreError) {
    let size = state.withLock { $0.size }
    try store.checkSize(size + bytes.count)
    do {
      try AtomicFile.writeAll(
        file,
        bytes,
        at: size,
        store.path + AtomicFile.temporarySuffix,
        store.directory.calls
      )
    } catch {
      throw .unavailable("\(error)")  // whatever became of the new file, the old one stands
    }
    state.withLock { $0.size += bytes.count }
  }

  /// What stands once this is in its place.
  var standing: (file: FileDescriptor, size: Int, position: StorePosition, keyring: KeyringID) {
    state.withLock { (file, $0.size, $0.position, keyring) }
  }
}

extension FileKeyringStore {
  fileprivate func abandon(_ draft: FileReplacement) {
    state.withLock { state in
      guard state.draft === draft else { return }  // the file of that name is another's by now, or gone
      forgetDraft(&state)
    }
  }

  /// The new file is opened by an anchor at the position that it replaces, so that this one must be durable before.
  fileprivate func finish(
    _ draft: FileReplacement,
    _ expecting: StorePosition,
    _ former: any BatchAuthenticator,
    _ authenticator: any BatchAuthenticator
  ) throws(StoreError) -> StorePosition {
    try state.withLock { state throws(StoreError) in
      guard state.draft === draft else { throw .unavailable("\(path): another replacement began meanwhile") }
      defer {
        state.draft = nil
        directory.end(name + AtomicFile.temporarySuffix)
      }
      do throws(StoreError) {
        let open = try opened(state)
        try check(open, expecting)
        if anchored.withLock({ $0 }) != open.position { try noteLate(open, former) }
        try writeLateAnchor()
      } catch {
        _ = directory.unlink(name + AtomicFile.temporarySuffix)  // as in `abandon`
        throw error
      }
      do {
        try AtomicFile.putInPlace(name, in: directory)
      } catch {
        throw failed(&state, "\(error)")
      }
      let new = draft.standing
      try stand(&state, new.file, size: new.size, new.position, new.keyring)
      try anchor(&state, authenticator, policy)
      return new.position
    }
  }
}
