import Foundation
import KeyringClient
import KeyringCore
import KeyringTestSupport
import SecureMemory
import TLSTransport
import Testing
import WireProtocol

/// A server with the tenants `acme`, which comes to its limits, and `globex`, which must not notice.
struct LimitFixture {
  let server: TestServer
  let admin: TestClient
  let other: TestClient

  init(_ limits: [String] = []) async throws {
    server = try await TestServer(limits: limits, hasHealth: true)
    for name in ["acme", "globex"] { try await server.makeTenant(name) }
    admin = try server.client(.serviceAdmin)
    other = try server.instance("globex", "db1")
    _ = try await other.call(.generate(.own("k")))
  }

  static func use(_ limits: [String] = [], _ body: (LimitFixture) async throws -> Void) async throws {
    let fixture = try await LimitFixture(limits)
    try await body(fixture)
    await fixture.admin.close()
    await fixture.other.close()
    await fixture.server.shutdown()
  }

  func set(_ name: String, _ value: String, _ persistence: Persistence = .global) async throws {
    let name = "limits.\(name)"
    _ = try await admin.call(.admin(.variablesSet(tenant: "acme", name: name, value: value, persistence)))
  }

  func variable(_ name: String, _ admin: TestClient? = nil) async throws -> VariableEntry {
    guard case .variablesList(let all) = try await (admin ?? self.admin).call(.admin(.variablesList("acme"))),
      let entry = all.first(where: { $0.name == "limits.\(name)" })
    else { throw UnexpectedReply() }
    return entry
  }

  func status(_ admin: TestClient? = nil) async throws -> TenantStatus {
    guard case .tenant(let status) = try await (admin ?? self.admin).call(.admin(.status("acme"))) else {
      throw UnexpectedReply()
    }
    return status
  }

  /// The other tenant reads and writes as if nothing were.
  func checkOther() async throws {
    #expect(try await other.refusal(.fetch(.own("k"))) == nil)
    #expect(try await other.refusal(.generate(.own(UUID().uuidString))) == nil)
    #expect(try await other.refusal(.whoAmI) == nil)
  }

  func metric(_ line: String) async throws -> Int? {
    let url = try #require(URL(string: "http://127.0.0.1:\(server.healthPort ?? 0)/metrics"))
    let process = try await TestProgram(path: "/usr/bin/curl").run(["-s", url.absoluteString])
    return process.text.split(separator: "\n").first { $0.hasPrefix(line + " ") }
      .flatMap { Int($0.split(separator: " ")[1]) }
  }
}

/// Refused with a limit's name and a time to come again, or not at all.
private func expectThrottled(_ refusal: Status?, _ limit: String, hint: Bool = true) {
  #expect(refusal?.reason == .throttled && refusal?.code == .resourceExhausted, "\(limit): \(refusal as Any)")
  #expect(refusal?.message.hasPrefix("limits.\(limit):") == true, "\(refusal?.message ?? "")")
  #expect(((refusal?.retryAfterMilliseconds ?? 0) > 0) == hint)
}

