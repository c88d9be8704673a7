import Glibc
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Synchronization
import Testing
import WireProtocol

@testable import KeyringClient

/// Unix milliseconds.
func wallClockMilliseconds() -> UInt64 {
  var time = timespec()
  // SAFETY: `time` lives for the call.
  unsafe clock_gettime(CLOCK_REALTIME, &time)
  return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}

/// The moment from which nothing counts as acknowledged: what was read before it was answered before the fault.
final class CountingEnd: Sendable {
  private let isCountingFlag = Atomic(true)
  var isCounting: Bool { isCountingFlag.load(ordering: .sequentiallyConsistent) }
  func end() { isCountingFlag.store(false, ordering: .sequentiallyConsistent) }

  /// Changes of those who persevere that were acknowledged so far.
  let acknowledged = Atomic(0)

  /// Waits until some more are: the disk, or the file, that failed is written again.
  func moreAcknowledged(_ more: Int = 4) async throws {
    let wanted = acknowledged.load(ordering: .relaxed) + more
    let deadline = ContinuousClock.now + .seconds(60)
    while acknowledged.load(ordering: .relaxed) < wanted {
      guard ContinuousClock.now < deadline else {
        throw Violation("what failed is over, and nothing is written again")
      }
      try await Task.sleep(for: .milliseconds(2))
    }
  }
}

extension KeyringClient {
  static let patience: Duration = .seconds(30)

  /// One call, sent once.
  func once(_ call: Call, _ id: IdempotencyID? = nil) async throws(KeyringClientError) -> ReplyResult {
    var isSent = false
    return try await once(call, 0, id, .now + Self.patience, &isSent).1
  }
}

extension KeyringClientError {
  /// The server said that nothing changed: then nothing may have.
  var isDefinite: Bool {
    guard case .refused(let status) = self else { return false }
    switch status.reason {
    case .outcomeUnknown, .unspecified, .internalError, .timeout: return false
    default: return true
    }
  }

  /// The server asks to try again, and need not say why.
  var isThrottling: Bool {
    guard case .refused(let status) = self else { return false }
    return status.reason == .throttled
  }
}

/// One client of a tenant that changes keys of its own, one change at a time, and knows what must be there.
struct CampaignWriter: Sendable {
  var model = FleetModel()
  var plan: ChangePlan
  /// Changes that were acknowledged in time.
  private(set) var acknowledged = 0
  /// Changes of which it was not known whether they happened, by what was found.
  private(set) var inDoubt = 0
  private(set) var inDoubtHappened = 0
  /// Changes that the server said did not happen, or could not say, while a disk failed.
  private(set) var refused = 0
  private(set) var unknown = 0
  private(set) var violations: [Violation] = []

  init(_ plan: ChangePlan) { self.plan = plan }

  /// Changes keys until nothing counts any more, or a change is in doubt.
  mutating func run(_ client: KeyringClient, until end: CountingEnd) async {
    while end.isCounting, model.inDoubt == nil, violations.isEmpty { await make(client, until: end) }
  }

  /// Makes one change.
  mutating func make(_ client: KeyringClient, until end: CountingEnd) async {
    let change = plan.next(model.keys)
    model.send(change)
    do throws(KeyringClientError) {
      let result = try await client.once(change.call, change.id)
      guard end.isCounting else { return }
      try acknowledge(result)
      await readMade(client, end)
    } catch {
      if error.isDefinite { model.refuse() }
      if end.isCounting, !error.isThrottling {
        violations.append(Violation("refused though nothing failed: \(error)"))
      }
    }
  }

  private mutating func acknowledge(_ result: ReplyResult) throws(KeyringClientError) {
    let wanted = model.inDoubt?.versions ?? []
    guard let versions = result.versions, versions == wanted else {
      throw .wire("versions \(wanted) were expected, not \(result)")
    }
    model.acknowledge()
    acknowledged += 1
  }

  /// Reads what the server made: from then on its exact value must be there.
  private mutating func readMade(_ client: KeyringClient, _ end: CountingEnd) async {
    for (name, versions) in model.keys {
      for (index, value) in versions.enumerated() where value == nil {
        do throws(KeyringClientError) {
          let found = try await client.value(name, UInt32(index + 1))
          guard end.isCounting else { return }
          guard let found else {
            violations.append(Violation("a key that was acknowledged is not there to be read"))
            return
          }
          model.learn(name, index + 1, found)
        } catch {
          if end.isCounting { violations.append(Violation("a read failed though nothing did: \(error)")) }
          return
        }
      }
    }
  }

  // MARK: While a disk fails

  /// Changes keys until nothing counts any more, whatever fails meanwhile: a change whose outcome is not known is sent again under its id until
  /// it is; what is read is what was acknowledged last, or an error.
  mutating func persevere(_ client: KeyringClient, until end: CountingEnd) async {
    while end.isCounting, violations.isEmpty {
      let change = plan.next(model.keys, isRepeatable: true)
      model.send(change)
      var isRepeated = false
      while model.inDoubt != nil, violations.isEmpty {
        let before = acknowledged
        let isKnown = await attempt(change, isRepeated, client)
        end.acknowledged.add(acknowledged - before, ordering: .relaxed)
        guard !isKnown else { break }
        isRepeated = true
        guard end.isCounting else { return }
        try? await Task.sleep(for: .milliseconds(2))  // never cancelled
      }
      await readBack(client)
    }
  }

