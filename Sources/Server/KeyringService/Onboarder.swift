internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// Makes tenants: checks and proves first, then writes; one batch at a time.
final class Onboarder: Sendable {
  private struct State {
    var lock: FileLock?
    /// What a failure left, until it can be completed or undone.
    var unsettled: [OnboardingJournal] = []
  }

  /// What came of one.
  enum Outcome: Sendable {
    case made(CMKID)
    /// Of a dry run; nil where a CMK would be made.
    case checked(CMKID?)
    case unchanged(CMKID)
    case differs([SettingDifference])
    case failed(ServiceError)
  }

  private let resources: ServiceResources
  private let tenants: Tenants
  private let files: OnboardingFiles
  private let state = Mutex(State())
  private let turns = Turns()
  /// KMS calls of one batch at a time.
  private static let provingMax = 16

  init(_ resources: ServiceResources, _ tenants: Tenants) {
    self.resources = resources
    self.tenants = tenants
    files = OnboardingFiles(resources)
  }

  // MARK: At the start and the end

  /// Completes or undoes what a process that ended left behind.
  func settle() async {
    let files = self.files
    let result = await onDisk { () throws(FileError) in
      let lock = try files.staging.lockFile(OnboardingFiles.lockName)
      return (lock, try files.settleAll())
    }
    let logger = resources.logger
    switch result {
    case .failure(let error): logger.warning("onboardings that were cut off were not looked at: \(error)")
    case .success(let (lock, left)):
      state.withLock { state in
        state.lock = lock
        state.unsettled = left.unsettled.map(\.journal)
      }
      for name in left.undone {
        logger.notice("the onboarding of the tenant '\(name)' was cut off, and is undone")
      }
      for (journal, why) in left.unsettled {
        let names = journal.entries.map(\.tenant.text).joined(separator: ", ")
        logger.error("the onboarding of \(names) was cut off, and cannot be undone: \(why)")
        tenants.doubt(Set(journal.entries.map(\.tenant)))
      }
      for name in left.strange {
        logger.error(
          "\(files.staging.path)/\(name) is no journal of this service, or a tenant's files without one: it was left as it is"
        )
      }
    }
  }

  /// Lets other servers have the directory.
  func release() { state.withLock { $0.lock = nil } }

  private func onDisk<Value: Sendable, Failure: Error>(
    _ body: @escaping @Sendable () throws(Failure) -> Value
  ) async -> Result<Value, Failure> {
    await resources.flushPools.value(device: resources.transferDevice, .onboarding) {
      Result { () throws(Failure) in try body() }
    }
  }

  // MARK: Onboarding

  /// Makes tenants of different names; answers in their order.
  func onboard(_ calls: [TenantCreateCall]) async -> [Outcome] {
    var outcomes = [Outcome?](repeating: nil, count: calls.count)
    var named: [(index: Int, name: TenantName)] = []
    var claimed: Set<TenantName> = []
    for (index, call) in calls.enumerated() {
      do throws(ServiceError) {
        let name = try Self.name(call.tenant)
        guard !claimed.contains(name) else { throw .malformed("the tenant '\(name)' is there twice") }
        try tenants.claim(name)
        claimed.insert(name)
        named.append((index, name))
      } catch {
        outcomes[index] = .failed(error)
      }
    }
    defer { tenants.release(claimed) }
    await settleEarlier()
    var new: [(index: Int, tenant: NewTenant)] = []
    for (index, prepared) in await prepare(named, calls) {
      switch prepared {
      case .done(let outcome): outcomes[index] = outcome
      case .new(let tenant): new.append((index, tenant))
      }
    }
    new.sort { $0.index < $1.index }
    for (item, outcome) in zip(new, await make(new.map(\.tenant))) { outcomes[item.index] = outcome }
    return outcomes.map { $0 ?? .failed(.defect("a tenant was passed over")) }
  }

  private static func name(_ text: String) throws(ServiceError) -> TenantName {
    do {
      return try TenantName(text)
    } catch {
      throw .keyring(error)
    }
  }

  /// What failures left of earlier onboardings is completed or undone first. Other names than these are among it, which somebody else may be
  /// making: what is undone is known by ids that no two onboardings have.
  private func settleEarlier() async {
    for journal in state.withLock({ $0.unsettled }) {
      let files = self.files
      await turns.run {
        // Another call may have done it meanwhile, and its names be in doubt for another reason by now.
        guard state.withLock({ $0.unsettled.contains(journal) }) else { return }
        let result = await onDisk { try files.settle(journal) }
        guard case .success = result else { return }
        state.withLock { state in state.unsettled.removeAll { $0 == journal } }
        tenants.trust(Set(journal.entries.map(\.tenant)))
      }
    }
  }

