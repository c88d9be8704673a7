internal import Foundation

/// A test that repeats a fault many times: a few rounds in every run of the tests, many behind `Tests/run --campaign`; always from a seed that
/// is said, so that a finding can be had again.
public enum Campaign {
  /// True behind `Tests/run --campaign` (KEYRING_CAMPAIGN=long).
  public static let isLong = ProcessInfo.processInfo.environment["KEYRING_CAMPAIGN"] == "long"

  /// From KEYRING_SEED, or random.
  public static let seed =
    ProcessInfo.processInfo.environment["KEYRING_SEED"].flatMap { UInt64($0) } ?? .random(in: 0..<1_000_000)

  /// Rounds of a campaign: KEYRING_ROUNDS of a long one, where that is set.
  public static func rounds(short: Int, long: Int) -> Int {
    guard isLong else { return short }
    return ProcessInfo.processInfo.environment["KEYRING_ROUNDS"].flatMap { Int($0) } ?? long
  }

  /// Random numbers of a campaign: the same for the same seed and name.
  public static func generator(_ name: String) -> SeededGenerator {
    SeededGenerator(seed: name.utf8.reduce(seed) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 })
  }

  /// Prints one line for docs/RELIABILITY.md: the campaign, its seed, its counts.
  public static func report(_ name: String, _ counts: KeyValuePairs<String, Int>) {
    let text = counts.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
    print("campaign \(name): seed=\(seed) \(text)")
  }
}

/// SplitMix64: random numbers that a seed gives again. For tests only.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  /// Begins at `seed`.
  public init(seed: UInt64) { state = seed }

  /// The next number.
  public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }
}
