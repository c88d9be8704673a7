internal import ConfigurationFiles
public import KeyringCore

/// A limit of a tenant, in total over its connections and addresses: a key under `limits` of its file, and the variable `limits.KEY`.
public enum TenantLimit: String, Sendable, CaseIterable {
  case keys
  case bytes
  case connections
  case requestsInFlight = "requests_in_flight"
  case inFlightBytes = "in_flight_bytes"
  case requestsPerSecond = "requests_per_second"
  case requestsBurst = "requests_burst"
  case writesPerSecond = "writes_per_second"
  case writesBurst = "writes_burst"
  case kmsCallsPerSecond = "kms_calls_per_second"
  case weight

  /// The highest rate and burst.
  public static let rateMax = 10_000_000

  /// What it means.
  public var meaning: String {
    switch self {
    case .keys: "how many keys the tenant may have"
    case .bytes: "how many bytes of the storage file its keys may take, with their versions and names"
    case .connections: "connections of all its instances together"
    case .requestsInFlight: "requests of all its instances that are being executed"
    case .inFlightBytes: "bytes of its large requests in flight"
    case .requestsPerSecond: "requests a second of all its instances"
    case .requestsBurst: "requests at one time; 0: as many as a second has"
    case .writesPerSecond: "changes of keys a second of all its instances"
    case .writesBurst: "changes of keys at one time; 0: as many as a second has"
    case .kmsCallsPerSecond: "calls of AWS KMS a second"
    case .weight: "its share while the server is overloaded, to that of others"
    }
  }

  var range: ClosedRange<Int> {
    switch self {
    case .keys: 1...100_000_000
    case .bytes: 4096...1_099_511_627_776
    case .connections: 1...65_536
    case .requestsInFlight: 1...1_000_000
    case .inFlightBytes: 65_536...1_073_741_824
    case .requestsPerSecond, .writesPerSecond, .requestsBurst, .writesBurst, .kmsCallsPerSecond:
      1...Self.rateMax
    case .weight: 1...10_000
    }
  }

  /// What 0 is; nil where there is no 0.
  private var zero: String? {
    switch self {
    case .keys, .bytes, .connections, .requestsInFlight, .inFlightBytes, .requestsPerSecond, .writesPerSecond,
      .kmsCallsPerSecond:
      "unlimited"
    case .requestsBurst, .writesBurst: "0"
    case .weight: nil
    }
  }

  /// Its value where nothing sets one; nil: the service's.
  var standard: Int? {
    switch self {
    case .keys: 1_000_000
    case .bytes: 1 << 30
    case .connections, .inFlightBytes: nil
    case .requestsInFlight: 1024
    case .requestsPerSecond: 50_000
    case .writesPerSecond: 10_000
    case .requestsBurst, .writesBurst: 0
    case .kmsCallsPerSecond: 500
    case .weight: 100
    }
  }

  /// Reads a value; 0 where it is without limit.
  func value(_ text: String) throws(ConfigurationError) -> Int {
    if let zero, text == "0" || text == zero { return 0 }
    guard let number = Int(text), range.contains(number) else {
      let or = zero.map { $0 == "0" ? ", or 0," : ", or unlimited (0)," } ?? ""
      throw ConfigurationError(
        "a number from \(range.lowerBound) to \(range.upperBound)\(or) is expected, not '\(text)'"
      )
    }
    return number
  }

  /// The one text of a value.
  func text(_ value: Int) -> String { value == 0 ? zero ?? "0" : "\(value)" }
}

/// The limits of a tenant in force, as they are asked for at each request. A number without limit is `Int.max`.
public struct TenantLimits: Sendable, Equatable {
  /// Of instances.
  public var connections = Int.max
  /// Of instances, being executed.
  public var requestsInFlight = Int.max
  /// Of large requests.
  public var inFlightBytes = Int.max
  /// Of instances; nil: without limit.
  public var requests: RateLimit?
  /// Changes of keys; nil: without limit.
  public var writes: RateLimit?
  /// Of AWS KMS; nil: without limit.
  public var kmsCalls: RateLimit?
  /// Of administrators; nil: without limit.
  public var administration: RateLimit?
  /// Of administrators, being executed.
  public var administrationInFlight = 16
  /// 1 to 10,000.
  public var weight = 100

  /// No limits, but for administrators' requests in flight.
  public init() {}

  /// Those that `value` gives.
  init(_ service: ServiceConfiguration.Limits, _ value: (TenantLimit) -> Int) {
    func number(_ limit: TenantLimit) -> Int {
      let number = value(limit)
      return number == 0 ? .max : number
    }
    func rate(_ rate: TenantLimit, burst: TenantLimit? = nil) -> RateLimit? {
      let perSecond = value(rate)
      guard perSecond > 0 else { return nil }
      let burst = burst.map(value) ?? 0
      return RateLimit(perSecond: perSecond, burst: burst == 0 ? nil : burst)
    }
    connections = number(.connections)
    requestsInFlight = number(.requestsInFlight)
    inFlightBytes = number(.inFlightBytes)
    requests = rate(.requestsPerSecond, burst: .requestsBurst)
    writes = rate(.writesPerSecond, burst: .writesBurst)
    kmsCalls = rate(.kmsCallsPerSecond)
    administration = RateLimit(perSecond: max(service.administrativeRequestsPerSecond / 10, 1))
    weight = value(.weight)
  }
}

extension ServiceConfiguration.Limits {
  /// A tenant's limit where its file says nothing.
  func standard(_ limit: TenantLimit) -> Int {
    switch limit {
    case .connections: connectionsPerTenant
    case .inFlightBytes: tenantInFlightBytes
    case .keys, .bytes, .requestsInFlight, .requestsPerSecond, .requestsBurst, .writesPerSecond, .writesBurst,
      .kmsCallsPerSecond, .weight:
      limit.standard ?? 0
    }
  }

  /// The limits of those who come from no tenant: the service's administrators.
  public var ofServiceAdministrators: TenantLimits {
    var limits = TenantLimits()
    limits.administration = RateLimit(perSecond: administrativeRequestsPerSecond)
    limits.administrationInFlight = 256
    return limits
  }

  /// The limits of those whose certificates name tenants that there are not, all of them together.
  public var ofStrangers: TenantLimits {
    var limits = TenantLimits()
    limits.requests = RateLimit(perSecond: 1000)
    limits.writes = limits.requests
    limits.administration = limits.requests
    (limits.requestsInFlight, limits.inFlightBytes) = (256, 8 << 20)
    return limits
  }
}

extension TenantSettings {
  /// The limits in force.
  public func limits(_ service: ServiceConfiguration.Limits) -> TenantLimits {
    TenantLimits(service) { self.limit($0) ?? service.standard($0) }
  }

  /// What the keyring may hold.
  public var keyringLimits: KeyringLimits {
    func number(_ limit: TenantLimit) -> Int {
      let number = self.limit(limit) ?? 0
      return number == 0 ? .max : number
    }
    return KeyringLimits(keys: number(.keys), bytes: number(.bytes))
  }

  /// As `shown`, with what the service's configuration gives.
  public func shown(_ name: VariableName, _ service: ServiceConfiguration.Limits) -> String {
    let text = shown(name)
    guard text.isEmpty, let limit = name.limit else { return text }
    return limit.text(service.standard(limit))
  }
}

extension VariableName {
  /// The limit that it is; nil where it is none.
  public var limit: TenantLimit? {
    rawValue.hasPrefix("limits.") ? TenantLimit(rawValue: String(rawValue.dropFirst(7))) : nil
  }
}
