internal import KeyringCore
internal import KeyringStorage
internal import Logging
internal import Synchronization
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

extension Service {
  /// How often files are looked at.
  static let lookingPause = Duration.seconds(2)
  /// How long a tenant's files that could not be taken are left alone, unless they change.
  static let retryNanoseconds: UInt64 = 30_000_000_000

  /// Looks at the files until it is cancelled.
  func watchFiles() async {
    while !Task.isCancelled {
      do {
        try await Task.sleep(for: Self.lookingPause)
      } catch {
        return  // cancelled
      }
      _ = await reload(.change)
    }
  }

  /// Reads the service's own files anew, looks which tenants are there, and reloads those whose files are others.
  func reload(_ occasion: ServerTLS.Occasion) async -> ReloadReport {
    var report = await reloadTurns.run {
      var report = ReloadReport()
      if !isShuttingDown.load(ordering: .relaxed), let tls = tls.withLock({ $0 }), let device = tenants.device
      {
        let taken = await tls.reload(occasion, resources.flushPools, device: device)
        if taken.contains(.clientAuthorities) || taken.contains(.revocationLists) {
          live.examine(tls.context)
        }
        report.files = tls.files
      }
      // Nothing is begun any more on the threads of the disk while they end.
      if !isShuttingDown.load(ordering: .relaxed) { await lookForTenants() }
      return report
    }
    // Out of turn: whoever waits for a tenant's KMS keeps nobody from the next revocation list.
    if !isShuttingDown.load(ordering: .relaxed) { await reloadTenants(occasion, &report) }
    return report
  }

  // MARK: Tenants

  /// Locks tenants whose directory is gone, and lets those go on whose directory is back.
  private func lookForTenants() async {
    for (tenant, place) in await tenants.places() {
      switch place {
      case .unknown: continue
      case .there:
        if tenant.setDirectory(isGone: false) { tenant.logger.notice("the tenant's directory is back") }
      case .gone:
        guard tenant.setDirectory(isGone: true) else { continue }
        tenant.logger.error("the tenant's directory is gone: the tenant is locked until it is back")
        withdrawInBackground(tenant, isForgotten: false)
      case .replaced:
        guard !tenant.isReplaced.exchange(true, ordering: .relaxed) else { continue }
        _ = tenant.setDirectory(isGone: true)
        tenant.logger.notice("the tenant's directory is another one: it is opened anew")
        withdrawInBackground(tenant, isForgotten: true)
      }
    }
  }

  /// A tenant whose disk does not answer holds up no other.
  private func withdrawInBackground(_ tenant: Tenant, isForgotten: Bool) {
    Task {
      await self.shutOut(tenant)
      if isForgotten { self.tenants.forget(tenant) }
    }
  }

  private func reloadTenants(_ occasion: ServerTLS.Occasion, _ report: inout ReloadReport) async {
    let due = await tenants.due(occasion, now: monotonicNanoseconds())
    switch occasion {
    case .request:
      let results = await withTaskGroup(of: (TenantName, ServiceError?).self) { group in
        for tenant in due { group.addTask { (tenant.name, await self.reloadChanged(tenant)) } }
        return await group.reduce(into: []) { $0.append($1) }
      }
      for (name, failure) in results.sorted(by: { $0.0.text < $1.0.text }) {
        if let failure {
          report.tenantFailures.append(.init(tenant: name.text, failure: failure.status.message))
        } else {
          report.tenantsReloaded += 1
        }
      }
    // A KMS that does not answer holds up nobody else's files.
    case .change: for tenant in due { Task { await self.reloadChanged(tenant) } }
    }
  }

  @discardableResult
  private func reloadChanged(_ tenant: Tenant) async -> ServiceError? {
    defer { tenant.watch.withLock { $0.reloading -= 1 } }
    do throws(ServiceError) {
      _ = try await tenant.use.run { () async throws(ServiceError) in try await reload(tenant) }
      tenant.watch.withLock { $0.retryAt = .max }
      tenant.logger.notice("the tenant's files were read anew")
      return nil
    } catch {
      tenant.watch.withLock { $0.retryAt = monotonicNanoseconds() + Self.retryNanoseconds }
      tenant.logger.error("the tenant's files were not taken over: \(error.status.message)")
      return error
    }
  }
}

