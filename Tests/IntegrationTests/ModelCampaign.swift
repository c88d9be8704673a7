import Foundation
import KeyringClient
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Random operations on a server whose disk fails, that is restarted and killed, compared with a dictionary. KEYRING_SEED repeats a run.
@Suite(.serialized) struct ModelCampaign {
  /// One caller at a time: every answer is known before it comes.
  @Test func aServerOnAFailingDiskIsADictionary() async throws {
    let run = try await ModelRun("model, faults")
    let steps = Campaign.rounds(short: 1500, long: 50_000)
    for step in 1...steps { try await run.step(step, faults: true) }
    try await run.restart()
    try await run.checkAll()
    Campaign.report(
      "model, faults and restarts",
      [
        "steps": steps, "changes": run.counts.changes, "refused": run.counts.refused,
        "reads": run.counts.reads, "lists": run.counts.lists, "faults_hit": run.counts.faults,
        "failed_definitely": run.counts.failed, "in_doubt": run.counts.doubts,
        "restarts": run.counts.restarts,
        "files_written_anew": run.counts.replacements,
        "rotations": run.counts.rotations, "cmk_changes": run.counts.cmkChanges,
        "repeats": run.counts.repeats,
      ]
    )
    #expect(run.counts.doubts > 0 && run.counts.failed > 0, "the faults were met")
    await run.end()
  }

  /// keyringd itself, ended by SIGKILL while a change is under way.
  @Test func aServerThatIsKilledIsADictionary() async throws {
    let run = try await ModelRun("model, kills", isProcess: true)
    let steps = Campaign.rounds(short: 300, long: 20_000)
    for step in 1...steps {
      try await run.step(step, faults: false)
      if step % 25 == 0 { try await run.kill() }
    }
    try await run.checkAll()
    Campaign.report(
      "model, kills",
      [
        "steps": steps, "changes": run.counts.changes, "reads": run.counts.reads, "kills": run.counts.kills,
        "in_doubt": run.counts.doubts, "rotations": run.counts.rotations, "repeats": run.counts.repeats,
      ]
    )
    #expect(run.counts.kills > 0)
    await run.end()
  }
}

/// A tenant, the dictionary that it should be, and what was done to both.
final class ModelRun {
  struct Counts {
    var changes = 0, refused = 0, reads = 0, lists = 0, faults = 0, failed = 0, doubts = 0, restarts = 0
    var kills = 0, replacements = 0, rotations = 0, cmkChanges = 0, repeats = 0
  }

  private struct Done {
    let changes: [KeyringModel.Change]
    let instance: Int
    let id: IdempotencyID
    let versions: [UInt32]
  }

  private(set) var counts = Counts()
  private var model = KeyringModel()
  private var generator: SeededGenerator
  private let plan = FaultPlan()
  private var server: TestServer?
  private var daemon: TestDaemon?
  private let clients = [ModelClient("acme", "db1"), ModelClient("acme", "db2")]
  private var cmks: [String] = []
  private var done: [Done] = []
  private var place = ""
  private var fileNumber: UInt64?
  /// True until a change succeeds after a fault: until then the server may say that its storage is unavailable.
  private var isHealing = false

  init(_ name: String, isProcess: Bool = false) async throws {
    generator = Campaign.generator(name)
    if isProcess { daemon = try await TestDaemon() } else { server = try await TestServer(calls: plan.calls) }
    cmks = [try await endpoint.makeTenant("acme", profile: "general")]
  }

  private var endpoint: any TestEndpoint {
    get throws {
      if let server { return server }
      return try #require(daemon)
    }
  }

  private func random(_ range: Range<Int>) -> Int { Int.random(in: range, using: &generator) }

  // MARK: A step

