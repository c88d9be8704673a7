import Foundation
import Glibc
import KeyringTestSupport
import Testing

extension DiskCampaigns {
  /// A keyringd with a protection taken out loses what it acknowledged, and the campaigns find it: a campaign that finds nothing would prove nothing.
  @Suite struct MutantCampaign {
    /// Rounds, at most, in which a mutant has to be found.
    private static let roundsMax = 60

    @Test(arguments: LoopFileSystem.Kind.allCases)
    func withoutAnySyncPowerCutsFindIt(_ kind: LoopFileSystem.Kind) async throws {
      try await findByCuts("no sync, \(kind)", .noSync, kind)
    }

    @Test(arguments: LoopFileSystem.Kind.allCases)
    func rewrittenInPlacePowerCutsFindIt(_ kind: LoopFileSystem.Kind) async throws {
      try await findByCuts("rewritten in place, \(kind)", .inPlace, kind)
    }

    /// Whatever is replaced, a power cut right after it brings the old file back.
    @Test(arguments: LoopFileSystem.Kind.allCases)
    func withoutDirectorySyncsACutAfterOneChangeFindsIt(_ kind: LoopFileSystem.Kind) async throws {
      let changes = SingleChange.allCases.filter { ![.small, .heavy].contains($0) }
      try await find("no directory sync, \(kind)", .noDirectorySync, kind) {
        fleet,
        fileSystem,
        round,
        generator in
        try await changes[round % changes.count].round(fleet, fileSystem, .withoutLog, &generator)
      }
    }

    private func findByCuts(_ name: String, _ mutant: Mutant, _ kind: LoopFileSystem.Kind) async throws {
      try await find(name, mutant, kind) { fleet, fileSystem, round, generator in
        let cut: LoopFileSystem.Cut = round % 2 == 0 ? .withoutLog : .afterLogFlush
        try await PowerCutCampaign.round(fleet, fileSystem, cut, &generator)
      }
    }

    private func find(
      _ name: String,
      _ mutant: Mutant,
      _ kind: LoopFileSystem.Kind,
      _ round: (CampaignFleet, LoopFileSystem, Int, inout SeededGenerator) async throws -> Void
    ) async throws {
      guard LoopFileSystem.isPossible() else { return }
      var generator = Campaign.generator(name)
      let folder = try TestDirectory()
      let (environment, program) = try await mutant.build(in: folder)
      let (rounds, first) = try await LoopFileSystem.use(kind) { fileSystem -> (Int, Violation?) in
        let fleet = try await CampaignFleet(
          .init(in: fileSystem.path),
          environment: environment,
          program: program,
          generator: &generator
        )
        var done = 0
        while done < Self.roundsMax, fleet.counts.violations.isEmpty {
          do {
            try await round(fleet, fileSystem, done, &generator)
          } catch let error as TestDaemon.NotReady {
            await fleet.kill()
            return (done + 1, Violation("the server does not start: \(error)"))
          }
          done += 1
        }
        await fleet.kill()
        return (done, fleet.counts.violations.first)
      }
      reportMutant(name, rounds, first)
    }
  }
}

/// Fails where a mutant lived.
func reportMutant(_ name: String, _ rounds: Int, _ first: Violation?) {
  Campaign.report("mutant: \(name)", ["found in round": rounds])
  guard let first else {
    Issue.record("seed \(Campaign.seed): the mutant '\(name)' lived through \(rounds) rounds")
    return
  }
  print("campaign mutant: \(name): \(first)")
}
