import Foundation
import Glibc
import KeyringClient
import KeyringTestSupport
import Synchronization
import Testing

extension DiskCampaigns {
  /// keyringd is killed at random moments, and at chosen ones: the old state or the new one is there, and no temporary file.
  @Suite struct KillCampaign {
    /// When it is killed.
    private enum Moment: CaseIterable {
      case whileWriting, whileRotatingKeys, whilePersisting, whileChangingCMKs, whileCompacting
    }

    @Test func theOldStateIsThereOrTheNew() async throws {
      var generator = Campaign.generator("kill")
      let rounds = Campaign.rounds(short: 15, long: 1000)
      let folder = try TestDirectory()
      let fleet = try await CampaignFleet(.init(in: folder.path), generator: &generator)
      var done = 0
      while done < rounds, fleet.counts.violations.isEmpty {
        let moment = Moment.allCases[done % Moment.allCases.count]
        done += 1
        switch moment {
        case .whileWriting: try await killWhileWriting(fleet, 0...300, &generator)
        case .whileRotatingKeys: try await kill(fleet, during: .rotateKeys, &generator)
        case .whilePersisting: try await kill(fleet, during: .persist, &generator)
        case .whileChangingCMKs:
          try await kill(fleet, during: Bool.random(using: &generator) ? .rotateCMK : .createCMK, &generator)
        case .whileCompacting: try await killWhileCompacting(fleet, &generator)
        }
        try await fleet.startAndCompare()
      }
      await fleet.kill()
      let counts = fleet.counts
      #expect(counts.violations.isEmpty, "seed \(Campaign.seed), kill \(done): \(counts.violations)")
      report("kill -9", "kills", done, counts)
    }

    private func killWhileWriting(
      _ fleet: CampaignFleet,
      _ pause: ClosedRange<Int>,
      _ generator: inout SeededGenerator
    ) async throws {
      let pause = Int.random(in: pause, using: &generator)
      try await fleet.write { end, daemon in
        try await Task.sleep(for: .milliseconds(pause))
        end.end()
        daemon.process.signal(SIGKILL)
        await daemon.process.ended()
      }
    }

    /// Everybody writes, half of the administrators take the same step at one moment, and a moment later it is killed.
    private func kill(
      _ fleet: CampaignFleet,
      during step: CampaignAdministrator.Step,
      _ generator: inout SeededGenerator
    ) async throws {
      let pause = Int.random(in: 0...(step == .rotateKeys ? 60_000 : 8000), using: &generator)
      try await fleet.write(all: step) { end, daemon in
        try await Task.sleep(for: .microseconds(pause))
        end.end()
        daemon.process.signal(SIGKILL)
        await daemon.process.ended()
      }
    }

    /// Waits until the temporary file of a replacement is there.
    private func killWhileCompacting(_ fleet: CampaignFleet, _ generator: inout SeededGenerator) async throws
    {
      let folders = fleet.members.map { "\(fleet.directories.tenants)/\($0.name)" }
      let pause = Int.random(in: 0...3000, using: &generator)
      try await fleet.write { end, daemon in
        let deadline = ContinuousClock.now + .seconds(3)
        while ContinuousClock.now < deadline {
          let isReplacing = try folders.contains { folder in
            try FileManager.default.contentsOfDirectory(atPath: folder).contains {
              $0.hasPrefix("keyring.") && $0 != "keyring.lock"
            }
          }
          if isReplacing { break }
          try await Task.sleep(for: .microseconds(200))
        }
        try await Task.sleep(for: .microseconds(pause))
        end.end()
        daemon.process.signal(SIGKILL)
        await daemon.process.ended()
      }
    }
  }
}
