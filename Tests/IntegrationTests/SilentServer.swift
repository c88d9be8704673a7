import NIOCore
import NIOPosix

/// Takes connections, and says nothing.
final class SilentServer: Sendable {
  private final class Listener: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    let continuation: AsyncStream<Void>.Continuation
    init(_ continuation: AsyncStream<Void>.Continuation) { self.continuation = continuation }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield() }
  }

  let port: Int
  private let channel: any Channel
  private let events: AsyncStream<Void>

  init() async throws {
    let (events, continuation) = AsyncStream.makeStream(of: Void.self)
    self.events = events
    channel = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .childChannelInitializer { channel in channel.pipeline.addHandler(Listener(continuation)) }
      .bind(host: "127.0.0.1", port: 0).get()
    port = channel.localAddress?.port ?? 0
  }

  /// Waits until a client has said something.
  func accepted() async {
    var iterator = events.makeAsyncIterator()
    _ = await iterator.next()
  }

  func close() async throws { try await channel.close() }
}
