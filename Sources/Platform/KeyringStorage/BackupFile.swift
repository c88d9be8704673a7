internal import Cryptography
public import KeyringCore

/// The bytes of a backup file; docs/FILE_FORMAT.md, "Backup files". All numbers are big-endian.
///
/// Header (16 bytes), manifest, the manifest's authentication (48 bytes), the parts one after another, SHA-256 of all before.
enum BackupFormat {
  static let version: UInt16 = 1
  static let magic = Array("KRBCKUP\0".utf8)
  static let headerBytes = 16
  static let authenticationBytes = 48
  static let digestBytes = 32
  static let manifestBytesMax = 4 << 20
  static let chunkBytes = 1 << 20

  /// What the manifest's HMAC is made over.
  static func message(_ manifest: BackupManifest, _ encoded: [UInt8]) throws(BackupError) -> [UInt8] {
    do {
      return StorageFormat.authenticatedMessage(
        "keyring backup",
        tenant: manifest.tenant,
        keyring: manifest.keyring,
        sequence: manifest.position.sequence,
        count: 0,
        previous: .zero,
        digest: try StorageFormat.sha256(encoded)
      )
    } catch {
      throw .unavailable("\(error)")
    }
  }
}

/// A part with its content.
public struct BackupPart: Sendable, Equatable {
  /// `BackupPartName`.
  public let name: String
  /// All of it.
  public let bytes: [UInt8]

  /// Puts both together.
  public init(name: String, bytes: [UInt8]) {
    self.name = name
    self.bytes = bytes
  }
}

/// Where a backup's bytes are.
public protocol BackupSource {
  /// Bytes.
  var size: Int { get }
  /// Exactly `count` bytes at `offset`, which lie within `size`.
  func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8]
}

/// Writes a backup file.
public enum BackupWriter {
  /// Writes manifest and parts through `sink`, in order.
  ///
  /// - Parameters:
  ///   - parts: in the order of their names in `BackupManifest.parts`.
  ///   - authenticator: of the newest wrapping key that could be had; nil where none could.
  /// - Returns: SHA-256 of the whole file.
  public static func write(
    _ manifest: BackupManifest,
    parts: [BackupPart],
    authenticator: (any BatchAuthenticator)?,
    to sink: ([UInt8]) throws(BackupError) -> Void
  ) throws(BackupError) -> Digest {
    var manifest = manifest
    var described: [BackupManifest.Part] = []
    for part in parts {
      described.append(
        .init(name: part.name, length: UInt64(part.bytes.count), digest: try sha256(part.bytes))
      )
    }
    manifest.parts = described
    let encoded = manifest.encoded
    _ = try BackupManifest(encoded)  // what could not be read is not written
    var head = BackupFormat.magic
    appendBigEndian(BackupFormat.version, to: &head)
    appendBigEndian(UInt16(0), to: &head)
    appendBigEndian(UInt32(encoded.count), to: &head)
    head += encoded
    head += try authentication(manifest, encoded, authenticator)
    let before = try RunningDigest()
    let whole = try RunningDigest()
    for bytes in [head] + parts.map(\.bytes) {
      try before.update(bytes)
      try whole.update(bytes)
      try sink(bytes)
    }
    let digest = try before.finish().bytes
    try whole.update(digest)
    try sink(digest)
    return try whole.finish()
  }

  private static func authentication(
    _ manifest: BackupManifest,
    _ encoded: [UInt8],
    _ authenticator: (any BatchAuthenticator)?
  ) throws(BackupError) -> [UInt8] {
    guard let authenticator else { return [UInt8](repeating: 0, count: BackupFormat.authenticationBytes) }
    let message = try BackupFormat.message(manifest, encoded)
    do {
      return authenticator.wrappingKeyID.bytes + (try authenticator.authenticate(message)).bytes
    } catch {
      throw .unavailable("the manifest cannot be authenticated: \(error)")
    }
  }
}

/// A backup file, read; every digest in it is checked, and no HMAC yet.
public struct Backup: Sendable {
  /// What it says of itself.
  public let manifest: BackupManifest
  /// The manifest's HMAC, to be checked as those of batches are; nil where no wrapping key could be had when it was taken.
  public let authentication: PendingAuthentication?
  /// As the manifest lists them; `keyring` is the first.
  public let parts: [BackupPart]
  /// What the storage file in it holds.
  public let content: StorageFileContent
  /// SHA-256 of the whole file.
  public let digest: Digest

  /// A part by its name.
  public func part(_ name: String) -> [UInt8]? { parts.first { $0.name == name }?.bytes }

  /// The first bytes of every backup file.
  public static let magic = BackupFormat.magic

