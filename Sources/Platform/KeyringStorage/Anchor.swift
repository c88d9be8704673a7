internal import Dispatch
internal import KeyringCore
internal import Synchronization

/// When the anchor is written.
public enum AnchorPolicy: String, Sendable {
  /// At most a second after a commit; it never runs ahead of the file.
  case writtenBehind = "written-behind"
  /// Before a commit is acknowledged.
  case strict
}

/// The newest position of a keyring, kept apart from its storage file: an older file put back, or a missing one, does not match it.
struct Anchor: Equatable, Sendable {
  let keyring: KeyringID
  let position: StorePosition
  /// Who authenticated it; nil at sequence 0, before there is a wrapping key, and where an operator accepted a file.
  let authentication: Authentication?

  struct Authentication: Equatable, Sendable {
    let wrappingKeyID: WrappingKeyID
    let mac: Digest
  }

  static func make(
    tenant: TenantName,
    keyring: KeyringID,
    position: StorePosition,
    authenticator: (any BatchAuthenticator)?
  ) throws(StoreError) -> Anchor {
    guard let authenticator else { return Anchor(keyring: keyring, position: position, authentication: nil) }
    let mac = try authenticator.authenticate(message(tenant: tenant, keyring: keyring, position: position))
    return Anchor(
      keyring: keyring,
      position: position,
      authentication: Authentication(wrappingKeyID: authenticator.wrappingKeyID, mac: mac)
    )
  }

  /// True if its position comes after `position`, of the same keyring's history.
  func isAhead(of position: StorePosition?) -> Bool {
    guard let position else { return true }
    return self.position.sequence > position.sequence
  }

  static func message(tenant: TenantName, keyring: KeyringID, position: StorePosition) -> [UInt8] {
    StorageFormat.authenticatedMessage(
      "keyring anchor",
      tenant: tenant,
      keyring: keyring,
      sequence: position.sequence,
      count: 0,
      previous: .zero,
      digest: position.digest
    )
  }

  func encode(tenant: TenantName) throws(StoreError) -> [UInt8] {
    var bytes = StorageFormat.prefix(StorageFormat.anchorMagic, tenant: tenant, keyring: keyring)
    appendBigEndian(position.sequence, to: &bytes)
    bytes += position.digest.bytes
    bytes += authentication?.wrappingKeyID.bytes ?? [UInt8](repeating: 0, count: 16)
    bytes += (authentication?.mac ?? .zero).bytes
    return bytes + (try StorageFormat.sha256(bytes)).bytes
  }

  static func decode(_ bytes: [UInt8], tenant: TenantName) throws(StoreError) -> Anchor {
    guard bytes.count == 216, bytes.starts(with: StorageFormat.anchorMagic),
      try StorageFormat.sha256(Array(bytes[..<184])).bytes == Array(bytes[184...])
    else { throw .damaged("the anchor is damaged") }
    guard let keyring = KeyringID(bytes: bytes[80..<96]), let digest = Digest(bytes: bytes[104..<136]),
      let wrappingKeyID = WrappingKeyID(bytes: bytes[136..<152]), let mac = Digest(bytes: bytes[152..<184]),
      bytes.starts(with: StorageFormat.prefix(StorageFormat.anchorMagic, tenant: tenant, keyring: keyring))
    else { throw .changed("the anchor is another tenant's") }
    let position = StorePosition(sequence: number(bytes[96..<104]), digest: digest)
    let authentication =
      wrappingKeyID.value == 0 ? nil : Authentication(wrappingKeyID: wrappingKeyID, mac: mac)
    return Anchor(keyring: keyring, position: position, authentication: authentication)
  }
}

/// One tenant's place in the anchor directory.
struct AnchorFile: Sendable {
  let directory: DirectoryDescriptor
  let tenant: TenantName

  private var name: String { NewKeyring.anchorName(tenant) }

  /// The anchor, durable as it is read; for the tenant's one writer.
  func read() throws(StoreError) -> Anchor? {
    let bytes: [UInt8]
    do {
      try directory.removeLeftover(name + AtomicFile.temporarySuffix)
      bytes = try directory.readFile(name, bytesMax: 4096)
      try directory.synchronize()  // what is read is what a power cut leaves
    } catch .absent {
      return nil
    } catch .unacceptable(let what) {
      throw .changed(what)
    } catch {
      throw .unavailable("\(error)")
    }
    return try Anchor.decode(bytes, tenant: tenant)
  }

  /// Durable when it returns.
  func write(_ anchor: Anchor) throws(StoreError) {
    do {
      try AtomicFile.replace(name, in: directory, with: [try anchor.encode(tenant: tenant)])
    } catch let error as FileError {
      throw .unavailable("the anchor cannot be written: \(error)")
    } catch let error as StoreError {
      throw error
    } catch {
      throw .unavailable("the anchor cannot be written")
    }
  }
}
