internal import KeyringCore
internal import Synchronization

/// Connections of callers that no tenant counts: of names that there is no tenant of, and (nil) of service administrators.
final class ConnectionCounts: Sendable {
  private let counts = Mutex<[TenantName?: Int]>([:])

  /// Counts one in; false where there are `most` already.
  func admit(_ name: TenantName?, most: Int) -> Bool {
    counts.withLock { counts in
      guard counts[name, default: 0] < most else { return false }
      counts[name, default: 0] += 1
      return true
    }
  }

  func release(_ name: TenantName?) {
    counts.withLock { counts in
      let rest = counts[name, default: 1] - 1
      counts[name] = rest == 0 ? nil : rest
    }
  }
}
