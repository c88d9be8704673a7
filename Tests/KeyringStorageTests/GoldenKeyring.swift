import Cryptography
import Foundation
import HashTreeCollections
import KeyringCore
import SecureMemory
import Testing

@testable import KeyringStorage

/// A wrapping key whose plaintext is known, with what docs/FILE_FORMAT.md derives from it.
struct KnownWrappingKey: BatchAuthenticator {
  let plaintext: [UInt8]
  let key: WrappingKey
  let cipher: RecordCipher
  private let commitKey: Secret

  var wrappingKeyID: WrappingKeyID { key.id }

  init(_ number: UInt8, _ tenant: TenantName, _ keyring: KeyringID) throws {
    let id = WrappingKeyID(value: UInt128(number) << 120 | 0xabcdef)
    let bytes = (0..<32).map { number &* 16 &+ $0 }
    func derive(_ purpose: String) throws -> Secret {
      var info: [UInt8] = []
      for part in [Array(purpose.utf8), Array(tenant.text.utf8), keyring.bytes] {
        appendBigEndian(UInt32(part.count), to: &info)
        info += part
      }
      let salt = Array("keyring/1".utf8)
      return try HKDFSHA256.derive(from: try publicSecret(bytes), salt: salt, info: info, count: 32)
    }
    let commitment = try unsafe derive("commitment \(id)").withUnsafeBytes { unsafe Array($0) }
    plaintext = bytes
    key = WrappingKey(
      id: id,
      cmkID: try CMKID("local-0000000000000000000000000000000\(number)"),
      provider: .local,
      wrapped: [1] + Array(repeating: number, count: 76),
      commitment: try #require(Digest(bytes: commitment)),
      createdMilliseconds: 1_700_000_000_000 + UInt64(number)
    )
    commitKey = try derive("commit")
    cipher = try RecordCipher(key: try derive("record"))
  }

  func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest {
    do {
      return try #require(Digest(bytes: try HMACSHA256.authenticate(message, key: commitKey).bytes))
    } catch {
      throw .authenticatorUnavailable
    }
  }
}

/// A secret of bytes that are none.
func publicSecret(_ bytes: [UInt8]) throws -> Secret {
  try unsafe bytes.withUnsafeBytes { try unsafe Secret(copying: $0) }
}

/// The content of the golden files: of fixed keys, ids, nonces and times alone, so that their bytes never change.
struct GoldenKeyring {
  static let caller = "spiffe://keyring.example.org/tenant/acme/instance/db1"
  let tenant: TenantName
  let keyring = KeyringID(value: 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f)
  let first: KnownWrappingKey
  let second: KnownWrappingKey
  /// What was stored, by record id.
  let values: [RecordID: String]
  /// Batches of commits, and who authenticates each.
  let batches: [(commits: [Commit], authenticator: KnownWrappingKey)]

  init() throws {
    tenant = try TenantName("acme")
    first = try KnownWrappingKey(1, tenant, keyring)
    second = try KnownWrappingKey(2, tenant, keyring)
    var sealing = Sealing(tenant: tenant, keyring: keyring)
    let alpha = try KeyIdentity(scope: .shared, owner: [], keyID: Array("alpha".utf8))
    let beta = try KeyIdentity(
      scope: .instance(InstanceName("db1")),
      owner: Array("root@localhost".utf8),
      keyID: Array("beta".utf8)
    )
    let gamma = try KeyIdentity(scope: .shared, owner: Array("app@%".utf8), keyID: Array("gamma".utf8))
    batches = [
      (
        [
          Self.commit(
            1,
            [
              .addWrappingKey(first.key),
              try sealing.put(.requestHashKey, "SECRET", 1, "the hash key", first),
            ],
            by: "keyringd"
          )
        ], first
      ),
      (
        [
          Self.commit(2, [try sealing.put(alpha, "AES", 1, "0123456789abcdef", first)]),
          Self.commit(3, [try sealing.put(beta, "SECRET", 1, "s", first)]),
        ], first
      ),
      ([Self.commit(4, [try sealing.put(alpha, "AES", 2, "fedcba9876543210", first)], id: 4, [2])], first),
      (
        [
          Self.commit(
            5,
            [
              .remove(beta), try sealing.put(gamma, "SECRET", 1, "three", first),
              try sealing.put(beta, "AES", 1, "0123456789abcdef01234567", first),
            ],
            id: 5,
            [0, 1, 1]
          )
        ], first
      ),
      (
        [
          Self.commit(6, [.addWrappingKey(second.key)], by: "keyringd"),
          Self.commit(7, [try sealing.put(gamma, "SECRET", 2, "four", second)]),
        ], second
      ),
    ]
    values = sealing.values
  }

  /// Seals under nonces and record ids that count up.
  private struct Sealing {
    let tenant: TenantName
    let keyring: KeyringID
    var values: [RecordID: String] = [:]

