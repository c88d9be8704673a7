internal import KeyringCore
internal import SecureMemory
internal import WireProtocol

/// One frame of each call.
enum RequestSeeds {
  static func frames() throws -> [[UInt8]] {
    let own = KeyName(scope: .instance, owner: Array("root@%".utf8), keyID: Array("k".utf8))
    let shared = KeyName(scope: .shared, owner: [], keyID: Array("shared".utf8))
    let value = try unsafe Secret(count: 16) { _ in }
    let store = Change.store(own, type: "AES", value: value)
    let changes: [Change] = [
      store, .generate(shared, type: "SECRET", length: 300), .remove(own), .rotate(shared),
    ]
    var calls: [Call] = [
      .fetch(own, version: 2), .describe(shared, version: 0), .whoAmI, .transact(changes),
      .list(ListCall(scope: .shared, owner: Array("o".utf8), pageSize: 500, pageToken: [1, 2, 3])),
      .list(ListCall(scope: .instance, owner: [])),
    ]
    calls += [
      .fetch(shared, version: 0), .fetch(own, version: 1), .fetch(own, version: 300),
      .fetch(shared, version: 1),
    ]
    calls += changes.map { .change($0) }
    calls += administration.map { .admin($0) }
    return calls.enumerated().map { index, call in
      let request = Request(
        id: UInt64(index + 1),
        timeoutMilliseconds: index.isMultiple(of: 2) ? 5000 : 0,
        traceparent: index.isMultiple(of: 3) ? "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" : "",
        idempotencyID: index.isMultiple(of: 5) ? IdempotencyID(value: 1 << 100) : nil,
        minSequence: UInt64(index),
        call: call
      )
      var output = WipedBuffer()
      RequestEncoder.appendFrame(request, to: &output)
      return unsafe output.withUnsafeBytes { unsafe Array($0) }
    }
  }

  private static var administration: [AdminCall] {
    [
      .tenantCreate(TenantCreateCall(tenant: "acme", cmkID: "a", profile: "any", instances: ["a", "b"])),
      .tenantCreate(TenantCreateCall(tenant: "acme", provider: "local", anyInstance: true)),
      .tenantApply([
        TenantCreateCall(tenant: "acme", settings: [.init(name: "outage_grace", value: "1h")]),
        TenantCreateCall(tenant: "beta", provider: "aws", cmkID: "a", isDryRun: true),
      ]),
      .tenantList(pageSize: 5, after: "a"), .tenantShow("acme"), .tenantDisable("acme"),
      .tenantEnable("acme"),
      .instanceAdd(tenant: "acme", instance: "a", permissions: ["read"], scopes: ["own"]),
      .instanceRevoke(tenant: "acme", instance: "a"), .tenantLock("acme"), .tenantUnlock("acme"),
      .tenantDelete(TenantDeleteCall(tenant: "acme", afterSeconds: 1, cmkDays: 7)),
      .tenantUndelete("acme"), .tenantReceipt("acme"),
      .serviceReload, .instanceList("acme"),
      .variablesSet(tenant: "acme", name: "profile", value: "any", .persist),
      .variablesSet(tenant: "acme", name: "read_only", value: "on", .global), .variablesList("acme"),
      .rotateCMK("acme"), .rotateKeys("acme", allowTransient: true), .status(""), .status("acme"),
      .tenantAccept("acme", sequence: 7), .tenantReload("acme"),
      .tenantMove(
        .init(tenant: "acme", cmkID: "alias/acme", settings: [.init(name: "provider", value: "aws")])
      ), .backup("acme", .begin(allowUnproved: true)),
      .backup("acme", .read(TransferID(value: 1), offset: 49_152)),
      .backup("acme", .end(TransferID(value: 1))),
      .restore("acme", .begin(RestoreBeginCall(bytes: 100, digest: .zero, acceptRollback: true))),
      .restore("acme", .write(TransferID(value: 1), offset: 7, data: [1, 2, 3])),
      .restore("acme", .end(TransferID(value: 1))),
    ] + CMKAction.allCases.map { .cmk(tenant: "acme", $0, cmkID: "local-1", days: 7) }
  }
}
