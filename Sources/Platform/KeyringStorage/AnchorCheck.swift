public import KeyringCore

extension Anchor {
  /// Its HMAC, to be checked as those of batches are; nil where it has none.
  func pendingAuthentication(_ tenant: TenantName) -> PendingAuthentication? {
    authentication.map {
      PendingAuthentication(
        wrappingKeyID: $0.wrappingKeyID,
        message: Anchor.message(tenant: tenant, keyring: keyring, position: position),
        mac: $0.mac,
        place: "anchor"
      )
    }
  }

  /// Checks that a storage file is the one that this anchor knows, or one that came of it; docs/FILE_FORMAT.md, "Opening", step 5.
  ///
  /// - Parameter path: for messages.
  /// - Throws: `StoreError.changed`.
  func check(_ content: StorageFileContent, _ path: String) throws(StoreError) {
    guard keyring == content.state.id else { throw .changed("\(path) is another keyring than its anchor's") }
    // A creation that ended before its anchor was brought up: then there is one batch, and no more.
    if position.sequence == 0 && content.replaced.sequence == 0 && content.positions.count == 1 { return }
    guard position.sequence <= content.position.sequence else {
      throw .changed(
        "\(path) is behind its anchor: it is at sequence \(content.position.sequence), and was at \(position.sequence); an older file was put back, or acknowledged commits are missing"
      )
    }
    guard position.sequence > 0, content.came(from: position) else {
      throw .changed(
        "\(path) is not the file that its anchor knows: it has another history at sequence \(position.sequence)"
      )
    }
  }
}

/// Looks at files beside a server, changing nothing.
public enum OfflineCheck {
  /// The tenant that a storage file says it is of; nothing else is checked.
  ///
  /// - Throws: `StoreError.damaged` where it is none.
  public static func tenant(ofStorageFile bytes: [UInt8]) throws(StoreError) -> TenantName {
    guard bytes.count >= StorageFormat.headerBytes, isStorageFile(bytes), (1...63).contains(bytes[10]) else {
      throw .damaged("it is not a storage file")
    }
    do {
      return try TenantName(String(decoding: bytes[11..<(11 + Int(bytes[10]))], as: UTF8.self))
    } catch {
      throw .damaged("its header names no tenant")
    }
  }

  /// True if the first bytes are those of a storage file.
  public static func isStorageFile(_ bytes: [UInt8]) -> Bool { bytes.starts(with: StorageFormat.fileMagic) }

  /// What makes an anchor believable.
  public enum AnchorProof: Sendable, Equatable {
    /// Its HMAC, to be checked as those of batches are.
    case authentication(PendingAuthentication)
    /// The commit in the file that says what it replaced: one of the file's own HMACs covers that, and the anchor's wrapping key may be gone.
    case file
    /// Nothing: it has no HMAC.
    case none
  }

  /// Checks that an anchor is that of a storage file.
  ///
  /// - Returns: what has to be checked before the anchor proves anything.
  /// - Throws: `StoreError.damaged`, `.changed`.
  public static func anchor(
    _ bytes: [UInt8],
    of content: StorageFileContent,
    path: String
  ) throws(StoreError) -> AnchorProof {
    let tenant = content.state.tenant
    let anchor = try Anchor.decode(bytes, tenant: tenant)
    try anchor.check(content, path)
    guard let pending = anchor.pendingAuthentication(tenant) else { return .none }
    guard anchor.position != content.replaced else { return .file }
    return .authentication(pending)
  }
}
