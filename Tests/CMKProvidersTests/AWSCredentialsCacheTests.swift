import Foundation
import HTTPTransport
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

/// Holds up whoever waits, until it is opened.
private final class CountingGate: Sendable {
  private let state = Mutex<(isOpen: Bool, waiting: [CheckedContinuation<Void, Never>])>((false, []))

  func wait() async {
    await withCheckedContinuation { continuation in
      let isOpen = state.withLock { state in
        if !state.isOpen { state.waiting.append(continuation) }
        return state.isOpen
      }
      if isOpen { continuation.resume() }
    }
  }

  private let arrived = Mutex(0)

  /// Opens it once `count` have called this.
  func open(after count: Int) {
    let isLast = arrived.withLock { arrived in
      arrived += 1
      return arrived == count
    }
    if isLast { open() }
  }

  func open() {
    let waiting = state.withLock { state in
      defer { state = (true, []) }
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }
}

@Suite struct AWSCredentialsCacheTests {
  let fixture: CredentialsFixture
  private static let minute: UInt64 = 60_000

  init() throws {
    fixture = try CredentialsFixture()
    try writeFile(CredentialsFixture.accessKeyID)
  }

  private func writeFile(_ id: String, secret: String = "base/secret") throws {
    try fixture.folder.write("credentials", "\(id)\n\(secret)\n")
  }

  /// A role over the two-line file, each exchange of which gives another access key id, good for an hour.
  private func roleCache() throws -> AWSCredentialsCache {
    fixture.serveSTS()
    return try fixture.cache(fixture.file(), role: CredentialsFixture.role())
  }

  private func failSTS() {
    fixture.sts.onRequest { _ throws(HTTPError) in throw .unreachable("sts: nobody answers") }
  }

  /// The number of the exchange that the credentials in force came from.
  private func number(_ cache: AWSCredentialsCache) async throws -> Int {
    try #require(Int(try await cache.credentials().accessKeyID.suffix(4))) - 1000
  }

  private var requests: Int { fixture.sts.seen.count }

  private func refusal(_ cache: AWSCredentialsCache) async -> String {
    await noCredentials { () throws(CMKError) in try await cache.credentials() }
  }

  // MARK: Once for all

