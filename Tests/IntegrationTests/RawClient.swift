import KeyringCore
import KeyringTestSupport
import NIOCore
import NIOPosix
import SecureMemory
import Synchronization
import TLSTransport
import WireProtocol

/// A client that sends whatever it is told, right or wrong, and shows what comes back.
final class RawClient: Sendable {
  /// What a server did.
  enum Event: Sendable {
    case connected
    case reply(Reply)
    /// The connection is over; nil where it was ended in good order.
    case closed(TLSError?)
  }

  private let channel: any Channel
  private let connection: NIOLoopBound<TLSConnection>
  private let events: AsyncStream<Event>

  /// Connects as an instance, and waits for no more than the TCP connection.
  init(_ server: any TestEndpoint, _ tenant: String, _ instance: String = "db1") async throws {
    let identity = PeerIdentity.instance(try TenantName(tenant), try InstanceName(instance))
    let context = try TLSContext(server.pki.client(identity), role: .client)
    let (events, continuation) = AsyncStream.makeStream(of: Event.self)
    self.events = events
    let made = Mutex<NIOLoopBound<TLSConnection>?>(nil)
    channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let engine = try TLSEngine(context, serverName: "localhost")
          let connection = TLSConnection(engine, delegate: Receiver(continuation))
          made.withLock { $0 = NIOLoopBound(connection, eventLoop: channel.eventLoop) }
          try channel.pipeline.syncOperations.addHandler(connection)
        }
      }
      .connect(host: "127.0.0.1", port: server.port).get()
    guard let bound = made.withLock({ $0 }) else { throw UnexpectedReply() }
    connection = bound
  }

  /// Connects, and waits until the server has taken it; nil where it did not.
  static func connected(
    _ server: any TestEndpoint,
    _ tenant: String,
    _ instance: String = "db1"
  ) async throws -> RawClient? {
    let client = try await RawClient(server, tenant, instance)
    guard case .connected? = await client.next() else { return nil }
    return client
  }

  /// The next thing that the server did; nil after the end.
  func next() async -> Event? {
    var iterator = events.makeAsyncIterator()
    return await iterator.next()
  }

  /// The next reply; nil where the connection ends first.
  func reply() async -> Reply? {
    while let event = await next() {
      switch event {
      case .connected: continue
      case .reply(let reply): return reply
      case .closed: return nil
      }
    }
    return nil
  }

  /// True if nothing more comes but the end of the connection.
  func isClosedWithoutReply() async -> Bool { await reply() == nil }

  /// Sends bytes, in one write.
  func send(_ bytes: [UInt8]) async throws {
    let connection = self.connection
    try await channel.eventLoop.submit {
      connection.value.output.append(bytes)
      connection.value.flush()
    }.get()
  }

  /// Sends requests, in one write.
  func send(_ requests: [Request]) async throws { try await send(requests.flatMap(\.frame)) }

  /// Reads nothing more, until `resumeReading`.
  func pauseReading() async throws {
    let connection = self.connection
    try await channel.eventLoop.submit { connection.value.pauseReading() }.get()
  }

  /// Goes on.
  func resumeReading() async throws {
    let connection = self.connection
    try await channel.eventLoop.submit { connection.value.resumeReading() }.get()
  }

  /// Ends it.
  func close() async {
    do {
      try await channel.close()
    } catch {
      return  // the server did
    }
  }

  private final class Receiver: TLSConnectionDelegate {
    private let events: AsyncStream<Event>.Continuation
    private let decoder = ReplyDecoder()

    init(_ events: AsyncStream<Event>.Continuation) { self.events = events }

    func connected(_ connection: TLSConnection, peer: TLSPeer) { events.yield(.connected) }
    func writabilityChanged(_ connection: TLSConnection, isWritable: Bool) {}

    func received(_ plaintext: inout WipedBuffer, _ connection: TLSConnection) {
      do {
        while let (count, reply) = try next(plaintext) {
          plaintext.consume(count)
          events.yield(.reply(reply))
        }
      } catch {
        events.yield(.closed(.connection("\(error)")))
        connection.close()
      }
    }

    private func next(_ plaintext: borrowing WipedBuffer) throws -> (Int, Reply)? {
      try unsafe plaintext.withUnsafeBytes { bytes in
        let most = Frame.messageBytesDefault
        guard case .message(let count) = try unsafe Frame.next(in: bytes, messageBytesMax: most) else {
          return nil
        }
        let message = unsafe UnsafeRawBufferPointer(rebasing: bytes[5..<5 + count])
        return (5 + count, try unsafe decoder.decode(message))
      }
    }

    func closed(_ connection: TLSConnection, error: TLSError?) {
      events.yield(.closed(error))
      events.finish()
    }
  }
}

extension Request {
  /// The whole frame.
  var frame: [UInt8] {
    var output = WipedBuffer()
    RequestEncoder.appendFrame(self, to: &output)
    return unsafe output.withUnsafeBytes { unsafe Array($0) }
  }
}

extension Reply {
  /// Why the call was refused; nil where it was not.
  var refusal: Status? {
    guard case .failure(let status) = outcome else { return nil }
    return status
  }
}
