import Foundation
import Glibc
import KeyringClient
import KeyringTestSupport
import TLSTransport
import Testing

/// One change by a server that does nothing else, and the power is cut the moment it is acknowledged.
enum SingleChange: Sendable, CaseIterable {
  case small, heavy, persist, createCMK, useCMK, rotateCMK, rotateKeys, createTenant

  /// Makes it; answers false where it was not acknowledged.
  func make(_ fleet: CampaignFleet, _ end: CountingEnd, _ generator: inout SeededGenerator) async throws {
    if self == .createTenant {
      let admin = try fleet.client(.serviceAdmin)
      try await fleet.makeTenant(fleet.members.count, admin, &generator)
      end.end()
      await admin.close()
    } else {
      try await make(fleet, Int.random(in: 0..<fleet.members.count, using: &generator), end)
    }
  }

  /// Makes it in a tenant that is there.
  func make(_ fleet: CampaignFleet, _ index: Int, _ end: CountingEnd) async throws {
    switch self {
    case .small: try await write(fleet, index, 0, end)
    case .heavy: try await write(fleet, index, 1, end)
    case .persist: try await administer(fleet, index, .persist, end)
    case .createCMK: try await administer(fleet, index, .createCMK, end)
    case .useCMK: try await administer(fleet, index, .useCMK, end)
    case .rotateCMK: try await administer(fleet, index, .rotateCMK, end)
    case .rotateKeys: try await administer(fleet, index, .rotateKeys, end)
    case .createTenant: preconditionFailure("a tenant is not made in another")
    }
  }

  private func write(_ fleet: CampaignFleet, _ member: Int, _ writer: Int, _ end: CountingEnd) async throws {
    let client = try fleet.instance(fleet.members[member].name)
    await fleet.members[member].writers[writer].make(client, until: end)
    end.end()
    await client.close()
  }

  private func administer(
    _ fleet: CampaignFleet,
    _ member: Int,
    _ step: CampaignAdministrator.Step,
    _ end: CountingEnd
  ) async throws {
    let client = try fleet.client(.serviceAdmin)
    await fleet.members[member].administrator.make(step, client, until: end)
    end.end()
    await client.close()
  }

  /// Makes the change, cuts the power, starts again, compares.
  func round(
    _ fleet: CampaignFleet,
    _ fileSystem: LoopFileSystem,
    _ cut: LoopFileSystem.Cut,
    _ generator: inout SeededGenerator
  ) async throws {
    try await make(fleet, CountingEnd(), &generator)
    try fileSystem.cut(cut)
    await fleet.kill()
    try await fileSystem.remount()
    try await fleet.startAndCompare()
  }
}

extension DiskCampaigns {
  @Suite struct SingleChangeCampaign {
    /// The log is flushed in the long form only: it brings what was not synced.
    private static let places = PowerCutCampaign.Place.all.filter { Campaign.isLong || $0.cut == .withoutLog }

    @Test(arguments: places)
    func whatWasAcknowledgedLastIsThere(_ place: PowerCutCampaign.Place) async throws {
      guard LoopFileSystem.isPossible() else { return }
      let name = "cut after one change, \(place.testDescription)"
      var generator = Campaign.generator(name)
      let rounds = Campaign.rounds(short: 1, long: 6)
      var done = 0
      try await LoopFileSystem.use(place.kind) { fileSystem in
        let fleet = try await CampaignFleet(.init(in: fileSystem.path), tenants: 2, generator: &generator)
        for _ in 0..<rounds {
          for change in SingleChange.allCases where fleet.counts.violations.isEmpty {
            done += 1
            try await change.round(fleet, fileSystem, place.cut, &generator)
          }
        }
        await fleet.kill()
        let counts = fleet.counts
        #expect(counts.violations.isEmpty, "seed \(Campaign.seed), cut \(done): \(counts.violations)")
        report(name, "cuts", done, counts)
      }
    }
  }
}
