public import ConfigurationFiles
internal import KeyringStorage
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import Synchronization
internal import TLSTransport
internal import TenantRegistry

/// The listening server: accepts within the caps, hands each connection to TLS, drains at the end.
public final class KeyringServer: Sendable {
  private let service: Service
  private let group: MultiThreadedEventLoopGroup
  private let channel: any Channel
  private let health: (any Channel)?
  private let expiring: Task<Void, Never>
  private let tls: Mutex<TLSContext>

  /// Listens.
  ///
  /// - Throws: `ConfigurationError` for a certificate, a key or an address that cannot be used.
  public static func start(_ service: Service) async throws(ConfigurationError) -> KeyringServer {
    let configuration = service.resources.configuration
    await service.onboarder.settle()
    let tls = Mutex(try context(configuration))
    let loops = configuration.eventLoops == 0 ? System.coreCount : configuration.eventLoops
    let group = MultiThreadedEventLoopGroup(numberOfThreads: loops)
    do {
      let server = try await KeyringServer(service, group, tls, configuration)
      return server
    } catch {
      throw ConfigurationError(
        "cannot listen on \(configuration.listen.host):\(configuration.listen.port): \(error)"
      )
    }
  }

  static func context(_ configuration: ServiceConfiguration) throws(ConfigurationError) -> TLSContext {
    guard PeerIdentity.isTrustDomain(configuration.trustDomain) else {
      throw ConfigurationError(
        "trust_domain is 1 to 255 of a-z, 0-9, '.', '-' and '_', not '\(configuration.trustDomain)'"
      )
    }
    do {
      return try TLSContext(
        TLSConfiguration(
          certificateFile: configuration.certificateFile,
          privateKeyFile: configuration.privateKeyFile,
          authorityFile: configuration.clientAuthorityFile
        ),
        role: .server(trustDomain: configuration.trustDomain)
      )
    } catch {
      throw ConfigurationError("tls: \(error)")
    }
  }

  private init(
    _ service: Service,
    _ group: MultiThreadedEventLoopGroup,
    _ tls: consuming sending Mutex<TLSContext>,
    _ configuration: ServiceConfiguration
  ) async throws {
    self.service = service
    self.group = group
    self.tls = tls
    let box = SharedContext(self.tls.withLock { $0 })
    let timeout = TimeAmount.nanoseconds(Int64(clamping: configuration.limits.handshakeTimeout.nanoseconds))
    channel = try await ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 1024)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelOption(.writeBufferWaterMark, value: .init(low: 256 * 1024, high: 1024 * 1024))
      .childChannelOption(.maxMessagesPerRead, value: 4)
      .childChannelInitializer { channel in
        Self.accept(channel, service, box.context, timeout)
      }
      .bind(host: configuration.listen.host, port: configuration.listen.port).get()
    health = try await HealthServer.start(service, group)
    let tenants = service.tenants
    expiring = Task { await tenants.dropExpiredWrappingKeys() }
  }

  /// A reference that closures can hold.
  private struct SharedContext: Sendable {
    let context: TLSContext
    init(_ context: TLSContext) { self.context = context }
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
      return channel.eventLoop.makeFailedFuture(TooManyConnections())
    }
    return channel.eventLoop.makeCompletedFuture {
      let connection = TLSConnection(
        try TLSEngine(tls),
        delegate: Connection(service),
        handshakeTimeout: timeout
      )
      try channel.pipeline.syncOperations.addHandler(connection)
    }
  }

  private struct TooManyConnections: Error {}

  /// The port that it listens on.
  public var port: Int { channel.localAddress?.port ?? 0 }
  /// The port of health and metrics; nil where that is off.
  public var healthPort: Int? { health?.localAddress?.port }

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
    let closing = Task {
      await tenants.close()
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
