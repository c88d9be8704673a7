import Testing

@testable import FuzzTargets

private func run(_ target: FuzzTarget, _ bytes: [UInt8]) -> Bool {
  unsafe bytes.withUnsafeBytes { unsafe target.run($0) }
}

/// The fuzz targets on their seeds, and on what lies near them: a property that a change breaks shows here first. `Tests/run --fuzz` goes on for longer.
@Suite struct FuzzTargetsTests {
  @Test(arguments: FuzzTarget.allCases)
  func everySeedIsAccepted(_ target: FuzzTarget) throws {
    let seeds = try target.seeds()
    #expect(seeds.count >= 3)
    for (index, seed) in seeds.enumerated() { #expect(run(target, seed), "seed \(index)") }
  }

}

/// A minute of both cores: it runs with the campaigns, alone.
@Suite struct NearSeedCampaign {
  /// Every byte of every seed changed, left out (with the next), doubled, written as a longer number, and every seed cut off everywhere.
  @Test(arguments: FuzzTarget.allCases)
  func whatLiesNearASeedBreaksNoProperty(_ target: FuzzTarget) throws {
    var refused = 0
    for seed in try target.seeds() {
      for index in seed.indices {
        var changed = seed
        changed[index] ^= UInt8(truncatingIfNeeded: 1 << (index % 8))
        let without = Array(seed[..<index] + seed[(index + 1)...])
        let doubled = Array(seed[...index] + seed[index...])
        let withoutTwo = Array(seed[..<index] + seed[(index + 1)...].dropFirst())
        let longer = Array(seed[..<index]) + [seed[index] | 0x80, 0] + Array(seed[(index + 1)...])
        for input in [changed, without, withoutTwo, doubled, longer, Array(seed[..<index])]
        where !run(target, input) {
          refused += 1
        }
      }
    }
    #expect(refused > 100)
  }
}
