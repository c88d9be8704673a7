import NIOCore
import NIOPosix
import Synchronization

/// Passes bytes between a client and a server; once armed, it cuts the connection instead of passing the server's next bytes on.
final class CuttingProxy: Sendable {
  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let armed = Mutex(false)
  private let channel: Mutex<(any Channel)?> = Mutex(nil)
  let cuts = Atomic<Int>(0)
  let connections = Atomic<Int>(0)

  private let held: Mutex<[any Channel]?>

  /// Listens on loopback, and passes on to `port`.
  ///
  /// - Parameter holds: what clients send is passed on from `release` on only; connections are made at once.
  init(to port: Int, holds: Bool = false) async throws {
    held = Mutex(holds ? [] : nil)
    let made = try await ServerBootstrap(group: group)
      .childChannelOption(.autoRead, value: false)
      .childChannelInitializer { [self] client in
        connections.add(1, ordering: .relaxed)
        let toClient = Passing(to: client) { [self] in mustCut() }
        return ClientBootstrap(group: client.eventLoop)
          .channelInitializer { server in server.pipeline.addHandler(toClient) }
          .connect(host: "127.0.0.1", port: port)
          .flatMap { server in
            client.pipeline.addHandler(Passing(to: server) { false }).flatMap { [self] in
              let isHeld = held.withLock { held in
                held?.append(client)
                return held != nil
              }
              return client.setOption(.autoRead, value: !isHeld)
            }
          }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    channel.withLock { $0 = made }
  }

  var port: Int { channel.withLock { $0?.localAddress?.port } ?? 0 }

  func arm() { armed.withLock { $0 = true } }

  /// Passes on what clients sent.
  func release() async throws {
    let channels = held.withLock { held in
      defer { held = nil }
      return held ?? []
    }
    for channel in channels { try await channel.setOption(.autoRead, value: true).get() }
  }

  private func mustCut() -> Bool {
    let isArmed = armed.withLock { armed in
      defer { armed = false }
      return armed
    }
    if isArmed { cuts.add(1, ordering: .relaxed) }
    return isArmed
  }

  func close() async throws {
    try await channel.withLock { $0 }?.close()
    try await group.shutdownGracefully()
  }

  private final class Passing: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    private let other: any Channel
    private let mustCut: @Sendable () -> Bool

    init(to other: any Channel, _ mustCut: @escaping @Sendable () -> Bool) {
      self.other = other
      self.mustCut = mustCut
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      if mustCut() {
        context.close(promise: nil)
        other.close(promise: nil)
      } else {
        other.writeAndFlush(unwrapInboundIn(data), promise: nil)
      }
    }

    func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
  }
}