    mutating func put(
      _ identity: KeyIdentity,
      _ type: String,
      _ version: UInt32,
      _ value: String,
      _ key: KnownWrappingKey
    ) throws -> KeyringCore.Operation {
      let number = UInt8(values.count + 1)
      let id = RecordID(value: UInt128(number) << 64 | 0x77)
      let nonce = [UInt8](repeating: number, count: 12)
      let data = Record.authenticatedData(
        tenant: tenant,
        keyring: keyring,
        identity: identity,
        type: try KeyType(type),
        version: version,
        id: id,
        wrappingKeyID: key.wrappingKeyID
      )
      values[id] = value
      return .put(
        identity,
        try KeyType(type),
        try Record(
          version: version,
          length: UInt32(value.utf8.count),
          createdMilliseconds: 1_700_000_000_100 + UInt64(number),
          id: id,
          wrappingKeyID: key.wrappingKeyID,
          nonce: nonce,
          ciphertext: try key.cipher.seal(
            try publicSecret(Array(value.utf8)),
            nonce: nonce,
            authenticatedData: data
          )
        )
      )
    }
  }

  private static func commit(
    _ sequence: UInt64,
    _ operations: [KeyringCore.Operation],
    id: UInt8? = nil,
    _ versions: [UInt32] = [],
    by caller: String = Self.caller
  ) -> Commit {
    let time = 1_700_000_001_000 + sequence
    let idempotency = id.map { id in
      Commit.Idempotency(
        id: IdempotencyID(value: UInt128(time) << 80 | 7 << 76 | UInt128(id)),
        requestHash: Digest(bytes: [UInt8](repeating: id, count: 32)) ?? .zero,
        versions: versions
      )
    }
    return Commit(
      sequence: sequence,
      timeMilliseconds: time,
      caller: caller,
      idempotency: idempotency,
      operations: operations
    )
  }

  // MARK: The files

  /// The keyring after all batches, and what is remembered of requests.
  func state() throws -> (KeyringState, IdempotencyWindow) {
    var state = KeyringState(tenant: tenant, id: keyring)
    var window = IdempotencyWindow()
    for commit in batches.flatMap(\.commits) {
      try state.apply(commit)
      window.insert(commit)
    }
    return (state, window)
  }

  /// The first file's bytes, and where it stands after each batch.
  func file() throws -> (bytes: [UInt8], positions: [StorePosition]) {
    var bytes = try header(StorePosition(sequence: 0, digest: .zero))
    var positions: [StorePosition] = []
    var previous = try #require(Digest(bytes: bytes[144...]))
    for (commits, authenticator) in batches {
      let batch = try EncodedBatch.make(
        commits.map(CommitCodec.encode),
        firstSequence: commits[0].sequence,
        previous: previous,
        tenant: tenant,
        keyring: keyring,
        authenticator: authenticator
      )
      bytes += batch.bytes
      previous = batch.position.digest
      positions.append(batch.position)
    }
    return (bytes, positions)
  }

  private func header(_ origin: StorePosition) throws -> [UInt8] {
    try StorageHeader(
      tenant: tenant,
      keyring: keyring,
      createdMilliseconds: 1_700_000_000_000,
      origin: origin
    ).encode()
  }

  /// What replaces the first file.
  func image() throws -> KeyringImage {
    let (state, window) = try state()
    return KeyringImage(
      tenant: tenant,
      id: keyring,
      sequence: state.sequence,
      timeMilliseconds: 1_700_000_002_000,
      caller: "spiffe://keyring.example.org/tenant/acme/admin",
      wrappingKeys: state.wrappingKeys.values.sorted { $0.id.value < $1.id.value },
      keys: state.keys,
      idempotency: window
    )
  }

  /// What says that the first file was replaced.
  func replaced() throws -> Commit {
    Self.commit(8, [.replaced(try #require(try file().positions.last))])
  }

  /// The replacement's bytes, with one commit behind, and where it stands after each batch from that on with which it appeared.
  func replacement() throws -> (bytes: [UInt8], snapshot: StorePosition, positions: [StorePosition]) {
    var bytes = try header(try #require(try file().positions.last))
    let after = Self.commit(
      9,
      [.remove(try KeyIdentity(scope: .shared, owner: [], keyID: Array("alpha".utf8)))]
    )
    var positions = [StorePosition(sequence: 6, digest: StorageHeader.digest(bytes))]
    for message in [
      CommitCodec.encode(try image()), CommitCodec.encode(try replaced()), CommitCodec.encode(after),
    ] {
      let before = positions[positions.count - 1]
      let batch = try EncodedBatch.make(
        [message],
        firstSequence: before.sequence + 1,
        previous: before.digest,
        tenant: tenant,
        keyring: keyring,
        authenticator: second
      )
      bytes += batch.bytes
      positions.append(batch.position)
    }
    return (bytes, positions[1], Array(positions[2...]))
  }

  /// Every golden file, by name.
  func files() throws -> [String: [UInt8]] {
    let (bytes, positions) = try file()
    let (newBytes, _, newPositions) = try replacement()
    func anchor(_ position: StorePosition, _ authenticator: KnownWrappingKey?) throws -> [UInt8] {
      try Anchor.make(
        tenant: tenant,
        keyring: keyring,
        position: position,
        authenticator: authenticator
      ).encode(tenant: tenant)
    }
    return [
      "first.keyring": bytes,
      "first.anchor": try anchor(try #require(positions.last), second),
      "first-behind.anchor": try anchor(positions[2], first),
      "first-accepted.anchor": try anchor(try #require(positions.last), nil),
      "replacement.keyring": newBytes,
      "replacement.anchor": try anchor(newPositions[1], second),
      "first.backup": try backup(second),
    ]
  }
}
