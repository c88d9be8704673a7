internal import CMKProviders
internal import HashTreeCollections
internal import KeyringCore
internal import Logging
internal import SecureMemory
internal import Synchronization
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

/// The calls, without the wire: routes each to its family, and counts.
public final class Service: Sendable {
  /// Of this server.
  public static let version = "0.1.0"

  let resources: ServiceResources
  let tenants: Tenants
  let logger: Logger
  let startedMilliseconds = unixMilliseconds()
  let isMemoryLocked: Bool
  let calls = Atomic<UInt64>(0)
  let callsFailed = Atomic<UInt64>(0)
  let connections = Atomic<Int>(0)
  let connectionsUnauthenticated = Atomic<Int>(0)
  let isShuttingDown = Atomic<Bool>(false)
  let onboarder: Onboarder
  let connectionsMade = Atomic<UInt64>(0)
  let transfers = Transfers()
  /// Connections that no tenant counts.
  let strangers = ConnectionCounts()
  /// The requests of the service's administrators.
  let administration: Admission
  /// The requests of callers whose tenant there is not.
  let strangerAdmission: Admission
  let secretShares: SecretShares
  /// Connections whose handshake is done.
  let live = LiveConnections()
  /// What the listener shows and whom it takes; nil before there is one.
  let tls = Mutex<ServerTLS?>(nil)
  let reloadTurns = Turns()

  /// - Parameter isMemoryLocked: what became of the locked arena at the start.
  public init(_ resources: ServiceResources, isMemoryLocked: Bool) {
    self.resources = resources
    self.isMemoryLocked = isMemoryLocked
    tenants = Tenants(resources)
    let limits = resources.configuration.limits
    administration = Admission(.serviceAdministrators, limits.ofServiceAdministrators, resources.admission)
    strangerAdmission = Admission(.strangers, limits.ofStrangers, resources.admission)
    onboarder = Onboarder(resources, tenants)
    secretShares = SecretShares(arenaBytes: resources.configuration.secureMemoryBytes)
    logger = resources.logger
  }

  /// What a call came to, and the sequence that it reflects.
  struct Answer: Sendable {
    let sequence: UInt64
    let outcome: Result<ReplyResult, ServiceError>
    /// There is an entry of it, or none is wanted.
    var isAudited = false
  }

  /// Executes a request, and has it written to the audit log.
  func answer(_ request: Request, _ caller: Caller, deadline: RequestDeadline) async -> Answer {
    await audited(request, caller) { await self.execute(request, caller, deadline: deadline) }
  }

  private func execute(_ request: Request, _ caller: Caller, deadline: RequestDeadline) async -> Answer {
    do throws(ServiceError) {
      let (sequence, result) = try await execute(request, caller, deadline)
      return Answer(sequence: sequence, outcome: .success(result))
    } catch {
      log(error, request, caller)
      return Answer(sequence: 0, outcome: .failure(error))
    }
  }

  private func log(_ error: ServiceError, _ request: Request, _ caller: Caller) {
    switch error {
    case .defect(let what):
      logger.error(
        "internal error: \(what)",
        metadata: ["caller": "\(caller.uri)", "trace": "\(printable(request.traceparent))"]
      )
    case .outcomeUnknown(let why), .storageUnavailable(let why), .storageChanged(let why),
      .tenantQuarantined(let why), .settingsUnread(let why):
      logger.error(
        "\(why)",
        metadata: ["caller": "\(caller.uri)", "trace": "\(printable(request.traceparent))"]
      )
    default:  // the client's own affair, or said elsewhere
      logger.debug(
        "refused: \(error.status)",
        metadata: ["caller": "\(caller.uri)", "trace": "\(printable(request.traceparent))"]
      )
    }
  }

  private func execute(
    _ request: Request,
    _ caller: Caller,
    _ deadline: RequestDeadline
  ) async throws(ServiceError) -> (UInt64, ReplyResult) {
    guard !isShuttingDown.load(ordering: .relaxed) else { throw .shuttingDown }
    switch request.call {
    case .whoAmI: return (0, .whoAmI(await identity(of: caller)))
    case .admin(let call):
      // Not begun after a strict audit log's disk took all the time, or by whoever was cut off meanwhile.
      guard deadline.isAhead else { throw .timeout }
      return (0, try await administrate(call, caller))
    case .fetch, .describe, .change, .list, .transact, .importKeys:
      guard case .instance(let name, let instance) = caller.identity, let needs = request.call.needs else {
        throw .forbidden
      }
      guard let tenant = try await find(name, for: request) else { throw .forbidden }
      try tenant.admit(caller, needs)
      return try await tenant.use.run { () async throws(ServiceError) in
        let session = InstanceSession(
          keyring: try await keyring(of: tenant, for: request),
          instance: instance,
          caller: caller,
          request: request,
          deadline: deadline
        )
        return try await Self.withCallsEnding(at: deadline) { () async throws(ServiceError) in
          try await session.execute()
        }
      }
    }
  }

  /// Whom the caller is taken for, and, of an instance that may call, what its keys are held to.
  private func identity(of caller: Caller) async -> Identity {
    let settings = await settings(for: caller)
    return Identity(
      uri: caller.uri,
      tenant: caller.tenant?.text ?? "",
      instance: caller.instance?.text ?? "",
      notAfter: caller.notAfter,
      serverVersion: Self.version,
      profile: settings?.profile.rawValue ?? "",
      isReadOnly: settings?.isReadOnly ?? false
    )
  }

  private func settings(for caller: Caller) async -> TenantSettings? {
    guard case .instance(let name, _) = caller.identity else { return nil }
    do {
      guard let tenant = try await tenants.find(name), tenant.access(of: caller) != nil else { return nil }
      return tenant.settings
    } catch {
      return nil  // whose files do not load: who calls is known all the same
    }
  }

  /// What `body` asks a KMS, for its caller alone, ends by the deadline.
  private static func withCallsEnding<Value>(
    at deadline: RequestDeadline,
    _ body: () async throws(ServiceError) -> Value
  ) async throws(ServiceError) -> Value {
    // withValue erases the type of the error.
    let result: Result<Value, ServiceError> = await CallGuard.$deadline.withValue(deadline.nanoseconds) {
      do throws(ServiceError) {
        return .success(try await body())
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  private func find(_ name: TenantName, for request: Request) async throws(ServiceError) -> Tenant? {
    do throws(ServiceError) {
      return try await tenants.find(name)
    } catch .settingsUnread(let why) where request.call.isChange && request.idempotencyID != nil {
      throw .outcomeUnknown(why)  // as below
    }
  }

  private func keyring(of tenant: Tenant, for request: Request) async throws(ServiceError) -> TenantKeyring {
    guard request.call.isChange else { return try await tenant.keyringForReading() }
    do throws(ServiceError) {
      return try await tenant.keyring()
    } catch .storageUnavailable(let why) where request.idempotencyID != nil {
      // It may have been sent before, and have happened then: only the storage could tell.
      throw .outcomeUnknown(why)
    }
  }
}

extension Call {
  fileprivate var isChange: Bool {
    switch self {
    case .change, .transact, .importKeys: true
    case .fetch, .describe, .list, .whoAmI, .admin: false
    }
  }
}
