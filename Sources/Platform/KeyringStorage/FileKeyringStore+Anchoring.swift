public import KeyringCore
internal import Synchronization

extension FileKeyringStore {
  // MARK: Anchoring

  func anchor(_ state: inout State, _ authenticator: any BatchAuthenticator) throws(StoreError) {
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

  func anchorNow(
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

  func anchorIfLate(_ state: inout State) throws(StoreError) {
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
}
