import Foundation
import Glibc
import KeyringClient
import KeyringTestSupport
import Testing

extension DiskCampaigns {
  /// One tenant's storage file fails, and no other: the other tenants see no error, and that one goes on when its file does.
  @Suite struct TenantFailureCampaign {
    /// What fails, as strace(1) injects it.
    struct Fault: Sendable, CustomTestStringConvertible {
      let call: String
      let error: String
      var testDescription: String { "\(call) \(error)" }

      static let all = [
        Fault(call: "fdatasync", error: "EIO"), Fault(call: "pwrite64", error: "ENOSPC"),
        Fault(call: "pwrite64", error: "EIO"), Fault(call: "pread64", error: "EIO"),
      ]
    }

    /// The one whose file fails is the first.
    @Test(arguments: Fault.all) func theOthersSeeNoError(_ fault: Fault) async throws {
      guard geteuid() == 0 else {
        Issue.record(
          "one tenant's failure needs root: strace attaches to a process that nobody else may attach to"
        )
        return
      }
      let name = "one tenant's \(fault.testDescription)"
      var generator = Campaign.generator(name)
      let folder = try TestDirectory()
      let fleet = try await CampaignFleet(.init(in: folder.path), generator: &generator)
      var done = 0
      while done < Campaign.rounds(short: 1, long: 25), fleet.counts.violations.isEmpty {
        done += 1
        let file = "\(fleet.directories.tenants)/\(fleet.members[0].name)/keyring"
        let pause = Int.random(in: 100...400, using: &generator)
        let others = fleet.acknowledgedByOthers
        try await fleet.write(failing: [0]) { end, daemon in
          let strace = try await Strace.attach(to: daemon, file, fault.call, "error=\(fault.error)")
          try await Task.sleep(for: .milliseconds(pause))
          strace.signal(SIGINT)
          await strace.ended()
          try await end.moreAcknowledged()
          end.end()
        }
        #expect(fleet.acknowledgedByOthers > others)
        // By the server that met the failure, then by one that reads the disk.
        guard try await fleet.compare().isEmpty else { break }
        await fleet.kill()
        try await fleet.startAndCompare()
      }
      await fleet.kill()
      let counts = fleet.counts
      #expect(fleet.failures(of: 0) > 0, "its file did fail")
      #expect(counts.violations.isEmpty, "seed \(Campaign.seed), round \(done): \(counts.violations)")
      Campaign.report(
        name,
        [
          "rounds": done, "acknowledged": counts.acknowledged, "by the others": fleet.acknowledgedByOthers,
          "refused": counts.refused, "unknown": counts.unknown, "violations": counts.violations.count,
        ]
      )
    }
  }
}
