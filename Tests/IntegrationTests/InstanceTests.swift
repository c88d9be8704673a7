import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// Instances that come, are restricted, and go.
@Suite(.timeLimit(.minutes(5))) struct InstanceTests {
  static let forbidden = Status(.forbidden, "this certificate may not do this")

  /// A tenant whose instance db1 may call, by each of the ways there are.
  enum Way: String, CaseIterable {
    case any, listed, added
  }

  private func makeTenant(_ server: TestServer, _ admin: TestClient, _ way: Way) async throws {
    let call = TenantCreateCall(
      tenant: "acme",
      instances: way == .listed ? ["db1", "db2"] : [],
      anyInstance: way == .any
    )
    _ = try await admin.call(.admin(.tenantCreate(call)))
    guard way == .added else { return }
    for name in ["db1", "db2"] {
      _ = try await admin.call(.admin(.instanceAdd(tenant: "acme", instance: name)))
    }
  }

  private func entry(_ admin: TestClient, _ name: String) async throws -> InstanceEntry? {
    guard case .instanceList(let entries, _) = try await admin.call(.admin(.instanceList("acme"))) else {
      throw UnexpectedReply()
    }
    return entries.first { $0.name == name }
  }

  private func request(_ id: UInt64, _ call: Call, trace: String = "") -> Request {
    Request(id: id, traceparent: trace, call: call)
  }

  // MARK: Revoking

  /// The open connection ends, the old certificate stays refused after the name is added again and after a restart, a new one is taken.
  @Test(arguments: Way.allCases) func aRevokedInstanceIsOutAndItsNameTakesNewCertificatesOnly(way: Way)
    async throws
  {
    var server = try await TestServer()
    var admin = try server.client(.serviceAdmin)
    try await makeTenant(server, admin, way)
    let (old, other) = (try server.instance("acme", "db1"), try server.instance("acme", "db2"))
    let open = try #require(try await RawClient.connected(server, "acme", "db1"))
    try await open.send([request(1, .generate(.shared("k")))])
    #expect(await open.reply()?.refusal == nil)
    for client in [old, other] { #expect(try await client.fetch(.shared("k")) != nil) }

    let before = UInt64(Date().timeIntervalSince1970)
    let revoke = Call.admin(.instanceRevoke(tenant: "acme", instance: "db1"))
    guard case .instanceRevoke(let second) = try await admin.call(revoke) else { throw UnexpectedReply() }
    #expect(second >= before && second < UInt64(Date().timeIntervalSince1970))
    #expect(await open.isClosedWithoutReply())
    #expect(try await eventually { try await entry(admin, "db1")?.connections == 0 })
    #expect(try await entry(admin, "db1")?.source == "revoked")
    for call in try AuthorizationTests.instanceCalls() {
      #expect(try await old.refusal(call) == Self.forbidden)
    }
    #expect(try await other.fetch(.shared("k")) != nil)

    await server.shutdown()
    await admin.close()
    server = try await TestServer(pki: server.pki, data: server.data)
    admin = try server.client(.serviceAdmin)
    let (again, fresh) = (try server.instance("acme", "db1"), try server.instance("acme", "db2"))
    #expect(try await again.refusal(.fetch(.shared("k"))) == Self.forbidden)
    #expect(try await fresh.fetch(.shared("k")) != nil)
    await server.shutdown()
    for client in [old, other, admin, again, fresh] { await client.close() }
  }

  @Test func aNameThatIsBackTakesOnlyCertificatesOfALaterSecond() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await makeTenant(server, admin, .listed)
    let old = try server.instance("acme", "db1")
    #expect(try await old.fetch(.own("k")) == nil)
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db1")))
    let add = Call.admin(.instanceAdd(tenant: "acme", instance: "db1"))
    guard case .instanceAdd(let added) = try await admin.call(add) else { throw UnexpectedReply() }
    #expect(added.source == "added" && added.permissions == ["read", "write"])
    // At once: what is issued after the revocation was answered begins later.
    let new = try server.instance("acme", "db1")
    #expect(try await new.fetch(.own("k")) == nil)
    #expect(try await old.refusal(.fetch(.own("k"))) == Self.forbidden)
    // To the second: one that begins with the revocation, and one a second later.
    let now = Int(Date().timeIntervalSince1970)
    for (distance, isTaken) in [(0, false), (1, true)] {
      var shape = OddCertificate.Shape.client("URI:spiffe://test.example/tenant/acme/instance/db1")
      shape.notBefore = Int(added.notBefore) + distance - now
      try server.pki.issue("odd", odd: shape)
      let client = try server.client(showing: "odd")
      // X509_gmtime_adj reads the clock itself: a second may have passed since `now`.
      if try await client.refusal(.fetch(.own("k"))) == nil { #expect(isTaken) } else { #expect(!isTaken) }
      await client.close()
    }
    // Revoked once more, also the new one is out.
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db1")))
    #expect(try await new.refusal(.fetch(.own("k"))) == Self.forbidden)
    for client in [admin, old, new] { await client.close() }
    await server.shutdown()
  }

  /// What waits for the disk when its instance is revoked is not known to have happened; nothing after it is answered at all.
  @Test func requestsInFlightEndWithTheirConnection() async throws {
    let gate = Gate()
    let server = try await TestServer(calls: SystemCalls(intercept: { gate.pass($0) }))
    let admin = try server.client(.serviceAdmin)
    try await makeTenant(server, admin, .any)
    let open = try #require(try await RawClient.connected(server, "acme", "db1"))
    try await open.send([request(1, .generate(.own("first")))])
    #expect(await open.reply()?.refusal == nil)
    gate.close()
    try await open.send([request(2, .generate(.own("second")))])
    #expect(try await eventually { gate.isWaitedAt })
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db1")))
    let reply = try #require(await open.reply())
    #expect(reply.id == 2 && reply.refusal?.reason == .outcomeUnknown)
    #expect(await open.isClosedWithoutReply())
    gate.open()
    await admin.close()
    await server.shutdown()
  }

  // MARK: Permissions

  /// What every instance call needs, said a second time, so that one of both being wrong is seen.
  private func isAllowed(_ call: Call, _ permissions: [String], _ scopes: [String]) -> Bool {
    func has(_ name: KeyName) -> Bool { scopes.contains(name.scope == .shared ? "shared" : "own") }
    func has(_ change: Change) -> Bool {
      switch change {
      case .store(let name, _, _), .generate(let name, _, _), .remove(let name), .rotate(let name): has(name)
      }
    }
    switch call {
    case .fetch(let name, _), .describe(let name, _): return permissions.contains("read") && has(name)
    case .list(let call):
      return permissions.contains("read") && scopes.contains(call.scope == .shared ? "shared" : "own")
    case .change(let change): return permissions.contains("write") && has(change)
    case .transact(let changes): return permissions.contains("write") && changes.allSatisfy { has($0) }
    case .importKeys(let keys): return permissions.contains("write") && keys.allSatisfy { has($0.name) }
    case .whoAmI: return true
    case .admin: return false
    }
  }

  private func calls(_ turn: Int) throws -> [Call] {
    let names = [KeyName.own("k"), .shared("k")]
    let new = [KeyName.own("n\(turn)"), .shared("n\(turn)")]
    return try names.flatMap { [.fetch($0), .fetch($0, version: 1), .describe($0, version: 0)] }
      + names.map { .change(.rotate($0)) }
      + [.list(ListCall(scope: .instance)), .list(ListCall(scope: .shared)), .whoAmI]
      + new.flatMap { name in
        try [
          .importKeys([AuthorizationTests.imported(name, "x")]), .remove(name),
          Call.store(name, "x"), .remove(name), .generate(name), .transact([.remove(name)]),
          .transact([.generate(name, type: "AES", length: 16), .remove(name)]),
        ]
      }
      + [.transact([.rotate(names[0]), .rotate(names[1])])]
  }

  /// Every call, every combination, on one connection that stays open: on the event loop and off it.
  @Test func everyCallNeedsItsPermissionAndItsScope() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await makeTenant(server, admin, .listed)
    let open = try #require(try await RawClient.connected(server, "acme", "db1"))
    var id: UInt64 = 0
    func ask(_ call: Call, trace: String = "") async throws -> Status? {
      id += 1
      try await open.send([request(id, call, trace: trace)])
      let reply = try #require(await open.reply())
      #expect(reply.id == id)
      return reply.refusal
    }
    for name in [KeyName.own("k"), .shared("k")] { #expect(try await ask(.generate(name)) == nil) }
    let sets = [["read"], ["write"], ["read", "write"]]
    let scopeSets = [["own"], ["shared"], ["own", "shared"]]
    var (refused, allowed) = (0, 0)
    for (turn, permissions) in sets.enumerated() {
      for (other, scopes) in scopeSets.enumerated() {
        let add = AdminCall.instanceAdd(
          tenant: "acme",
          instance: "db1",
          permissions: permissions,
          scopes: scopes
        )
        _ = try await admin.call(.admin(add))
        for trace in ["", "t"] {
          for call in try calls(2 * (turn * 3 + other) + trace.count) {
            let refusal = try await ask(call, trace: trace)
            if isAllowed(call, permissions, scopes) {
              #expect(refusal == nil, "\(permissions) \(scopes): \(call)")
              allowed += 1
            } else {
              #expect(refusal?.reason == .forbidden, "\(permissions) \(scopes): \(call)")
              #expect(refusal?.message.contains("this instance may not") == true)
              refused += 1
            }
          }
        }
        #expect(try await entry(admin, "db1")?.permissions == permissions)
        #expect(try await entry(admin, "db1")?.scopes == scopes)
      }
    }
    #expect(refused > 200 && allowed > 100)
    await admin.close()
    await open.close()
    await server.shutdown()
  }

  @Test func permissionsAreKeptUntilTheyAreChanged() async throws {
    var server = try await TestServer()
    var admin = try server.client(.serviceAdmin)
    try await makeTenant(server, admin, .listed)
    func add(_ name: String, _ permissions: [String], _ scopes: [String]) async throws -> Status? {
      let call = AdminCall.instanceAdd(
        tenant: "acme",
        instance: name,
        permissions: permissions,
        scopes: scopes
      )
      return try await admin.refusal(.admin(call))
    }
    #expect(try await add("backup1", ["read"], ["shared"]) == nil)
    #expect(try await add("db1", ["read"], []) == nil)  // one of the file
    #expect(try await add("backup1", [], []) == nil)  // says nothing, changes nothing
    #expect(try await add("backup1", ["execute"], [])?.reason == .requestMalformed)
    #expect(try await add("backup1", [], ["all"])?.reason == .requestMalformed)
    await server.shutdown()
    await admin.close()
    server = try await TestServer(pki: server.pki, data: server.data)
    admin = try server.client(.serviceAdmin)
    let (backup, db1) = (try await entry(admin, "backup1"), try await entry(admin, "db1"))
    #expect(backup?.permissions == ["read"] && backup?.scopes == ["shared"] && backup?.source == "added")
    #expect(db1?.permissions == ["read"] && db1?.scopes == ["own", "shared"])
    let client = try server.instance("acme", "backup1")
    #expect(try await client.fetch(.shared("k")) == nil)
    #expect(try await client.refusal(.fetch(.own("k")))?.reason == .forbidden)
    // Revoked and added again, nothing of it is left.
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "backup1")))
    #expect(try await add("backup1", [], []) == nil)
    #expect(try await entry(admin, "backup1")?.permissions == ["read", "write"])
    for client in [admin, client] { await client.close() }
    await server.shutdown()
  }

  // MARK: Disable, lock

  /// All sessions end, nothing is answered meanwhile, and afterwards everything is there.
  @Test func aTenantThatIsLockedOrDisabledClosesItsSessions() async throws {
    var server = try await TestServer()
    var admin = try server.client(.serviceAdmin)
    try await makeTenant(server, admin, .any)
    try await server.makeTenant("globex")
    let globex = try #require(try await RawClient.connected(server, "globex"))
    let client = try server.instance("acme", "db1")
    _ = try await client.call(.generate(.own("k")))
    let value = try await client.fetch(.own("k"))
    func status() async throws -> TenantStatus {
      guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
        throw UnexpectedReply()
      }
      return status
    }
    let cases: [(AdminCall, AdminCall, Reason, TenantState)] = [
      (.tenantLock("acme"), .tenantUnlock("acme"), .tenantLocked, .locked),
      (.tenantDisable("acme"), .tenantEnable("acme"), .tenantDisabled, .disabled),
    ]
    for (shut, open, reason, state) in cases {
      var sessions: [RawClient] = []
      for name in ["db1", "db2", "db3"] {
        sessions.append(try #require(try await RawClient.connected(server, "acme", name)))
      }
      _ = try await admin.call(.admin(shut))
      for session in sessions { #expect(await session.isClosedWithoutReply()) }
      for call in try AuthorizationTests.instanceCalls() {
        #expect(try await client.refusal(call)?.reason == reason, "\(call)")
      }
      // What would need the wrapping keys is refused to administrators too.
      #expect(try await admin.refusal(.admin(.rotateKeys("acme", allowTransient: true)))?.reason == reason)
      let shown = try await status()
      #expect(shown.summary.state == state && !shown.reason.isEmpty && shown.wrappingKeys.isEmpty)
      _ = try await admin.call(.admin(shut))  // twice is once
      _ = try await admin.call(.admin(open))
      #expect(try await client.fetch(.own("k")) == value)
    }
    try await globex.send([request(1, .generate(.own("k")))])
    #expect(await globex.reply()?.refusal == nil)
    // A lock ends with the server, disabling does not.
    try await server.makeTenant("initech")
    _ = try await admin.call(.admin(.tenantLock("acme")))
    _ = try await admin.call(.admin(.tenantDisable("initech")))
    await server.shutdown()
    await admin.close()
    server = try await TestServer(pki: server.pki, data: server.data)
    admin = try server.client(.serviceAdmin)
    let (one, two) = (try server.instance("acme", "db1"), try server.instance("initech", "db1"))
    #expect(try await one.fetch(.own("k")) == value)
    #expect(try await two.refusal(.fetch(.own("k")))?.reason == .tenantDisabled)
    for client in [admin, client, one, two] { await client.close() }
    await server.shutdown()
  }
}

/// Where commits wait while it is closed; on the threads of the disk.
private final class Gate: Sendable {
  private struct State {
    var isClosed = false
    var waiting = 0
  }

  private let state = Mutex(State())

  func close() { state.withLock { $0.isClosed = true } }
  func open() { state.withLock { $0.isClosed = false } }
  var isWaitedAt: Bool { state.withLock { $0.waiting > 0 } }

  func pass(_ call: SystemCall) -> Interception {
    guard call == .fdatasync else { return .proceed }
    while state.withLock({ state in
      if state.isClosed { state.waiting = 1 }
      return state.isClosed
    }) {
      usleep(1000)
    }
    return .proceed
  }
}