  @Test func aHundredCallersMakeOneRequest() async throws {
    let cache = try roleCache()
    let (expires, gate) = (CredentialsFixture.start + CredentialsFixture.hour, CountingGate())
    fixture.sts.onRequest { _ throws(HTTPError) in
      await gate.wait()
      return try CredentialsFixture.response(CredentialsFixture.assumed("AssumeRole", 1, expires: expires))
    }
    let numbers = try await withThrowingTaskGroup(of: String.self) { group in
      for _ in 0..<100 {
        group.addTask {
          gate.open(after: 100)
          return try await cache.credentials().accessKeyID
        }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(numbers == Array(repeating: "ASIAIOSFODNN7EXAM1001", count: 100))
    #expect(requests == 1)
  }

  @Test func aFileIsReadOnce() async throws {
    let cache = try fixture.cache(fixture.file())
    #expect(try await cache.credentials().accessKeyID == CredentialsFixture.accessKeyID)
    try writeFile("AKIAIOSFODNN7EXAMPL2")
    fixture.advance(1000 * CredentialsFixture.hour)
    cache.invalidate()
    #expect(try await cache.credentials().accessKeyID == CredentialsFixture.accessKeyID)
    #expect(cache.status.expiresMilliseconds == nil && requests == 0)
  }

  @Test func aRoleIsAssumedWithWhatWasReadOnce() async throws {
    let cache = try roleCache()
    _ = try await cache.credentials()
    try writeFile("AKIAIOSFODNN7EXAMPL2")
    fixture.advance(CredentialsFixture.hour)
    _ = try await cache.credentials()
    #expect(requests == 2)
    #expect(fixture.sts.seen.allSatisfy { $0.request.signing?.accessKeyID == CredentialsFixture.accessKeyID })
  }

  // MARK: Before they expire

  @Test func aRefreshBeginsBesideTheCallsTenMinutesBeforeTheEnd() async throws {
    let cache = try roleCache()
    #expect(try await number(cache) == 1)
    fixture.advance(50 * Self.minute - 1)
    #expect(try await number(cache) == 1)
    #expect(requests == 1 && cache.refreshUnderWay == nil)
    let gate = CountingGate()
    let expires = CredentialsFixture.start + 2 * CredentialsFixture.hour
    fixture.sts.onRequest { _ throws(HTTPError) in
      await gate.wait()
      return try CredentialsFixture.response(CredentialsFixture.assumed("AssumeRole", 2, expires: expires))
    }
    fixture.advance(1)
    // It does not wait: the answer is held up.
    #expect(try await number(cache) == 1)
    #expect(try await number(cache) == 1)
    let refresh = try #require(cache.refreshUnderWay)
    gate.open()
    await refresh.value
    #expect(try await number(cache) == 2)
    #expect(requests == 2 && cache.refreshUnderWay == nil)
  }

  @Test func callsWaitInTheLastMinute() async throws {
    let cache = try roleCache()
    _ = try await cache.credentials()
    fixture.advance(59 * Self.minute)
    #expect(try await number(cache) == 2)
    #expect(requests == 2)
  }

  @Test func theScheduleFollowsTheLifetimeAndIsSpread() {
    func schedule(_ lifetime: UInt64, _ jitter: (ClosedRange<UInt64>) -> UInt64) -> [UInt64] {
      let schedule = RefreshSchedule(
        loadedMilliseconds: 1000,
        expiresMilliseconds: 1000 + lifetime,
        jitter: jitter
      )
      return [schedule.refreshMilliseconds, schedule.waitMilliseconds].map { 1000 + lifetime - $0 }
    }
    for (lifetime, early, late, wait) in [
      (3_600_000, 600_000, 450_000, 60_000), (43_200_000, 600_000, 450_000, 60_000),
      (900_000, 180_000, 135_000, 60_000), (300_000, 60_000, 45_000, 30_000), (10, 2, 2, 1), (0, 0, 0, 0),
    ] as [(UInt64, UInt64, UInt64, UInt64)] {
      #expect(schedule(lifetime) { $0.lowerBound } == [early, wait])
      #expect(schedule(lifetime) { $0.upperBound } == [late, wait])
    }
    // Credentials that ended before they were had.
    let past = RefreshSchedule(loadedMilliseconds: 2000, expiresMilliseconds: 1000) { $0.upperBound }
    #expect(past.refreshMilliseconds == 1000 && past.waitMilliseconds == 1000)
  }

  @Test func theRandomPartComesFromOutside() async throws {
    fixture.jitter.withLock { $0 = { $0.upperBound } }
    let cache = try roleCache()
    _ = try await cache.credentials()
    fixture.advance(50 * Self.minute + 150_000 - 1)
    _ = try await cache.credentials()
    #expect(requests == 1)
    fixture.advance(1)
    _ = try await cache.credentials()
    await cache.refreshUnderWay?.value
    #expect(requests == 2)
  }

  // MARK: Where it fails

  @Test func theLastGoodOnesAreKeptWhileTheyAreGood() async throws {
    let cache = try roleCache()
    _ = try await cache.credentials()
    failSTS()
    fixture.advance(CredentialsFixture.hour - 1)
    #expect(try await number(cache) == 1)
    #expect(requests == 2)
    #expect(cache.status.lastFailure == "STS AssumeRole: sts: nobody answers")
    #expect(cache.status.accessKeyIDEnd == "1001")
    fixture.advance(1)
    #expect(await refusal(cache) == "credentials: STS AssumeRole: sts: nobody answers")
  }

  @Test func failuresAreTriedAgainAfterPausesThatGrow() async throws {
    let cache = try fixture.cache(fixture.file(), role: CredentialsFixture.role())
    failSTS()
    fixture.jitter.withLock { $0 = { $0.upperBound } }
    #expect(await refusal(cache) == "credentials: STS AssumeRole: sts: nobody answers")
    var pauses: [UInt64] = []
    for failures in 1...8 {
      #expect(requests == failures)
      var pause: UInt64 = 0
      while requests == failures, pause < 100_000 {
        fixture.advance(500)
        pause += 500
        #expect(await refusal(cache) == "credentials: STS AssumeRole: sts: nobody answers")
      }
      pauses.append(pause)
    }
    #expect(pauses == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
    fixture.serveSTS()
    #expect(await refusal(cache) == "credentials: STS AssumeRole: sts: nobody answers")
    fixture.advance(60_000)
    #expect(try await number(cache) == 1)
    #expect(cache.status.lastFailure == nil)
  }

  @Test func aPauseIsAtLeastHalfAndEndsWhereTheClockIsSetBack() {
    var pause = RetryPause()
    #expect(pause.isOver(0))
    pause.fail(10_000) { $0.lowerBound }
    #expect(!pause.isOver(10_499) && pause.isOver(10_500) && pause.isOver(9999))
    for _ in 0..<100 { pause.fail(10_000) { $0.upperBound } }
    #expect(!pause.isOver(69_999) && pause.isOver(70_000))
  }

  @Test func aFileThatComesLaterIsFound() async throws {
    try FileManager.default.removeItem(atPath: fixture.folder("credentials"))
    let cache = try fixture.cache(fixture.file())
    #expect(await refusal(cache).contains("credentials is not there"))
    #expect(cache.status.sourceName == nil && cache.status.accessKeyIDEnd == nil)
    try writeFile(CredentialsFixture.accessKeyID)
    #expect(await refusal(cache).contains("credentials is not there"), "in the pause")
    fixture.advance(1000)
    #expect(try await cache.credentials().accessKeyID == CredentialsFixture.accessKeyID)
  }

  @Test func whatIsWrongWithAFileIsAsNoAnswerForACall() async throws {
    try fixture.setMode("credentials", 0o644)
    let cache = try fixture.cache(fixture.file())
    let error = await #expect(throws: CMKError.self) { try await cache.credentials() }
    guard case .unreachable(let why) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(why.hasPrefix("credentials: ") && why.contains("may be used by others"))
  }

  @Test func credentialsThatHaveExpiredAreNotTaken() async throws {
    let cache = try fixture.cache(fixture.file(), role: CredentialsFixture.role())
    fixture.sts.onRequest { _ throws(HTTPError) in
      try CredentialsFixture.response(
        CredentialsFixture.assumed("AssumeRole", 1, expires: CredentialsFixture.start)
      )
    }
    #expect(
      await refusal(cache)
        == "credentials: role \(CredentialsFixture.arn) over file credentials gives credentials that have expired; "
        + "is the clock right?"
    )
  }

  // MARK: What AWS does not take

  @Test func invalidTemporaryOnesAreReplacedAtMostOnceInThirtySeconds() async throws {
    let cache = try roleCache()
    cache.invalidate()
    #expect(try await number(cache) == 1)
    fixture.advance(1)
    cache.invalidate()
    #expect(try await number(cache) == 2)
    fixture.advance(29_999)
    cache.invalidate()
    #expect(try await number(cache) == 2)
    fixture.advance(1)
    cache.invalidate()
    #expect(try await number(cache) == 3)
    #expect(requests == 3)
  }

  @Test func invalidOnesStayWhereNoOthersCanBeHad() async throws {
    let cache = try roleCache()
    _ = try await cache.credentials()
    failSTS()
    cache.invalidate()
    #expect(try await number(cache) == 1)
    #expect(requests == 2)
    #expect(try await number(cache) == 1)
    #expect(requests == 2, "in the pause")
    fixture.serveSTS()
    fixture.advance(1000)
    #expect(try await cache.credentials().accessKeyID == "ASIAIOSFODNN7EXAM1001")
    #expect(requests == 3 && cache.status.lastFailure == nil)
  }

  // MARK: Showing them

  @Test func theStatusTellsWhatIsInForce() async throws {
    let cache = try roleCache()
    #expect(cache.status.sourceName == nil && cache.status.loadedMilliseconds == nil && requests == 0)
    fixture.advance(7)
    _ = try await cache.credentials()
    #expect(cache.status.sourceName == "role \(CredentialsFixture.arn) over file credentials")
    #expect(cache.status.accessKeyIDEnd == "1001")
    #expect(cache.status.loadedMilliseconds == CredentialsFixture.start + 7)
    #expect(
      cache.status.expiresMilliseconds == (CredentialsFixture.start + 7 + CredentialsFixture.hour) / 1000
        * 1000
    )
    #expect(cache.status.lastFailure == nil)
  }
}
