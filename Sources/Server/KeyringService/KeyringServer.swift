internal import AuditLog
public import ConfigurationFiles
internal import KeyringStorage
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import Synchronization
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

/// The listening server: accepts within the caps, hands each connection to TLS, drains at the end.
public final class KeyringServer: Sendable {
  private let service: Service
  private let group: MultiThreadedEventLoopGroup
  private let channel: any Channel
  private let health: (any Channel)?
  private let expiring: Task<Void, Never>
  private let watching: Task<Void, Never>
  private let deleting: Task<Void, Never>

  /// Listens.
  ///
  /// - Throws: `ConfigurationError` for a certificate, a key or an address that cannot be used.
  public static func start(_ service: Service) async throws(ConfigurationError) -> KeyringServer {
    let configuration = service.resources.configuration
    let tls = try ServerTLS(configuration, service.logger)
    service.tls.withLock { $0 = tls }
    await service.onboarder.settle()
    let loops = configuration.eventLoops == 0 ? System.coreCount : configuration.eventLoops
    let group = MultiThreadedEventLoopGroup(numberOfThreads: loops)
    do {
      let server = try await KeyringServer(service, group, tls, configuration)
      service.auditEvent("server-start", [("version", .text(Service.version))])
      return server
    } catch {
      throw ConfigurationError(
        "cannot listen on \(configuration.listen.host):\(configuration.listen.port): \(error)"
      )
    }
  }

  private init(
    _ service: Service,
    _ group: MultiThreadedEventLoopGroup,
    _ tls: ServerTLS,
    _ configuration: ServiceConfiguration
  ) async throws {
    self.service = service
    self.group = group
    let timeout = TimeAmount.nanoseconds(Int64(clamping: configuration.limits.handshakeTimeout.nanoseconds))
    channel = try await ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 1024)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelOption(.writeBufferWaterMark, value: .init(low: 256 * 1024, high: 1024 * 1024))
      .childChannelOption(.maxMessagesPerRead, value: 4)
      .childChannelInitializer { channel in
        Self.accept(channel, service, tls.context, timeout)
      }
      .bind(host: configuration.listen.host, port: configuration.listen.port).get()
    health = try await HealthServer.start(service, group)
    let tenants = service.tenants
    expiring = Task { await tenants.sweep() }
    watching = Task { await service.watchFiles() }
    deleting = Task {
      while !Task.isCancelled {
        service.carryOutDeletions()
        do {
          try await Task.sleep(for: .seconds(1))
        } catch {
          return  // cancelled
        }
      }
    }
  }

  private static func accept(
    _ channel: any Channel,
    _ service: Service,
    _ tls: TLSContext,
    _ timeout: TimeAmount
  ) -> EventLoopFuture<Void> {
    let limits = service.resources.configuration.limits
    let all = service.connections.add(1, ordering: .relaxed).newValue
    let unauthenticated = service.connectionsUnauthenticated.add(1, ordering: .relaxed).newValue
    guard all <= limits.connections, unauthenticated <= limits.unauthenticatedConnections,
      !service.isShuttingDown.load(ordering: .relaxed)
    else {
      service.connections.subtract(1, ordering: .relaxed)
      service.connectionsUnauthenticated.subtract(1, ordering: .relaxed)
      if all > limits.connections {
        service.resources.admission.count(.serverConnections)
      } else if unauthenticated > limits.unauthenticatedConnections {
        service.resources.admission.count(.unauthenticatedConnections)
      }
      return channel.eventLoop.makeFailedFuture(TooManyConnections())
    }
    return channel.eventLoop.makeCompletedFuture {
      do {
        let connection = TLSConnection(
          try TLSEngine(tls),
          delegate: Connection(service),
          handshakeTimeout: timeout
        )
        try channel.pipeline.syncOperations.addHandler(connection)
      } catch {
        // Nobody else will count it out.
        service.connections.subtract(1, ordering: .relaxed)
        service.connectionsUnauthenticated.subtract(1, ordering: .relaxed)
        throw error
      }
    }
  }

  private struct TooManyConnections: Error {}

  /// The port that it listens on.
  public var port: Int { channel.localAddress?.port ?? 0 }
  /// The port of health and metrics; nil where that is off.
  public var healthPort: Int? { health?.localAddress?.port }

  /// Reads certificates, revocation lists and used tenants' files anew, and looks which tenants are there: what cannot be used is in the log, and
  /// the last good one stays in force.
  public func reload() async {
    service.logger.notice("reloading, as a signal asks")
    let report = await service.reload(.request)
    for failure in report.failures { service.logger.error("not taken over: \(failure)") }
  }

  /// Accepts nothing more, lets what was begun end, makes all durable, and closes.
  public func shutdown() async {
    service.isShuttingDown.store(true, ordering: .relaxed)
    await close(channel)
    // Connections look once a second whether they may end; those that do not end in time are closed with the group.
    for _ in 0..<100 where service.connections.load(ordering: .relaxed) > 0 {
      do {
        try await Task.sleep(for: .milliseconds(100))
      } catch {
        break  // cancelled: end now
      }
    }
    expiring.cancel()
    watching.cancel()
    deleting.cancel()
    if let health { await close(health) }
    if await closeTenants() {
      await service.resources.flushPools.shutdown()
      service.onboarder.release()
      service.resources.cmkLock?.release()
    } else {
      // What was acknowledged is durable; what hangs was not acknowledged, and ends with the process.
      service.logger.error("a disk does not answer: ending without it")
    }
    do {
      try await group.shutdownGracefully()
    } catch {
      service.logger.error("the event loops did not end: \(error)")
    }
  }

  private static let closingMax = Duration.seconds(30)

  /// - Returns: false where a tenant's disk took too long.
  private func closeTenants() async -> Bool {
    let tenants = service.tenants
    let (results, continuation) = AsyncStream.makeStream(of: Bool.self)
    let service = self.service
    let closing = Task {
      await tenants.close()
      await service.closeAudit()
      continuation.yield(true)
    }
    let waiting = Task {
      do {
        try await Task.sleep(for: Self.closingMax)
        continuation.yield(false)
      } catch {
        return  // cancelled: all are closed
      }
    }
    defer {
      waiting.cancel()
      closing.cancel()
    }
    for await isClosed in results { return isClosed }
    return false
  }

  private func close(_ channel: any Channel) async {
    do {
      try await channel.close()
    } catch {
      service.logger.warning("a channel did not close: \(error)")
    }
  }
}
