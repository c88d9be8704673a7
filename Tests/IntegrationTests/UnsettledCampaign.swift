import Foundation
import Glibc
import KeyringClient
import KeyringTestSupport
import Testing

extension DiskCampaigns {
  /// keyringd is killed between renaming a file and syncing its directory; started again, it shows the new file and builds on it; then the power
  /// is cut. Tenants, anchors and CMKs are on three file systems, so that no sync of one brings what was not synced of another.
  @Suite struct UnsettledCampaign {
    /// What was renamed, and not made durable.
    enum Renamed: String, Sendable, CaseIterable { case storageFile, persisted, anchor, newCMK, rotatedCMK }

    @Test(arguments: LoopFileSystem.Kind.allCases, Renamed.allCases)
    func whatAStartShowsIsKept(_ kind: LoopFileSystem.Kind, _ renamed: Renamed) async throws {
      guard LoopFileSystem.isPossible() else { return }
      let name = "killed between rename and sync, \(renamed.rawValue), \(kind)"
      var generator = Campaign.generator(name)
      let rounds = Campaign.rounds(short: 1, long: 10)
      var done = 0
      try await LoopFileSystem.use(kind) { tenants in
        try await LoopFileSystem.use(kind) { anchors in
          try await LoopFileSystem.use(kind) { cmks in
            var directories = TestDaemon.Directories()
            directories.tenants = tenants.path + "/tenants"
            directories.anchors = anchors.path + "/anchors"
            directories.cmks = cmks.path + "/cmks"
            let fleet = try await CampaignFleet(directories, tenants: 1, generator: &generator)
            while done < rounds, fleet.counts.violations.isEmpty {
              done += 1
              try await Self.round(fleet, [cmks, anchors, tenants], renamed)
            }
            await fleet.kill()
            let counts = fleet.counts
            #expect(counts.violations.isEmpty, "seed \(Campaign.seed), round \(done): \(counts.violations)")
            report(name, "rounds", done, counts)
          }
        }
      }
    }

    private static func round(
      _ fleet: CampaignFleet,
      _ fileSystems: [LoopFileSystem],
      _ renamed: Renamed
    ) async throws {
      if renamed != .anchor { try await SingleChange.small.make(fleet, 0, CountingEnd()) }
      try await die(fleet, renamed)
      guard try await fleet.startAndCompare().isEmpty else { return }
      // What is built on it: a wrapping key under the CMK as it is now, a file that replaces the one the anchor knows.
      for change in [SingleChange.rotateKeys, .small] { try await change.make(fleet, 0, CountingEnd()) }
      for fileSystem in fileSystems { try fileSystem.cut(.withoutLog) }
      await fleet.kill()
      for fileSystem in fileSystems { try await fileSystem.remount() }
      try await fleet.startAndCompare()
    }

    /// Has keyringd killed as it enters the sync of the directory.
    private static func die(_ fleet: CampaignFleet, _ renamed: Renamed) async throws {
      let tenant = fleet.members[0].name
      let (directory, change): (String, SingleChange) =
        switch renamed {
        case .storageFile: ("\(fleet.directories.tenants)/\(tenant)", .rotateKeys)
        case .persisted: ("\(fleet.directories.tenants)/\(tenant)", .persist)
        case .anchor: (fleet.directories.anchors, .small)
        case .newCMK: ("\(fleet.directories.cmks)/\(tenant)", .createCMK)
        case .rotatedCMK: ("\(fleet.directories.cmks)/\(tenant)", .rotateCMK)
        }
      let strace = try await Strace.attach(
        to: fleet.daemon,
        directory,
        "fsync",
        "error=EIO:signal=KILL:when=1"
      )
      let end = CountingEnd()
      // No answer is a fault: a tenant that is opened for the change writes its anchor before it answers, an open one after.
      end.end()
      try await change.make(fleet, 0, end)
      let deadline = ContinuousClock.now + .seconds(60)
      while fleet.daemon.process.isRunning {
        guard ContinuousClock.now < deadline else {
          strace.signal(SIGINT)
          throw Strace.Failure(description: "\(change) did not sync \(directory)")
        }
        try await Task.sleep(for: .milliseconds(5))
      }
      await strace.ended()
    }
  }
}