  func step(_ number: Int, faults: Bool) async throws {
    place = "step \(number), seed \(Campaign.seed)"
    if faults, random(0..<2) == 0 { arm() }
    switch random(0..<100) {
    case 0..<40: try await change([randomChange()])
    case 40..<50: try await change((0..<random(1..<9)).map { _ in randomChange() })
    case 50..<52: try await bulk()
    case 52..<60: try await repeated()
    case 60..<84: try await fetch(randomName(), version: UInt32(random(0..<4)), random(0..<2))
    case 84..<91: try await list(random(0..<2))
    case 91..<94: try await rotateKeys()
    case 94..<96: try await setCMK()
    case 96 where server != nil: try await restart()
    default: try await fetch(randomName(), version: 0, random(0..<2))
    }
    disarm()
    let data = try #require(server?.data ?? daemon?.data)
    let file = data("tenants/acme/keyring")
    guard FileManager.default.fileExists(atPath: file) else { return }  // nobody has used the tenant yet
    let number = try FileManager.default.attributesOfItem(atPath: file)[.systemFileNumber] as? UInt64
    if number != fileNumber { counts.replacements += 1 }
    fileNumber = number
  }

  private func arm() {
    let calls: [SystemCall] = [
      .write, .write, .fsync, .fdatasync, .fdatasync, .rename, .open, .read, .unlink,
    ]
    let codes = [EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EACCES]
    let code = codes[random(0..<codes.count)]
    let isShort = random(0..<4) == 0
    plan.arm(
      calls[random(0..<calls.count)],
      [1, 1, 1, 2, 2, 3, 4][random(0..<7)],
      isShort ? .short : .fail(code),
      random(0..<2) == 0 ? .once : .persistent,
      then: isShort ? .fail(code) : nil,
      also: random(0..<3) == 0 ? [.ftruncate: .fail(EIO)] : [:]
    )
  }

  private func disarm() {
    if plan.wasHit {
      counts.faults += 1
      isHealing = true
    }
    plan.disarm()
  }

  private func randomName() -> KeyringModel.Name {
    let instance = [nil, "db1", "db2"][random(0..<3)]
    return KeyringModel.Name(
      instance: instance,
      owner: ["", "app@%"][random(0..<2)],
      id: "k\(random(0..<12))"
    )
  }

  private func randomChange() -> KeyringModel.Change {
    // Often one that can be made, so that there is something to lose.
    let there = model.keys.keys.sorted {
      ($0.instance ?? "", $0.owner, $0.id) < ($1.instance ?? "", $1.owner, $1.id)
    }
    let name = there.isEmpty || random(0..<3) == 0 ? randomName() : there[random(0..<there.count)]
    switch random(0..<(model.keys[name] == nil ? 8 : 4)) {
    case 0: return .remove(name)
    case 1, 2: return .rotate(name)
    case 3, 4, 5:
      let length = random(0..<20) == 0 ? random(1..<16_385) : random(1..<100)
      return .store(name, String(repeating: "\(random(0..<10))", count: length) + "")
    default: return .generate(name, random(1..<200))
    }
  }

  /// Large keys that come and go: what makes a file worth writing anew.
  private func bulk() async throws {
    let names = (0..<20).map { KeyringModel.Name(instance: nil, owner: "", id: "bulk\($0)") }
    try await change(names.map { model.keys[$0] == nil ? .generate($0, 16_384) : .remove($0) })
  }

  // MARK: Changing

  private func change(_ changes: [KeyringModel.Change]) async throws {
    // Keys of an instance's own are changed by that instance; what a transaction has of another's is left out.
    let instances = changes.compactMap { $0.name.instance }
    let client = instances.first.map { $0 == "db1" ? 0 : 1 } ?? random(0..<2)
    let mine = changes.filter { $0.name.instance.map { $0 == clients[client].instance } ?? true }
    guard !mine.isEmpty else { return }
    let id = ModelClient.id(&generator)
    var next = model
    let predicted = next.apply(mine)
    let reply = try await settled(try call(mine), id, client)
    guard let reply else {
      counts.failed += 1  // definitely: the model stays as it is, and every read from now on says so
      return
    }
    switch predicted {
    case .success(let versions):
      #expect(reply.versions == versions, "\(place): \(mine): \(reply.outcome)")
      model = next
      counts.changes += 1
      if done.count == 200 { done.removeFirst(100) }
      done.append(Done(changes: mine, instance: client, id: id, versions: versions))
      isHealing = false
    case .failure(let refusal):
      let seen = reply.refusal.flatMap { KeyringModel.Refusal($0.reason) }
      // A transaction with more than one change that cannot be is refused for any of them.
      #expect(mine.count == 1 ? seen == refusal : seen != nil, "\(place): \(mine): \(reply.outcome)")
      counts.refused += 1
    }
  }

