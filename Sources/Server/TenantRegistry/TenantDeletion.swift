public import ConfigurationFiles
public import Cryptography
public import KeyringCore
public import KeyringStorage

/// What is known of a tenant's deletion, beside the tenants' folders: `.deletions/<tenant>.json`. It outlives the tenant.
public struct TenantDeletion: Sendable, Equatable {
  /// How far it is.
  public enum Phase: String, Sendable {
    /// It can be undone.
    case waiting
    /// It was begun, and goes on at the next start where the process ends.
    case begun
    /// All that there was is destroyed.
    case done
  }

  /// Whose.
  public let tenant: TenantName
  /// How far it is.
  public var phase = Phase.waiting
  /// URI SAN of who asked for it.
  public let requestedBy: String
  /// When, Unix milliseconds.
  public let requestedMilliseconds: UInt64
  /// Until when it can be undone, Unix milliseconds.
  public let dueMilliseconds: UInt64
  /// Days after which KMS is to delete the CMKs, 7 to 30; nil: they stay.
  public let cmkDays: Int?
  /// When all was destroyed, Unix milliseconds; 0 before.
  public var doneMilliseconds: UInt64 = 0
  /// When a tenant of this name was deleted before, Unix milliseconds; 0 where none was.
  public var formerMilliseconds: UInt64 = 0

  /// One that waits.
  public init(
    tenant: TenantName,
    requestedBy: String,
    requestedMilliseconds: UInt64,
    dueMilliseconds: UInt64,
    cmkDays: Int?
  ) {
    self.tenant = tenant
    self.requestedBy = requestedBy
    self.requestedMilliseconds = requestedMilliseconds
    self.dueMilliseconds = dueMilliseconds
    self.cmkDays = cmkDays
  }

  private static let keys = [
    "version", "tenant", "phase", "requested_by", "requested_ms", "due_ms", "cmk_days", "done_ms",
    "former_ms",
  ]

  /// Reads the file; strict, as everything.
  init(json: String, file: String, tenant: TenantName) throws(ConfigurationError) {
    var document = try StrictYAML(json, file: file)  // JSON is YAML
    let times = 0...Int(1 << 53)
    guard try document.number("version", 1...1) == 1, try document.text("tenant") == tenant.text,
      let phase = try document.text("phase").flatMap({ Phase(rawValue: $0) }),
      let requestedBy = try document.text("requested_by"),
      let requested = try document.number("requested_ms", times),
      let due = try document.number("due_ms", times), let days = try document.number("cmk_days", 0...30),
      let done = try document.number("done_ms", times), let former = try document.number("former_ms", times)
    else { throw document.error("this is no record of the deletion of '\(tenant)'") }
    try document.finish(known: Self.keys)
    self.init(
      tenant: tenant,
      requestedBy: requestedBy,
      requestedMilliseconds: UInt64(requested),
      dueMilliseconds: UInt64(due),
      cmkDays: days == 0 ? nil : days
    )
    self.phase = phase
    doneMilliseconds = UInt64(done)
    formerMilliseconds = UInt64(former)
  }

  var json: String {
    """
    {
      "version": 1,
      "tenant": "\(tenant)",
      "phase": "\(phase.rawValue)",
      "requested_by": "\(requestedBy)",
      "requested_ms": \(requestedMilliseconds),
      "due_ms": \(dueMilliseconds),
      "cmk_days": \(cmkDays ?? 0),
      "done_ms": \(doneMilliseconds),
      "former_ms": \(formerMilliseconds)
    }

    """
  }
}

/// The directory of deletions, and of their receipts.
public struct TenantDeletions: Sendable {
  /// In the tenants directory; no tenant's name.
  public static let directoryName = ".deletions"

  /// It.
  public let directory: DirectoryDescriptor
  private static let receiptBytesMax = 4 << 20

  /// Opens it, or makes it.
  public init(in tenants: DirectoryDescriptor) throws(FileError) {
    directory = try tenants.directory(Self.directoryName, create: true)
    try tenants.synchronize()
  }

