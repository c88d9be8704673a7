import Cryptography
import Foundation
import KeyringCore
import KeyringTestSupport
import SecureMemory

@testable import KeyringStorage

/// HMACs under a fixed key, as a wrapping key's would be.
struct FixedAuthenticator: BatchAuthenticator {
  let wrappingKeyID: WrappingKeyID
  let key: Secret

  init(_ number: UInt128 = 7) throws {
    wrappingKeyID = WrappingKeyID(value: number)
    key = try unsafe Secret(count: 32) { room in for index in 0..<32 { unsafe room[index] = UInt8(index) } }
  }

  func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest {
    do {
      guard let digest = Digest(bytes: try HMACSHA256.authenticate(message, key: key).bytes) else {
        throw StoreError.busy("")
      }
      return digest
    } catch {
      throw .authenticatorUnavailable
    }
  }
}

/// A tenant's folder, its anchors, and stores on them.
struct StoreFixture {
  let folder: TestDirectory
  let tenant: TenantName
  let authenticator: FixedAuthenticator
  let keyring = KeyringID(value: 0x1234)

  init(_ tenant: String = "acme") throws {
    folder = try TestDirectory()
    self.tenant = try TenantName(tenant)
    authenticator = try FixedAuthenticator()
    for name in ["tenant", "anchors"] {
      try FileManager.default.createDirectory(atPath: folder(name), withIntermediateDirectories: false)
      try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder(name))
    }
  }

  var file: String { folder("tenant/keyring") }
  var anchor: String { folder("anchors/\(tenant).anchor") }

  func store(
    _ policy: AnchorPolicy = .strict,
    calls: SystemCalls = SystemCalls(),
    anchorCalls: SystemCalls? = nil,
    anchorWriter: AnchorWriter = AnchorWriter(delayMilliseconds: 60_000),
    fileBytesMax: Int = .max,
    notice: @escaping @Sendable (String) -> Void = { _ in }
  ) throws -> FileKeyringStore {
    FileKeyringStore(
      directory: try DirectoryDescriptor(path: folder("tenant"), calls: calls),
      name: "keyring",
      tenant: tenant,
      anchors: try DirectoryDescriptor(path: folder("anchors"), calls: anchorCalls ?? calls),
      policy: policy,
      anchorWriter: anchorWriter,
      fileBytesMax: fileBytesMax,
      notice: notice
    )
  }

  func identity(_ id: String) throws -> KeyIdentity {
    try KeyIdentity(scope: .shared, owner: [], keyID: Array(id.utf8))
  }

  func put(_ id: String, version: UInt32 = 1) throws -> KeyringCore.Operation {
    let seed = UInt128(id.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) }) << 8 | UInt128(version)
    return .put(
      try identity(id),
      try KeyType("AES"),
      try Record(
        version: version,
        length: 16,
        createdMilliseconds: 1000,
        id: RecordID(value: seed),
        wrappingKeyID: authenticator.wrappingKeyID,
        nonce: [UInt8](repeating: 9, count: 12),
        ciphertext: [UInt8](repeating: UInt8(truncatingIfNeeded: seed), count: 32)
      )
    )
  }

  var wrappingKey: WrappingKey {
    get throws {
      WrappingKey(
        id: authenticator.wrappingKeyID,
        cmkID: try CMKID("local-1"),
        provider: .local,
        wrapped: [1, 2, 3],
        commitment: .zero,
        createdMilliseconds: 500
      )
    }
  }

  func commit(
    _ sequence: UInt64,
    _ operations: [KeyringCore.Operation],
    idempotency: Commit.Idempotency? = nil,
    time: UInt64? = nil
  ) -> Commit {
    Commit(
      sequence: sequence,
      timeMilliseconds: time ?? 1000 + sequence,
      caller: "spiffe://t/tenant/acme/instance/a",
      idempotency: idempotency,
      operations: operations
    )
  }

  /// A store with `count` keys: k1 in the first commit's batch, the others one batch each.
  func filled(
    _ count: Int,
    _ policy: AnchorPolicy = .strict,
    calls: SystemCalls = SystemCalls()
  ) throws -> (FileKeyringStore, StorePosition) {
    try filled(count, store(policy, calls: calls))
  }

  /// The same in a store that a test made.
  func filled(_ count: Int, _ store: FileKeyringStore) throws -> (FileKeyringStore, StorePosition) {
    guard try store.load() == nil else { throw StoreError.busy("not empty") }
    var position = try store.create(
      tenant: tenant,
      id: keyring,
      commits: [commit(1, [.addWrappingKey(try wrappingKey), try put("k1")])],
      authenticator: authenticator
    )
    for index in 2...max(2, count) where count >= 2 {
      position = try store.append(
        [commit(UInt64(index), [try put("k\(index)")])],
        expecting: position,
        authenticator: authenticator
      )
    }
    return (store, position)
  }

  func image(_ state: KeyringState) throws -> KeyringImage {
    KeyringImage(
      tenant: tenant,
      id: keyring,
      sequence: state.sequence,
      timeMilliseconds: 5000,
      caller: "keyringd",
      wrappingKeys: [try wrappingKey],
      keys: state.keys,
      idempotency: IdempotencyWindow()
    )
  }

  /// Where the anchor on the disk stands.
  func anchorPosition() throws -> StorePosition {
    try Anchor.decode(Array(try Data(contentsOf: URL(filePath: anchor))), tenant: tenant).position
  }

  func bytes() throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: file))) }

  /// Puts other bytes in the file's place, in the same inode.
  func overwrite(_ bytes: [UInt8]) throws {
    let handle = try FileHandle(forWritingTo: URL(filePath: file))
    try handle.truncate(atOffset: 0)
    try handle.write(contentsOf: Data(bytes))
    try handle.close()
  }
}

extension FileKeyringStore {
  /// Writes the file anew in one go.
  ///
  /// - Parameter meanwhile: commits made since the image was.
  func replace(
    with image: KeyringImage,
    expecting: StorePosition,
    authenticator: any BatchAuthenticator,
    meanwhile: [Commit] = []
  ) throws(StoreError) -> StorePosition {
    let replacement = try beginReplacement(with: image, at: expecting, authenticator: authenticator)
    let last = Commit(
      sequence: expecting.sequence + 1,
      timeMilliseconds: 6000,
      caller: "keyringd",
      idempotency: nil,
      operations: [.replaced(expecting)]
    )
    return try replacement.finish(
      meanwhile + [last],
      expecting: expecting,
      former: authenticator,
      authenticator: authenticator
    )
  }
}
