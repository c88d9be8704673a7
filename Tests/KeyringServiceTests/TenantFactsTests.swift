import KeyringCore
import Testing
import WireProtocol

@testable import KeyringService

/// What follows from what is known of a tenant, case by case.
@Suite struct TenantFactsTests {
  private static let now: UInt64 = 1_800_000_000_000

  private func wrappingKey(
    _ id: String = "w",
    _ cmk: String = "c",
    _ standing: Standing = .held,
    records: UInt64 = 2,
    encryptions: UInt64 = 2,
    since: UInt64 = 0,
    until: UInt64 = 0,
    unverified: UInt64 = 0,
    isCurrent: Bool = true
  ) -> TenantFacts.WrappingKey {
    var status = WrappingKeyStatus()
    (status.id, status.cmkID, status.records) = (id, cmk, records)
    (status.encryptions, status.isCurrent, status.state) = (encryptions, isCurrent, standing.name)
    return TenantFacts.WrappingKey(
      status: status,
      provider: .aws,
      standing: standing,
      sinceMilliseconds: since,
      heldUntilMilliseconds: until,
      unverifiedBatches: unverified
    )
  }

  private func facts(
    _ keys: [TenantFacts.WrappingKey],
    _ cmks: (String, TenantFacts.CMK.Standing)...,
    change: (inout TenantFacts) -> Void = { _ in }
  ) -> [Finding] {
    var facts = TenantFacts(nowMilliseconds: Self.now)
    facts.phase = .open
    facts.wrappingKeys = keys
    facts.cmks = cmks.enumerated().map { index, cmk in
      TenantFacts.CMK(id: cmk.0, provider: .aws, standing: cmk.1, isInForce: index == 0)
    }
    change(&facts)
    return facts.findings
  }

  @Test func aTenantInOrderHasNoFindings() {
    #expect(facts([wrappingKey()], ("c", .known(.enabled))).isEmpty)
    // One that may not describe its CMK is as well.
    #expect(facts([wrappingKey()], ("c", .refused("AWS: denied"))).isEmpty)
    // A former CMK that nothing depends on is nobody's affair, whatever its state.
    let former = wrappingKey("v", "d", .denied("gone"), records: 0, isCurrent: false)
    #expect(facts([wrappingKey(), former], ("c", .known(.enabled)), ("d", .known(.pendingDeletion))).isEmpty)
  }

  @Test(arguments: [
    (CMKDescription.State.disabled, FindingCode.cmkDisabled), (.pendingDeletion, .cmkPendingDeletion),
  ])
  func theStateOfACMKIsSaidBeforeAndAfterItLocks(_ state: CMKDescription.State, _ code: FindingCode) {
    let held = facts([wrappingKey(until: Self.now + 5)], ("c", .known(state)))
    #expect(held.map(\.code) == [code] && held[0].untilMilliseconds == Self.now + 5 && held[0].count == 2)
    let locked = facts([wrappingKey("w", "c", .denied("no"), since: 7)], ("c", .known(state)))
    #expect(locked.map(\.code) == [code] && locked[0].untilMilliseconds == 0)
    #expect(locked[0].sinceMilliseconds == 7 && locked[0].cmkID == "c")
    // Also of a tenant that was never opened: it could not be.
    #expect(facts([], ("c", .known(state))) { $0.phase = .notOpened }.map(\.code) == [code, .notOpened])
  }

  @Test func aRefusalIsSaidInTheProvidersWords() {
    for standing in [TenantFacts.CMK.Standing.known(.enabled), .refused("AWS: denied: describe")] {
      let found = facts([wrappingKey("w", "c", .denied("AWS: denied: use"), since: 9)], ("c", standing))
      #expect(found.map(\.code) == [.cmkRefused])
      #expect(found[0].detail == "AWS: denied: use" && found[0].sinceMilliseconds == 9 && found[0].count == 2)
    }
    let cold = facts([], ("c", .refused("not there")))
    #expect(cold.map(\.code) == [.cmkRefused] && cold[0].detail == "not there" && cold[0].count == 0)
  }

  @Test func silenceIsBridgedOrNot() {
    let held = wrappingKey("w", "c", .unreachable("no answer"), since: 3, until: Self.now + 1)
    let bridged = facts([held], ("c", .silent("no answer now")))
    #expect(bridged.map(\.code) == [.kmsSilentInGrace])
    #expect(bridged[0].untilMilliseconds == Self.now + 1 && bridged[0].sinceMilliseconds == 3)
    #expect(bridged[0].detail == "no answer")
    let over = facts([wrappingKey("w", "c", .unreachable("no answer"))], ("c", .silent("no answer")))
    #expect(over.map(\.code) == [.kmsSilent] && over[0].untilMilliseconds == 0)
    // Nobody asked for it yet: only the question of this moment was not answered.
    let asked = facts([wrappingKey("w", "c", .held, until: Self.now + 9)], ("c", .silent("no answer now")))
    #expect(asked.map(\.code) == [.kmsSilentInGrace] && asked[0].detail == "no answer now")
    #expect(facts([], ("c", .silent("no answer"))).map(\.code) == [.kmsSilent])
  }

