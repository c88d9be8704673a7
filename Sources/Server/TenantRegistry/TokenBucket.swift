/// So many a second, and so many at one time.
public struct RateLimit: Sendable, Equatable {
  /// Tokens a second, 1 to 10,000,000.
  public let perSecond: UInt64
  /// Tokens that a full bucket has, 1 to 10,000,000.
  public let burst: UInt64

  /// - Parameters:
  ///   - perSecond: taken into 1 to 10,000,000.
  ///   - burst: taken into the same; nil: one second's.
  public init(perSecond: Int, burst: Int? = nil) {
    self.perSecond = UInt64(min(max(perSecond, 1), TenantLimit.rateMax))
    self.burst = burst.map { UInt64(min(max($0, 1), TenantLimit.rateMax)) } ?? self.perSecond
  }
}

/// A token bucket without a clock: each call is told the time. It begins full, and what was taken of it comes back at the limit's rate.
///
/// All is counted in billionths of a token, which is a token a second times nanoseconds: nothing is rounded but the answered wait, up.
public struct TokenBucket: Sendable, Equatable {
  private static let token: UInt64 = 1_000_000_000

  private var limit: RateLimit?
  /// Billionths of a token that are not back yet.
  private var taken: UInt64 = 0
  /// Monotonic nanoseconds.
  private var updatedAt: UInt64 = 0

  /// Full.
  public init() {}

  /// Takes `cost` tokens, or nothing.
  ///
  /// What costs more than a full bucket has is let pass when it is full, and is paid for by those who come after.
  ///
  /// - Parameters:
  ///   - cost: 0 to 1,000,000.
  ///   - limit: in force now; another one than before counts from here on.
  ///   - now: monotonic nanoseconds; a time before the last one counts as that.
  /// - Returns: nil where they were taken, else nanoseconds after which there will be as many, if nobody else takes any: at least 1.
  public mutating func take(_ cost: UInt64 = 1, of limit: RateLimit, now: UInt64) -> UInt64? {
    bringUp(limit, now: now)
    if let wait = wait(for: cost, of: limit) { return wait }
    taken += cost * Self.token
    return nil
  }

  /// As `take`, but takes nothing.
  public func wait(for cost: UInt64 = 1, of limit: RateLimit, now: UInt64) -> UInt64? {
    var present = self
    present.bringUp(limit, now: now)
    return present.wait(for: cost, of: limit)
  }

  /// Takes tokens that may not be refused; at most a full bucket is owed for them beyond one that is empty.
  public mutating func charge(_ cost: UInt64 = 1, of limit: RateLimit, now: UInt64) {
    bringUp(limit, now: now)
    taken = min(taken + cost * Self.token, 2 * limit.burst * Self.token)
  }

  private func wait(for cost: UInt64, of limit: RateLimit) -> UInt64? {
    let room = limit.burst * Self.token
    let wanted = min(cost, limit.burst) * Self.token
    guard taken + wanted > room else { return nil }
    return (taken + wanted - room - 1) / limit.perSecond + 1
  }

  private mutating func bringUp(_ limit: RateLimit, now: UInt64) {
    if let last = self.limit {
      let (back, isLong) = (now > updatedAt ? now - updatedAt : 0)
        .multipliedReportingOverflow(by: last.perSecond)
      taken = isLong || back > taken ? 0 : taken - back
    }
    updatedAt = max(updatedAt, now)
    guard self.limit != limit else { return }
    self.limit = limit
    // Under a lower limit nobody waits for more than emptied it.
    taken = min(taken, limit.burst * Self.token)
  }
}
