internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import TenantRegistry

// The order in which a batch of tenants is made, on one page. Invariants:
//
//  1. Before anything is made outside of the directory of onboardings, the journal that names it is durable, and so is the staging directory
//     that goes with it.
//  2. Everything that a tenant needs is durable (one syncfs(2) a file system, for all of them) before the tenant is there.
//  3. The commit of a tenant is one rename: its staging directory becomes its directory. Nothing is told, and nobody finds the tenant, before
//     that is durable.
//  4. A staging directory that is there proves that its tenant was not made; one that is not, that there is nothing to undo. So a journal that
//     outlived its time undoes nothing.
//  5. What is undone goes before the staging directory, and that before the journal; each durable before the next.

/// Makes tenants on the disk, and undoes what was cut off. Every call blocks; they come one at a time.
struct OnboardingFiles: Sendable {
  let staging: DirectoryDescriptor
  let tenants: DirectoryDescriptor
  let anchors: DirectoryDescriptor
  let cmks: DirectoryDescriptor?
  let root: RootKey?

  init(_ resources: ServiceResources) {
    staging = resources.onboardings
    tenants = resources.tenants.directory
    anchors = resources.anchors
    cmks = resources.cmks
    root = resources.root
  }

  enum Failure: Error, Sendable {
    /// Nothing is left of it.
    case undone(String)
    /// Something stands in its way, and was not touched.
    case refused(ServiceError)
    /// It may be there after a restart, or not.
    case unsettled(String)
  }

  /// What came of a batch.
  struct Report: Sendable {
    /// In the order of the tenants.
    var results: [Result<Void, Failure>]
    /// The journal, where it could not be settled.
    var unsettled: OnboardingJournal?
  }

  // MARK: Making

  /// Makes tenants, each wholly or not at all; durable when it returns.
  func make(_ all: [NewTenant]) -> Report {
    var results: [Result<Void, Failure>] = all.map { tenant in
      do throws(Failure) {
        try checkThatNothingIsThere(tenant.name)
        return .success(())
      } catch {
        return .failure(error)
      }
    }
    let indices = all.indices.filter { results[$0].isSuccess }
    guard !indices.isEmpty else { return Report(results: results) }
    let journal: OnboardingJournal
    let syncs: [FileSystemSync]
    do {
      journal = try OnboardingJournal(entries: indices.map { all[$0].entry })
      syncs = try fileSystems()
    } catch {
      for index in indices { results[index] = .failure(.undone("nothing was made: \(error)")) }
      return Report(results: results)
    }
    do {
      try begin(journal)
    } catch {
      for index in indices { results[index] = .failure(.undone("nothing was made: \(error)")) }
      return finish(all, journal, results)
    }
    for index in indices {
      do throws(FileError) {
        try write(all[index], journal)
      } catch {
        results[index] = .failure(.undone("\(error)"))
      }
    }
    commit(all, journal, syncs, &results)
    return finish(all, journal, results)
  }

  /// Looks whether a tenant of this name can be made; changes nothing.
  func checkThatNothingIsThere(_ tenant: TenantName) throws(Failure) {
    do {
      if try tenants.status(of: tenant.text) != nil, try tenants.directory(tenant.text).hasContent() {
        throw Failure.refused(
          .configuration(
            "\(tenants.path)/\(tenant) is there, and is no tenant: make it one (docs/AWS.md), or move it away"
          )
        )
      }
      guard try !StandingKeyring.hasNoAnchor(tenant, in: anchors) else { return }
      switch try StandingKeyring.anchor(of: tenant, in: anchors) {
      case .none: return
      case .keyring(_, let positions) where positions.allSatisfy({ $0.sequence == 0 }): return
      case .keyring, .unreadable, .mixed:
        throw Failure.refused(
          .configuration(
            "a keyring of this name was here: its anchor is (\(anchors.path)/\(NewKeyring.anchorName(tenant))), its files are not; restore a backup, or remove the anchor"
          )
        )
      }
    } catch let failure as Failure {
      throw failure
    } catch {
      throw .undone("nothing was made: \(error)")
    }
  }

