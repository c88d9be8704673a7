import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing
import WireProtocol

/// `decode(encode(x)) == x` for every kind of request.
@Suite struct RequestTests {
  static let name = KeyName(scope: .shared, owner: Array("u@h".utf8), keyID: [0, 0xff, 0x80])

  static func calls() throws -> [Call] {
    let changes: [Change] = [
      .store(name, type: "SECRET", value: try secret([0, 1, 0xff])),
      .store(.own("k"), type: "", value: try secret([])),
      .generate(name, type: "AES", length: 32), .generate(.own(""), type: "", length: 0),
      .remove(name), .rotate(.own("k")),
    ]
    let listings: [ListCall] = [
      ListCall(scope: .shared), ListCall(scope: .instance, owner: [], pageSize: 500, pageToken: [1, 2]),
      ListCall(scope: .instance, owner: Array("u@h".utf8), pageSize: 1),
    ]
    let most = (0..<RequestDecoder.changesMax).map { Change.remove(.own("k\($0)")) }
    let all: [Call] =
      [
        .fetch(name, version: 0), .fetch(.own("k"), version: .max), .describe(name, version: 3), .whoAmI,
        .transact(changes), .transact(most),
        .importKeys([
          ImportedKey(name: name, type: "SECRET", value: try secret([0, 1, 0xff])),
          ImportedKey(name: .own("k"), type: "", value: try secret([])),
        ]),
      ] + changes.map { .change($0) } + listings.map { .list($0) } + adminCalls.map { .admin($0) }
    return all + (try onboardings()).map { .admin($0) }
  }

  static let adminCalls: [AdminCall] =
    [
      .tenantCreate(TenantCreateCall(tenant: "acme")),
      .tenantCreate(
        TenantCreateCall(
          tenant: "acme",
          provider: "local",
          cmkID: "c",
          profile: "any",
          instances: ["db1", ""],
          anyInstance: true,
          settings: [.init(name: "region", value: "eu-central-1"), .init(name: "", value: "")],
          isDryRun: true
        )
      ),
      .tenantApply([TenantCreateCall(tenant: "acme")]),
      .tenantList(pageSize: 0, after: ""), .tenantList(pageSize: 500, after: "acme"), .tenantShow("acme"),
      .tenantDisable("acme"), .tenantEnable(""), .instanceAdd(tenant: "acme", instance: "db1"),
      .instanceAdd(tenant: "", instance: "", permissions: ["read", ""], scopes: ["own", "shared"]),
      .instanceRevoke(tenant: "acme", instance: "db1"), .tenantLock("acme"), .tenantUnlock(""),
      .tenantDelete(TenantDeleteCall(tenant: "acme", afterSeconds: .max, cmkDays: .max)),
      .tenantUndelete("acme"), .tenantReceipt(""),
      .serviceReload,
      .instanceList("acme"), .variablesSet(tenant: "acme", name: "cmk_id", value: "é", .global),
      .variablesSet(tenant: "acme", name: "", value: "", .persist),
      .variablesSet(tenant: "acme", name: "limits.keys", value: "", .reset), .variablesList("acme"),
      .rotateCMK("acme"), .rotateKeys("acme", allowTransient: true),
      .rotateKeys("acme", allowTransient: false),
      .status(""), .status("acme"), .tenantAccept("acme", sequence: .max), .tenantReload("acme"),
      .explain(ExplainCall(tenant: "acme")),
      .explain(ExplainCall(tenant: "", key: .init(instance: "", owner: [], keyID: []))),
      .explain(ExplainCall(tenant: "acme", key: .init(instance: "db1", owner: [0xff], keyID: [0, 1]))),
      .tenantMove(
        .init(
          tenant: "acme",
          cmkID: "alias/acme",
          settings: [.init(name: "provider", value: "aws"), .init(name: "region", value: "eu-central-1")]
        )
      ),
    ] + CMKAction.allCases.map { .cmk(tenant: "acme", $0, cmkID: "c", days: 30) } + transferCalls

  /// With secrets, at both ends of their length and of a batch's.
  private static func onboardings() throws -> [AdminCall] {
    let longest = try secret([UInt8](repeating: 7, count: TenantCreateCall.credentialsBytesMax))
    let short = try secret(Array("id\nsecret\n".utf8))
    return [
      .tenantCreate(TenantCreateCall(tenant: "acme", credentials: longest)),
      .tenantApply(
        (0..<TenantApplyCall.tenantsMax).map {
          TenantCreateCall(tenant: "t\($0)", credentials: $0 == 7 ? short : nil, isDryRun: $0 == 8)
        }
      ),
    ]
  }

