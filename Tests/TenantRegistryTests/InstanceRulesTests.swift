import KeyringCore
import Testing

@testable import TenantRegistry

/// Who of a tenant's instances may do what.
@Suite struct InstanceRulesTests {
  private func name(_ text: String) throws -> InstanceName { try InstanceName(text) }

  private func instances(_ yaml: String) throws -> AllowedInstances {
    try TenantConfiguration(yaml: "cmk_id: a\ninstances: \(yaml)\n", file: "t", allowedEndpoints: [])
      .instances
  }

  @Test func aTenantsFileSaysWhatAnInstanceMayDo() throws {
    let listed = try instances(
      "[db1, {name: backup1, permissions: [read], scopes: [shared]}, {name: db2, scopes: own}, {name: db3}]"
    )
    #expect(
      listed
        == .listed([
          AllowedInstance(name: try name("db1")),
          AllowedInstance(name: try name("backup1"), access: [.read, .shared]),
          AllowedInstance(name: try name("db2"), access: [.read, .write, .own]),
          AllowedInstance(name: try name("db3")),
        ])
    )
    let rules = InstanceRules(file: listed, persisted: PersistedState())
    #expect(rules.access(of: try name("backup1"), notBefore: 0) == [.read, .shared])
    #expect(rules.access(of: try name("db3"), notBefore: 0) == .all)
    #expect(rules.access(of: try name("db4"), notBefore: 0) == nil)
  }

  @Test(arguments: [
    ("[{name: a, permissions: [execute]}]", "permissions are read and write"),
    ("[{name: a, permissions: []}]", "permissions has none"), ("[{name: a, scopes: []}]", "scopes has none"),
    ("[{name: a, scopes: [all]}]", "scopes are own and shared"), ("[{permissions: [read]}]", "has a 'name'"),
    ("[{name: a, permission: [read]}]", "did you mean"), ("[a, {name: a}]", "is there twice"),
    ("[{name: A}]", "A"), ("{name: a}", "is a list"), ("[any, {name: a}]", "`any`, or a list"),
  ])
  func whatIsNoInstanceIsRefused(_ yaml: String, _ words: String) throws {
    do {
      _ = try instances(yaml)
      Issue.record("taken: \(yaml)")
    } catch {
      #expect("\(error)".contains(words) || words == "did you mean", "\(error)")
    }
  }

  @Test func aTombstoneGoesBeforeFileAndAny() throws {
    let db1 = try name("db1")
    for file in [AllowedInstances.any, .listed([AllowedInstance(name: db1)]), .listed([])] {
      var persisted = PersistedState()
      persisted.add(AllowedInstance(name: db1, access: [.read, .own]))
      #expect(InstanceRules(file: file, persisted: persisted).access(of: db1, notBefore: 0) == [.read, .own])
      persisted.revoke(db1, at: 100)
      #expect(InstanceRules(file: file, persisted: persisted).access(of: db1, notBefore: .max) == nil)
      persisted.add(AllowedInstance(name: db1))
      let rules = InstanceRules(file: file, persisted: persisted)
      for second: UInt64 in [0, 99, 100] { #expect(rules.access(of: db1, notBefore: second) == nil) }
      #expect(rules.access(of: db1, notBefore: 101) == .all)
      // Once more, by a clock that went back: the later of both counts.
      persisted.revoke(db1, at: 50)
      persisted.add(AllowedInstance(name: db1))
      #expect(InstanceRules(file: file, persisted: persisted).access(of: db1, notBefore: 100) == nil)
    }
    #expect(InstanceRules(file: .any, persisted: PersistedState()).access(of: db1, notBefore: 0) == .all)
  }

  @Test func aRestoreLetsNobodyInWhoWasRevokedSince() throws {
    let (db1, db2) = (try name("db1"), try name("db2"))
    var backup = PersistedState()
    for name in [db1, db2] { backup.add(AllowedInstance(name: name)) }
    var present = PersistedState()
    present.isDisabled = true
    present.revoke(db1, at: 100)
    present.revoke(db2, at: 100)
    present.add(AllowedInstance(name: db2, access: [.read, .own]))
    let restored = backup.replacing(present)
    #expect(restored.isDisabled && restored.revoked == [db1: 100, db2: 100])
    let rules = InstanceRules(file: .any, persisted: restored)
    #expect(rules.access(of: db1, notBefore: .max) == nil && rules.access(of: db2, notBefore: 100) == nil)
    #expect(rules.access(of: db2, notBefore: 101) == .all)
  }
}
