import Foundation
import KeyringClient
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import TLSTransport
import Testing
import WireProtocol

/// Many clients of one tenant at one moment, on a disk that fails. Each answer names the sequence that it reflects: in the order of these the
/// answers must be a dictionary's, and no answer may be older than one that was there before its question.
@Suite struct ConcurrentModelCampaign {
  /// One call that was answered, with the moments of question and answer.
  fileprivate struct Event: Sendable {
    enum Kind: Sendable {
      case changed(KeyringModel.Change, version: UInt32)
      case read(KeyringModel.Name, version: UInt32, value: String?)
    }
    let kind: Kind
    let sequence: UInt64
    let asked: UInt64
    let answered: UInt64
  }

  private final class History: Sendable {
    private let state = Mutex((events: [Event](), clock: UInt64(0), doubts: 0, failed: 0))

    /// Moments are numbers of one counter: what was answered before another was asked has a smaller one.
    func moment() -> UInt64 {
      state.withLock { state in
        state.clock += 1
        return state.clock
      }
    }

    func add(_ event: Event) { state.withLock { $0.events.append(event) } }
    func noteDoubt() { state.withLock { $0.doubts += 1 } }
    func noteFailure() { state.withLock { $0.failed += 1 } }
    var events: [Event] { state.withLock { $0.events } }
    var counts: (doubts: Int, failed: Int) { state.withLock { ($0.doubts, $0.failed) } }
  }

  private static let names = (0..<5).map { KeyringModel.Name(instance: nil, owner: "", id: "shared\($0)") }

