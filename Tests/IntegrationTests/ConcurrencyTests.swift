import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// What happens when administrators and instances act at one moment.
@Suite struct ConcurrencyTests {
  /// Stores until `count` keys were acknowledged; answers those.
  static func storeMany(_ client: TestClient, _ prefix: String, _ count: Int) async throws -> [String] {
    var acknowledged: [String] = []
    var index = 0
    while acknowledged.count < count, index < 100 * count {
      if try await client.refusal(.store(.shared("\(prefix)\(index)"), "x")) == nil {
        acknowledged.append("\(prefix)\(index)")
      }
      index += 1
    }
    return acknowledged
  }

  @Test func aTenantThatIsClosedAndOpenedUnderLoadLosesNothing() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    let clients = try (0..<4).map { try server.instance("acme", "db\($0)") }
    let acknowledged = try await withThrowingTaskGroup(of: [String].self) { group in
      for (index, client) in clients.enumerated() {
        group.addTask { try await Self.storeMany(client, "c\(index)-", 40) }
      }
      group.addTask {
        for _ in 0..<60 { _ = try await admin.call(.admin(.tenantEnable("acme"))) }  // closes an open tenant
        return []
      }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    #expect(acknowledged.count == 160)
    #expect(try await clients[0].refusal(.store(.shared("after"), "x")) == nil, "the tenant goes on")
    for key in acknowledged { #expect(try await clients[1].fetch(.shared(key)) == "78") }
    for client in clients + [admin] { await client.close() }
    await server.shutdown()
  }

  @Test func changesOfSettingsAtOneMomentAllLast() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<16 {
        group.addTask {
          _ = try await admin.call(.admin(.instanceAdd(tenant: "acme", instance: "new\(index)")))
        }
      }
      for (name, value) in [("wrapping_key_ttl", "7m"), ("outage_grace", "9h"), ("profile", "general")] {
        group.addTask {
          _ = try await admin.call(
            .admin(.variablesSet(tenant: "acme", name: name, value: value, .persist))
          )
        }
      }
      try await group.waitForAll()
    }
    await admin.close()
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let later = try again.client(.serviceAdmin)
    guard case .variablesList(let variables) = try await later.call(.admin(.variablesList("acme"))) else {
      throw UnexpectedReply()
    }
    let values = Dictionary(uniqueKeysWithValues: variables.map { ($0.name, $0.value) })
    #expect(values["wrapping_key_ttl"] == "7m")
    #expect(values["outage_grace"] == "9h")
    #expect(values["profile"] == "general")
    await later.close()
    await again.shutdown()
  }

  @Test func whatIsStoredAfterACMKIsSetLiesUnderIt() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    let writer = try server.instance("acme", "db1")
    let background = try server.instance("acme", "db2")
    let load = Task { try await Self.storeMany(background, "load", 300) }
    for turn in 0..<8 {
      let cmkID = try await admin.makeCMK("acme")
      _ = try await admin.call(
        .admin(.variablesSet(tenant: "acme", name: "cmk_id", value: cmkID, .persist))
      )
      _ = try await writer.call(.store(.shared("turn\(turn)"), "x"))
      guard case .describe(let info?) = try await writer.call(.describe(.shared("turn\(turn)"), version: 0)),
        case .tenant(let status) = try await admin.call(.admin(.status("acme")))
      else { throw UnexpectedReply() }
      #expect(status.wrappingKeys.first { $0.id == info.wrappingKeyID }?.cmkID == cmkID, "turn \(turn)")
    }
    #expect(try await load.value == (0..<300).map { "load\($0)" }, "no store was refused")
    for client in [admin, writer, background] { await client.close() }
    await server.shutdown()
  }

  @Test func rotationsAtOneMomentUnderWritesAllProve() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    let writer = try server.instance("acme", "db1")
    let load = Task { try await Self.storeMany(writer, "load", 200) }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<5 {
        group.addTask {
          guard
            case .rotateKeys(let report) = try await admin.call(
              .admin(.rotateKeys("acme", allowTransient: false))
            )
          else { throw UnexpectedReply() }
          #expect(report.recordsElsewhere == 0)
        }
      }
      try await group.waitForAll()
    }
    let stored = try await load.value
    #expect(stored == (0..<200).map { "load\($0)" }, "no store was refused")
    for key in stored { #expect(try await writer.fetch(.shared(key)) == "78") }
    for client in [admin, writer] { await client.close() }
    await server.shutdown()
  }
}
