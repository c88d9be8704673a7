import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

/// What a disk does to the local provider's files: a CMK is the old one or the new one, and decrypts what it encrypted; what is not its file is
/// refused, and never taken for another CMK.
@Suite struct CMKFileCampaign {
  enum Action: CaseIterable {
    case create, rotate, disable, scheduleDeletion, use

    func perform(_ provider: LocalProvider, _ cmk: CMKID, _ context: EncryptionContext) async throws {
      switch self {
      case .create: _ = try await provider.create()
      case .rotate: _ = try await provider.rotate(cmk: cmk)
      case .disable: _ = try await provider.disable(cmk: cmk)
      case .scheduleDeletion: _ = try await provider.scheduleDeletion(cmk: cmk, days: 7)
      case .use: _ = try await provider.generateDataKey(cmk: cmk, context: context)
      }
    }

    /// The state and version that a CMK has where it was done.
    func expected(_ before: CMKDescription) -> (CMKDescription.State, UInt32) {
      switch self {
      case .create, .use: (before.state, before.version)
      case .rotate: (before.state, before.version + 1)
      case .disable: (.disabled, before.version)
      case .scheduleDeletion: (.pendingDeletion, before.version)
      }
    }
  }

  private static let faults: [(Interception, FaultPlan.Duration)] =
    [EIO, ENOSPC, EDQUOT, EMFILE, EROFS, EACCES].flatMap { code in
      FaultPlan.Duration.allCases.map { (Interception.fail(code), $0) }
    } + [(.fail(EINTR), .once), (.short, .once), (.short, .persistent)]

  @Test(arguments: Action.allCases) func everyFailureLeavesTheOldCMKOrTheNew(_ action: Action) async throws {
    var points = 0
    for call in SystemCall.allCases {
      for (interception, duration) in Self.faults {
        var isShort = false
        if case .short = interception { isShort = true }
        guard call == .write || !isShort else { continue }
        var number = 1
        while try await hit(action, call, number, interception, duration) {
          number += 1
          points += 1
        }
      }
    }
    Campaign.report("CMK sweep, \(action)", ["points": points])
    #expect(points >= 20)
  }

