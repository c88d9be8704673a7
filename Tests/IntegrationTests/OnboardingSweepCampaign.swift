import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// Every call to the disk of an onboarding is made to fail: the tenant is made or there is nothing of it, and the same call completes it.
@Suite(.serialized) struct OnboardingSweepCampaign {
  private static let codes = [EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EACCES, EINTR]

  private static func faults() -> [(Interception, FaultPlan.Duration)] {
    var faults: [(Interception, FaultPlan.Duration)] = []
    for code in Campaign.isLong ? codes : [EIO, EINTR] {
      faults.append((.fail(code), .once))
      if code != EINTR { faults.append((.fail(code), .persistent)) }
    }
    return faults + [(.short, .once)]
  }

  @Test func everyFailureLeavesTheTenantOrNothing() async throws {
    let plan = FaultPlan()
    let server = try await TestServer(calls: plan.calls)
    let admin = try server.client(.serviceAdmin)
    let folders = ServiceFolders(data: server.data)
    var (points, made, undone, inDoubt, serial) = (0, 0, 0, 0, 0)
    var tenants: [String] = []
    for call in SystemCall.allCases {
      for (interception, duration) in Self.faults() where call == .write || !isShort(interception) {
        for number in 1...80 {
          serial += 1
          let pair = ["t\(serial)a", "t\(serial)b"]
          let calls = pair.map { TenantCreateCall(tenant: $0, anyInstance: true) }
          plan.arm(call, number, interception, duration)
          let results = try await admin.apply(calls)
          let wasHit = plan.wasHit
          plan.disarm()
          let place = "\(call) \(number) \(interception) \(duration)"
          for (tenant, result) in zip(pair, results) {
            switch result.refusal?.reason {
            case nil:
              #expect(folders.isWhole(tenant, place), "\(place): \(tenant)")
              made += 1
            case .storageUnavailable?:
              #expect(folders.paths(of: tenant).isEmpty, "\(place): \(folders.paths(of: tenant).sorted())")
              undone += 1
            case .outcomeUnknown?: inDoubt += 1
            default: Issue.record("\(place): \(String(describing: result.refusal))")
            }
          }
          if case .fail(EINTR) = interception {
            #expect(results.allSatisfy { $0.refusal == nil }, "\(place)")
          }
          // The same again completes it, whatever was left.
          let again = try await admin.apply(calls)
          #expect(again.allSatisfy { $0.refusal == nil }, "\(place): \(again)")
          for tenant in pair { #expect(folders.isWhole(tenant, "again, \(place)")) }
          #expect(folders.onboardings.isEmpty, "\(place): \(folders.onboardings)")
          tenants += pair
          guard wasHit else { break }
          points += 1
        }
      }
    }
    await admin.close()
    await server.shutdown()
    try await checkAfterRestart(server, tenants)
    Campaign.report(
      "onboarding sweep",
      ["points": points, "made": made, "undone": undone, "in_doubt": inDoubt]
    )
    #expect(points >= 100 && undone > 50 && inDoubt > 5)
  }

  private func isShort(_ interception: Interception) -> Bool {
    if case .short = interception { true } else { false }
  }

  /// All are usable by a new process.
  private func checkAfterRestart(_ server: TestServer, _ tenants: [String]) async throws {
    let again = try await TestServer(pki: server.pki, data: server.data)
    for tenant in tenants.enumerated().filter({ $0.offset % 7 == 0 }).map(\.element) {
      let instance = try again.instance(tenant, "db1")
      #expect(try await instance.refusal(.generate(.own("k"))) == nil, "\(tenant)")
      await instance.close()
    }
    #expect(ServiceFolders(data: server.data).onboardings.isEmpty)
    await again.shutdown()
  }
}

/// keyringd is killed at every call of an onboarding; started again, it has each tenant wholly or nothing of it, and the same command completes.
@Suite(.serialized) struct OnboardingKillCampaign {
  private static let calls = [
    "mkdir,mkdirat", "openat", "pwrite64", "fsync", "syncfs", "utimensat", "/^rename", "/^unlink", "close",
    "newfstatat",
  ]

  @Test(.enabled(if: SyscallSweepCampaign.canTrace)) func everyKillLeavesTheTenantOrNothing() async throws {
    var daemon = try await TestDaemon()
    let folders = ServiceFolders(data: daemon.data)
    var (points, committed, undone, serial) = (0, 0, 0, 0)
    for call in Self.calls {
      for number in 1...200 {
        guard Campaign.isLong || number <= 3 || number % 5 == 0 else { continue }
        serial += 1
        let pair = ["k\(serial)a", "k\(serial)b"]
        let wanted = pair.map { TenantCreateCall(tenant: $0, anyInstance: true) }
        let strace = try await kill(daemon, call, number)
        let admin = try daemon.client(.serviceAdmin)
        // It dies in the middle, or it does not: what is on the disk counts.
        _ = try? await admin.apply(wanted)
        let wasKilled = try await ended(daemon, strace)
        await admin.close()
        let place = "\(call) \(number)"
        if wasKilled { daemon = try await TestDaemon(pki: daemon.pki, data: daemon.data) }
        #expect(folders.onboardings.isEmpty, "\(place): \(folders.onboardings.sorted())")
        for tenant in pair { if folders.isWhole(tenant, place) { committed += 1 } else { undone += 1 } }
        try await complete(daemon, wanted, place)
        for tenant in pair { #expect(folders.isWhole(tenant, "again, \(place)")) }
        guard wasKilled else { break }
        points += 1
      }
    }
    await daemon.shutdown()
    Campaign.report("onboarding kills", ["points": points, "committed": committed, "undone": undone])
    #expect(points >= 20 && undone > 10 && committed > 2)
  }

  private func complete(_ daemon: TestDaemon, _ wanted: [TenantCreateCall], _ place: String) async throws {
    let admin = try daemon.client(.serviceAdmin)
    let results = try await admin.apply(wanted)
    #expect(results.allSatisfy { $0.refusal == nil }, "\(place): \(results)")
    await admin.close()
    let instance = try daemon.instance(wanted[1].tenant, "db1")
    #expect(try await instance.refusal(.generate(.own("k"))) == nil, "\(place)")
    await instance.close()
  }

  private func kill(_ daemon: TestDaemon, _ call: String, _ number: Int) async throws -> TestProcess {
    let said = daemon.data("strace.log")
    let strace = try TestProgram(path: "/usr/bin/strace").start(
      [
        "--follow-forks", "--trace=\(call)", "--inject=\(call):signal=KILL:when=\(number)",
        "--output=\(daemon.data("trace"))", "--attach=\(daemon.process.id)",
      ],
      environment: [:],
      error: said
    )
    while try !String(contentsOfFile: said, encoding: .utf8).contains("attached") {
      let text = try String(contentsOfFile: said, encoding: .utf8)
      try #require(strace.isRunning, "\(text)")
      try await Task.sleep(for: .milliseconds(5))
    }
    return strace
  }

  /// - Returns: false where it lives on.
  private func ended(_ daemon: TestDaemon, _ strace: TestProcess) async throws -> Bool {
    // A call that was answered leaves a process that was not hit.
    for _ in 0..<20 where daemon.process.isRunning { try await Task.sleep(for: .milliseconds(5)) }
    let isRunning = daemon.process.isRunning
    strace.signal(SIGINT)
    await strace.ended()
    if !isRunning { await daemon.process.ended() }
    return !daemon.process.isRunning
  }
}
