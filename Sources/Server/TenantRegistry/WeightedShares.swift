public import KeyringCore

/// Who has requests in execution: each party has a share of its own under overload.
public enum Party: Hashable, Sendable {
  /// The instances of a tenant.
  case instances(TenantName)
  /// The administrators of a tenant; nil: those of the service.
  case administrators(TenantName?)
  /// Callers of tenants that there are not.
  case strangers
}

/// Who may have one more request executed, of all parties of a server: anyone below the bound, past it each up to its weighted share of the bound.
///
/// A party's share is bound * weight / (sum of the weights of those with requests in execution, its own among them), at least 1. Whoever came
/// first may hold more than its share until its requests end, so that the total passes the bound; it never passes twice the bound, but for one
/// request of each party that has none.
public struct WeightedShares: Sendable {
  private struct Entry {
    var executing = 0
    var weight: Int
  }

  /// The bound.
  public let bound: Int
  /// In execution.
  public private(set) var total = 0
  private var entries: [Party: Entry] = [:]
  private var weights = 0

  /// - Parameter bound: requests in execution; at least 1.
  public init(bound: Int) { self.bound = max(bound, 1) }

  /// Counts one in; false where the party has as many as it may at this moment.
  ///
  /// - Parameter weight: 1 to 10,000.
  public mutating func admit(_ party: Party, weight: Int) -> Bool {
    var entry = entries[party, default: Entry(weight: 0)]
    let weights = self.weights - entry.weight + weight
    if total >= bound, entry.executing > 0 {
      let share = max(bound * weight / weights, 1)
      guard entry.executing < share, total < 2 * bound else { return false }
    }
    entry.executing += 1
    entry.weight = weight
    entries[party] = entry
    self.weights = weights
    total += 1
    return true
  }

  /// Counts one out that was counted in.
  public mutating func release(_ party: Party) {
    guard var entry = entries[party] else { preconditionFailure("what is counted out was counted in") }
    total -= 1
    entry.executing -= 1
    if entry.executing == 0 {
      weights -= entry.weight
      entries[party] = nil
    } else {
      entries[party] = entry
    }
  }

  /// In execution for a party.
  public func executing(_ party: Party) -> Int { entries[party]?.executing ?? 0 }
}