  private func hit(
    _ action: Action,
    _ call: SystemCall,
    _ number: Int,
    _ interception: Interception,
    _ duration: FaultPlan.Duration
  ) async throws -> Bool {
    let (fixture, plan) = (try LocalFixture(), FaultPlan())
    let context = try fixture.context()
    let cmk = try await fixture.provider().create().id
    let before = try await fixture.provider().rotate(cmk: cmk)
    let old = try await fixture.provider().generateDataKey(cmk: cmk, context: context)
    let failing = try fixture.provider(calls: plan.calls)
    plan.arm(call, number, interception, duration)
    let result = await Result { try await action.perform(failing, cmk, context) }
    let wasHit = plan.wasHit
    plan.disarm()
    let place = "\(action), \(call) \(number) \(interception) \(duration): \(result)"
    // A new process, and the provider that failed, see one CMK: the old one or the new one.
    let seen = try await fixture.provider().describe(cmk: cmk)
    let (state, version) = action.expected(before)
    let (isOld, isNew) = (seen == before, seen.state == state && seen.version == version)
    switch result {
    case .success: #expect(isNew, "\(place)")
    case .failure(CMKError.outcomeUnknown): #expect(isOld || isNew, "\(place)")
    case .failure(CMKError.unreachable): #expect(isOld, "\(place)")
    case .failure: Issue.record("\(place)")  // a disk that fails denies nothing
    }
    if case .fail(EINTR) = interception { #expect(throws: Never.self, "\(place)") { try result.get() } }
    if case .short = interception { #expect(throws: Never.self, "\(place)") { try result.get() } }
    #expect(try await failing.describe(cmk: cmk) == seen, "\(place)")
    try await expectUsable(cmk, failing, fixture, old, place)
    return wasHit
  }

  /// Brings the CMK back into use; it then decrypts what it encrypted, goes on, and no temporary file is left.
  private func expectUsable(
    _ cmk: CMKID,
    _ failing: LocalProvider,
    _ fixture: LocalFixture,
    _ old: GeneratedDataKey,
    _ place: String
  ) async throws {
    let context = try fixture.context()
    if try await failing.describe(cmk: cmk).state == .pendingDeletion {
      _ = try await failing.cancelDeletion(cmk: cmk)
    }
    _ = try await failing.enable(cmk: cmk)
    let new = try await failing.generateDataKey(cmk: cmk, context: context)
    for provider in [failing, try fixture.provider()] {
      let opened = try await provider.decrypt(old.wrapped, cmk: cmk, context: context)
      #expect(opened.isEqual(to: old.plaintext), "\(place)")
      let again = try await provider.decrypt(new.wrapped, cmk: cmk, context: context)
      #expect(again.isEqual(to: new.plaintext), "\(place)")
    }
    let made = try await failing.create().id
    let names = try FileManager.default.contentsOfDirectory(atPath: fixture.folder("cmks/acme"))
    #expect(names.contains("\(cmk)") && names.contains("\(made)"), "\(place)")
    let leftovers = names.filter { !$0.hasPrefix("local-") || $0.count != 38 }
    // A creation that failed is begun anew under another id: its leftover goes with the next start.
    #expect(leftovers.count <= 1, "\(place): \(names)")
    _ = try await fixture.provider().describe(cmk: made)
    let cleared = try FileManager.default.contentsOfDirectory(atPath: fixture.folder("cmks/acme"))
    #expect(Set(cleared) == Set(names).subtracting(leftovers), "\(place)")
  }

  // MARK: What is not its file

  private func answer(_ fixture: LocalFixture, _ cmk: CMKID, _ old: GeneratedDataKey) async throws -> String {
    do {
      let opened = try await fixture.provider().decrypt(old.wrapped, cmk: cmk, context: fixture.context())
      return opened.isEqual(to: old.plaintext) ? "whole" : "another key"
    } catch {
      return "refused"
    }
  }

  @Test func everyDamageOfItsFileIsRefused() async throws {
    let fixture = try LocalFixture()
    let cmk = try await fixture.provider().create().id
    let old = try await fixture.provider().generateDataKey(cmk: cmk, context: fixture.context())
    let url = URL(filePath: fixture.folder("cmks/acme/\(cmk)"))
    let good = Array(try Data(contentsOf: url))
    var generator = Campaign.generator("CMK, bits")
    var count = 0
    for index in good.indices {
      let bits = Campaign.isLong ? Array(0..<8) : [Int.random(in: 0..<8, using: &generator)]
      var damaged = [Array(good[..<index])]
      for bit in bits {
        var bad = good
        bad[index] ^= 1 << UInt8(bit)
        damaged.append(bad)
      }
      for bad in damaged {
        try Data(bad).write(to: url)
        #expect(try await answer(fixture, cmk, old) == "refused", "byte \(index), seed \(Campaign.seed)")
        #expect(Array(try Data(contentsOf: url)) == bad, "byte \(index): it was touched")
        count += 1
      }
    }
    try Data(good).write(to: url)
    #expect(try await answer(fixture, cmk, old) == "whole")
    Campaign.report("CMK file damaged", ["refused": count])
  }

  @Test func whatIsNoFileOfThisUserIsRefused() async throws {
    let fixture = try LocalFixture()
    let cmk = try await fixture.provider().create().id
    let old = try await fixture.provider().generateDataKey(cmk: cmk, context: fixture.context())
    let (path, aside) = (fixture.folder("cmks/acme/\(cmk)"), fixture.folder("aside"))
    let manager = FileManager.default
    func expectRefused(_ what: String, _ make: () async throws -> Void) async throws {
      try manager.moveItem(atPath: path, toPath: aside)
      try await make()
      #expect(try await answer(fixture, cmk, old) == "refused", "\(what)")
      if manager.fileExists(atPath: path) { try manager.removeItem(atPath: path) }
      try manager.moveItem(atPath: aside, toPath: path)
    }
    try await expectRefused("nothing") {}
    try await expectRefused("zero length") { try fixture.folder.write("cmks/acme/\(cmk)", "") }
    try await expectRefused("a directory") {
      try manager.createDirectory(atPath: path, withIntermediateDirectories: false)
    }
    try await expectRefused("a FIFO") { unsafe #expect(mkfifo(path, 0o600) == 0) }
    try await expectRefused("a link") {
      try manager.createSymbolicLink(atPath: path, withDestinationPath: aside)
    }
    try await expectRefused("mode 0644") {
      try manager.copyItem(atPath: aside, toPath: path)
      try manager.setAttributes([.posixPermissions: 0o644], ofItemAtPath: path)
    }
    try await expectRefused("a large file") {
      try fixture.folder.write("cmks/acme/\(cmk)", "")
      let handle = try FileHandle(forWritingTo: URL(filePath: path))
      try handle.truncate(atOffset: 8 << 30)
      try handle.close()
    }
    try await expectRefused("another CMK's") {
      let other = try await fixture.provider().create().id
      try manager.copyItem(atPath: fixture.folder("cmks/acme/\(other)"), toPath: path)
    }
    if geteuid() == 0 {
      try await expectRefused("another user's") {
        try manager.copyItem(atPath: aside, toPath: path)
        unsafe #expect(chown(path, 65_534, 65_534) == 0)
      }
    }
    #expect(try await answer(fixture, cmk, old) == "whole")
  }

  /// What a version encrypted that an older file has not is refused, not decrypted to something else.
  @Test func anOlderFileDecryptsWhatItEncryptedAndNothingElse() async throws {
    let fixture = try LocalFixture()
    let cmk = try await fixture.provider().create().id
    let first = try await fixture.provider().generateDataKey(cmk: cmk, context: fixture.context())
    let url = URL(filePath: fixture.folder("cmks/acme/\(cmk)"))
    let older = try Data(contentsOf: url)
    _ = try await fixture.provider().rotate(cmk: cmk)
    let second = try await fixture.provider().generateDataKey(cmk: cmk, context: fixture.context())
    let newer = try Data(contentsOf: url)
    try older.write(to: url)
    #expect(try await answer(fixture, cmk, first) == "whole")
    #expect(try await answer(fixture, cmk, second) == "refused")
    // Rotated again it has a second version, and another one: what the lost one encrypted stays refused.
    _ = try await fixture.provider().rotate(cmk: cmk)
    #expect(try await answer(fixture, cmk, second) == "refused")
    try newer.write(to: url)
    #expect(try await answer(fixture, cmk, second) == "whole")
  }
}
