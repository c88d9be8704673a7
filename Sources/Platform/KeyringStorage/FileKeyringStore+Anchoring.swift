public import KeyringCore
internal import Synchronization

extension FileKeyringStore {
  // MARK: Anchoring

  /// The anchor of where the file stands now, authenticated at once: the wrapping key may be gone when it is written.
  func anchor(
    _ state: inout State,
    _ authenticator: any BatchAuthenticator,
    _ policy: AnchorPolicy
  ) throws(StoreError) {
    guard let open = state.open else { return }
    do throws(StoreError) {
      state.late = try Anchor.make(
        tenant: tenant,
        keyring: open.keyring,
        position: open.position,
        authenticator: authenticator
      )
      switch policy {
      case .strict: try writeLateAnchor(&state)
      case .writtenBehind: anchorWriter.schedule(tenant) { [weak self] in self?.anchorBehind() }
      }
    } catch {
      throw failed(&state, "\(error)")
    }
  }

  private func anchorBehind() {
    do throws(StoreError) {
      try state.withLock { state throws(StoreError) in try writeLateAnchor(&state) }
    } catch {
      notice("\(error); it will be tried again after the next commit")
    }
  }

  func writeLateAnchor(_ state: inout State) throws(StoreError) {
    guard let late = state.late else { return }
    try anchorFile.write(late)
    state.anchored = late.position
    state.late = nil
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
      // Without an HMAC: there may be no wrapping key at hand now. The next commit brings an authenticated one.
      try anchorFile.write(
        Anchor(keyring: content.state.id, position: content.position, authentication: nil)
      )
      state.open = nil
      state.mustRecover = true
    }
  }
}
