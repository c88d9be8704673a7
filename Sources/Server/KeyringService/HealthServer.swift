internal import TenantRegistry
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import SecureMemory
internal import Synchronization
internal import WireProtocol

/// Health, readiness and metrics over plain HTTP, for loopback: `/healthz`, `/readyz`, `/metrics` (Prometheus text format 0.0.4).
enum HealthServer {
  static func start(_ service: Service, _ group: MultiThreadedEventLoopGroup) async throws -> (any Channel)? {
    guard let address = service.resources.configuration.healthListen else { return nil }
    return try await ServerBootstrap(group: group)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
          try channel.pipeline.syncOperations.addHandler(Responder(service))
        }
      }
      .bind(host: address.host, port: address.port).get()
  }

  private final class Responder: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let service: Service
    private var answer: (status: HTTPResponseStatus, body: String) = (.notFound, "")
    private var isKept = false

    init(_ service: Service) { self.service = service }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      switch unwrapInboundIn(data) {
      case .head(let head):
        isKept = head.isKeepAlive
        answer =
          head.method == .GET ? HealthServer.answer(head.uri, service) : (.methodNotAllowed, "GET only\n")
      case .body: break
      case .end: write(context)
      }
    }

    private func write(_ context: ChannelHandlerContext) {
      var headers = HTTPHeaders([
        ("content-type", "text/plain; version=0.0.4; charset=utf-8"),
        ("content-length", "\(answer.body.utf8.count)"),
      ])
      if !isKept { headers.add(name: "connection", value: "close") }
      context.write(
        wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: answer.status, headers: headers))),
        promise: nil
      )
      context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil)
      let isKept = self.isKept
      let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
      context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
        if !isKept { bound.value.close(promise: nil) }
      }
    }
  }

  private static func answer(_ uri: String, _ service: Service) -> (HTTPResponseStatus, String) {
    switch uri {
    case "/healthz": return (.ok, "ok\n")
    // Ready whatever a tenant's KMS does: tenants open at first use, and one's trouble is no other's.
    case "/readyz":
      let isEnding = service.isShuttingDown.load(ordering: .relaxed)
      return isEnding ? (.serviceUnavailable, "shutting down\n") : (.ok, "ready\n")
    case "/metrics": return (.ok, metrics(service))
    default: return (.notFound, "there are /healthz, /readyz and /metrics\n")
    }
  }

  private static func metrics(_ service: Service) -> String {
    var states: [TenantState: Int] = [:]
    for tenant in service.tenants.all { states[tenant.condition().state, default: 0] += 1 }
    var lines: [String] = []
    func metric(_ name: String, _ kind: String, _ help: String, _ values: [(String, UInt64)]) {
      lines.append("# HELP keyring_\(name) \(help)")
      lines.append("# TYPE keyring_\(name) \(kind)")
      for (labels, value) in values { lines.append("keyring_\(name)\(labels) \(value)") }
    }
    metric("calls_total", "counter", "Requests received.", [("", service.calls.load(ordering: .relaxed))])
    metric(
      "calls_failed_total",
      "counter",
      "Requests refused or failed.",
      [("", service.callsFailed.load(ordering: .relaxed))]
    )
    metric(
      "connections",
      "gauge",
      "Open connections.",
      [("", UInt64(clamping: service.connections.load(ordering: .relaxed)))]
    )
    metric(
      "memory_locked",
      "gauge",
      "1 if secrets lie in locked memory.",
      [("", service.isMemoryLocked ? 1 : 0)]
    )
    metric(
      "secure_memory_used_bytes",
      "gauge",
      "Locked memory in use.",
      [("", UInt64(SecureHeap.bytesInUse))]
    )
    metric(
      "tenants",
      "gauge",
      "Tenants used since the start, by state.",
      TenantState.allCases.map { ("{state=\"\($0.name)\"}", UInt64(states[$0] ?? 0)) }
    )
    let measured = service.resources.admission.measured
    metric(
      "requests_in_flight",
      "gauge",
      "Requests being executed.",
      [("", UInt64(clamping: measured.executing))]
    )
    metric(
      "in_flight_bytes",
      "gauge",
      "Bytes of large requests in flight.",
      [("", UInt64(clamping: measured.bytes))]
    )
    metric(
      "throttled_total",
      "counter",
      "Requests and connections refused, by limit.",
      LimitKind.allCases.map { ("{limit=\"\($0.rawValue)\"}", measured.refused[$0]) }
    )
    return lines.joined(separator: "\n") + "\n"
  }
}
