/// Which limit refused something; for counters, whose labels they are.
public enum LimitKind: String, Sendable, CaseIterable {
  // Of a tenant.
  case keys, bytes, connections
  case requestsInFlight = "requests_in_flight"
  case inFlightBytes = "in_flight_bytes"
  case requests = "requests_per_second"
  case writes = "writes_per_second"
  case kmsCalls = "kms_calls_per_second"
  /// Of its administrators, or the service's.
  case administration
  /// Its share of the server's requests in flight.
  case share
  /// Of the server, or its share of it.
  case secretMemory = "secret_memory"
  case serverBytes = "server_in_flight_bytes"
  case serverConnections = "server_connections"
  case unauthenticatedConnections = "unauthenticated_connections"
}

/// How often each limit refused something.
public struct LimitCounts: Sendable, Equatable {
  private var counts = [UInt64](repeating: 0, count: LimitKind.allCases.count)

  /// None yet.
  public init() {}

  /// Counts one.
  public mutating func add(_ kind: LimitKind) { self[kind] += 1 }

  /// Of one limit.
  public private(set) subscript(_ kind: LimitKind) -> UInt64 {
    get { counts[Self.index(kind)] }
    set { counts[Self.index(kind)] = newValue }
  }

  private static func index(_ kind: LimitKind) -> Int {
    guard let index = LimitKind.allCases.firstIndex(of: kind) else {
      preconditionFailure("it is one of them")
    }
    return index
  }
}

/// What a request asks of its tenant's limits.
public enum RequestDemand: Sendable, Equatable {
  /// Of an instance, changing nothing.
  case read
  /// Of an instance: so many changes of keys.
  case write(changes: Int)
  /// Of an administrator.
  case administration
  /// A piece of a backup or restore, which are bounded by their own number.
  case transfer
}

/// Why a request is refused, and when asking again may help.
public struct LimitRefusal: Error, Sendable, Equatable {
  /// Which limit.
  public let kind: LimitKind
  /// At least 1.
  public let retryAfterMilliseconds: UInt32

  init(_ kind: LimitKind, nanoseconds: UInt64) {
    self.kind = kind
    retryAfterMilliseconds = UInt32(clamping: (nanoseconds + 999_999) / 1_000_000)
  }

  /// - Parameter retryAfterMilliseconds: at least 1.
  public init(_ kind: LimitKind, retryAfterMilliseconds: UInt32) {
    self.kind = kind
    self.retryAfterMilliseconds = retryAfterMilliseconds
  }
}

/// What the callers of one tenant have taken of its limits, in total. Pure: the time is told.
public struct RequestLimiter: Sendable {
  /// In force.
  public var limits: TenantLimits
  /// What was refused.
  public private(set) var refused = LimitCounts()
  /// Of instances, being executed.
  public private(set) var executing = 0
  /// Of administrators, being executed.
  public private(set) var administrating = 0
  /// Of large requests.
  public private(set) var inFlightBytes = 0
  private var requests = TokenBucket()
  private var writes = TokenBucket()
  private var kmsCalls = TokenBucket()
  private var administration = TokenBucket()

  /// When trying again may help where it is not a rate that is over.
  private static let pauseMilliseconds: UInt32 = 50

  /// Nothing taken yet.
  public init(_ limits: TenantLimits) { self.limits = limits }

  /// Takes what a request needs of the rates, or nothing.
  ///
  /// - Parameter now: monotonic nanoseconds.
  public mutating func take(_ demand: RequestDemand, now: UInt64) -> LimitRefusal? {
    switch demand {
    case .transfer: return nil
    case .administration:
      guard let limit = limits.administration, let wait = administration.take(of: limit, now: now) else {
        return nil
      }
      return refuse(LimitRefusal(.administration, nanoseconds: wait))
    case .read: return takeRequest(now)
    case .write(let changes):
      guard let limit = limits.writes else { return takeRequest(now) }
      let cost = UInt64(max(changes, 1))
      // First a look, so that what is refused for the one takes nothing of the other.
      if let wait = writes.wait(for: cost, of: limit, now: now) {
        return refuse(LimitRefusal(.writes, nanoseconds: wait))
      }
      if let refusal = takeRequest(now) { return refusal }
      guard writes.take(cost, of: limit, now: now) == nil else { preconditionFailure("there were enough") }
      return nil
    }
  }

  private mutating func takeRequest(_ now: UInt64) -> LimitRefusal? {
    guard let limit = limits.requests, let wait = requests.take(of: limit, now: now) else { return nil }
    return refuse(LimitRefusal(.requests, nanoseconds: wait))
  }

  /// Counts a request in that is to be executed.
  public mutating func begin(isAdministrator: Bool) -> LimitRefusal? {
    if isAdministrator {
      guard administrating < limits.administrationInFlight else {
        return refuse(LimitRefusal(.administration, retryAfterMilliseconds: Self.pauseMilliseconds))
      }
      administrating += 1
    } else {
      guard executing < limits.requestsInFlight else {
        return refuse(LimitRefusal(.requestsInFlight, retryAfterMilliseconds: Self.pauseMilliseconds))
      }
      executing += 1
    }
    return nil
  }

  /// Counts it out.
  public mutating func end(isAdministrator: Bool) {
    if isAdministrator { administrating -= 1 } else { executing -= 1 }
  }

  /// Takes bytes of a large request.
  public mutating func reserve(_ bytes: Int) -> LimitRefusal? {
    guard inFlightBytes + bytes <= limits.inFlightBytes else {
      return refuse(LimitRefusal(.inFlightBytes, retryAfterMilliseconds: Self.pauseMilliseconds))
    }
    inFlightBytes += bytes
    return nil
  }

  /// Gives them back.
  public mutating func release(_ bytes: Int) { inFlightBytes -= bytes }

  /// Takes a call of the KMS.
  ///
  /// - Parameter isRefusable: false for what may not be refused, the confirmation of a wrapping key for one: it is owed.
  public mutating func takeKMSCall(isRefusable: Bool, now: UInt64) -> LimitRefusal? {
    guard let limit = limits.kmsCalls else { return nil }
    guard isRefusable else {
      kmsCalls.charge(of: limit, now: now)
      return nil
    }
    return kmsCalls.take(of: limit, now: now).map { refuse(LimitRefusal(.kmsCalls, nanoseconds: $0)) }
  }

  /// As `takeKMSCall`, for what asks the KMS once for all who wait: takes nothing.
  public mutating func awaitKMSCall(now: UInt64) -> LimitRefusal? {
    guard let limit = limits.kmsCalls, let wait = kmsCalls.wait(of: limit, now: now) else { return nil }
    return refuse(LimitRefusal(.kmsCalls, nanoseconds: wait))
  }

  /// Counts what was refused elsewhere.
  public mutating func count(_ kind: LimitKind) { refused.add(kind) }

  private mutating func refuse(_ refusal: LimitRefusal) -> LimitRefusal {
    refused.add(refusal.kind)
    return refusal
  }
}
