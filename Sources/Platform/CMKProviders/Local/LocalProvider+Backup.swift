internal import Cryptography
public import KeyringCore

extension LocalProvider {
  // MARK: Backup

  /// Copies of CMKs, all versions, under another root key: a backup's.
  ///
  /// - Throws: `CMKError.denied` for one that is not there, or destroyed.
  public func export(_ ids: [CMKID], under backup: RootKey) async throws(CMKError) -> LocalCMKSet {
    try await onQueue { provider throws(CMKError) in
      var cmks: [LocalCMK] = []
      for id in ids {
        let cmk = try provider.load(id)
        do {
          cmks.append(try cmk.rewrapped(from: provider.root, to: backup))
        } catch {
          throw .unreachable("CMK \(id) cannot be copied: \(error)")
        }
      }
      return LocalCMKSet(tenant: provider.tenant, root: backup, cmks: cmks)
    }
  }

  // MARK: Restore

  /// What `adopt` does with a CMK.
  public enum Adoption: Sendable, Equatable {
    /// It is not there: it is made.
    case make
    /// It is there with fewer versions, the same as far as they go: it gets the others.
    case extend
    /// It is there with all its versions.
    case keep
  }

  /// What `adopt` would do; changes nothing.
  ///
  /// - Throws: `CMKError.refused` where one of that id is there with other content, was destroyed, or cannot be used.
  public func adoption(of set: LocalCMKSet) async throws(CMKError) -> [CMKID: Adoption] {
    try await onQueue { provider throws(CMKError) in try provider.plan(set) }
  }

  /// Takes CMKs of a backup: makes those that are not there; durable when it returns. Nothing is made where one is refused.
  ///
  /// - Throws: as `adoption`; `CMKError.outcomeUnknown` where a file may be there or not: the same call again settles it.
  ///
  /// - Parameter rewriting: writes anew what is there with all its versions, too: another provider may have failed to make it durable.
  public func adopt(_ set: LocalCMKSet, rewriting: Bool = false) async throws(CMKError) -> [CMKID: Adoption] {
    try await onQueue { provider throws(CMKError) in
      let plan = try provider.plan(set)
      for id in plan.keys where rewriting && plan[id] == .keep { _ = try provider.store(provider.read(id)) }
      for cmk in set.cmks.values where plan[cmk.id] != .keep {
        do {
          _ = try provider.store(cmk.rewrapped(from: set.root, to: provider.root))
        } catch let error as CMKError {
          throw error
        } catch {
          throw .unreachable("CMK \(cmk.id) cannot be made: \(error)")
        }
      }
      return plan
    }
  }

  private func plan(_ set: LocalCMKSet) throws(CMKError) -> [CMKID: Adoption] {
    guard set.tenant == tenant else { throw .refused("the CMKs are those of the tenant \(set.tenant)") }
    var plan: [CMKID: Adoption] = [:]
    for cmk in set.cmks.values { plan[cmk.id] = try adoption(of: cmk, set.root) }
    return plan
  }

  private func adoption(of cmk: LocalCMK, _ backup: RootKey) throws(CMKError) -> Adoption {
    guard LocalCMK.isID(cmk.id) else { throw .refused("'\(cmk.id)' is not the id of a local CMK") }
    guard let present = try present(cmk.id) else {
      if case .pendingDeletion(let at) = cmk.state, nowMilliseconds() >= at {
        throw .refused("CMK \(cmk.id) was to be destroyed by now: a restore does not bring it back")
      }
      return .make
    }
    guard present.state != .destroyed else {
      throw .refused("CMK \(cmk.id) was destroyed here: a restore does not bring it back")
    }
    do {
      if try cmk.isExtended(by: present, backup, root) { return .keep }
      guard try present.isExtended(by: cmk, root, backup) else {
        throw CMKError.refused("CMK \(cmk.id) is there with other content: nothing was changed")
      }
    } catch let error as CMKError {
      throw error
    } catch {
      throw .unreachable("CMK \(cmk.id) cannot be compared: \(error)")
    }
    guard present.state == cmk.state else {
      throw .refused(
        "CMK \(cmk.id) lacks versions here, and is \(present.described.state.rawValue): bring it into the state that it has in the backup (\(cmk.described.state.rawValue))"
      )
    }
    return .extend
  }

  /// What the file says; nil where there is none.
  private func present(_ id: CMKID) throws(CMKError) -> LocalCMK? {
    do throws(CMKError) {
      return try settled(id)
    } catch {
      if case .denied = error { return nil }
      throw error
    }
  }
}
