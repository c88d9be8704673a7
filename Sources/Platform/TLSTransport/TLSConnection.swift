public import NIOCore
public import SecureMemory

/// Who gets a connection's plaintext. Called on the channel's event loop only.
public protocol TLSConnectionDelegate: AnyObject {
  /// The handshake is done, and the peer is who it says.
  func connected(_ connection: TLSConnection, peer: TLSPeer)
  /// Plaintext came: consume what is whole from the front, leave the rest. Once a round, after all ciphertext of the round.
  func received(_ plaintext: inout WipedBuffer, _ connection: TLSConnection)
  /// The peer takes what is sent faster, or slower.
  func writabilityChanged(_ connection: TLSConnection, isWritable: Bool)
  /// It is over; nil where both sides ended it in good order.
  func closed(_ connection: TLSConnection, error: TLSError?)
}

/// TLS on a channel: decrypts once a round, hands the plaintext to its delegate once, encrypts what the delegate answered as one write and
/// sends it as one. No plaintext is ever in a ByteBuffer. The bootstrap sets TCP_NODELAY.
public final class TLSConnection: ChannelInboundHandler, RemovableChannelHandler {
  /// Ciphertext.
  public typealias InboundIn = ByteBuffer
  /// Ciphertext.
  public typealias OutboundOut = ByteBuffer

  /// Plaintext for the peer: append to it, then `flush` (in `received` that happens by itself at the end of the round).
  public var output = WipedBuffer()
  /// Taken out while the delegate has it: what it does may end the connection, at once, and that wipes what is here.
  private var input: WipedBuffer? = WipedBuffer()
  private let engine: TLSEngine
  private let delegate: any TLSConnectionDelegate
  private let handshakeTimeout: TimeAmount
  private var context: ChannelHandlerContext?
  private var timeout: Scheduled<Void>?
  private var isConnected = false
  private var isPaused = false
  private var isDelivering = false
  private var isFlushScheduled = false
  /// Set by the delegate in `received` where what came may hold a secret: nothing of it is left behind in TLS's own buffers.
  public var hasReceivedSecrets = false
  private var isClosing = false
  private var error: TLSError?

  private static let keptBytes = 16 * 1024
  /// How long the last bytes may take: a peer that takes none cannot keep the socket.
  private static let lingerMax = TimeAmount.seconds(5)

  /// - Parameters:
  ///   - engine: fresh.
  ///   - delegate: held until the channel closes.
  public init(
    _ engine: TLSEngine,
    delegate: any TLSConnectionDelegate,
    handshakeTimeout: TimeAmount = .seconds(5)
  ) {
    self.engine = engine
    self.delegate = delegate
    self.handshakeTimeout = handshakeTimeout
  }

  /// Where everything about this connection happens.
  public var eventLoop: (any EventLoop)? { context?.eventLoop }
  /// The peer's address.
  public var remoteAddress: SocketAddress? { context?.remoteAddress }
  /// False while the peer does not take what is sent.
  public var isWritable: Bool { context?.channel.isWritable ?? false }

  // MARK: Channel events

  /// Begins.
  public func handlerAdded(context: ChannelHandlerContext) {
    self.context = context
    if context.channel.isActive { begin(context) }
  }

  /// Begins.
  public func channelActive(context: ChannelHandlerContext) {
    begin(context)
    context.fireChannelActive()
  }

  private func begin(_ context: ChannelHandlerContext) {
    guard timeout == nil else { return }
    let loopBound = NIOLoopBound(self, eventLoop: context.eventLoop)
    timeout = context.eventLoop.scheduleTask(in: handshakeTimeout) {
      loopBound.value.fail(.handshake("no TLS handshake in time"))
    }
    shakeHands()
  }