  private func call(_ changes: [KeyringModel.Change]) throws -> Call {
    changes.count == 1 ? .change(try changes[0].wire) : .transact(try changes.map { try $0.wire })
  }

  /// Asks until it is known what became of a change; nil where it definitely did not happen, for want of a disk.
  private func settled(_ call: Call, _ id: IdempotencyID, _ client: Int) async throws -> Reply? {
    var isInDoubt = false
    for _ in 0..<1000 {
      let reply = await clients[client].ask(try endpoint, call, id)
      switch reply?.refusal?.reason {
      case .storageUnavailable?, .kmsUnreachable?, .shuttingDown?, .throttled?:
        #expect(plan.wasHit || isHealing || isInDoubt, "\(place): \(String(describing: reply?.refusal))")
        guard isInDoubt else { return nil }
      case .outcomeUnknown?:
        #expect(plan.wasHit || isHealing || isInDoubt, "\(place)")
        if !isInDoubt { counts.doubts += 1 }
        isInDoubt = true
      case .none where reply == nil:
        if !isInDoubt { counts.doubts += 1 }
        isInDoubt = true
        if daemon?.process.isRunning == false { try await startAgain() }
      default: return reply
      }
      disarm()
      try await Task.sleep(for: .milliseconds(20))
    }
    throw NeverAnswered(place: place)
  }

  /// A thousand times the server did not say what became of a request.
  private struct NeverAnswered: Error { let place: String }

  /// The same request again answers what the first did; another one under its id is refused.
  private func repeated() async throws {
    guard let index = done.indices.randomElement(using: &generator) else { return }
    let (was, isSame) = (done[index], random(0..<3) > 0)
    let changes = isSame ? was.changes : was.changes + [.generate(randomName(), 7)]
    guard let reply = try await settled(try call(changes), was.id, was.instance) else { return }
    counts.repeats += 1
    if isSame {
      #expect(reply.versions == was.versions, "\(place): \(reply.outcome)")
    } else {
      #expect(reply.refusal?.reason == .idempotencyMismatch, "\(place): \(reply.outcome)")
    }
  }

  // MARK: Reading

  /// Asks until there is an answer; nil while the disk fails.
  private func read(_ call: Call, _ client: Int) async throws -> Reply? {
    for _ in 0..<1000 {
      let reply = await clients[client].ask(try endpoint, call)
      guard let refusal = reply?.refusal else {
        if let reply { return reply }
        if daemon?.process.isRunning == false { try await startAgain() }
        continue
      }
      let isOfTheDisk = [.storageUnavailable, .kmsUnreachable].contains(refusal.reason)
      guard isOfTheDisk, plan.wasHit || isHealing else { return reply }
      if plan.wasHit { return nil }
      try await Task.sleep(for: .milliseconds(20))
    }
    throw NeverAnswered(place: place)
  }

