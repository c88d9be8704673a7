internal import KeyringCore
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// What all callers of a server share: requests being executed, bytes of large requests, and the counts of what was refused.
final class ServerAdmission: Sendable {
  private struct State {
    var shares: WeightedShares
    var bytes = 0
    var refused = LimitCounts()
  }

  private let state: Mutex<State>
  private let bytesMax: Int

  init(_ limits: ServiceConfiguration.Limits) {
    state = Mutex(State(shares: WeightedShares(bound: limits.requestsInFlight)))
    bytesMax = limits.inFlightBytes
  }

  func count(_ kind: LimitKind) { state.withLock { $0.refused.add(kind) } }

  fileprivate func begin(_ party: Party, weight: Int) -> Bool {
    state.withLock { $0.shares.admit(party, weight: weight) }
  }

  fileprivate func end(_ party: Party) { state.withLock { $0.shares.release(party) } }

  /// An eighth is left for the service's administrators.
  fileprivate func reserve(_ bytes: Int, _ party: Party) -> Bool {
    let most = party == .administrators(nil) ? bytesMax : bytesMax / 8 * 7
    return state.withLock { state in
      guard state.bytes + bytes <= most else { return false }
      state.bytes += bytes
      return true
    }
  }

  fileprivate func release(_ bytes: Int) { state.withLock { $0.bytes -= bytes } }

  /// At this moment: requests being executed, bytes of large ones, and what was refused since the start.
  var measured: (executing: Int, bytes: Int, refused: LimitCounts) {
    state.withLock { ($0.shares.total, $0.bytes, $0.refused) }
  }
}

/// Admits the requests of one tenant's callers, of the service's administrators, or of those that belong to no tenant: within limits in total, and
/// within their share of the server. Short mutexes; for event loops.
final class Admission: Sendable {
  /// Whose.
  enum Holder: Sendable {
    case tenant(TenantName)
    case serviceAdministrators
    case strangers
  }

  private let holder: Holder
  private let server: ServerAdmission
  private let limiter: Mutex<RequestLimiter>

  init(_ holder: Holder, _ limits: TenantLimits, _ server: ServerAdmission) {
    self.holder = holder
    self.server = server
    limiter = Mutex(RequestLimiter(limits))
  }

  /// Those in force; what is taken already counts against new ones.
  var limits: TenantLimits {
    get { limiter.withLock { $0.limits } }
    set { limiter.withLock { $0.limits = newValue } }
  }

  /// What was refused, by limit.
  var refused: LimitCounts { limiter.withLock { $0.refused } }

  /// What a request asks of the limits.
  static func demand(of call: Call, isAdministrator: Bool) -> RequestDemand {
    switch call {
    case .admin(.backup(_, .read)), .admin(.restore(_, .write)):
      return isAdministrator ? .transfer : .read
    case .admin, .whoAmI, .fetch, .describe, .list: return isAdministrator ? .administration : .read
    case .change: return isAdministrator ? .administration : .write(changes: 1)
    case .transact(let changes):
      return isAdministrator ? .administration : .write(changes: changes.count)
    case .importKeys(let keys): return isAdministrator ? .administration : .write(changes: keys.count)
    }
  }

  /// Takes what a request needs of the rates; throws at once where that is not there.
  ///
  /// - Parameter now: monotonic nanoseconds.
  func take(_ demand: RequestDemand, now: UInt64) throws(ServiceError) {
    try check(limiter.withLock { $0.take(demand, now: now) })
  }

  /// Counts a request in that is to be executed; `end` counts it out.
  func begin(isAdministrator: Bool) throws(ServiceError) {
    let (refusal, weight) = limiter.withLock {
      ($0.begin(isAdministrator: isAdministrator), $0.limits.weight)
    }
    try check(refusal)
    guard server.begin(party(isAdministrator), weight: isAdministrator ? 100 : weight) else {
      limiter.withLock { limiter in
        limiter.end(isAdministrator: isAdministrator)
        limiter.count(.share)
      }
      try check(LimitRefusal(.share, retryAfterMilliseconds: 50))
      return
    }
  }

  func end(isAdministrator: Bool) {
    limiter.withLock { $0.end(isAdministrator: isAdministrator) }
    server.end(party(isAdministrator))
  }

  private func party(_ isAdministrator: Bool) -> Party {
    switch holder {
    case .tenant(let name): isAdministrator ? .administrators(name) : .instances(name)
    case .serviceAdministrators: .administrators(nil)
    case .strangers: .strangers
    }
  }

  /// Takes bytes for a large request; `release` gives them back.
  func reserve(_ bytes: Int, isAdministrator: Bool) throws(ServiceError) {
    try check(limiter.withLock { $0.reserve(bytes) })
    guard server.reserve(bytes, party(isAdministrator)) else {
      limiter.withLock { limiter in
        limiter.release(bytes)
        limiter.count(.serverBytes)
      }
      try check(LimitRefusal(.serverBytes, retryAfterMilliseconds: 100))
      return
    }
  }

  func release(_ bytes: Int) {
    guard bytes > 0 else { return }
    limiter.withLock { $0.release(bytes) }
    server.release(bytes)
  }

  /// Takes a call of the KMS.
  ///
  /// - Returns: milliseconds after which to ask again; nil where it may be made.
  func takeKMSCall(isRefusable: Bool) -> UInt32? {
    let now = monotonicNanoseconds()
    let refusal = limiter.withLock { $0.takeKMSCall(isRefusable: isRefusable, now: now) }
    if let refusal { server.count(refusal.kind) }
    return refusal?.retryAfterMilliseconds
  }

  /// Throws where a call of the KMS would be over the limit; takes nothing.
  func awaitKMSCall(now: UInt64) throws(ServiceError) {
    try check(limiter.withLock { $0.awaitKMSCall(now: now) })
  }

  /// Counts what was refused elsewhere.
  func count(_ kind: LimitKind) {
    limiter.withLock { $0.count(kind) }
    server.count(kind)
  }

  private func check(_ refusal: LimitRefusal?) throws(ServiceError) {
    guard let refusal else { return }
    server.count(refusal.kind)
    throw .throttled(
      refusal.kind.message,
      retryAfterMilliseconds: refusal.retryAfterMilliseconds
    )
  }
}

extension LimitKind {
  init(_ excess: KeyringLimits.Excess) {
    self =
      switch excess {
      case .keys: .keys
      case .bytes: .bytes
      }
  }

  /// For a client.
  var message: String {
    switch self {
    case .keys: "limits.keys: the tenant has as many keys as it may"
    case .bytes: "limits.bytes: the tenant's keys take as many bytes as they may"
    case .connections: "the tenant has as many connections as it may"
    case .requestsInFlight:
      "limits.requests_in_flight: as many requests of the tenant are in flight as may be"
    case .inFlightBytes:
      "limits.in_flight_bytes: as many bytes of the tenant's requests are in flight as may be"
    case .requests: "limits.requests_per_second: the tenant makes more requests than it may"
    case .writes: "limits.writes_per_second: the tenant makes more changes than it may"
    case .kmsCalls: "limits.kms_calls_per_second: the tenant needs its KMS more often than it may"
    case .administration: "more administrators' requests than may be made at one time"
    case .share: "the server is overloaded, and the tenant has its share of it"
    case .secretMemory: "the tenant has as many secrets in flight as it may"
    case .serverBytes: "as many bytes of requests are in flight in the server as may be"
    case .serverConnections: "the server has as many connections as it may"
    case .unauthenticatedConnections: "the server has as many handshakes under way as it may"
    }
  }
}