  /// Ciphertext came; what comes while this side closes is nobody's.
  public func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard !isClosing, error == nil else { return }
    let buffer = unwrapInboundIn(data)
    // SAFETY: the engine copies what it is lent.
    unsafe buffer.withUnsafeReadableBytes { unsafe engine.receive($0) }
  }

  /// A round of reads is over.
  public func channelReadComplete(context: ChannelHandlerContext) {
    if !isConnected { shakeHands() }
    if isConnected { deliver() }
    context.fireChannelReadComplete()
  }

  /// The peer takes more, or no more.
  public func channelWritabilityChanged(context: ChannelHandlerContext) {
    if isConnected { delegate.writabilityChanged(self, isWritable: context.channel.isWritable) }
    context.fireChannelWritabilityChanged()
  }

  /// It is over.
  public func channelInactive(context: ChannelHandlerContext) {
    timeout?.cancel()
    let isOrderly = isClosing || engine.state == .closedByPeer
    delegate.closed(self, error: error ?? (isOrderly ? nil : .truncated))
    output.removeAll(keeping: 0)
    input = nil
    self.context = nil
    context.fireChannelInactive()
  }

  /// The socket failed.
  public func errorCaught(context: ChannelHandlerContext, error: any Error) {
    fail(.connection("\(error)"))
  }

  // MARK: Handshake, plaintext

  private func shakeHands() {
    guard error == nil, engine.state == .handshaking else { return }
    do throws(TLSError) {
      let isDone = try engine.handshake()
      sendCiphertext()
      guard isDone else { return }
      let peer = try engine.peer()
      timeout?.cancel()
      isConnected = true
      delegate.connected(self, peer: peer)
    } catch {
      fail(error)
    }
  }

  private func deliver() {
    guard !isDelivering, !isPaused, !isClosing, error == nil, var plaintext = input.take() else { return }
    isDelivering = true
    defer { isDelivering = false }
    do throws(TLSError) {
      try engine.decrypt(into: &plaintext)
    } catch {
      return fail(error)
    }
    if !plaintext.isEmpty { delegate.received(&plaintext, self) }
    let isWhole = plaintext.isEmpty
    if isWhole { plaintext.removeAll(keeping: Self.keptBytes) }
    if context != nil { input = consume plaintext }
    flush()
    if hasReceivedSecrets || !isWhole { releaseBuffers() }
    if engine.state == .closedByPeer, !isPaused { close() }
  }

  /// Gives TLS's own buffers back, wiped: after secrets, and when idle.
  public func releaseBuffers() {
    hasReceivedSecrets = false
    engine.releaseBuffers()
  }

  /// Encrypts and sends `output`.
  public func flush() {
    guard error == nil, isConnected, !output.isEmpty else { return }
    do throws(TLSError) {
      try engine.encrypt(output)
      output.removeAll(keeping: Self.keptBytes)
      sendCiphertext()
    } catch {
      fail(error)
    }
  }

  /// Flushes at the end of this tick of the event loop, once for all who ask; on the event loop.
  public func flushSoon() {
    guard !isFlushScheduled, let context else { return }
    isFlushScheduled = true
    let loopBound = NIOLoopBound(self, eventLoop: context.eventLoop)
    context.eventLoop.execute {
      loopBound.value.isFlushScheduled = false
      loopBound.value.flush()
    }
  }

  private func sendCiphertext() {
    guard let context else { return }
    var buffer = context.channel.allocator.buffer(capacity: 512)
    engine.takeCiphertext(into: &buffer)
    if buffer.readableBytes > 0 { context.writeAndFlush(wrapOutboundOut(buffer), promise: nil) }
  }

  /// Why another context would refuse the peer's certificate now, dates left aside; nil where it would not.
  public func refusal(by context: TLSContext) -> String? { engine.refusal(by: context) }

  // MARK: Backpressure, ending

  /// Reads no more from the socket, and hands nothing more to the delegate, until `resumeReading`.
  public func pauseReading() {
    guard !isPaused, let context else { return }
    isPaused = true
    setAutoRead(context, false)
  }

  /// Goes on; what was left of the plaintext is delivered at once.
  public func resumeReading() {
    guard isPaused, let context else { return }
    isPaused = false
    setAutoRead(context, true)
    deliver()
  }

  private func setAutoRead(_ context: ChannelHandlerContext, _ value: Bool) {
    do {
      try context.channel.syncOptions?.setOption(.autoRead, value: value)
    } catch {
      fail(.connection("\(error)"))  // the channel is closing
    }
  }

  /// Sends what is in `output`, says goodbye and closes.
  ///
  /// - Parameter linger: for how long the peer may take its time with the last bytes; nil for as long as any peer may.
  public func close(within linger: TimeAmount? = nil) {
    guard !isClosing, error == nil, let context else { return }
    flush()
    isClosing = true
    engine.closeNotify()
    closeChannel(context, within: linger ?? Self.lingerMax)
  }

  private func fail(_ reason: TLSError) {
    guard error == nil, !isClosing else { return }
    error = reason
    guard let context else { return }
    closeChannel(context)
  }

  /// The last ciphertext (an alert, a close_notify) goes out before the socket closes.
  private func closeChannel(_ context: ChannelHandlerContext, within linger: TimeAmount = lingerMax) {
    var buffer = context.channel.allocator.buffer(capacity: 64)
    engine.takeCiphertext(into: &buffer)
    let loopBound = NIOLoopBound(context, eventLoop: context.eventLoop)
    let linger = context.eventLoop.scheduleTask(in: linger) { loopBound.value.close(promise: nil) }
    context.writeAndFlush(wrapOutboundOut(buffer)).whenComplete { _ in
      linger.cancel()
      loopBound.value.close(promise: nil)
    }
  }
}