  @Test func whatIsUnderAnotherCMKIsCounted() {
    let old = wrappingKey("v", "d", records: 5, isCurrent: false)
    let found = facts([wrappingKey(), old], ("c", .known(.enabled)), ("d", .known(.enabled))) {
      $0.isCMKTransient = true
    }
    #expect(found.map(\.code) == [.cmkNotPersisted, .formerCMKNeeded])
    #expect(found[1].cmkID == "d" && found[1].count == 5 && found[0].cmkID == "c")
    // What hinders comes first: rotate-keys needs the former CMK.
    let hindered = facts([wrappingKey(), old], ("c", .known(.enabled)), ("d", .known(.disabled)))
    #expect(hindered.map(\.code) == [.cmkDisabled, .formerCMKNeeded] && hindered[0].cmkID == "d")
  }

  @Test func aWrappingKeyIsUsedUp() {
    let most = WrappingKey.encryptionsMax
    for (count, code) in [
      (most / 4 * 3, FindingCode.wrappingKeyWorn), (most - 1, .wrappingKeyWorn), (most, .wrappingKeyUsedUp),
    ] {
      let found = facts([wrappingKey(encryptions: count)], ("c", .known(.enabled)))
      #expect(found.map(\.code) == [code] && found[0].count == count && found[0].wrappingKeyID == "w")
    }
    #expect(facts([wrappingKey(encryptions: most / 4 * 3 - 1)], ("c", .known(.enabled))).isEmpty)
    // A former one takes no encryptions any more.
    #expect(facts([wrappingKey(encryptions: most, isCurrent: false)], ("c", .known(.enabled))).isEmpty)
  }

  @Test func credentialsFailOrExpire() {
    func found(_ expires: UInt64, _ failure: String) -> [Finding] {
      facts([wrappingKey()], ("c", .known(.enabled))) {
        $0.credentials = CredentialsStatus()
        $0.credentials?.expiresMilliseconds = expires
        $0.credentials?.lastFailure = failure
        $0.credentials?.source = "web-identity"
      }
    }
    #expect(found(0, "").isEmpty && found(Self.now + 3_600_000, "").isEmpty)
    let failing = found(Self.now + 3_600_000, "STS does not answer")
    #expect(failing.map(\.code) == [.credentialsFail])
    #expect(
      failing[0].detail == "STS does not answer" && failing[0].untilMilliseconds == Self.now + 3_600_000
    )
    for expires in [Self.now + 60_000, Self.now, Self.now - 1] {
      #expect(found(expires, "").map(\.code) == [.credentialsExpire], "\(expires)")
    }
    #expect(found(Self.now + 60_001, "").isEmpty)
  }

  @Test func whatConcernsTheTenantIsSaid() {
    func found(_ change: (inout TenantFacts) -> Void) -> [Finding] {
      facts([wrappingKey()], ("c", .known(.enabled)), change: change)
    }
    #expect(found { $0.configurationFailure = "line 3" }.map(\.detail) == ["line 3"])
    #expect(found { $0.configurationFailure = "line 3" }.map(\.code) == [.configurationInvalid])
    #expect(found { $0.isDisabled = true }.map(\.code) == [.disabledByAdministrator])
    #expect(found { $0.phase = .quarantined("rolled back") }.map(\.code) == [.storageQuarantined])
    #expect(found { $0.phase = .quarantined("rolled back") }.map(\.detail) == ["rolled back"])
    #expect(found { $0.phase = .notAvailable("full") }.map(\.code) == [.storageNotAvailable])
    #expect(found { $0.slowWriteMilliseconds = 6000 }.map(\.sinceMilliseconds) == [Self.now - 6000])
    #expect(found { $0.slowWriteMilliseconds = 6000 }.map(\.code) == [.storageSlow])
    #expect(found { $0.isReadOnly = true }.map(\.code) == [.tenantReadOnly])
    #expect(found { $0.rotation = (3, 9) }.map(\.code) == [.rotationUnderWay])
    #expect(found { $0.phase = .notOpened }.map(\.code) == [.notOpened])
    // A disabled tenant is not opened, of course.
    #expect(
      found {
        $0.phase = .notOpened
        $0.isDisabled = true
      }.map(\.code) == [.disabledByAdministrator]
    )
    let unverified = facts([wrappingKey(unverified: 4)], ("c", .known(.enabled)))
    #expect(unverified.map(\.code) == [.batchesNotVerified] && unverified[0].count == 4)
  }

  @Test func theMostPressingComesFirst() {
    let keys = [wrappingKey("w", "c", .denied("no")), wrappingKey("v", "d", unverified: 1, isCurrent: false)]
    let found = facts(keys, ("c", .known(.disabled)), ("d", .known(.enabled))) {
      ($0.isDisabled, $0.isReadOnly, $0.configurationFailure) = (true, true, "x")
      $0.phase = .quarantined("y")
    }
    #expect(
      found.map(\.code) == [
        .configurationInvalid, .disabledByAdministrator, .storageQuarantined, .cmkDisabled, .formerCMKNeeded,
        .batchesNotVerified, .tenantReadOnly,
      ]
    )
  }
}