/// What is known of a tenant's files without reading them.
struct TenantWatch: Sendable {
  /// As they were when they were read last.
  var read: [FileSignature?]
  /// As they were when they were looked at last.
  var seen: [FileSignature?]
  /// Monotonic nanoseconds at which what was not taken is tried again; .max where it was taken.
  var retryAt = UInt64.max
  /// How many reloads of it are under way: those of looks do not pile up behind a KMS that does not answer.
  var reloading = 0
}

extension Tenant {
  /// Of `tenant.yaml` and the credentials. Not of `persisted.json`: the server itself writes that.
  static func signatures(_ files: TenantFiles, _ credentials: String) -> [FileSignature?] {
    ["tenant.yaml", credentials].map { FileSignature(path: "\(files.directory.path)/\($0)") }
  }

  /// True if the files are to be read anew, of a tenant that closed in the meantime too: it opens again under the settings that it has in
  /// memory. Where nobody asks for it, only once they lay unchanged from one look to the next: what is written at this moment is not read.
  /// Where it is true, `reloadChanged` follows.
  func isReloadDue(_ occasion: ServerTLS.Occasion, now: UInt64) -> Bool {
    guard isReloadable else { return false }
    let present = Self.signatures(files, settings.provider.credentialsFile)
    return watch.withLock { watch in
      defer { watch.seen = present }
      let isSettled = occasion == .request || watch.seen == present
      let isOther =
        watch.read != present || now >= watch.retryAt || occasion == .request && watch.retryAt != .max
      guard isSettled, isOther, occasion == .request || watch.reloading == 0 else { return false }
      watch.read = present
      watch.reloading += 1
      return true
    }
  }

  /// False where files are not taken whatever they say: nothing is proved of a tenant that may not open.
  private var isReloadable: Bool {
    state.withLock { state in
      guard Self.barrier(state) == nil else { return false }
      switch state.phase {
      case .open, .cold, .closing, .opening, .recovering: return true
      case .quarantined: return false
      }
    }
  }
}

extension Tenants {
  /// Where a tenant's directory is.
  enum Place: Sendable {
    case there, gone
    /// Another directory is in its place.
    case replaced
    /// The disk does not tell.
    case unknown
  }

  /// st_dev of the tenants directory.
  var device: UInt64? {
    do {
      return try resources.tenants.directory.status().device
    } catch {
      return nil  // the disk does not tell: nothing is looked at
    }
  }

  /// Looks where the directories of all tenants are that were used since the start.
  func places() async -> [(Tenant, Place)] {
    guard let device else { return [] }
    let (all, directory) = (self.all, resources.tenants.directory)
    return await resources.flushPools.value(device: device) {
      all.map { ($0, Self.place(of: $0, in: directory)) }
    }
  }

  /// Looks where the directory of one tenant is.
  func place(of tenant: Tenant) async -> Place {
    guard let device else { return .unknown }
    let directory = resources.tenants.directory
    return await resources.flushPools.value(device: device) { Self.place(of: tenant, in: directory) }
  }

  private static func place(of tenant: Tenant, in directory: DirectoryDescriptor) -> Place {
    do throws(FileError) {
      guard let present = try directory.status(of: tenant.name.text) else { return .gone }
      let known = try tenant.files.directory.status()
      return present.device == known.device && present.inode == known.inode ? .there : .replaced
    } catch {
      return .unknown
    }
  }

  /// Closed tenants that a look may open: the files of a whole fleet may change at one time.
  private static let closedMax = 16

  /// The tenants that were used since the start and whose files are to be read anew.
  func due(_ occasion: ServerTLS.Occasion, now: UInt64) async -> [Tenant] {
    guard let device else { return [] }
    let all = self.all
    return await resources.flushPools.value(device: device) {
      var closed = 0
      return all.filter { tenant in
        let isOpen = tenant.openKeyring != nil
        guard isOpen || occasion == .request || closed < Self.closedMax,
          tenant.isReloadDue(occasion, now: now)
        else { return false }
        if !isOpen { closed += 1 }
        return true
      }
    }
  }
}
