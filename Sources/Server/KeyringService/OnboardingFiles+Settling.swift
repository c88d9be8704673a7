internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage

extension OnboardingFiles {
  static let lockName = ".lock"

  /// What a process that ended left.
  struct Leftovers: Sendable {
    /// Tenants that were undone.
    var undone: [TenantName] = []
    /// Journals that could not be settled, and why.
    var unsettled: [(journal: OnboardingJournal, why: String)] = []
    /// What is not this service's, or may be a tenant's keys, and was left as it is.
    var strange: [String] = []
  }

  /// Completes or undoes all that is there.
  func settleAll() throws(FileError) -> Leftovers {
    var left = Leftovers()
    var kept: [String] = []
    for name in try staging.names() where name.hasSuffix(OnboardingJournal.suffix) {
      guard let journal = try read(name) else {
        left.strange.append(name)
        kept.append(String(name.dropLast(OnboardingJournal.suffix.count)))
        continue
      }
      do {
        left.undone += try settle(journal)
      } catch {
        left.unsettled.append((journal, "\(error)"))
        kept.append(journal.id)
      }
    }
    // Journals that were not finished; staging directories without a journal, from before theirs was durable: they are empty. One with files in
    // it was a tenant's directory, which a disk put back that did not keep what it had said: its keys may be nowhere else.
    for name in try staging.names() where name != Self.lockName {
      guard !kept.contains(where: { name.hasPrefix($0) }) else { continue }
      if name.hasSuffix(".new") {
        try staging.removeUnsynced(name)
      } else if try !staging.removeDirectoryUnsynced(name) {
        left.strange.append(name)
      }
    }
    return left
  }

  private func read(_ name: String) throws(FileError) -> OnboardingJournal? {
    let bytes = try staging.readFile(name, bytesMax: 1 << 20)
    do throws(CMKError) {
      return try OnboardingJournal.decode(bytes, name: name, root: root)
    } catch {
      throw .unchanged("\(error)")
    }
  }

  /// Completes or undoes each tenant of a journal, and takes the journal away.
  ///
  /// - Returns: those undone.
  /// - Throws: where it could not be done; the same again goes on.
  @discardableResult func settle(_ journal: OnboardingJournal) throws -> [TenantName] {
    var begun: [OnboardingJournal.Entry] = []
    for entry in journal.entries where try staging.status(of: journal.stagingName(entry.tenant)) != nil {
      begun.append(entry)
    }
    if begun.count < journal.entries.count { try tenants.synchronize() }
    guard !begun.isEmpty else {
      try remove(journal)
      return []
    }
    let syncs = try [anchors, cmks].compactMap { $0 }.map { directory throws(FileError) in
      try FileSystemSync(of: directory)
    }
    for entry in begun { try undo(entry) }
    for sync in syncs { try sync.synchronize() }
    for entry in begun { try staging.removeTreeUnsynced(journal.stagingName(entry.tenant)) }
    try staging.synchronize()
    try remove(journal)
    return begun.map(\.tenant)
  }

  private func remove(_ journal: OnboardingJournal) throws(FileError) {
    try staging.removeLeftovers(of: [journal.name])
    try staging.removeUnsynced(journal.name)
  }

  /// Takes away what a tenant that was not made has outside of its staging directory: nothing but what this onboarding made.
  private func undo(_ entry: OnboardingJournal.Entry) throws {
    // Somebody put a folder there meanwhile: whose the CMK is now is not for us to say.
    let isTenantThere = try tenants.status(of: entry.tenant.text) != nil
    if try isOwnAnchor(entry, isTenantThere) {
      try anchors.removeUnsynced(NewKeyring.anchorName(entry.tenant))
    }
    if let cmk = entry.cmk, !isTenantThere { try remove(cmk, entry.tenant) }
  }

  /// True if the anchor that is there was made by this onboarding.
  ///
  /// - Throws: where it says that the keyring was used since.
  private func isOwnAnchor(_ entry: OnboardingJournal.Entry, _ isTenantThere: Bool) throws -> Bool {
    let standing = try StandingKeyring.anchor(of: entry.tenant, in: anchors)
    switch standing {
    case .none, .mixed: return false
    // Of ours a crash may have left half; an anchor that was there before would have been refused.
    case .unreadable: return !isTenantThere
    case .keyring(let id, let positions):
      if id != entry.keyring { return false }
      if positions.allSatisfy({ $0.sequence <= 1 }) { return true }
      throw FileError.unacceptable(
        "the keyring of '\(entry.tenant)' was used, its anchor says, and its directory is not there: nothing was removed"
      )
    }
  }

  private func remove(_ cmk: CMKID, _ tenant: TenantName) throws(FileError) {
    guard let cmks else { throw .unacceptable("there is no directory of CMKs any more") }
    guard try cmks.status(of: tenant.text) != nil else { return }
    try cmks.directory(tenant.text).removeUnsynced(cmk.text)
    _ = try cmks.removeDirectoryUnsynced(tenant.text)
  }
}
