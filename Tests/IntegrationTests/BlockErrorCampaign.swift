import Foundation
import Glibc
import KeyringTestSupport
import Testing

extension DiskCampaigns {
  /// A disk refuses writes for a while, under eight tenants that write; then it works again. What was acknowledged, whenever it was, is there
  /// at the end, on the disk.
  @Suite struct BlockErrorCampaign {
    /// With its log on the same disk a file system shuts itself down after some errors; with the log apart it goes on, and what it could not
    /// write is in its page cache and nowhere else.
    @Test(arguments: LoopFileSystem.Kind.allCases, [false, true])
    func whatWasAcknowledgedIsOnTheDisk(_ kind: LoopFileSystem.Kind, isLogApart: Bool) async throws {
      guard LoopFileSystem.isPossible() else { return }
      let name = "block errors, \(kind), \(isLogApart ? "log apart" : "log on the same disk")"
      var generator = Campaign.generator(name)
      let (done, total) = try await Self.rounds(
        Campaign.rounds(short: 3, long: 100),
        kind,
        isLogApart: isLogApart,
        .init(),
        &generator
      )
      #expect(total.violations.isEmpty, "seed \(Campaign.seed), round \(done): \(total.violations)")
      // It did fail, and servers did notice.
      #expect(total.unknown > 0)
      Campaign.report(
        name,
        [
          "rounds": done, "acknowledged": total.acknowledged, "refused": total.refused,
          "unknown": total.unknown,
          "violations": total.violations.count,
        ]
      )
    }

    /// Rounds on one disk until something is wrong.
    static func rounds(
      _ rounds: Int,
      _ kind: LoopFileSystem.Kind,
      isLogApart: Bool,
      _ start: KillCampaign.Start,
      _ generator: inout SeededGenerator
    ) async throws -> (done: Int, CampaignFleet.Counts) {
      try await LoopFileSystem.use(kind, isBreakable: true, isLogApart: isLogApart) { fileSystem in
        let fleet = try await CampaignFleet(
          .init(in: fileSystem.path),
          environment: start.environment,
          program: start.program,
          generator: &generator
        )
        var done = 0
        while done < rounds, fleet.counts.violations.isEmpty {
          done += 1
          let pauses = [100, 60, 300].map { Int.random(in: 1...$0, using: &generator) }
          try await fleet.write(failing: Set(fleet.members.indices)) { end, daemon in
            try await Task.sleep(for: .milliseconds(pauses[0]))
            try fileSystem.breakDisk()
            try await Task.sleep(for: .milliseconds(pauses[1]))
            try fileSystem.healDisk()
            try await Task.sleep(for: .milliseconds(pauses[2]))
            end.end()
            daemon.process.signal(SIGKILL)
            await daemon.process.ended()
          }
          try await fileSystem.remount()
          try await fleet.startAndCompare()
        }
        await fleet.kill()
        return (done, fleet.counts)
      }
    }
  }
}
