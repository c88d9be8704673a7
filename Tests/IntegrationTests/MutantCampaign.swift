import Foundation
import Glibc
import KeyringTestSupport
import Testing

extension DiskCampaigns {
  /// A keyringd with a protection taken out loses what it acknowledged, and the campaigns find it: a campaign that finds nothing would prove nothing.
  @Suite struct MutantCampaign {
    /// Rounds, at most, in which a mutant has to be found.
    private static let roundsMax = 40

    @Test(arguments: LoopFileSystem.Kind.allCases)
    func withoutAnySyncPowerCutsFindIt(_ kind: LoopFileSystem.Kind) async throws {
      try await findByCuts("no sync, \(kind)", .noSync, kind)
    }

    @Test(arguments: LoopFileSystem.Kind.allCases)
    func rewrittenInPlacePowerCutsFindIt(_ kind: LoopFileSystem.Kind) async throws {
      try await findByCuts("rewritten in place, \(kind)", .inPlace, kind)
    }

    /// Whatever is replaced, a power cut right after it brings the old file back. (Not a new tenant's: the anchor, which comes last of it, syncs
    /// what came before on these file systems.)
    @Test(arguments: LoopFileSystem.Kind.allCases)
    func withoutDirectorySyncsACutAfterOneChangeFindsIt(_ kind: LoopFileSystem.Kind) async throws {
      for change in [SingleChange.persist, .createCMK, .rotateCMK, .rotateKeys] {
        try await find("no directory sync, \(change), \(kind)", .noDirectorySync, kind) {
          fleet,
          fileSystem,
          _,
          generator in
          try await change.round(fleet, fileSystem, .withoutLog, &generator)
        }
      }
    }

    /// What the page cache shows after a failed sync is believed, and appended to.
    @Test(arguments: LoopFileSystem.Kind.allCases)
    func goingOnAfterAFailedSyncBlockErrorsFindIt(_ kind: LoopFileSystem.Kind) async throws {
      guard LoopFileSystem.isPossible() else { return }
      let name = "reopen and go on after a failed sync, \(kind)"
      var generator = Campaign.generator(name)
      let folder = try TestDirectory()
      let (environment, program) = try await Mutant.reopenAndGoOn.build(in: folder)
      let start = KillCampaign.Start(environment: environment, program: program)
      let (rounds, counts) = try await BlockErrorCampaign.rounds(
        Self.roundsMax,
        kind,
        isLogApart: true,
        start,
        &generator
      )
      reportMutant(name, rounds, counts.violations.first)
    }

    /// The reader takes any damage for a torn tail: damage of what was acknowledged after the anchor was last written goes unnoticed.
    @Test func cuttingAnyDamagedTailDamageFindsIt() async throws {
      let name = "any damaged tail is cut off"
      var generator = Campaign.generator(name)
      let folder = try TestDirectory()
      let (environment, program) = try await Mutant.cutAnyTail.build(in: folder)
      let start = KillCampaign.Start(environment: environment, program: program)
      let (rounds, first, _) = try await KillCampaign.damage(Self.roundsMax, start, &generator)
      reportMutant(name, rounds, first)
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
        // Only what comes now can be lost.
        try await LoopFileSystem.run(["sync", "--file-system", fileSystem.path])
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