  @Test func answersAreInOneOrder() async throws {
    let (history, plan) = (History(), FaultPlan())
    let server = try await TestServer(calls: plan.calls)
    try await server.makeTenant("acme")
    let steps = Campaign.rounds(short: 150, long: 5_000)
    var faults = 0
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<6 {
        group.addTask { try await Self.work(index, steps, server, history) }
      }
      let disturbing = Task { try await Self.disturb(server, plan) }
      try await group.waitForAll()
      disturbing.cancel()
      faults = try await disturbing.value
      plan.disarm()
    }
    let violations = Self.violations(history.events)
    #expect(violations.isEmpty, "seed \(Campaign.seed)")
    let counts = history.counts
    Campaign.report(
      "model, concurrent",
      [
        "answers": history.events.count, "faults_hit": faults, "failed_definitely": counts.failed,
        "in_doubt": counts.doubts,
      ]
    )
    #expect(history.events.count > steps)
    await server.shutdown()
  }

  // MARK: Acting

  private static func work(
    _ index: Int,
    _ steps: Int,
    _ server: TestServer,
    _ history: History
  ) async throws {
    var generator = Campaign.generator("model, concurrent \(index)")
    let client = ModelClient("acme", "db\(index)")
    for step in 0..<steps {
      let name = names[Int.random(in: 0..<names.count, using: &generator)]
      switch Int.random(in: 0..<10, using: &generator) {
      case 0: try await change(.remove(name), client, server, history, &generator)
      case 1: try await change(.store(name, "\(index)-\(step)"), client, server, history, &generator)
      case 2: try await change(.generate(name, 16), client, server, history, &generator)
      case 3, 4, 5: try await change(.rotate(name), client, server, history, &generator)
      default: try await fetch(name, client, server, history)
      }
    }
    await client.disconnect()
  }

  private static func change(
    _ change: KeyringModel.Change,
    _ client: ModelClient,
    _ server: TestServer,
    _ history: History,
    _ generator: inout SeededGenerator
  ) async throws {
    let (id, asked) = (ModelClient.id(&generator), history.moment())
    let call = Call.change(try change.wire)
    var isInDoubt = false
    for _ in 0..<1000 {
      let reply = await client.ask(server, call, id)
      if let reply, let version = reply.versions?.first {
        return history.add(
          Event(
            kind: .changed(change, version: version),
            sequence: reply.sequence,
            asked: asked,
            answered: history.moment()
          )
        )
      }
      switch reply?.refusal?.reason {
      case .keyExists?, .keyAbsent?: return
      case .outcomeUnknown?, .none:
        if !isInDoubt { history.noteDoubt() }
        isInDoubt = true
      case .storageUnavailable?, .throttled?, .kmsUnreachable?:
        history.noteFailure()
        if !isInDoubt { return }
      default:
        Issue.record("\(change): \(String(describing: reply?.refusal)), seed \(Campaign.seed)")
        return
      }
      try await Task.sleep(for: .milliseconds(10))
    }
    Issue.record("\(change): never answered, seed \(Campaign.seed)")
  }

  private static func fetch(
    _ name: KeyringModel.Name,
    _ client: ModelClient,
    _ server: TestServer,
    _ history: History
  ) async throws {
    let asked = history.moment()
    guard let reply = await client.ask(server, .fetch(name.wire, version: 0)) else { return }
    switch reply.outcome {
    case .success(.fetch(let key)):
      let value = key.map { key in unsafe key.value.withUnsafeBytes { unsafe hexadecimal($0) } }
      history.add(
        Event(
          kind: .read(name, version: key?.version ?? 0, value: value),
          sequence: reply.sequence,
          asked: asked,
          answered: history.moment()
        )
      )
    case .failure(let status)
    where [.storageUnavailable, .kmsUnreachable, .throttled].contains(status.reason):
      history.noteFailure()
    default: Issue.record("\(name): \(reply.outcome), seed \(Campaign.seed)")
    }
  }

  /// Makes the disk fail now and then, and has the keys rotated.
  ///
  /// - Returns: how many faults were met.
  private static func disturb(_ server: TestServer, _ plan: FaultPlan) async throws -> Int {
    var generator = Campaign.generator("model, concurrent, disk")
    let admin = try server.client(.serviceAdmin)
    var hits = 0
    while !Task.isCancelled {
      let calls: [SystemCall] = [.fdatasync, .write, .fsync, .rename]
      plan.arm(
        calls[Int.random(in: 0..<calls.count, using: &generator)],
        Int.random(in: 1...3, using: &generator),
        .fail([EIO, ENOSPC].randomElement(using: &generator) ?? EIO),
        .allCases.randomElement(using: &generator) ?? .once
      )
      _ = try? await admin.call(.admin(.rotateKeys("acme", allowTransient: false)))  // the disk may fail it
      if plan.wasHit { hits += 1 }
      plan.disarm()
      do { try await Task.sleep(for: .milliseconds(50)) } catch { break }  // told to end
    }
    await admin.close()
    return hits
  }

  // MARK: Checking

  /// What no dictionary would have answered, in words.
  fileprivate static func violations(_ events: [Event]) -> [String] {
    var found = tooOld(events)
    var model = KeyringModel()
    var last: UInt64 = 0
    var values: [String: String] = [:]
    var lives: [KeyringModel.Name: UInt64] = [:]
    // Reads of a sequence come after the change that made it.
    for event in events.sorted(by: { ($0.sequence, $0.isRead ? 1 : 0) < ($1.sequence, $1.isRead ? 1 : 0) }) {
      switch event.kind {
      case .changed(let change, let version):
        if event.sequence <= last { found.append("two changes of one sequence: \(event)") }
        last = event.sequence
        guard case .success([version]) = model.apply([change]) else {
          found.append("no dictionary makes this change: \(event)")
          continue
        }
        switch change {
        case .store(let name, _), .generate(let name, _): lives[name] = event.sequence
        case .rotate, .remove: break
        }
      case .read(let name, let version, let value):
        if model.keys[name]?.count ?? 0 != Int(version) { found.append("another version: \(event)") }
        guard let value, let life = lives[name], let known = model.keys[name] else { continue }
        // A version has one value for as long as its key lives; what was stored is what is read.
        let first = values["\(name) \(life) \(version)"] ?? known[Int(version) - 1] ?? value
        if first != value { found.append("another value than \(first): \(event)") }
        values["\(name) \(life) \(version)"] = value
      }
    }
    return found
  }

  /// What is asked after an answer reflects at least what that one did.
  private static func tooOld(_ events: [Event]) -> [String] {
    let byAnswer = events.sorted { $0.answered < $1.answered }
    var (index, newest): (Int, UInt64) = (0, 0)
    return events.sorted { $0.asked < $1.asked }.compactMap { event in
      while index < byAnswer.count, byAnswer[index].answered < event.asked {
        newest = max(newest, byAnswer[index].sequence)
        index += 1
      }
      let isBehind = event.isRead ? event.sequence < newest : event.sequence <= newest
      return isBehind ? "\(event) is behind \(newest)" : nil
    }
  }

  /// The check itself finds what it is for: an answer that is too old, a version that is given twice, a value that changed.
  @Test func theCheckFindsWhatIsWrong() {
    let name = Self.names[0]
    func event(_ kind: Event.Kind, _ sequence: UInt64, _ moment: UInt64) -> Event {
      Event(kind: kind, sequence: sequence, asked: moment, answered: moment + 1)
    }
    let good = [
      event(.changed(.store(name, "a"), version: 1), 1, 1), event(.changed(.rotate(name), version: 2), 2, 3),
      event(.read(name, version: 2, value: "62"), 2, 5),
    ]
    #expect(Self.violations(good) == [])
    for bad in [
      event(.read(name, version: 1, value: "61"), 1, 7), event(.changed(.rotate(name), version: 2), 3, 7),
      event(.read(name, version: 2, value: "63"), 2, 7), event(.read(name, version: 0, value: nil), 2, 7),
      event(.changed(.store(name, "a"), version: 1), 3, 7),
    ] {
      #expect(Self.violations(good + [bad]).count == 1, "\(bad)")
    }
  }
}

extension ConcurrentModelCampaign.Event {
  fileprivate var isRead: Bool { if case .read = kind { true } else { false } }
}