  /// Reads all of a backup, and believes none of it before it is checked.
  ///
  /// - Throws: `BackupError.invalid`, saying where; `.unavailable` where it cannot be read, or there is no memory for it.
  public init(_ source: some BackupSource) throws(BackupError) {
    var reader = try Reader(source)
    let encoded = try reader.manifest()
    manifest = try BackupManifest(encoded)
    let mac = try reader.next(BackupFormat.authenticationBytes, "the manifest's authentication")
    authentication = try Self.authentication(mac, manifest, encoded)
    let length = manifest.parts.reduce(UInt64(reader.offset + BackupFormat.digestBytes)) { $0 + $1.length }
    guard length == UInt64(source.size) else {
      throw .invalid("it has \(source.size) bytes, and should have \(length)")
    }
    var parts: [BackupPart] = []
    for part in manifest.parts {
      let bytes = try reader.next(Int(part.length), part.name)
      guard try sha256(bytes) == part.digest else {
        throw .invalid("its part \(part.name) does not match its digest")
      }
      parts.append(BackupPart(name: part.name, bytes: bytes))
    }
    self.parts = parts
    digest = try reader.finish()
    content = try Self.content(manifest, parts[0].bytes)
  }

  private static func authentication(
    _ bytes: [UInt8],
    _ manifest: BackupManifest,
    _ encoded: [UInt8]
  ) throws(BackupError) -> PendingAuthentication? {
    guard let id = WrappingKeyID(bytes: bytes[..<16]), let mac = Digest(bytes: bytes[16...]) else {
      preconditionFailure("as many bytes were asked for")
    }
    if id.value == 0, mac == .zero { return nil }
    return PendingAuthentication(
      wrappingKeyID: id,
      message: try BackupFormat.message(manifest, encoded),
      mac: mac,
      place: "backup's manifest"
    )
  }

  private static func content(
    _ manifest: BackupManifest,
    _ bytes: [UInt8]
  ) throws(BackupError) -> StorageFileContent {
    let content: StorageFileContent
    do {
      content = try StorageFileReader.read(bytes, tenant: manifest.tenant)
    } catch {
      let what = "the storage file in it: \(error)"
      if case .unavailable = error { throw .unavailable(what) }
      throw .invalid(what)
    }
    guard content.tornTail == nil, content.position == manifest.position,
      content.state.id == manifest.keyring, UInt64(content.state.keyCount) == manifest.keys,
      UInt64(content.state.recordCount) == manifest.records
    else { throw .invalid("the storage file in it is not the one that its manifest describes") }
    let needed = Set(content.state.wrappingKeys.values.map { "\($0.provider.rawValue) \($0.cmkID)" })
    guard needed.isSubset(of: manifest.cmks.map { "\($0.provider.rawValue) \($0.id)" }) else {
      throw .invalid("its manifest lacks a CMK that the storage file in it needs")
    }
    return content
  }

  private struct Reader<Source: BackupSource> {
    let source: Source
    var offset = 0
    let before: RunningDigest
    let whole: RunningDigest

    init(_ source: Source) throws(BackupError) {
      self.source = source
      before = try RunningDigest()
      whole = try RunningDigest()
    }

    mutating func next(_ count: Int, _ what: String) throws(BackupError) -> [UInt8] {
      guard count <= source.size - offset else { throw .invalid("it ends inside \(what)") }
      let bytes = try source.read(at: offset, count: count)
      offset += count
      try before.update(bytes)
      try whole.update(bytes)
      return bytes
    }

    mutating func manifest() throws(BackupError) -> [UInt8] {
      let header = try next(BackupFormat.headerBytes, "its header")
      guard header.starts(with: BackupFormat.magic) else { throw .invalid("it is not a backup") }
      guard number(header[8..<10]) == UInt64(BackupFormat.version), number(header[10..<12]) == 0 else {
        throw .invalid(
          "it has format version \(number(header[8..<10])); this program reads \(BackupFormat.version)"
        )
      }
      let count = Int(number(header[12..<16]))
      guard count <= BackupFormat.manifestBytesMax else { throw .invalid("its manifest is too large") }
      return try next(count, "its manifest")
    }

    mutating func finish() throws(BackupError) -> Digest {
      let stored = try source.read(at: offset, count: BackupFormat.digestBytes)
      guard try before.finish().bytes == stored else { throw .invalid("it does not match its digest") }
      try whole.update(stored)
      return try whole.finish()
    }
  }
}

/// SHA-256 of what comes piece by piece.
private struct RunningDigest {
  private let hash: SHA256

  init() throws(BackupError) {
    do {
      hash = try SHA256()
    } catch {
      throw .unavailable("SHA-256 failed: \(error)")
    }
  }

  func update(_ bytes: [UInt8]) throws(BackupError) {
    do {
      try hash.update(bytes)
    } catch {
      throw .unavailable("SHA-256 failed: \(error)")
    }
  }

  func finish() throws(BackupError) -> Digest {
    do {
      return StorageFormat.digest(try hash.finish())
    } catch {
      throw .unavailable("SHA-256 failed: \(error)")
    }
  }
}

private func sha256(_ bytes: [UInt8]) throws(BackupError) -> Digest {
  do {
    return try StorageFormat.sha256(bytes)
  } catch {
    throw .unavailable("\(error)")
  }
}

/// Bytes in memory.
extension [UInt8]: BackupSource {
  /// Bytes.
  public var size: Int { count }
  /// A copy of some of them.
  public func read(at offset: Int, count: Int) throws(BackupError) -> [UInt8] {
    Array(self[offset..<offset + count])
  }
}
