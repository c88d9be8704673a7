import Foundation
import Glibc
import KeyringTestSupport
import Testing

/// Campaigns that take the machine's disks and processes: one at a time.
@Suite(.serialized) struct DiskCampaigns {}

extension DiskCampaigns {
  /// The power is cut at random moments under eight tenants that write, compact and rotate: nothing that was acknowledged is lost.
  @Suite struct PowerCutCampaign {
    struct Place: Sendable, CustomTestStringConvertible {
      let kind: LoopFileSystem.Kind
      let cut: LoopFileSystem.Cut
      var testDescription: String { "\(kind) \(cut)" }
      static let all = LoopFileSystem.Kind.allCases.flatMap { kind in
        LoopFileSystem.Cut.allCases.map { Place(kind: kind, cut: $0) }
      }
    }

    /// After so many cuts a new file system is made.
    private static let cutsPerImage = 25

    @Test(arguments: Place.all) func nothingAcknowledgedIsLost(_ place: Place) async throws {
      guard LoopFileSystem.isPossible() else { return }
      let name = "power cut, \(place.testDescription)"
      var generator = Campaign.generator(name)
      let rounds = Campaign.rounds(short: 4, long: 250)
      var total = CampaignFleet.Counts()
      var done = 0
      while done < rounds, total.violations.isEmpty {
        let cuts = min(rounds - done, Self.cutsPerImage)
        try await LoopFileSystem.use(place.kind) { fileSystem in
          let fleet = try await CampaignFleet(.init(in: fileSystem.path), generator: &generator)
          for _ in 0..<cuts where fleet.counts.violations.isEmpty {
            done += 1
            try await Self.round(fleet, fileSystem, place.cut, &generator)
          }
          await fleet.kill()
          total += fleet.counts
        }
      }
      #expect(total.violations.isEmpty, "seed \(Campaign.seed), cut \(done): \(total.violations)")
      report(name, "cuts", done, total)
    }

    /// One cut; now and then after the process was killed and had started again: what it then showed is kept, too.
    static func round(
      _ fleet: CampaignFleet,
      _ fileSystem: LoopFileSystem,
      _ cut: LoopFileSystem.Cut,
      _ generator: inout SeededGenerator
    ) async throws {
      if Int.random(in: 0..<4, using: &generator) == 0 {
        let pause = Int.random(in: 5...100, using: &generator)
        try await fleet.write { end, daemon in
          try await Task.sleep(for: .milliseconds(pause))
          end.end()
          daemon.process.signal(SIGKILL)
          await daemon.process.ended()
        }
        guard try await fleet.startAndCompare().isEmpty else { return }
      }
      let pause = Int.random(in: 0...400, using: &generator)
      try await fleet.write { end, daemon in
        try await Task.sleep(for: .milliseconds(pause))
        end.end()
        try fileSystem.cut(cut)
        daemon.process.signal(SIGKILL)
        await daemon.process.ended()
      }
      try await fileSystem.remount()
      try await fleet.startAndCompare()
    }
  }
}

/// The line of a campaign for docs/RELIABILITY.md.
func report(_ name: String, _ rounds: String, _ done: Int, _ counts: CampaignFleet.Counts) {
  Campaign.report(
    name,
    [
      rounds: done, "acknowledged": counts.acknowledged, "administered": counts.administered,
      "in doubt": counts.inDoubt, "of these happened": counts.inDoubtHappened,
      "unfinished storage files": counts.leftovers["keyring", default: 0],
      "unfinished persisted.json": counts.leftovers["persisted", default: 0],
      "unfinished CMK files": counts.leftovers["cmk", default: 0],
      "unfinished anchors": counts.leftovers["anchor", default: 0], "violations": counts.violations.count,
    ]
  )
}

extension CampaignFleet.Counts {
  static func += (left: inout Self, right: Self) {
    left.acknowledged += right.acknowledged
    left.administered += right.administered
    left.inDoubt += right.inDoubt
    left.inDoubtHappened += right.inDoubtHappened
    left.leftovers.merge(right.leftovers, uniquingKeysWith: +)
    left.violations += right.violations
  }
}
