import Foundation
import Glibc
import KeyringClient
import KeyringCore
import KeyringStorage
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

    // MARK: Damage

    /// After a kill the last batch may be torn; damage of another kind, of what was acknowledged, is never cut off as if it were.
    @Test func damageIsNotTakenForATornTail() async throws {
      var generator = Campaign.generator("damage")
      let rounds = Campaign.rounds(short: 3, long: 100)
      let (done, first, acknowledged) = try await Self.damage(rounds, .init(), &generator)
      #expect(first == nil, "seed \(Campaign.seed), round \(done)")
      Campaign.report(
        "damage after a kill",
        ["rounds": done, "acknowledged": acknowledged, "violations": first == nil ? 0 : 1]
      )
    }

    /// How keyringd is started.
    struct Start {
      var environment: [String: String] = [:]
      var program: TestProgram?
    }

    /// One change is acknowledged, keyringd is killed, a bit of the last batch flipped; the tenant must refuse, or have all that was
    /// acknowledged; mended, it must have it.
    static func damage(
      _ rounds: Int,
      _ start: Start,
      _ generator: inout SeededGenerator
    ) async throws -> (done: Int, first: Violation?, acknowledged: Int) {
      let folder = try TestDirectory()
      let fleet = try await CampaignFleet(
        .init(in: folder.path),
        tenants: 2,
        environment: start.environment,
        program: start.program,
        generator: &generator
      )
      var done = 0
      var first: Violation?
      while done < rounds, first == nil {
        done += 1
        try await SingleChange.small.make(fleet, 0, CountingEnd())
        await fleet.kill()
        let file = "\(fleet.directories.tenants)/\(fleet.members[0].name)/keyring"
        let whole = try Data(contentsOf: URL(filePath: file))
        let position = Int.random(
          in: try lastBatch(whole, fleet.members[0].name)..<whole.count,
          using: &generator
        )
        var damaged = whole
        damaged[position] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        try write(damaged, file)
        let before = fleet.members
        let found = try await fleet.startAndCompare()
        await fleet.kill()
        first = found.first {
          !"\($0)".contains("the tenant does not open: TENANT_QUARANTINED") && !$0.isSaid
        }
        if found.isEmpty || first != nil { continue }
        try write(whole, file)
        fleet.members = before
        first = try await fleet.startAndCompare().first
      }
      await fleet.kill()
      return (done, first, fleet.counts.acknowledged)
    }

    private static func lastBatch(_ file: Data, _ tenant: String) throws -> Int {
      let content = try StorageFileReader.read(Array(file), tenant: TenantName(tenant))
      let place = try #require(content.pendingAuthentications.last?.place)
      return try #require(place.split(separator: " ").last.flatMap { Int($0) })
    }

    /// In place: the file's mode and number stay.
    private static func write(_ bytes: Data, _ path: String) throws {
      let file = try FileHandle(forWritingTo: URL(filePath: path))
      try file.write(contentsOf: bytes)
      try file.close()
    }
  }
}
