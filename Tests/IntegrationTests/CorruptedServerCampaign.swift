import Foundation
import Glibc
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// A server whose tenant's files were exchanged or damaged: that tenant says so and answers nothing else, "absent" least of all, its files stay
/// as they are; the other tenants go on.
@Suite(.serialized) struct CorruptedServerCampaign {
  private static let victim = "acme"

  /// What is done to the victim's folder, in words, and whether the tenant is quarantined for it.
  struct Damage: Sendable, CustomStringConvertible {
    let description: String
    let make: @Sendable (CorruptedServer, inout SeededGenerator) throws -> Void
  }

  private static func file(
    _ description: String,
    _ change: @escaping @Sendable (inout [UInt8], inout SeededGenerator) -> Void
  )
    -> Damage
  {
    Damage(description: description) { server, generator in
      var bytes = Array(try Data(contentsOf: URL(filePath: server.keyring)))
      change(&bytes, &generator)
      try server.overwrite(server.keyring, bytes)
    }
  }

  static let damages: [Damage] = [
    file("a bit flipped") { bytes, generator in
      let index = Int.random(in: 0..<bytes.count, using: &generator)
      bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
    },
    file("cut") { bytes, generator in
      bytes.removeLast(Int.random(in: 1...bytes.count, using: &generator))
    },
    file("a sector zeroed") { bytes, generator in
      let start = Int.random(in: 0..<bytes.count / 512, using: &generator) * 512
      for index in start..<start + 512 { bytes[index] = 0 }
    },
    file("empty") { bytes, _ in bytes = [] },
    file("its second half twice") { bytes, _ in bytes += bytes[(bytes.count / 2)...] },
    Damage(description: "another tenant's file") { server, _ in
      try server.overwrite(server.keyring, try server.bytes(server.data("tenants/globex/keyring")))
    },
    Damage(description: "another tenant's file and anchor") { server, _ in
      try server.overwrite(server.keyring, try server.bytes(server.data("tenants/globex/keyring")))
      try server.overwrite(server.anchor, try server.bytes(server.data("anchors/globex.anchor")))
    },
    Damage(description: "an older file") { server, _ in try server.overwrite(server.keyring, server.older) },
    Damage(description: "no file") { server, _ in try FileManager.default.removeItem(atPath: server.keyring)
    },
    Damage(description: "no anchor") { server, _ in try FileManager.default.removeItem(atPath: server.anchor)
    },
    Damage(description: "an anchor damaged") { server, generator in
      var bytes = try server.bytes(server.anchor)
      let index = Int.random(in: 0..<bytes.count, using: &generator)
      bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      try server.overwrite(server.anchor, bytes)
    },
    Damage(description: "a symbolic link") { server, _ in
      try FileManager.default.moveItem(atPath: server.keyring, toPath: server.data("aside"))
      try FileManager.default.createSymbolicLink(
        atPath: server.keyring,
        withDestinationPath: server.data("aside")
      )
    },
    Damage(description: "a directory") { server, _ in
      try FileManager.default.removeItem(atPath: server.keyring)
      try FileManager.default.createDirectory(atPath: server.keyring, withIntermediateDirectories: false)
    },
    Damage(description: "a FIFO") { server, _ in
      try FileManager.default.removeItem(atPath: server.keyring)
      unsafe #expect(mkfifo(server.keyring, 0o600) == 0)
    },
    Damage(description: "a file that others may read") { server, _ in
      unsafe #expect(chmod(server.keyring, 0o644) == 0)
    },
    Damage(description: "a file larger than any") { server, _ in
      unsafe #expect(truncate(server.keyring, 5 << 30) == 0)
    },
  ]

  @Test func aDamagedTenantIsQuarantinedAndAlone() async throws {
    var generator = Campaign.generator("corrupted server")
    let server = try await CorruptedServer()
    let rounds = Campaign.rounds(short: 1, long: 40)
    var count = 0
    for _ in 0..<rounds {
      for damage in Self.damages {
        let good = try server.keep()
        try damage.make(server, &generator)
        try await server.expectQuarantined("\(damage), seed \(Campaign.seed)")
        try server.restore(good)
        count += 1
      }
    }
    try await server.expectWhole()
    Campaign.report("corruption, whole server", ["quarantined": count])
  }

  /// The same while the server runs: the next change finds it.
  @Test func damageUnderARunningServerIsFoundBeforeAnythingIsWritten() async throws {
    var generator = Campaign.generator("corrupted server, running")
    let server = try await CorruptedServer()
    var count = 0
    // A file that is changed in a place that nobody looks at is found when it is opened next; so are an anchor and a mode.
    let atOpening = [
      "a bit flipped", "a sector zeroed", "an anchor damaged", "no anchor", "a file that others may read",
    ]
    for damage in Self.damages where !atOpening.contains(damage.description) {
      let good = try server.keep()
      try await server.expectNotWritten("\(damage)") { try damage.make(server, &generator) }
      try server.restore(good)
      count += 1
    }
    try await server.expectWhole()
    Campaign.report("corruption, running server", ["refused": count])
  }
}