@Suite(.timeLimit(.minutes(2))) struct TenantLimitTests {
  // MARK: Rates

  /// Fetches that memory answers, and all else, over two connections of two instances: what passes in all is the burst, and what came back to
  /// it since.
  @Test func requestsAreLimitedInTotalOverInstances() async throws {
    try await LimitFixture.use { fixture in
      let one = try #require(await RawClient.connected(fixture.server, "acme", "db1"))
      let two = try #require(await RawClient.connected(fixture.server, "acme", "db2"))
      let clients = [one, two]
      for client in clients {
        try await client.send([Request(id: 1, call: .generate(.own("k")))])
        #expect(await client.reply()?.refusal == nil)
      }
      // On connections that are open.
      try await fixture.set("requests_burst", "5")
      try await fixture.set("requests_per_second", "1")
      let began = ContinuousClock.now
      for client in clients {
        try await client.send(
          (2...21).map { id in
            Request(id: id, call: id % 4 == 0 ? .whoAmI : .fetch(.own("k"), version: 0))
          }
        )
      }
      var passed = 0
      for client in clients {
        for _ in 2...21 {
          let reply = try #require(await client.reply())
          if let refusal = reply.refusal {
            expectThrottled(refusal, "requests_per_second")
            #expect(refusal.retryAfterMilliseconds <= 1000)
          } else {
            passed += 1
          }
        }
      }
      let seconds = (ContinuousClock.now - began) / .seconds(1)
      #expect(passed >= 5 && Double(passed) <= 6 + seconds, "\(passed) in \(seconds) s")
      try await fixture.checkOther()
      let hits = try await fixture.status().limitsHit
      #expect(hits == [LimitHit(limit: "requests_per_second", count: UInt64(40 - passed))])
      let counted = try await fixture.metric("keyring_throttled_total{limit=\"requests_per_second\"}")
      #expect(counted == 40 - passed)
      // And off again, at once.
      try await fixture.set("requests_per_second", "unlimited")
      try await one.send((30...60).map { Request(id: $0, call: .fetch(.own("k"), version: 0)) })
      for _ in 30...60 { #expect(await one.reply()?.refusal == nil) }
      for client in clients { await client.close() }
    }
  }

  @Test func writesAreLimitedAndReadsGoOn() async throws {
    try await LimitFixture.use { fixture in
      let one = try fixture.server.instance("acme", "db1")
      let two = try fixture.server.instance("acme", "db2")
      _ = try await one.call(.generate(.shared("k")))
      try await fixture.set("writes_per_second", "1")
      try await fixture.set("writes_burst", "100")
      let changes = (0..<100).map { Change.generate(.shared("t\($0)"), type: "AES", length: 32) }
      // A transaction takes as many as it has.
      #expect(try await one.refusal(.transact(changes)) == nil)
      let refused = try await two.refusal(.transact(changes))
      expectThrottled(refused, "writes_per_second")
      #expect((refused?.retryAfterMilliseconds ?? 0) > 1000)
      for _ in 0..<50 { #expect(try await two.refusal(.fetch(.shared("k"))) == nil) }
      try await fixture.checkOther()
      for client in [one, two] { await client.close() }
    }
  }

  @Test func administratorsAreNotLockedOutByTheirInstancesAndAreLimitedToo() async throws {
    try await LimitFixture.use(["admin_requests_per_second: 30"]) { fixture in
      let client = try fixture.server.instance("acme", "db1")
      let own = try fixture.server.client(.tenantAdmin(TenantName("acme")))
      _ = try await own.call(.admin(.status("acme")))
      try await fixture.set("requests_per_second", "1")
      while try await client.refusal(.whoAmI) == nil {}
      #expect(try await own.refusal(.admin(.status("acme"))) == nil)
      // Theirs are three a second.
      var refusal: Status?
      while refusal == nil { refusal = try await own.refusal(.admin(.status("acme"))) }
      #expect(refusal?.reason == .throttled && (refusal?.retryAfterMilliseconds ?? 0) > 0)
      // Not the service's, and not another tenant's.
      _ = try await fixture.status()
      try await fixture.checkOther()
      for each in [client, own] { await each.close() }
    }
  }

  // MARK: What is there

  @Test func keysAreNeverMoreThanTheLimitHoweverManyWrite() async throws {
    try await LimitFixture.use { fixture in
      try await fixture.set("keys", "20")
      let server = fixture.server
      let refused = try await withThrowingTaskGroup(of: [Status].self) { group in
        for writer in 0..<8 {
          let client = try server.instance("acme", "db\(writer % 3)")
          group.addTask {
            var refused: [Status] = []
            for index in 0..<10 {
              if let status = try await client.refusal(.generate(.shared("\(writer)-\(index)"))) {
                refused.append(status)
              }
            }
            await client.close()
            return refused
          }
        }
        return try await group.reduce(into: []) { $0 += $1 }
      }
      #expect(refused.count == 60)
      // Coming again does not help: no time is named.
      for status in refused { expectThrottled(status, "keys", hint: false) }
      #expect(try await fixture.status().keys == 20)
      let client = try server.instance("acme", "db1")
      guard case .list(let keys, _) = try await client.call(.list(ListCall(scope: .shared))) else {
        throw UnexpectedReply()
      }
      #expect(keys.count == 20)
      // Below what is there: removing works, rotating adds no key, and room is room again.
      try await fixture.set("keys", "19")
      let names = keys.prefix(2).map(\.name)
      #expect(try await client.refusal(.change(.rotate(names[0]))) == nil)
      for name in names { #expect(try await client.refusal(.remove(name)) == nil) }
      #expect(try await client.refusal(.generate(.shared("new"))) == nil)
      expectThrottled(try await client.refusal(.generate(.shared("newer"))), "keys", hint: false)
      try await fixture.checkOther()
      await client.close()
    }
  }

  @Test func bytesOfKeysAreLimited() async throws {
    try await LimitFixture.use { fixture in
      let client = try fixture.server.instance("acme", "db1")
      let value = String(repeating: "x", count: 4000)
      try await fixture.set("bytes", "20000")
      var stored = 0
      var refusal: Status?
      while refusal == nil, stored < 100 {
        refusal = try await client.refusal(try .store(.own("k\(stored)"), value))
        if refusal == nil { stored += 1 }
      }
      expectThrottled(refusal, "bytes", hint: false)
      #expect((3...4).contains(stored))
      expectThrottled(try await client.refusal(.change(.rotate(.own("k0")))), "bytes", hint: false)
      #expect(try await client.refusal(.remove(.own("k0"))) == nil)
      #expect(try await client.refusal(try .store(.own("again"), value)) == nil)
      #expect(try await fixture.status().limitsHit == [LimitHit(limit: "bytes", count: 2)])
      try await fixture.checkOther()
      await client.close()
    }
  }

  @Test func connectionsAreLimitedAndTheAdministratorStillComes() async throws {
    try await LimitFixture.use { fixture in
      let one = try #require(await RawClient.connected(fixture.server, "acme", "db1"))
      let two = try #require(await RawClient.connected(fixture.server, "acme", "db2"))
      for client in [one, two] {
        try await client.send([Request(id: 1, call: .whoAmI)])
        #expect(await client.reply()?.refusal == nil)
      }
      try await fixture.set("connections", "2")
      let three = try #require(await RawClient.connected(fixture.server, "acme", "db3"))
      let refusal = await three.reply()?.refusal
      #expect(refusal?.reason == .throttled && (refusal?.retryAfterMilliseconds ?? 0) > 0)
      let own = try fixture.server.client(.tenantAdmin(TenantName("acme")))
      #expect(try await own.refusal(.admin(.status("acme"))) == nil)
      try await fixture.checkOther()
      try await fixture.set("connections", "3")
      let four = try #require(await RawClient.connected(fixture.server, "acme", "db4"))
      try await four.send([Request(id: 1, call: .whoAmI)])
      #expect(await four.reply()?.refusal == nil)
      for client in [one, two, three, four] { await client.close() }
      await own.close()
    }
  }

  /// Counted from the announcement of a frame: of one tenant, then of all.
  @Test func bytesInFlightAreLimitedForATenantAndForTheServer() async throws {
    try await LimitFixture.use(["in_flight_bytes: 8388608"]) { fixture in
      func announce(_ tenant: String, _ bytes: [UInt8]) async throws -> RawClient {
        let client = try #require(await RawClient.connected(fixture.server, tenant))
        try await client.send([Request(id: 1, call: .whoAmI)])
        #expect(await client.reply()?.refusal == nil)
        try await client.send([0] + bytes + [8])
        return client
      }
      let (small, large): ([UInt8], [UInt8]) = ([0, 2, 0, 0], [0, 0x3f, 0, 0])  // 128 KiB, nearly 4 MiB
      try await fixture.set("in_flight_bytes", "200000")
      let one = try await announce("acme", small)
      let two = try await announce("acme", small)
      #expect(await two.reply()?.refusal?.reason == .throttled)
      #expect(await two.isClosedWithoutReply())
      let hits = try await fixture.status().limitsHit
      #expect(hits == [LimitHit(limit: "in_flight_bytes", count: 1)])
      try await fixture.set("in_flight_bytes", "unlimited")
      let three = try await announce("acme", large)
      let four = try await announce("globex", large)
      let refusal = await four.reply()?.refusal
      #expect(refusal?.reason == .throttled && (refusal?.retryAfterMilliseconds ?? 0) > 0)
      #expect(try await fixture.metric("keyring_throttled_total{limit=\"server_in_flight_bytes\"}") == 1)
      try await fixture.checkOther()
      // What is gone is given back.
      for client in [one, three] { await client.close() }
      while try await fixture.metric("keyring_in_flight_bytes") != 0 { try Task.checkCancellation() }
      let five = try await announce("globex", large)
      while try await fixture.metric("keyring_in_flight_bytes") != 0x3f_0000 { try Task.checkCancellation() }
      await five.close()
    }
  }

  // MARK: Variables

  /// What protects others from a tenant is not for the tenant to lift; what concerns itself alone is its own.
  @Test func aTenantsAdministratorSetsNoLimits() async throws {
    try await LimitFixture.use { fixture in
      let admin = try fixture.server.client(.tenantAdmin(TenantName("acme")))
      for persistence in [Persistence.global, .persist, .reset] {
        let call = AdminCall.variablesSet(tenant: "acme", name: "limits.weight", value: "10000", persistence)
        #expect(try await admin.refusal(.admin(call))?.reason == .forbidden)
      }
      #expect(try await fixture.variable("weight", admin).source == "default")
      let own = AdminCall.variablesSet(tenant: "acme", name: "read_only", value: "true", .global)
      #expect(try await admin.refusal(.admin(own)) == nil)
      await admin.close()
    }
  }

  @Test func whatIsPersistedSurvivesWhatIsNotDoesNotAndARefusalChangesNothing() async throws {
    let fixture = try await LimitFixture()
    try await fixture.set("keys", "7", .persist)
    try await fixture.set("requests_per_second", "900")
    try await fixture.set("writes_per_second", "unlimited", .persist)
    try await fixture.set("weight", "300", .persist)
    for (name, value) in [
      ("keys", "some"), ("keys", "-5"), ("weight", "0"), ("nothing", "1"), ("requests_per_second", "1e3"),
    ] {
      let call = AdminCall.variablesSet(tenant: "acme", name: "limits.\(name)", value: value, .global)
      #expect(try await fixture.admin.refusal(.admin(call))?.reason == .variableInvalid, "\(name) \(value)")
    }
    let fixed = AdminCall.variablesSet(tenant: "acme", name: "anchor", value: "strict", .global)
    #expect(try await fixture.admin.refusal(.admin(fixed))?.reason == .variableInvalid)
    var entry = try await fixture.variable("keys")
    #expect(entry.value == "7" && entry.source == "persisted" && entry.isDynamic)
    entry = try await fixture.variable("requests_per_second")
    #expect(entry.value == "900" && entry.source == "global")
    entry = try await fixture.variable("connections")
    #expect(entry.value == "64" && entry.source == "default")
    // MySQL's RESET PERSIST: in force it stays, until the restart.
    try await fixture.set("weight", "", .reset)
    entry = try await fixture.variable("weight")
    #expect(entry.value == "300" && entry.source == "global")
    for each in [fixture.admin, fixture.other] { await each.close() }
    await fixture.server.shutdown()

    let again = try await TestServer(pki: fixture.server.pki, data: fixture.server.data)
    let admin = try again.client(.serviceAdmin)
    entry = try await fixture.variable("keys", admin)
    #expect(entry.value == "7" && entry.source == "persisted")
    entry = try await fixture.variable("writes_per_second", admin)
    #expect(entry.value == "unlimited" && entry.source == "persisted")
    entry = try await fixture.variable("requests_per_second", admin)
    #expect(entry.value == "50000" && entry.source == "default")
    entry = try await fixture.variable("weight", admin)
    #expect(entry.value == "100" && entry.source == "default")
    let client = try again.instance("acme", "db1")
    for index in 0..<7 { #expect(try await client.refusal(.generate(.own("k\(index)"))) == nil) }
    expectThrottled(try await client.refusal(.generate(.own("k7"))), "keys", hint: false)
    let back = AdminCall.variablesSet(tenant: "acme", name: "limits.keys", value: "DEFAULT", .persist)
    _ = try await admin.call(.admin(back))
    #expect(try await client.refusal(.generate(.own("k7"))) == nil)
    for each in [client, admin] { await each.close() }
    await again.shutdown()
  }
}

/// Limits that need a KMS that is slow, or counts.
@Suite(.timeLimit(.minutes(2))) struct KMSLimitTests {
  /// Tenants of one scripted KMS.
  private func serve(
    _ names: [String],
    _ limits: [String] = [],
    _ body: (TestServer, ScriptedKMS, TestClient) async throws -> Void
  ) async throws {
    let kms = try await ScriptedKMS()
    let server = try await TestServer(limits: limits)
    for name in names {
      var tenant = AWSTenant(cmkID: kms.makeKey(), endpoint: kms.endpoint)
      tenant.name = name
      try tenant.put(in: server.data("tenants"))
    }
    let admin = try server.client(.serviceAdmin)
    for name in names {
      let client = try server.instance(name, "db1")
      _ = try await client.call(.generate(.own("k")))
      await client.close()
    }
    try await body(server, kms, admin)
    kms.behave("GenerateRandom", nil)
    await admin.close()
    await server.shutdown()
    try await kms.shutdown()
  }

  private func set(_ admin: TestClient, _ name: String, _ value: String) async throws {
    _ = try await admin.call(.admin(.variablesSet(tenant: "acme", name: name, value: value, .global)))
  }

  /// Sends `count` generates that wait for a KMS that is silent; answers the refusals that come at once, one for each that is not taken.
  private func offer(_ client: RawClient, _ count: Int, refused: Int) async throws -> [Status] {
    try await client.send((1...count).map { Request(id: UInt64($0), call: .generate(.own("n\($0)"))) })
    var refusals: [Status] = []
    while refusals.count < refused {
      guard let refusal = try #require(await client.reply()).refusal else { throw UnexpectedReply() }
      refusals.append(refusal)
    }
    return refusals
  }

  @Test func requestsInFlightAreLimitedInTotal() async throws {
    try await serve(["acme", "globex"]) { server, kms, admin in
      try await set(admin, "limits.requests_in_flight", "3")
      let one = try #require(await RawClient.connected(server, "acme", "db1"))
      let two = try #require(await RawClient.connected(server, "acme", "db2"))
      kms.behave("GenerateRandom", .silence)
      for refusal in try await offer(one, 5, refused: 2) { expectThrottled(refusal, "requests_in_flight") }
      for refusal in try await offer(two, 2, refused: 2) { expectThrottled(refusal, "requests_in_flight") }
      // What memory answers is in execution for nobody.
      try await one.send([Request(id: 90, call: .fetch(.own("k"), version: 0))])
      #expect(await one.reply()?.refusal == nil)
      // Administrators come through; so does the other tenant.
      let own = try server.client(.tenantAdmin(TenantName("acme")))
      #expect(try await own.refusal(.admin(.status("acme"))) == nil)
      let other = try server.instance("globex", "db1")
      #expect(try await other.refusal(.store(.own("s"), "text")) == nil)
      // On the open connection, from the next request on.
      try await set(admin, "limits.requests_in_flight", "unlimited")
      try await two.send([Request(id: 91, call: .store(.own("s"), "text"))])
      #expect(await two.reply()?.refusal == nil)
      for client in [one, two] { await client.close() }
      for client in [own, other] { await client.close() }
    }
  }

  @Test func underOverloadEachTenantHasItsShare() async throws {
    try await serve(["acme", "globex"], ["requests_in_flight: 8"]) { server, kms, admin in
      let one = try #require(await RawClient.connected(server, "acme", "db1"))
      let two = try #require(await RawClient.connected(server, "globex", "db1"))
      kms.behave("GenerateRandom", .silence)
      let refused = try await offer(one, 12, refused: 4)
      for refusal in refused {
        #expect(refusal.reason == .throttled && refusal.retryAfterMilliseconds > 0)
        #expect(refusal.message.contains("overloaded"))
      }
      // The other one has half of the bound, though the first took all of it, and no more.
      let others = try await offer(two, 6, refused: 2)
      #expect(others.allSatisfy { $0.message.contains("overloaded") })
      _ = try await admin.call(.admin(.status("acme")))
      for client in [one, two] { await client.close() }
    }
  }

  @Test func callsOfTheKMSAreLimited() async throws {
    try await serve(["acme", "globex"]) { server, kms, admin in
      try await set(admin, "limits.kms_calls_per_second", "1")
      let one = try server.instance("acme", "db1")
      let two = try server.instance("acme", "db2")
      let other = try server.instance("globex", "db1")
      kms.forgetCalls()
      let began = ContinuousClock.now
      var refused: [Status] = []
      for index in 0..<15 {
        for client in [one, two] {
          if let refusal = try await client.refusal(.generate(.own("n\(index)"))) { refused.append(refusal) }
        }
        #expect(try await other.refusal(.generate(.own("n\(index)"))) == nil)
      }
      let seconds = (ContinuousClock.now - began) / .seconds(1)
      #expect(!refused.isEmpty)
      for refusal in refused { expectThrottled(refusal, "kms_calls_per_second") }
      #expect(Double(30 - refused.count) <= 2 + seconds)
      #expect(kms.calls.count == 15 + 30 - refused.count)
      // What needs no KMS goes on.
      #expect(try await one.refusal(.store(.own("s"), "text")) == nil)
      #expect(try await one.refusal(.fetch(.own("s"))) == nil)
      for client in [one, two, other] { await client.close() }
    }
  }

  /// Where each operation asks the KMS, reads are held to the limit as well; nothing is taken for unreachable or locked by that.
  @Test func readsThatAskTheKMSAreLimitedToo() async throws {
    try await serve(["acme"]) { server, kms, admin in
      try await set(admin, "outage_grace", "0")
      try await set(admin, "wrapping_key_ttl", "0")
      try await set(admin, "limits.kms_calls_per_second", "1")
      let client = try server.instance("acme", "db1")
      kms.forgetCalls()
      var (served, refused): (Int, [Status]) = (0, [])
      for _ in 0..<40 {
        if let refusal = try await client.refusal(.fetch(.own("k"))) {
          refused.append(refusal)
        } else {
          served += 1
        }
      }
      #expect(served >= 1 && !refused.isEmpty)
      for refusal in refused { expectThrottled(refusal, "kms_calls_per_second") }
      #expect(kms.calls.count == served)
      guard case .tenant(let status) = try await admin.call(.admin(.status("acme"))) else {
        throw UnexpectedReply()
      }
      #expect(status.summary.state == .ready, "\(status.reason)")
      await client.close()
    }
  }
}