  /// - Returns: true where the change's outcome is known now.
  private mutating func attempt(_ change: PlannedChange, _ isRepeated: Bool, _ client: KeyringClient) async
    -> Bool
  {
    do throws(KeyringClientError) {
      try acknowledge(try await client.once(change.call, change.id))
      return true
    } catch {
      switch error {
      case .wire:
        violations.append(Violation("\(error)"))
        return true
      case .refused(let status) where Self.contradictions.contains(status.reason):
        violations.append(Violation("\(isRepeated ? "sent again: " : "")\(error)"))
        return true
      default: break
      }
      // That a repeated request was refused says nothing of the first one.
      guard error.isDefinite, !isRepeated else {
        unknown += 1
        return false
      }
      refused += 1
      model.refuse()
      return true
    }
  }

  /// What no disk brings about.
  private static let contradictions: [Reason] = [
    .keyExists, .keyAbsent, .idempotencyMismatch, .tenantQuarantined, .storageChanged, .tenantLocked,
    .internalError,
    .unspecified, .nameInvalid, .requestMalformed,
  ]

  /// Reads one of the keys that are there.
  private mutating func readBack(_ client: KeyringClient) async {
    guard model.inDoubt == nil, let (name, versions) = model.keys.randomElement(using: &plan.generator) else {
      return
    }
    do throws(KeyringClientError) {
      let found = try await client.value(name, UInt32(versions.count))
      guard let wanted = versions.last, wanted != nil else {
        if let found { model.learn(name, versions.count, found) }
        return
      }
      if found != wanted {
        violations.append(Violation("a reader was shown another value than the one acknowledged"))
      }
    } catch {
      return  // a disk that fails may keep readers away, too
    }
  }

  // MARK: After a fault

  /// Compares what is there with what must be, and takes it for what is there from now on.
  ///
  /// - Returns: the change that was in doubt, and whether it happened.
  mutating func settle(_ found: [KeyName: [[UInt8]]]) -> (change: PlannedChange, happened: Bool?)? {
    let mine = found.filter { plan.names.contains($0.key) }
    let change = model.inDoubt
    do {
      let happened = try model.settle(mine)
      guard let change else { return nil }
      inDoubt += 1
      if happened == true { inDoubtHappened += 1 }
      return (change, happened)
    } catch {
      violations.append(error)
      return nil
    }
  }

  /// Sends a request again under its id: it is answered as the first time, and executed where it was not.
  mutating func repeatChange(_ change: PlannedChange, happened: Bool?, _ client: KeyringClient) async {
    guard change.id != nil else { return }
    do {
      let result = try await client.once(change.call, change.id)
      guard result.versions == change.versions else {
        throw Violation("a request sent again was answered otherwise: \(result)")
      }
      // Where both states would look the same, as where nobody knew what a key held, it has happened by now.
      if happened != true {
        model.send(change)
        model.acknowledge()
        acknowledged += 1
      }
    } catch let violation as Violation {
      violations.append(violation)
    } catch {
      violations.append(Violation("a request sent again was refused: \(error)"))
    }
  }
}

extension ReplyResult {
  /// The versions that a change made; nil for another result.
  var versions: [UInt32]? {
    switch self {
    case .store(let version), .generate(let version), .rotate(let version): [version]
    case .remove: [0]
    case .transact(let versions): versions
    default: nil
    }
  }
}

extension KeyringClient {
  /// One version of a key; nil where there is none.
  func value(_ name: KeyName, _ version: UInt32) async throws(KeyringClientError) -> [UInt8]? {
    guard case .fetch(let key) = try await once(.fetch(name, version: version)) else {
      throw .wire("another result than a fetch's")
    }
    return key.map { key in unsafe key.value.withUnsafeBytes { unsafe Array($0) } }
  }

  /// Every version of every key that the caller can see.
  func everything() async throws -> [KeyName: [[UInt8]]] {
    var infos: [KeyInfo] = []
    for scope in [RequestedScope.shared, .instance] {
      var token: [UInt8] = []
      repeat {
        guard case .list(let page, let next) = try await once(.list(ListCall(scope: scope, pageToken: token)))
        else { throw UnexpectedReply() }
        infos += page
        token = next
      } while !token.isEmpty
    }
    var found: [KeyName: [[UInt8]]] = [:]
    try await withThrowingTaskGroup(of: (KeyName, [[UInt8]]).self) { group in
      for info in infos {
        group.addTask {
          var values: [[UInt8]] = []
          for version in 1...info.latestVersion {
            guard let value = try await self.value(info.name, version) else {
              throw Violation("a key that is listed has no version \(version)")
            }
            values.append(value)
          }
          return (info.name, values)
        }
      }
      for try await (name, values) in group { found[name] = values }
    }
    return found
  }
}
