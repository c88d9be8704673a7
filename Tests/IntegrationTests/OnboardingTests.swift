import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// A tenant is made wholly or not at all, and the same again changes nothing.
@Suite struct OnboardingTests {
  @Test func aTenantIsMadeOnceAndTheSameAgainSaysSo() async throws {
    let server = try await TestServer()
    let folders = ServiceFolders(data: server.data)
    let admin = try server.client(.serviceAdmin)
    var call = TenantCreateCall(
      tenant: "acme",
      instances: ["db1"],
      settings: [.init(name: "outage_grace", value: "2h")]
    )
    call.isDryRun = true
    let before = folders.listing()
    guard case .tenantCreate("", false) = try await admin.call(.admin(.tenantCreate(call))) else {
      throw UnexpectedReply()
    }
    #expect(folders.listing() == before)
    call.isDryRun = false
    guard case .tenantCreate(let cmkID, false) = try await admin.call(.admin(.tenantCreate(call))) else {
      throw UnexpectedReply()
    }
    #expect(folders.isWhole("acme", "made") && folders.onboardings.isEmpty)
    for (path, mode) in [
      ("tenants/acme", 0o700), ("tenants/acme/keyring", 0o600), ("cmks/acme/\(cmkID)", 0o600),
    ] {
      let attributes = try FileManager.default.attributesOfItem(atPath: server.data(path))
      #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == mode, "\(path)")
    }
    guard case .tenantCreate(cmkID, true) = try await admin.call(.admin(.tenantCreate(call))) else {
      throw UnexpectedReply()
    }
    let others: [(TenantCreateCall, String)] = [
      (TenantCreateCall(tenant: "acme", profile: "any"), "profile is keyring_aws, not any"),
      (TenantCreateCall(tenant: "acme", instances: ["db1", "db2"]), "instance db2 may not call"),
      (TenantCreateCall(tenant: "acme", anyInstance: true), "instances"),
      (TenantCreateCall(tenant: "acme", cmkID: "local-\(String(repeating: "0", count: 32))"), "cmk_id"),
      (
        TenantCreateCall(tenant: "acme", settings: [.init(name: "outage_grace", value: "1h")]),
        "outage_grace is 2h"
      ),
      (TenantCreateCall(tenant: "acme", settings: [.init(name: "limits.keys", value: "5")]), "limits.keys"),
    ]
    for (other, words) in others {
      let refusal = try #require(try await admin.refusal(.admin(.tenantCreate(other))))
      #expect(refusal.reason == .tenantExists && refusal.message.contains(words), "\(refusal)")
    }
    let instance = try server.instance("acme", "db1")
    _ = try await instance.call(try .store(.own("k"), "v"))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    let again = try await TestServer(pki: server.pki, data: server.data)
    let reader = try again.instance("acme", "db1")
    #expect(try await reader.fetch(.own("k")) == hexadecimal("v".utf8))
    await reader.close()
    await again.shutdown()
  }

  @Test func aRefusalSaysWhatAndLeavesNothing() async throws {
    let server = try await TestServer()
    let folders = ServiceFolders(data: server.data)
    let admin = try server.client(.serviceAdmin)
    let before = folders.listing()
    func settings(_ name: String, _ value: String) -> TenantCreateCall {
      TenantCreateCall(tenant: "acme", settings: [.init(name: name, value: value)])
    }
    let calls: [(TenantCreateCall, Reason)] = [
      (settings("nothing", "1"), .requestMalformed), (settings("cmk_id", "x"), .requestMalformed),
      (settings("outage_grace", "1h\nprovider:"), .requestMalformed),
      (settings("a: b\nc", "1"), .requestMalformed), (settings("limits.keys", "-1"), .requestMalformed),
      (settings("storage_file", "../keyring"), .requestMalformed),
      (settings("endpoint", "https://elsewhere.example"), .requestMalformed),
      (TenantCreateCall(tenant: "acme", profile: "none"), .requestMalformed),
      (TenantCreateCall(tenant: "acme", provider: "vault", cmkID: "a"), .requestMalformed),
      (TenantCreateCall(tenant: "acme", provider: "aws"), .requestMalformed),
      (TenantCreateCall(tenant: "acme", provider: "aws", cmkID: "alias/a"), .requestMalformed),
      (TenantCreateCall(tenant: "acme", credentials: try secretText("a\nb\n")), .requestMalformed),
      (TenantCreateCall(tenant: "acme", cmkID: "local-\(String(repeating: "0", count: 32))"), .kmsDenied),
    ]
    for (call, reason) in calls {
      let refusal = try await admin.refusal(.admin(.tenantCreate(call)))
      #expect(refusal?.reason == reason, "\(call): \(String(describing: refusal))")
      #expect(folders.listing() == before, "\(call)")
    }
    await admin.close()
    await server.shutdown()
  }