  static let transferCalls: [AdminCall] = [
    .backup("acme", .begin(allowUnproved: false)), .backup("acme", .begin(allowUnproved: true)),
    .backup("acme", .read(TransferID(value: 1), offset: 0)),
    .backup("", .read(TransferID(value: .max), offset: .max)), .backup("acme", .end(TransferID(value: 0))),
    .restore("acme", .begin(RestoreBeginCall(bytes: 0, digest: .zero))),
    .restore(
      "acme",
      .begin(
        RestoreBeginCall(
          bytes: .max,
          digest: .zero,
          acceptRollback: true,
          acceptUnproved: true,
          isDryRun: true
        )
      )
    ),
    .restore("acme", .write(TransferID(value: 1), offset: 0, data: [0])),
    .restore(
      "acme",
      .write(TransferID(value: 1), offset: .max, data: Array(repeating: 9, count: 300))
    ),
    .restore("acme", .end(TransferID(value: 2))),
  ]

  static func requests() throws -> [Request] {
    let id = IdempotencyID(bytes: Array(1...16))
    return try calls().flatMap { call in
      [
        Request(id: 1, call: call),
        Request(
          id: .max,
          timeoutMilliseconds: .max,
          traceparent: String(repeating: "é", count: 32),
          idempotencyID: id,
          minSequence: .max,
          call: call
        ),
      ]
    }
  }

  @Test func whatIsEncodedIsDecoded() throws {
    let decoder = RequestDecoder()
    var kinds = 0
    for request in try Self.requests() {
      let decoded = try decoder.decode(request.message)
      #expect(decoded.everything == request.everything)
      #expect(decoded.message == request.message)
      kinds += 1
    }
    #expect(kinds > 90)
  }

  @Test func piecesOfABackupHaveOneTo49152BytesAndFitTheSmallestLimit() throws {
    let decoder = RequestDecoder()
    func request(_ count: Int) -> Request {
      let data = [UInt8](repeating: 9, count: count)
      let call = AdminCall.restore(
        String(repeating: "a", count: 63),
        .write(TransferID(value: .max), offset: .max, data: data)
      )
      return Request(id: .max, timeoutMilliseconds: .max, call: .admin(call))
    }
    for count in [1, TransferID.chunkBytes] {
      let message = request(count).message
      #expect(message.count <= Frame.messageBytesDefault)
      #expect(try decoder.decode(message).message == message)
    }
    for count in [0, TransferID.chunkBytes + 1] {
      #expect(throws: WireError.self) { try decoder.decode(request(count).message) }
    }
    let reply = ReplyEncoder.bytes(
      id: .max,
      sequence: .max,
      .backup(.data(Array(repeating: 9, count: TransferID.chunkBytes)))
    )
    #expect(reply.count <= Frame.messageBytesDefault)
  }

  /// What an event loop answers where it lies in its frame is what the decoder reads, or nothing.
  @Test func aFetchIsTheSameWhereItLies() throws {
    let (decoder, instance) = (RequestDecoder(), try InstanceName("db1"))
    var random = SplitMix(state: 1)
    var (seen, altered) = (0, 0)
    for name in [
      Self.name, .own("k"), .shared("MyKey", owner: "root@%"), .own(String(repeating: "k", count: 255)),
    ] {
      for version: UInt32 in [0, 1, 127, 128, .max] {
        for id: UInt64 in [1, 127, 128, 1 << 62] {
          let request = Request(
            id: id,
            timeoutMilliseconds: version,
            minSequence: id,
            call: .fetch(name, version: version)
          )
          let message = request.message
          #expect(try sees(message, as: request, instance))
          seen += 1
          for _ in 0..<50 {
            var other = message
            other[Int.random(in: 0..<other.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            if Bool.random(using: &random) { other.removeLast() }
            guard let decoded = try? decoder.decode(other) else {  // wrong for both
              #expect(view(other, instance) == nil)
              continue
            }
            altered += try sees(other, as: decoded, instance) ? 1 : 0
          }
        }
      }
    }
    #expect(seen == 80 && altered > 100)
  }

  private func view(_ message: [UInt8], _ instance: InstanceName) -> FetchView? {
    // SAFETY: the array lives for the call.
    unsafe message.withUnsafeBytes { unsafe FetchView($0, instance: instance) }
  }

  private func sees(_ message: [UInt8], as request: Request, _ instance: InstanceName) throws -> Bool {
    guard let view = view(message, instance) else { return false }
    guard case .fetch(let name, let version) = request.call else {
      Issue.record("\(request) was seen as a fetch")
      return false
    }
    #expect(view.id == request.id && view.minSequence == request.minSequence && view.version == version)
    #expect(view.identity == (try name.identity(for: instance)))
    return true
  }
}

/// Random numbers that are the same in every run.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
