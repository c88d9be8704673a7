import Cryptography
import Foundation
import HashTreeCollections
import KeyringCore
import KeyringTestSupport
import SecureMemory
import TLSTransport
import Testing
import WireProtocol

@testable import KeyringStorage

/// Someone with the disk, without any wrapping key of the keyring, brings one of their own and says under it that a key is gone.
@Suite struct UnverifiedBatchTests {
  private struct Forger: BatchAuthenticator {
    let wrappingKeyID = WrappingKeyID(value: 0xf0f0)
    let key: Secret

    func authenticate(_ message: [UInt8]) throws(StoreError) -> Digest {
      do {
        guard let digest = Digest(bytes: try HMACSHA256.authenticate(message, key: key).bytes) else {
          throw StoreError.authenticatorUnavailable
        }
        return digest
      } catch {
        throw .authenticatorUnavailable
      }
    }
  }

  /// Appends a batch that brings a wrapping key which no provider opens, and removes every key.
  private func forge(_ server: TestServer, cmk: String) throws {
    let file = server.data("tenants/acme/keyring")
    let bytes = Array(try Data(contentsOf: URL(filePath: file)))
    let tenant = try TenantName("acme")
    let content = try StorageFileReader.read(bytes, tenant: tenant)
    let forger = Forger(key: try SystemRandom.secret(count: 32))
    let wrappingKey = WrappingKey(
      id: forger.wrappingKeyID,
      cmkID: try CMKID(cmk),
      provider: .local,
      wrapped: [UInt8](repeating: 1, count: 65),
      commitment: .zero,
      createdMilliseconds: 1
    )
    let removes = content.state.keys.keys.filter { $0.scope != .server }.map {
      KeyringCore.Operation.remove($0)
    }
    let commit = Commit(
      sequence: content.position.sequence + 1,
      timeMilliseconds: 1,
      caller: "keyringd",
      idempotency: nil,
      operations: [.addWrappingKey(wrappingKey)] + removes
    )
    let batch = try EncodedBatch.make(
      [CommitCodec.encode(commit)],
      firstSequence: commit.sequence,
      previous: content.position.digest,
      tenant: tenant,
      keyring: content.state.id,
      authenticator: forger
    )
    let handle = try FileHandle(forWritingTo: URL(filePath: file))
    try handle.seekToEnd()
    try handle.write(contentsOf: Data(batch.bytes))
    try handle.close()
  }

  @Test func nothingThatNobodyCouldCheckIsVouchedFor() async throws {
    let server = try await TestServer()
    let cmk = try await server.makeTenant("acme")
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.generate(.own("k")))
    await client.close()
    await server.shutdown()
    try forge(server, cmk: cmk)
    for _ in 0..<2 {
      let again = try await TestServer(pki: server.pki, data: server.data)
      let (reader, admin) = (try again.instance("acme", "db1"), try again.client(.serviceAdmin))
      #expect(try await reader.refusal(.fetch(.own("k"))) != nil, "it is not said to be absent")
      // Writing the file anew would bring HMACs that vouch for the forged batch.
      let refusal = try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: false)))
      #expect(refusal?.reason == .tenantLocked)
      #expect(try await reader.refusal(.fetch(.own("k"))) != nil)
      for client in [reader, admin] { await client.close() }
      await again.shutdown()
    }
  }
}