  /// Opens it; nil where no tenant was ever to be deleted.
  public init?(existingIn tenants: DirectoryDescriptor) throws(FileError) {
    do throws(FileError) {
      directory = try tenants.directory(Self.directoryName)
    } catch .absent {
      return nil
    }
  }

  /// All there are; one that cannot be read is in its place.
  public func all() throws(FileError) -> [Result<TenantDeletion, ConfigurationError>] {
    var found: [Result<TenantDeletion, ConfigurationError>] = []
    for name in try directory.names() where name.hasSuffix(".json") {
      guard let tenant = Self.tenant(name) else { continue }
      found.append(
        Result { () throws(ConfigurationError) in
          guard let deletion = try read(tenant) else { throw ConfigurationError("\(name) went away") }
          return deletion
        }
      )
    }
    return found
  }

  private static func tenant(_ file: String) -> TenantName? {
    do {
      return try TenantName(String(file.dropLast(5)))
    } catch {
      return nil  // a receipt, or nobody's
    }
  }

  /// A tenant's; nil where none was asked for.
  public func read(_ tenant: TenantName) throws(ConfigurationError) -> TenantDeletion? {
    let name = "\(tenant).json"
    let bytes: [UInt8]
    do {
      bytes = try directory.readFile(name, bytesMax: StrictYAML.bytesMax)
    } catch .absent {
      return nil
    } catch {
      throw ConfigurationError("\(error)")
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw ConfigurationError("\(directory.path)/\(name): not UTF-8")
    }
    return try TenantDeletion(json: text, file: "\(directory.path)/\(name)", tenant: tenant)
  }

  /// Durable when it returns.
  public func write(_ deletion: TenantDeletion) throws(FileError) {
    try AtomicFile.replace("\(deletion.tenant).json", in: directory, with: [Array(deletion.json.utf8)])
  }

  /// Takes back one that waits; durable when it returns.
  public func remove(_ tenant: TenantName) throws(FileError) { try directory.removeFile("\(tenant).json") }

  // MARK: Receipts

  private static let keyName = "receipt.key"
  private static let publicKeyName = "receipt.pub"

  /// What signs receipts; made with the first.
  public func signer() throws(SigningKeyFile.Failure) -> SigningKey {
    try SigningKeyFile.load(Self.keyName, public: Self.publicKeyName, in: directory)
  }

  /// What checks them, PEM; nil before the first.
  public func publicKey() throws(FileError) -> [UInt8]? { try readReceipt(Self.publicKeyName) }

  /// A receipt that is being written: what was there, before it is destroyed.
  public func draft(_ deletion: TenantDeletion) throws(FileError) -> [UInt8]? {
    try readReceipt(Self.receiptName(deletion) + ".draft")
  }

  /// Durable when it returns.
  public func write(draft: [UInt8], _ deletion: TenantDeletion) throws(FileError) {
    try AtomicFile.replace(Self.receiptName(deletion) + ".draft", in: directory, with: [draft])
  }

  /// The receipt of a deletion that is done.
  public func receipt(_ deletion: TenantDeletion) throws(FileError) -> [UInt8]? {
    try readReceipt(Self.receiptName(deletion))
  }

  /// Durable when it returns; the draft is gone.
  public func write(receipt: [UInt8], _ deletion: TenantDeletion) throws(FileError) {
    try AtomicFile.replace(Self.receiptName(deletion), in: directory, with: [receipt])
    try directory.removeFile(Self.receiptName(deletion) + ".draft")
  }

  /// Each deletion of a name has its own.
  private static func receiptName(_ deletion: TenantDeletion) -> String {
    "\(deletion.tenant).\(deletion.requestedMilliseconds).receipt"
  }

  private func readReceipt(_ name: String) throws(FileError) -> [UInt8]? {
    do throws(FileError) {
      return try directory.readFile(name, bytesMax: Self.receiptBytesMax)
    } catch .absent {
      return nil
    }
  }
}
