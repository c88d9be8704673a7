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
      try noteLate(open, authenticator)
      switch policy {
      case .strict: try writeLateAnchor()
      case .writtenBehind: scheduleAnchor()
      }
    } catch {
      throw failed(&state, "\(error)")
    }
  }

  /// Brings an anchor that was found behind the file up to it; does nothing where it is there.
  public func anchor(authenticator: any BatchAuthenticator) throws(StoreError) {
    let open = try state.withLock { state throws(StoreError) in try opened(state) }
    guard anchored.withLock({ $0 }) != open.position else { return }
    try noteLate(open, authenticator)
    do {
      try writeLateAnchor()
    } catch {
      scheduleAnchor()
      throw error
    }
  }

  /// Remembers where the file stands, unless a flush went on meanwhile.
  func noteLate(_ open: OpenFile, _ authenticator: any BatchAuthenticator) throws(StoreError) {
    let anchor = try Anchor.make(
      tenant: tenant,
      keyring: open.keyring,
      position: open.position,
      authenticator: authenticator
    )
    late.withLock { late in
      if anchor.isAhead(of: late.anchor?.position) { late.anchor = anchor }
    }
  }

  private func scheduleAnchor() {
    anchorWriter.schedule(tenant) { [weak self] in self?.anchorBehind() }
  }

  private func anchorBehind() {
    do throws(StoreError) {
      try writeLateAnchor()
    } catch {
      let (isLate, wasFailing) = late.withLock { late in
        defer { late.isFailing = true }
        return (late.anchor != nil, late.isFailing)
      }
      guard isLate else { return }  // the store was closed meanwhile
      if !wasFailing { notice("\(error); it is tried again until it succeeds") }
      scheduleAnchor()
    }
  }

  /// Writes the anchor, if it is late; durable when it returns.
  func writeLateAnchor() throws(StoreError) {
    try anchored.withLock { anchored throws(StoreError) in
      guard let anchor = late.withLock({ $0.anchor }) else { return }
      if anchor.isAhead(of: anchored) {
        try anchorFile.write(anchor)
        anchored = anchor.position
      }
      late.withLock { late in
        if late.anchor == anchor { late.anchor = nil }
        late.isFailing = false
      }
    }
  }

  /// Writes an anchor, whatever the one before was; durable when it returns.
  func writeAnchor(_ anchor: Anchor) throws(StoreError) {
    try anchored.withLock { anchored throws(StoreError) in
      late.withLock { $0 = LateAnchor() }
      try anchorFile.write(anchor)
      anchored = anchor.position
    }
  }

  func readAnchor() throws(StoreError) -> Anchor? {
    try anchored.withLock { anchored throws(StoreError) in
      let anchor = try anchorFile.read()
      anchored = anchor?.position
      return anchor
    }
  }

  /// What is to be said of an anchor that nobody with a wrapping key wrote.
  func unauthenticated(_ anchor: Anchor?) -> [String] {
    guard let anchor, anchor.position.sequence > 0, anchor.authentication == nil else { return [] }
    return [
      "\(path): its anchor, at sequence \(anchor.position.sequence), has no HMAC: an operator accepted the file there; the next commit brings one"
    ]
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
      anchorWriter.forget(tenant)
      try writeAnchor(Anchor(keyring: content.state.id, position: content.position, authentication: nil))
      state.open = nil
      state.mustRecover = true
    }
  }
}
