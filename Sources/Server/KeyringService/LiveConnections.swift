internal import KeyringCore
internal import Logging
internal import NIOCore
internal import Synchronization
internal import TLSTransport

/// The connections whose handshake is done, by the tenant of their certificates: what is decided about a tenant, an instance or a certificate
/// reaches the open connections that it is about through here. Each is ended on its own event loop.
final class LiveConnections: Sendable {
  private struct Entry: Sendable {
    let caller: Caller
    let eventLoop: any EventLoop
    let connection: NIOLoopBound<(Connection, TLSConnection)>
  }

  private let entries = Mutex<[TenantName?: [UInt64: Entry]]>([:])

  /// Adds one; on its event loop.
  func add(_ caller: Caller, _ connection: Connection, _ tls: TLSConnection) {
    guard let eventLoop = tls.eventLoop else { return }
    let entry = Entry(
      caller: caller,
      eventLoop: eventLoop,
      connection: NIOLoopBound((connection, tls), eventLoop: eventLoop)
    )
    entries.withLock { $0[caller.tenant, default: [:]][caller.connection] = entry }
  }

  func remove(_ caller: Caller) {
    entries.withLock { entries in
      entries[caller.tenant]?[caller.connection] = nil
      if entries[caller.tenant]?.isEmpty == true { entries[caller.tenant] = nil }
    }
  }

  /// Cuts off those connections of a tenant's certificates that are meant: what they have in flight is refused, or left undone, and nothing
  /// that they sent is read any more.
  ///
  /// - Returns: how many.
  @discardableResult
  func cutOff(_ tenant: TenantName, where isMeant: (Caller) -> Bool) -> Int {
    let meant = entries.withLock { entries in
      (entries[tenant] ?? [:]).values.filter { isMeant($0.caller) }
    }
    for entry in meant {
      entry.eventLoop.execute {
        let (connection, tls) = entry.connection.value
        connection.cutOff(tls)
      }
    }
    return meant.count
  }

  /// Cuts off whoever `context` would not let in, dates left aside.
  func examine(_ context: TLSContext) {
    let all = entries.withLock { $0.values.flatMap(\.values) }
    for entry in all {
      entry.eventLoop.execute {
        let (connection, tls) = entry.connection.value
        self.examine(connection, entry.caller, tls, context)
      }
    }
  }

  /// Cuts one off if `context` would not let it in; on its event loop.
  ///
  /// - Returns: true where it is cut off.
  @discardableResult
  func examine(_ connection: Connection, _ caller: Caller, _ tls: TLSConnection, _ context: TLSContext)
    -> Bool
  {
    guard let why = tls.refusal(by: context) else { return false }
    connection.service.logger.notice(
      "a connection is closed, its certificate is not good any more: \(why)",
      metadata: ["caller": "\(caller.uri)", "certificate": "\(caller.fingerprint)"]
    )
    connection.cutOff(tls)
    return true
  }
}

extension Connection {
  /// How long the last bytes of a connection that is cut off may take.
  private static let lastBytesMax = TimeAmount.seconds(1)

  /// Ends it now: requests in flight are answered that they were refused, and those whose execution has not begun never are executed; of the
  /// others nothing is said but that it is not known.
  func cutOff(_ connection: TLSConnection) {
    guard !isClosed else { return }
    isEnding = true
    let requests = inFlight
    inFlight = [:]
    for (id, request) in requests {
      request.scheduled.cancel()
      request.deadline.cancel()
      let error: ServiceError =
        request.doubt.isLeft(at: request.deadline)
        ? .outcomeUnknown("the connection was cut off") : .forbidden
      // What the task comes to is audited.
      reply(Service.Answer(sequence: 0, outcome: .failure(error), isAudited: true), id, connection)
    }
    connection.close(within: Self.lastBytesMax)
  }
}
