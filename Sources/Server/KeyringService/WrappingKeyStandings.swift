internal import KeyringCore
internal import Synchronization

/// How a wrapping key stands with its provider.
enum Standing: Sendable, Equatable {
  /// Not asked for yet.
  case cold
  /// Confirmed.
  case held
  /// The provider does not answer; what is held may be used within the grace.
  case unreachable(String)
  /// The provider refuses: what was held is wiped.
  case denied(String)
}

extension Standing {
  /// For the status.
  var name: String {
    switch self {
    case .cold: "cold"
    case .held: "held"
    case .unreachable: "unreachable"
    case .denied: "denied"
    }
  }
}

/// What is known of each wrapping key of a keyring, and who is asking the provider at this moment.
struct WrappingKeyStandings {
  /// After a refusal the provider is asked again at most this often, in nanoseconds.
  static let probeInterval: UInt64 = 30_000_000_000
  /// While the provider does not answer, it is asked again at most this often, in nanoseconds.
  static let retryInterval: UInt64 = 5_000_000_000

  struct Entry {
    var standing = Standing.cold
    /// Since when it stands so, Unix milliseconds; 0: since the keyring was opened.
    var sinceMilliseconds: UInt64 = 0
    /// What the provider said when it last failed, and when, Unix milliseconds.
    var failure: (what: String, atMilliseconds: UInt64)?
    var confirmedAt: UInt64 = 0
    var askedAt: UInt64 = 0
    /// HMACs of the storage file that wait for this key.
    var unverified: [PendingAuthentication] = []
    /// Single flight: all who need an answer await the same one.
    var asking: Task<Result<HeldWrappingKey, ServiceError>, Never>?
  }

  var entries: [WrappingKeyID: Entry] = [:]
  /// What the provider said when it last failed at making something, which is no wrapping key's.
  var failureToMake: (what: String, atMilliseconds: UInt64)?
  /// Those just made, on their way into the keyring: not there yet, and not to be forgotten.
  var onTheirWay: Set<WrappingKeyID> = []

  /// Notes how a wrapping key stands from now on.
  mutating func set(_ id: WrappingKeyID, _ standing: Standing) {
    let now = unixMilliseconds()
    switch standing {
    case .denied(let why), .unreachable(let why): entries[id, default: .init()].failure = (why, now)
    case .cold, .held: break
    }
    if entries[id]?.standing.name != standing.name { entries[id, default: .init()].sinceMilliseconds = now }
    entries[id, default: .init()].standing = standing
  }

  /// Batches whose HMAC is not checked yet.
  var unverifiedCount: Int { entries.values.reduce(0) { $0 + $1.unverified.count } }

  /// The refusal to give without asking the provider, if it refused a moment ago.
  func freshRefusal(_ id: WrappingKeyID, now: UInt64) -> ServiceError? {
    // The clock was read before the lock was had: `askedAt` may be later than `now`.
    guard let entry = entries[id], now < entry.askedAt + Self.probeInterval else { return nil }
    switch entry.standing {
    case .denied(let why): return .tenantLocked(why)
    case .cold, .held, .unreachable: return nil
    }
  }
}
