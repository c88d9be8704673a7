internal import Synchronization

/// A pool of connections: kept for the next request, at most eight, never lent to another pool. Made by `HTTPLoop.connections`.
///
/// Its connections close when it is let go.
public final class HTTPConnections: HTTPSending {
  /// What its requests have in common.
  public struct Options: Sendable {
    /// PEM file of the CAs that servers' certificates are verified with; nil: the system's. Read again when it changes.
    public var caFile: String?
    /// URL (`http://host:port`) of the proxy through which HTTPS goes (CONNECT); nil: none, whatever the environment says. Plain HTTP, which
    /// goes to this machine and to metadata services only, takes no proxy.
    public var proxy: String?
    /// After this time without a request a connection is closed.
    public var idleMilliseconds = 60_000

    /// The system's CAs, no proxy.
    public init() {}
  }

  private let loop: HTTPLoop
  private let pool: UInt32

  init(loop: HTTPLoop, pool: UInt32) {
    self.loop = loop
    self.pool = pool
  }

  deinit { close() }

  /// Closes its connections; what is in flight, and what is sent later, fails with `HTTPError.local`.
  public func close() {
    loop.post { [pool] in $0.pools.removeValue(forKey: pool)?.close("the connections were closed") }
  }

  /// Sends one request and awaits its response. Where a kept connection turns out to be dead before a byte of response came, libcurl sends
  /// the request once more on another one, unless it is to be sent once.
  ///
  /// - Throws: `HTTPError`; when the task is cancelled, `.local`, at once.
  public func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    let ticket = Call.Ticket()
    let prepared = try PreparedRequest(request)
    let deadline = MonotonicTime.now.adding(milliseconds: prepared.timeoutMilliseconds)
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let call = Call(ticket: ticket, request: prepared, deadline: deadline, continuation: continuation)
        loop.post { [pool] loop in
          if let pool = loop.pools[pool] {
            pool.start(call)
          } else {
            call.finish(.failure(.local("\(call.host): the connections were closed")))
          }
        }
      }
    } onCancel: { [loop, pool] in
      ticket.isCancelled.store(true, ordering: .releasing)
      loop.post { $0.pools[pool]?.cancel(ticket) }
    }
    return try result.get()
  }
}