  // MARK: Checking and proving

  private enum Prepared: Sendable {
    case done(Outcome)
    case new(NewTenant)
  }

  private func prepare(
    _ named: [(index: Int, name: TenantName)],
    _ calls: [TenantCreateCall]
  ) async -> [(index: Int, prepared: Prepared)] {
    await withTaskGroup(of: (Int, Prepared).self) { group in
      var all: [(index: Int, prepared: Prepared)] = []
      for (number, item) in named.enumerated() {
        if number >= Self.provingMax, let done = await group.next() { all.append(done) }
        group.addTask { (item.index, await self.prepare(item.name, calls[item.index])) }
      }
      for await done in group { all.append(done) }
      return all
    }
  }

  private func prepare(_ name: TenantName, _ call: TenantCreateCall) async -> Prepared {
    do throws(ServiceError) {
      guard resources.deletions.standing(name) == nil else {
        throw .deletionRefused(
          "a tenant '\(name)' is being deleted, or is to be: `keyringctl tenant undelete \(name)` stops that"
        )
      }
      let wanted = try WantedTenant(call, name, resources)
      if let present = try await present(name) {
        let differences = try await wanted.differences(from: present)
        return .done(differences.isEmpty ? .unchanged(present.settings.cmkID) : .differs(differences))
      }
      try await checkThatNothingIsThere(name)
      if call.isDryRun, wanted.cmk != nil { return .done(.checked(nil)) }
      let new = try await wanted.proved(resources)
      return call.isDryRun ? .done(.checked(wanted.settings.cmkID)) : .new(new)
    } catch {
      return .done(.failed(error))
    }
  }

  /// The tenant, where it is there; what the server remembers of one whose directory is gone is not that.
  private func present(_ name: TenantName) async throws(ServiceError) -> Tenant? {
    guard try await tenants.isThere(name) else { return nil }
    guard let present = try await tenants.find(name) else { throw .tenantAbsent(name) }
    switch await tenants.place(of: present) {
    case .there: return present
    case .gone: return nil
    case .replaced:
      throw .throttled("the directory of '\(name)' is another one now", retryAfterMilliseconds: 2000)
    case .unknown:
      throw .storageUnavailable("the disk does not tell whether the directory of '\(name)' is there")
    }
  }

  private func checkThatNothingIsThere(_ name: TenantName) async throws(ServiceError) {
    let files = self.files
    let result = await onDisk { () throws(OnboardingFiles.Failure) in try files.checkThatNothingIsThere(name)
    }
    switch result {
    case .success: return
    case .failure(.refused(let error)): throw error
    case .failure(.undone(let why)), .failure(.unsettled(let why)): throw .storageUnavailable(why)
    }
  }

  // MARK: Writing

  private func make(_ new: [NewTenant]) async -> [Outcome] {
    guard !new.isEmpty else { return [] }
    let (files, names) = (self.files, Set(new.map(\.name)))
    guard state.withLock({ $0.lock != nil }) else {
      let why = "another server makes tenants in this directory, or its lock could not be taken at the start"
      return new.map { _ in .failed(.storageUnavailable(why)) }
    }
    tenants.hide(names)
    defer { tenants.show(names) }
    let report = await turns.run { await onDisk { () throws(Never) in files.make(new) } }
    switch report {
    case .success(let report):
      if let journal = report.unsettled {
        state.withLock { $0.unsettled.append(journal) }
        // Those that were made are durable, whatever the others left.
        tenants.doubt(Set(zip(new, report.results).filter { !$1.isSuccess }.map(\.0.name)))
      }
      return zip(new, report.results).map(outcome)
    }
  }

  private func outcome(_ tenant: NewTenant, _ result: Result<Void, OnboardingFiles.Failure>) -> Outcome {
    let (name, cmkID) = (tenant.name, tenant.configuration.settings.cmkID)
    let logger = resources.logger
    switch result {
    case .success:
      logger.notice("tenant \(name) created under CMK \(cmkID)")
      return .made(cmkID)
    case .failure(.refused(let error)): return .failed(error)
    case .failure(.undone(let why)):
      logger.error("tenant \(name) was not created, and nothing is left of it: \(why)")
      return .failed(.storageUnavailable(why))
    case .failure(.unsettled(let why)):
      logger.error("whether tenant \(name) was created is not known: \(why)")
      return .failed(.onboardingUnfinished(why))
    }
  }
}