  private func fetch(_ name: KeyringModel.Name, version: UInt32, _ any: Int) async throws {
    let client = name.instance.map { $0 == "db1" ? 0 : 1 } ?? any
    guard let reply = try await read(.fetch(name.wire, version: version), client) else { return }
    counts.reads += 1
    guard case .success(.fetch(let key)) = reply.outcome else {
      Issue.record("\(place): \(name) \(version): \(reply.outcome)")
      return
    }
    let agrees = model.agrees(name, version: version, key)
    #expect(
      agrees,
      "\(place): \(name) \(version): \(key.map { "\($0.version) of \($0.latestVersion)" } ?? "absent")"
    )
  }

  private func list(_ client: Int) async throws {
    let isShared = random(0..<2) == 0
    let expected = model.listed(isShared ? nil : clients[client].instance)
    var (token, names): ([UInt8], [KeyName]) = ([], [])
    repeat {
      let call = ListCall(
        scope: isShared ? .shared : .instance,
        pageSize: UInt32(random(1..<9)),
        pageToken: token
      )
      guard let reply = try await read(.list(call), client) else { return }
      guard case .success(.list(let page, let next)) = reply.outcome else {
        Issue.record("\(place): \(reply.outcome)")
        return
      }
      for info in page {
        #expect(model.keys[expected[names.count]]?.count == Int(info.latestVersion), "\(place)")
        names.append(info.name)
      }
      token = next
    } while !token.isEmpty
    counts.lists += 1
    #expect(names == expected.map(\.wire), "\(place)")
  }

  /// Every version of every key there is, and that there is no other key.
  func checkAll() async throws {
    disarm()
    for (name, values) in model.keys.sorted(by: { $0.key < $1.key }) {
      for version in 0...values.count { try await fetch(name, version: UInt32(version), 0) }
    }
    for client in 0..<2 {
      for _ in 0..<4 { try await list(client) }
    }
  }

  // MARK: Administrators

  private func administer(_ call: AdminCall) async throws -> Result<ReplyResult, Status>? {
    let admin = try endpoint.client(.serviceAdmin)
    let result: Result<ReplyResult, Status>?
    do {
      result = .success(try await admin.call(.admin(call)))
    } catch KeyringClientError.refused(let status) {
      let allowed: [Reason] = [.storageUnavailable, .outcomeUnknown, .kmsUnreachable]
      #expect(
        allowed.contains(status.reason) && (plan.wasHit || isHealing),
        "\(place): \(call): \(status)"
      )
      result = .failure(status)
    } catch {
      result = nil
    }
    await admin.close()
    return result
  }

  private func rotateKeys() async throws {
    let result = try await administer(.rotateKeys("acme", allowTransient: false))
    disarm()
    if case .success(.rotateKeys(let report))? = result {
      #expect(report.recordsElsewhere == 0, "\(place)")
      counts.rotations += 1
    }
  }

  private func setCMK() async throws {
    if cmks.count < 4 {
      let made = try await administer(.cmk(tenant: "acme", .create, cmkID: "", days: 0))
      if case .success(.cmk(let id, _, _))? = made { cmks.append(id) }
    }
    let cmk = cmks[random(0..<cmks.count)]
    let result = try await administer(
      .variablesSet(tenant: "acme", name: "cmk_id", value: cmk, .persist)
    )
    if case .success? = result { counts.cmkChanges += 1 }
  }

  // MARK: Ending and beginning

  func restart() async throws {
    disarm()
    guard let old = server else { return }
    for client in clients { await client.disconnect() }
    await old.shutdown()
    server = try await TestServer(pki: old.pki, data: old.data, calls: plan.calls)
    counts.restarts += 1
    try await checkNames()
  }

  /// SIGKILL while a change is under way; what became of it is settled by asking again.
  func kill() async throws {
    guard let process = daemon?.process else { return }
    let delay = random(0..<3000)
    let killer = Task {
      try await Task.sleep(for: .microseconds(delay))
      process.signal(SIGKILL)
    }
    while process.isRunning {
      try await change([randomChange()])
      if counts.kills % 3 == 0, random(0..<4) == 0 { try await rotateKeys() }
    }
    try await killer.value
    counts.kills += 1
    if daemon?.process.isRunning == false { try await startAgain() }
    try await checkNames()
  }

  private func startAgain() async throws {
    guard let old = daemon else { return }
    await old.process.ended()
    for client in clients { await client.disconnect() }
    daemon = try await TestDaemon(pki: old.pki, data: old.data)
  }

  private func checkNames() async throws {
    for client in 0..<2 { try await list(client) }
    let data = try #require(server?.data ?? daemon?.data)
    let names = try FileManager.default.contentsOfDirectory(atPath: data("tenants/acme"))
    #expect(!names.contains { $0.hasSuffix(".new") }, "\(place): \(names)")
  }

  func end() async {
    for client in clients { await client.disconnect() }
    await server?.shutdown()
    await daemon?.shutdown()
  }
}

extension KeyringModel.Change {
  var name: KeyringModel.Name {
    switch self {
    case .store(let name, _), .generate(let name, _), .remove(let name), .rotate(let name): name
    }
  }
}