/// Three tenants on disk, and servers that are started on them.
final class CorruptedServer {
  let data: TestDirectory
  private let pki: TestPKI
  private let values: [String: String]
  /// The victim's file as it was before its last commits.
  let older: [UInt8]

  var keyring: String { data("tenants/acme/keyring") }
  var anchor: String { data("anchors/acme.anchor") }

  init() async throws {
    let server = try await TestServer()
    (data, pki) = (server.data, server.pki)
    var values: [String: String] = [:]
    var older: [UInt8] = []
    for tenant in ["acme", "globex", "initech"] {
      try await server.makeTenant(tenant)
      let client = try server.instance(tenant, "db1")
      for index in 0..<4 { _ = try await client.call(.generate(.own("k\(index)"))) }
      if tenant == "acme" {
        older = Array(try Data(contentsOf: URL(filePath: server.data("tenants/acme/keyring"))))
      }
      for index in 4..<8 { _ = try await client.call(.generate(.own("k\(index)"))) }
      values[tenant] = try await client.fetch(.own("k0"))
      await client.close()
    }
    await server.shutdown()
    (self.values, self.older) = (values, older)
  }

  func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: path))) }

  /// In the same inode.
  func overwrite(_ path: String, _ bytes: [UInt8]) throws {
    let handle = try FileHandle(forWritingTo: URL(filePath: path))
    try handle.truncate(atOffset: 0)
    try handle.write(contentsOf: Data(bytes))
    try handle.close()
  }

  func keep() throws -> (keyring: [UInt8], anchor: [UInt8]) { (try bytes(keyring), try bytes(anchor)) }

  func restore(_ good: (keyring: [UInt8], anchor: [UInt8])) throws {
    unsafe _ = unlink(data("aside"))
    for (path, bytes) in [(keyring, good.keyring), (anchor, good.anchor)] {
      unsafe _ = unlink(path) == 0 || rmdir(path) == 0
      try Data(bytes).write(to: URL(filePath: path))
      unsafe #expect(chmod(path, 0o600) == 0)
    }
  }

  /// What stands in the victim's folder, to compare.
  private func seen() throws -> [String] {
    var all: [String] = []
    for path in [keyring, anchor] {
      var status = stat()
      guard unsafe lstat(path, &status) == 0 else {
        all.append("\(path): nothing")
        continue
      }
      let isSmall = status.st_mode & S_IFMT == S_IFREG && status.st_size < 1 << 20
      all.append(
        "\(path): \(status.st_mode) \(status.st_size) \(isSmall ? hexadecimal(try bytes(path)) : "")"
      )
    }
    return all
  }

  private func serve(_ body: (TestServer, TestClient, TestClient) async throws -> Void) async throws {
    let server = try await TestServer(pki: pki, data: data)
    let (client, admin) = (try server.instance("acme", "db1"), try server.client(.serviceAdmin))
    try await body(server, client, admin)
    for client in [client, admin] { await client.close() }
    await server.shutdown()
  }

  private func expectOthers(_ server: TestServer, _ place: String) async throws {
    for tenant in ["globex", "initech"] {
      let client = try server.instance(tenant, "db1")
      #expect(try await client.fetch(.own("k0")) == values[tenant], "\(place): \(tenant)")
      _ = try await client.call(.change(.rotate(.own("k7"))))
      await client.close()
    }
  }

  /// Every call is refused and says why; nothing is written.
  func expectQuarantined(_ place: String) async throws {
    let before = try seen()
    try await serve { server, client, admin async throws in
      for call in [
        .fetch(.own("k0")), .fetch(.own("never")), .generate(.own("new")), .remove(.own("never")),
        .list(ListCall(scope: .instance)),
      ] as [Call] {
        let refusal = try await client.refusal(call)
        #expect(refusal?.reason == .tenantQuarantined, "\(place): \(String(describing: refusal))")
      }
      guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
        throw UnexpectedReply()
      }
      #expect(status.summary.state == .quarantined && !status.reason.isEmpty, "\(place)")
      try await self.expectOthers(server, place)
    }
    #expect(try seen() == before, "\(place): it was touched")
  }

  /// The file is damaged while the tenant is open: nothing is written to it, and what was read before is not taken for absent.
  func expectNotWritten(_ place: String, _ damage: () throws -> Void) async throws {
    var before: [String] = []
    try await serve { server, client, admin async throws in
      #expect(try await client.fetch(.own("k0")) == self.values["acme"], "\(place)")
      try damage()
      before = try self.seen()
      let refusal = try await client.refusal(.generate(.own("new")))
      #expect(
        [.storageChanged, .tenantQuarantined].contains(refusal?.reason),
        "\(place): \(String(describing: refusal))"
      )
      let reading = try await client.refusal(.fetch(.own("k0")))
      #expect(reading?.reason == .tenantQuarantined, "\(place): \(String(describing: reading))")
      try await self.expectOthers(server, place)
    }
    #expect(try seen() == before, "\(place): it was touched")
  }

  func expectWhole() async throws {
    try await serve { server, client, _ async throws in
      #expect(try await client.fetch(.own("k0")) == self.values["acme"])
      try await self.expectOthers(server, "at the end")
    }
  }
}