  @Test func oneBadTenantOfABatchHindersNoOther() async throws {
    let server = try await TestServer()
    let folders = ServiceFolders(data: server.data)
    let admin = try server.client(.serviceAdmin)
    try await server.makeTenant("there")
    let results = try await admin.apply([
      TenantCreateCall(tenant: "a"), TenantCreateCall(tenant: "../x"), TenantCreateCall(tenant: "a"),
      TenantCreateCall(tenant: "there", anyInstance: true), TenantCreateCall(tenant: "there", profile: "any"),
      TenantCreateCall(tenant: "b", profile: "none"), TenantCreateCall(tenant: "c"),
    ])
    #expect(results.map(\.tenant) == ["a", "../x", "a", "there", "there", "b", "c"])
    let reasons: [Reason?] = [
      nil, .nameInvalid, .requestMalformed, nil, .requestMalformed, .requestMalformed, nil,
    ]
    #expect(results.map { $0.refusal?.reason } == reasons)
    #expect(results[3].isUnchanged && !results[0].isUnchanged)
    for tenant in ["a", "c"] { #expect(folders.isWhole(tenant, tenant)) }
    #expect(folders.paths(of: "b").isEmpty && folders.onboardings.isEmpty)
    await admin.close()
    await server.shutdown()
  }

  @Test func twoThatMakeTheSameTenantMakeItOnce() async throws {
    let server = try await TestServer()
    let clients = try (0..<8).map { _ in try server.client(.serviceAdmin) }
    let made = try await withThrowingTaskGroup(of: Bool.self) { group in
      for client in clients {
        group.addTask {
          while true {
            guard let refusal = try await client.refusal(client.create("acme")) else { return true }
            try #require(refusal.reason == .throttled, "\(refusal)")
          }
        }
      }
      return try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
    }
    #expect(made == clients.count)
    #expect(ServiceFolders(data: server.data).isWhole("acme", "by eight"))
    for client in clients { await client.close() }
    await server.shutdown()
  }

  @Test func nobodyFindsATenantBeforeItIsDurable() async throws {
    let data = try TestDirectory()
    try data.write("root.key", String(repeating: "5a", count: 32) + "\n")
    let yaml = data("tenants/acme/tenant.yaml")
    // The first sync after the rename: that of the tenants directory.
    let gate = RestoreTests.Gate { $0 == .fsync && FileManager.default.fileExists(atPath: yaml) }
    let server = try await TestServer(data: data, calls: gate.calls)
    let (admin, instance) = (try server.client(.serviceAdmin), try server.instance("acme", "db1"))
    gate.arm()
    async let created = admin.refusal(admin.create("acme"))
    await gate.reached()
    #expect(FileManager.default.fileExists(atPath: server.data("tenants/acme/tenant.yaml")))
    #expect(try await instance.refusal(.generate(.own("k")))?.reason == .forbidden)
    gate.open()
    #expect(try await created == nil)
    #expect(try await instance.refusal(.generate(.own("k"))) == nil)
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
  }

  // MARK: Hostile names

  private static func hostileNames(_ count: Int) -> [String] {
    var generator = Campaign.generator("hostile names")
    let parts = [
      ".", "..", "/", "\\", "\0", "%2e%2e", "%2f", "%00", "é", "\u{202e}", "\u{0}", " ", "\n", "-", "--", "a",
      "acme",
      ".onboarding", ".transfers", ".lock", "any", "con", "~", "$HOME", "*", "'", "\"", ":", "tenant.yaml",
      String(repeating: "a", count: 64), String(repeating: "a", count: 300), "A", "ａ", "a\u{0301}",
      "../../etc/passwd",
    ]
    var names: Set<String> = ["", ".", "..", "/", ".onboarding", ".transfers", "-", "a/", "a-", "-a"]
    while names.count < count {
      let name = (0..<Int.random(in: 1...4, using: &generator))
        .map { _ in parts.randomElement(using: &generator) ?? "" }.joined()
      let isName = (try? TenantName(name)) != nil  // those that are names are of no use here
      if !isName, !name.contains("\0") || names.count % 10 == 0 { names.insert(name) }
      if names.count < count, names.count % 3 == 0 { names.insert(name + "/\(names.count)") }
    }
    return Array(names.sorted().prefix(count))
  }

  /// 10,000 names, as tenant and as instance, through every call that makes something of them.
  @Test func hostileNamesMakeNothing() async throws {
    let server = try await TestServer()
    let admin = try server.client(.serviceAdmin)
    try await server.makeTenant("there")
    let above = Set(try FileManager.default.contentsOfDirectory(atPath: server.data.path))
    let folders = ServiceFolders(data: server.data)
    let before = folders.listing()
    let names = Self.hostileNames(10_000)
    #expect(names.count == 10_000)
    var refused = 0
    // protobuf strings end at a NUL: a request with one is refused as a whole.
    let sendable = names.filter { !$0.contains("\0") }
    for start in stride(from: 0, to: sendable.count, by: 100) {
      let some = sendable[start..<min(start + 100, sendable.count)]
      let calls =
        some.map { TenantCreateCall(tenant: $0) }
        + some.map { TenantCreateCall(tenant: "new", instances: [$0]) }
      let results = try await admin.apply(calls)
      refused += results.filter { $0.refusal != nil && $0.cmkID.isEmpty }.count
      #expect(
        results.allSatisfy { $0.refusal != nil },
        "\(results.first { $0.refusal == nil }?.tenant ?? "")"
      )
    }
    for name in names.enumerated().filter({ $0.offset % 20 == 0 || $0.element.contains("\0") }).map(\.element)
    {
      let calls: [AdminCall] = [
        .tenantCreate(TenantCreateCall(tenant: name)), .instanceAdd(tenant: "there", instance: name),
        .instanceAdd(tenant: name, instance: "db1"),
        .tenantCreate(TenantCreateCall(tenant: "new", instances: [name])),
      ]
      for call in calls { #expect(try await admin.refusal(.admin(call)) != nil, "\(call)") }
      refused += calls.count
    }
    #expect(refused >= 2 * sendable.count)
    #expect(folders.listing() == before)
    #expect(Set(try FileManager.default.contentsOfDirectory(atPath: server.data.path)) == above)
    await admin.close()
    await server.shutdown()
  }
}