  /// The file systems that a tenant has files in, opened before the first write.
  private func fileSystems() throws(FileError) -> [FileSystemSync] {
    var all: [FileSystemSync] = []
    for directory in [staging, anchors, cmks].compactMap({ $0 }) {
      let sync = try FileSystemSync(of: directory)
      if !all.contains(where: { $0.device == sync.device }) { all.append(sync) }
    }
    return all
  }

  /// Staging directories first, then the journal, whose sync of the directory makes them durable too.
  private func begin(_ journal: OnboardingJournal) throws {
    for entry in journal.entries {
      _ = try staging.directory(journal.stagingName(entry.tenant), create: true)
    }
    try AtomicFile.replace(journal.name, in: staging, with: [try journal.encode(root)])
  }

  private func write(_ tenant: NewTenant, _ journal: OnboardingJournal) throws(FileError) {
    let directory = try staging.directory(journal.stagingName(tenant.name))
    let file = tenant.configuration.settings.file
    try directory.writeUnsynced("tenant.yaml", Array(tenant.configuration.yaml.utf8))
    if let credentials = tenant.credentials {
      try directory.writeUnsynced(file.provider.credentialsFile, credentials)
    }
    try directory.writeUnsynced(file.storageFile, tenant.keyring.file)
    // Empty ones, as was seen: of a creation that did not end, as the anchor may be.
    if try tenants.status(of: tenant.name.text) != nil { try tenants.removeTreeUnsynced(tenant.name.text) }
    let anchor = NewKeyring.anchorName(tenant.name)
    try anchors.removeUnsynced(anchor)
    try anchors.writeUnsynced(anchor, tenant.keyring.anchor)
    if let cmk = tenant.cmk, let cmks {
      try cmks.directory(tenant.name.text, create: true).writeUnsynced(cmk.id.text, cmk.file)
    }
  }

  private func commit(
    _ all: [NewTenant],
    _ journal: OnboardingJournal,
    _ syncs: [FileSystemSync],
    _ results: inout [Result<Void, Failure>]
  ) {
    func fail(_ which: [Int], _ failure: Failure) {
      for index in which where results[index].isSuccess { results[index] = .failure(failure) }
    }
    do throws(FileError) {
      for sync in syncs { try sync.synchronize() }
    } catch {
      return fail(Array(all.indices), .undone("\(error)"))
    }
    for index in all.indices where results[index].isSuccess {
      let name = all[index].name
      do throws(FileError) {
        try staging.moveDirectory(journal.stagingName(name), into: tenants, as: name.text)
      } catch {
        results[index] = .failure(.undone("\(error)"))
      }
    }
    do throws(FileError) {
      try tenants.synchronize()
    } catch {
      fail(Array(all.indices), .unsettled("\(error)"))
    }
  }

  /// Undoes what failed, and ends the journal.
  private func finish(
    _ all: [NewTenant],
    _ journal: OnboardingJournal,
    _ results: [Result<Void, Failure>]
  ) -> Report {
    var report = Report(results: results)
    let isInDoubt = results.contains { if case .failure(.unsettled) = $0 { true } else { false } }
    do {
      guard !isInDoubt else { throw FileError.unknown("the tenants may be there, or not") }
      if results.contains(where: \.isUndone) {
        try settle(journal)
      } else {
        try staging.removeUnsynced(journal.name)
      }
    } catch {
      report.unsettled = journal
      for index in all.indices where report.results[index].isUndone {
        report.results[index] = .failure(.unsettled("what was begun is not undone yet: \(error)"))
      }
    }
    return report
  }
}

extension Result where Success == Void, Failure == OnboardingFiles.Failure {
  var isSuccess: Bool { if case .success = self { true } else { false } }
  fileprivate var isUndone: Bool { if case .failure(.undone) = self { true } else { false } }
}

extension DirectoryDescriptor {
  /// True if more is in it than what a creation that ended leaves: locks, and files that were not finished.
  fileprivate func hasContent() throws(FileError) -> Bool {
    try !names().allSatisfy { $0.hasSuffix(".lock") || $0.hasSuffix(".new") }
  }
}
