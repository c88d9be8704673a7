import ConfigurationFiles
import KeyringCore
import Testing

@testable import TenantRegistry

private let second: UInt64 = 1_000_000_000

@Suite struct TokenBucketTests {
  private let limit = RateLimit(perSecond: 10, burst: 5)

  @Test func itIsFullAtFirstThenGivesAtTheRate() {
    var bucket = TokenBucket()
    var now: UInt64 = 7
    for _ in 0..<5 { #expect(bucket.take(of: limit, now: now) == nil) }
    #expect(bucket.take(of: limit, now: now) == second / 10)
    now += second / 10 - 1
    #expect(bucket.take(of: limit, now: now) == 1)
    now += 1
    #expect(bucket.take(of: limit, now: now) == nil)
    #expect(bucket.take(of: limit, now: now) == second / 10)
    // However long nobody comes, it holds no more than a burst.
    now += 1000 * second
    for _ in 0..<5 { #expect(bucket.take(of: limit, now: now) == nil) }
    #expect(bucket.take(of: limit, now: now) != nil)
  }

  /// The hint is right: the moment that it names is the first at which the call passes.
  @Test(arguments: [1, 3, 7, 1000, 999_983, 10_000_000]) func theWaitIsExact(rate: Int) throws {
    let limit = RateLimit(perSecond: rate, burst: 3)
    var bucket = TokenBucket()
    for _ in 0..<3 { _ = bucket.take(of: limit, now: 1) }
    let refused = bucket.take(of: limit, now: 1)
    let wait = try #require(refused)
    var early = bucket
    if wait > 1 { #expect(early.take(of: limit, now: wait) != nil) }
    #expect(bucket.take(of: limit, now: 1 + wait) == nil)
  }

  @Test func overAnyTimeItGivesTheRateAndABurst() {
    let limit = RateLimit(perSecond: 333, burst: 20)
    var bucket = TokenBucket()
    var taken = 0
    // Asked at odd moments, far more often than it gives.
    for moment in stride(from: UInt64(0), through: 10 * second, by: 1_234_567)
    where bucket.take(of: limit, now: moment) == nil { taken += 1 }
    #expect((3330...3350).contains(taken))
  }

  @Test func whatIsRefusedTakesNothing() {
    var bucket = TokenBucket()
    #expect(bucket.take(4, of: limit, now: 0) == nil)
    let before = bucket
    #expect(bucket.take(2, of: limit, now: 0) == second / 10)
    #expect(bucket == before)
    #expect(bucket.wait(of: limit, now: 0) == nil)
    #expect(bucket == before)
    #expect(bucket.take(of: limit, now: 0) == nil)
  }

  @Test func whatIsLargerThanTheBurstPassesOnceAndIsPaidForAfterwards() {
    var bucket = TokenBucket()
    #expect(bucket.take(of: limit, now: 0) == nil)
    #expect(bucket.take(25, of: limit, now: 0) == second / 10)
    #expect(bucket.take(25, of: limit, now: second / 10) == nil)
    #expect(bucket.take(of: limit, now: second / 10) == 21 * second / 10)
  }

  @Test func whatMayNotBeRefusedIsOwedUpToABurst() {
    var bucket = TokenBucket()
    for _ in 0..<100 { bucket.charge(of: limit, now: 0) }
    #expect(bucket.take(of: limit, now: 0) == 6 * second / 10)
  }

  @Test func timeThatGoesBackGivesNothing() {
    var bucket = TokenBucket()
    for _ in 0..<5 { _ = bucket.take(of: limit, now: second) }
    #expect(bucket.take(of: limit, now: 0) == second / 10)
    #expect(bucket.take(of: limit, now: second + second / 10) == nil)
    #expect(bucket.take(of: limit, now: second + second / 10) == second / 10)
    #expect(bucket.take(of: limit, now: .max) == nil)
  }

  @Test func anotherLimitCountsAtOnce() {
    var bucket = TokenBucket()
    let high = RateLimit(perSecond: 1000, burst: 1000)
    for _ in 0..<1000 { _ = bucket.take(of: high, now: 0) }
    // Under one a second, nobody waits for a thousand of them.
    let low = RateLimit(perSecond: 1)
    #expect(bucket.take(of: low, now: 0) == second)
    // And the other way round: room that the higher limit has is there at once.
    #expect(bucket.take(of: high, now: 0) == nil)
  }
}

@Suite struct WeightedSharesTests {
  private func party(_ name: String) throws -> Party { .instances(try TenantName(name)) }

  private func fill(_ shares: inout WeightedShares, _ party: Party, _ weight: Int = 100) -> Int {
    var admitted = 0
    while admitted < 1000, shares.admit(party, weight: weight) { admitted += 1 }
    return admitted
  }

  @Test func oneAloneHasAllOfIt() throws {
    var shares = WeightedShares(bound: 8)
    #expect(fill(&shares, try party("a")) == 8)
    for _ in 0..<8 { shares.release(try party("a")) }
    #expect(shares.total == 0)
    #expect(fill(&shares, try party("b")) == 8)
  }

  @Test func underOverloadEachHasItsWeightedShare() throws {
    let (a, b, c) = (try party("a"), try party("b"), try party("c"))
    var shares = WeightedShares(bound: 12)
    #expect(fill(&shares, a) == 12)
    // The others are not refused for what the first holds.
    #expect(fill(&shares, b) == 6)
    #expect(fill(&shares, c, 200) == 6)
    // It gets no more before it has less than its share, 12 * 100 / 400.
    for rest in (0..<12).reversed() {
      shares.release(a)
      #expect(shares.executing(a) == rest)
      let isAdmitted = shares.admit(a, weight: 100)
      #expect(isAdmitted == (shares.total < 12 || rest < 3), "\(rest)")
      if isAdmitted { shares.release(a) }
    }
  }

  @Test func theTotalIsBoundedAndEveryPartyGetsOne() throws {
    var shares = WeightedShares(bound: 8)
    var newcomers = 0
    for index in 0..<40 {
      let admitted = fill(&shares, try party("t\(index)"))
      #expect(admitted >= 1)
      newcomers += 1
      #expect(shares.total <= 16 + newcomers)
    }
    #expect(shares.total <= 16 + 40)
    // Who holds one already gets no second.
    #expect(fill(&shares, try party("t39")) == 0)
  }

  @Test func administratorsAreAPartyOfTheirOwn() throws {
    var shares = WeightedShares(bound: 4)
    let tenant = try TenantName("a")
    #expect(fill(&shares, .instances(tenant), 10_000) == 4)
    #expect(shares.admit(.administrators(tenant), weight: 100) == true)
    #expect(shares.admit(.administrators(nil), weight: 100) == true)
  }
}

@Suite struct RequestLimiterTests {
  @Test func aWriteTakesOfBothRatesOrOfNone() {
    var limits = TenantLimits()
    limits.requests = RateLimit(perSecond: 3)
    limits.writes = RateLimit(perSecond: 2)
    var limiter = RequestLimiter(limits)
    #expect(limiter.take(.write(changes: 2), now: 0) == nil)
    #expect(limiter.take(.write(changes: 1), now: 0) == LimitRefusal(.writes, retryAfterMilliseconds: 500))
    #expect(limiter.take(.read, now: 0) == nil)
    #expect(limiter.take(.read, now: 0) == nil)
    #expect(limiter.take(.read, now: 0) == LimitRefusal(.requests, retryAfterMilliseconds: 334))
    // No request left, so no change is taken either.
    #expect(limiter.take(.write(changes: 1), now: second / 2 - 1)?.kind == .writes)
    #expect(limiter.refused[.writes] == 2 && limiter.refused[.requests] == 1 && limiter.refused[.keys] == 0)
  }

  @Test func administratorsHaveTheirOwn() {
    var limits = TenantLimits()
    limits.requests = RateLimit(perSecond: 1)
    limits.administration = RateLimit(perSecond: 2)
    limits.requestsInFlight = 1
    limits.administrationInFlight = 2
    var limiter = RequestLimiter(limits)
    _ = limiter.take(.read, now: 0)
    #expect(limiter.take(.read, now: 0) != nil)
    for _ in 0..<2 { #expect(limiter.take(.administration, now: 0) == nil) }
    #expect(limiter.take(.administration, now: 0)?.kind == .administration)
    #expect(limiter.take(.transfer, now: 0) == nil)
    #expect(limiter.begin(isAdministrator: false) == nil)
    #expect(limiter.begin(isAdministrator: false)?.kind == .requestsInFlight)
    for _ in 0..<2 { #expect(limiter.begin(isAdministrator: true) == nil) }
    #expect(limiter.begin(isAdministrator: true)?.kind == .administration)
    limiter.end(isAdministrator: false)
    #expect(limiter.begin(isAdministrator: false) == nil)
  }

  @Test func bytesAndKMSCalls() {
    var limits = TenantLimits()
    limits.inFlightBytes = 100
    limits.kmsCalls = RateLimit(perSecond: 2)
    var limiter = RequestLimiter(limits)
    #expect(limiter.reserve(60) == nil)
    #expect(limiter.reserve(41)?.kind == .inFlightBytes)
    limiter.release(60)
    #expect(limiter.reserve(100) == nil)
    #expect(limiter.takeKMSCall(isRefusable: true, now: 0) == nil)
    #expect(limiter.awaitKMSCall(now: 0) == nil)
    // A confirmation is never refused, and counts.
    for _ in 0..<2 { #expect(limiter.takeKMSCall(isRefusable: false, now: 0) == nil) }
    #expect(limiter.awaitKMSCall(now: 0)?.retryAfterMilliseconds == 1000)
    #expect(limiter.takeKMSCall(isRefusable: true, now: 0)?.retryAfterMilliseconds == 1000)
    #expect(limiter.takeKMSCall(isRefusable: true, now: second) == nil)
  }
}

@Suite struct LimitVariableTests {
  private let service: ServiceConfiguration.Limits

  init() throws {
    service = try ServiceConfiguration(
      yaml: """
        trust_domain: t
        tls: {certificate: a, key: b, client_ca: c}
        tenants_directory: d
        anchor_directory: e
        limits: {connections_per_tenant: 7}
        """,
      file: "s.yaml",
      directory: "/"
    ).limits
  }

  private func settings(_ limits: String = "", _ persisted: [VariableName: String] = [:]) throws
    -> TenantSettings
  {
    let yaml = "cmk_id: a\n" + (limits.isEmpty ? "" : "limits: {\(limits)}\n")
    var state = PersistedState()
    state.variables = persisted
    return try TenantSettings(
      file: TenantConfiguration(yaml: yaml, file: "t.yaml", allowedEndpoints: []),
      persisted: state
    )
  }

  @Test func everyLimitIsADynamicVariableWithAValue() throws {
    let settings = try settings()
    for limit in TenantLimit.allCases {
      let name = try #require(VariableName(rawValue: "limits.\(limit.rawValue)"))
      #expect(name.isDynamic && name.limit == limit && !name.meaning.isEmpty)
      #expect(!settings.shown(name, service).isEmpty, "\(name)")
      #expect(settings.source(name) == "default")
    }
    #expect(VariableName.allCases.count { $0.limit != nil } == TenantLimit.allCases.count)
    #expect(settings.shown(.connectionsMax, service) == "7" && settings.limits(service).connections == 7)
  }

  @Test func globalComesBeforePersistedBeforeFile() throws {
    var settings = try settings("keys: 10, requests_per_second: 0", [.keysMax: "20"])
    #expect(settings.keyringLimits.keys == 20 && settings.limits(service).requests == nil)
    #expect(
      settings.shown(.requestsPerSecond) == "unlimited" && settings.source(.requestsPerSecond) == "file"
    )
    settings = try settings.setting(.keysMax, "30", isPersisted: false)
    #expect(settings.keyringLimits.keys == 30 && settings.source(.keysMax) == "global")
    settings = try settings.setting(.keysMax, "DEFAULT", isPersisted: false)
    #expect(settings.keyringLimits.keys == 20 && settings.source(.keysMax) == "persisted")
    let reset = try settings.resettingPersisted(.keysMax)
    #expect(reset.keyringLimits.keys == 20 && reset.source(.keysMax) == "global" && reset.persisted.isEmpty)
    settings = try settings.setting(.keysMax, "DEFAULT", isPersisted: true)
    #expect(settings.keyringLimits.keys == 10 && settings.source(.keysMax) == "file")
    #expect(throws: ConfigurationError.self) { try settings.resettingPersisted(.keysMax) }
    settings = try settings.setting(.requestsPerSecond, "500", isPersisted: false)
    #expect(settings.limits(service).requests == RateLimit(perSecond: 500, burst: 500))
    settings = try settings.setting(.requestsBurst, "7", isPersisted: false)
    #expect(settings.limits(service).requests == RateLimit(perSecond: 500, burst: 7))
    settings = try settings.setting(.bytesMax, "0", isPersisted: false)
    #expect(settings.shown(.bytesMax) == "unlimited" && settings.keyringLimits.bytes == .max)
  }

  @Test(arguments: [
    ("limits.keys", "-1"), ("limits.keys", "many"), ("limits.keys", ""), ("limits.keys", "100000001"),
    ("limits.keys", "+5 "), ("limits.requests_per_second", "1.5"), ("limits.requests_per_second", "10000001"),
    ("limits.weight", "0"), ("limits.weight", "unlimited"), ("limits.requests_burst", "unlimited"),
    ("limits.in_flight_bytes", "100"), ("limits.bytes", "1"), ("limits.connections", "default"),
  ]) func otherValuesAreRefused(name: String, value: String) throws {
    let settings = try settings()
    let variable = try #require(VariableName(rawValue: name))
    for isPersisted in [false, true] {
      #expect(throws: ConfigurationError.self) {
        try settings.setting(variable, value, isPersisted: isPersisted)
      }
    }
  }

  @Test func anotherCMKMovedToIsNotForgotten() throws {
    let moved = try settings().moving(to: .local, cmkID: CMKID("local-2"))
    for change in [
      { () throws in try moved.resettingPersisted(.cmkID) },
      { try moved.setting(.cmkID, "DEFAULT", isPersisted: true) },
    ] {
      #expect(throws: ConfigurationError.self) { _ = try change() }
    }
    #expect(try moved.setting(.cmkID, "DEFAULT", isPersisted: false).cmkID.text == "local-2")
  }
}
