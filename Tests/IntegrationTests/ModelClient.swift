import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import WireProtocol

/// An instance that sends one request at a time, under an idempotency id of its own choice, and connects again where the connection is lost.
final class ModelClient {
  let tenant: String
  let instance: String
  private var client: RawClient?
  private var number: UInt64 = 0

  init(_ tenant: String, _ instance: String) {
    self.tenant = tenant
    self.instance = instance
  }

  /// A UUIDv7 of this moment, with random bits of the campaign's.
  static func id(_ generator: inout SeededGenerator) -> IdempotencyID {
    let now = UInt128(UInt64(Date().timeIntervalSince1970 * 1000))
    let random = UInt128(generator.next()) << 64 | UInt128(generator.next())
    let bits = random & ~(UInt128(0xf) << 76) & ~(UInt128(3) << 62) & ((1 << 80) - 1)
    return IdempotencyID(value: now << 80 | bits | 7 << 76 | 2 << 62)
  }

  /// Sends a request; nil where no answer came.
  func ask(_ endpoint: any TestEndpoint, _ call: Call, _ id: IdempotencyID? = nil) async -> Reply? {
    number += 1
    do {
      if client == nil { client = try await RawClient.connected(endpoint, tenant, instance) }
      guard let client else { return nil }
      try await client.send([Request(id: number, timeoutMilliseconds: 30_000, idempotencyID: id, call: call)])
      if let reply = await client.reply(), reply.id == number { return reply }
    } catch {
      // There is no server at this moment: as if the answer were lost.
    }
    await disconnect()
    return nil
  }

  func disconnect() async {
    await client?.close()
    client = nil
  }
}

extension Reply {
  /// The versions that a change made; nil where it was refused.
  var versions: [UInt32]? {
    guard case .success(let result) = outcome else { return nil }
    switch result {
    case .store(let version), .generate(let version), .rotate(let version): return [version]
    case .remove: return [0]
    case .transact(let versions): return versions
    default: return nil
    }
  }
}
