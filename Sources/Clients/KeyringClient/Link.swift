internal import Glibc
internal import NIOCore
internal import SecureMemory
internal import Synchronization
internal import TLSTransport
internal import WireProtocol

/// One connection of a client, and the calls in flight on it.
final class Link: Sendable {
  private struct State {
    var connection: NIOLoopBound<TLSConnection>?
    var eventLoop: (any EventLoop)?
    var channel: (any Channel)?
    var isReady = false
    var failure: KeyringClientError?
    var waiters: [CheckedContinuation<Result<Void, KeyringClientError>, Never>] = []
    var inFlight: [UInt64: (CheckedContinuation<Result<Reply, KeyringClientError>, Never>, Scheduled<Void>)] =
      [:]
  }

  private let state = Mutex(State())
  var delegate: any TLSConnectionDelegate { Receiver(self) }

  var isUsable: Bool { state.withLock { $0.failure == nil } }

  func attach(_ connection: TLSConnection, _ eventLoop: any EventLoop) {
    state.withLock { state in
      state.connection = NIOLoopBound(connection, eventLoop: eventLoop)
      state.eventLoop = eventLoop
    }
  }

  func attach(_ channel: any Channel) { state.withLock { $0.channel = channel } }

  /// Waits for the handshake.
  func ready() async -> Result<Void, KeyringClientError> {
    await withCheckedContinuation { continuation in
      let known = state.withLock { state -> Result<Void, KeyringClientError>? in
        if let failure = state.failure { return .failure(failure) }
        if state.isReady { return .success(()) }
        state.waiters.append(continuation)
        return nil
      }
      if let known { continuation.resume(returning: known) }
    }
  }

  /// Sends a request and waits for its reply, no longer than `milliseconds`.
  func send(_ request: Request, milliseconds: Int64) async -> Result<Reply, KeyringClientError> {
    await withCheckedContinuation { continuation in
      guard
        let (eventLoop, connection) = state.withLock({ state in
          state.failure == nil ? state.eventLoop.flatMap { loop in state.connection.map { (loop, $0) } } : nil
        })
      else {
        return continuation.resume(returning: .failure(.connection("the connection was lost")))
      }
      eventLoop.execute {
        let timeout = eventLoop.scheduleTask(in: .milliseconds(milliseconds)) {
          self.finish(request.id, .failure(.timeout))
        }
        let isLost = self.state.withLock { state in
          if state.failure != nil { return true }
          state.inFlight[request.id] = (continuation, timeout)
          return false
        }
        guard !isLost else {
          timeout.cancel()
          return continuation.resume(returning: .failure(.connection("the connection was lost")))
        }
        RequestEncoder.appendFrame(request, to: &connection.value.output)
        connection.value.flushSoon()
      }
    }
  }

  func finish(_ id: UInt64, _ result: Result<Reply, KeyringClientError>) {
    guard let (continuation, timeout) = state.withLock({ $0.inFlight.removeValue(forKey: id) }) else {
      return
    }
    timeout.cancel()
    continuation.resume(returning: result)
  }

  func becameReady() {
    let waiters = state.withLock { state in
      state.isReady = true
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.resume(returning: .success(())) }
  }

  func failed(_ error: KeyringClientError) {
    let (waiters, inFlight) = state.withLock { state in
      if state.failure == nil { state.failure = error }
      defer {
        state.waiters = []
        state.inFlight = [:]
      }
      return (state.waiters, state.inFlight.values)
    }
    for waiter in waiters { waiter.resume(returning: .failure(error)) }
    for (continuation, timeout) in inFlight {
      timeout.cancel()
      continuation.resume(returning: .failure(error))
    }
  }

  func close() async {
    guard let channel = state.withLock({ $0.channel }) else { return }
    do {
      try await channel.close()
    } catch {
      return  // closed already
    }
  }
}

/// Reads replies off the connection, on its event loop.
private final class Receiver: TLSConnectionDelegate {
  private let link: Link
  private let decoder = ReplyDecoder()

  init(_ link: Link) { self.link = link }

  func connected(_ connection: TLSConnection, peer: TLSPeer) { link.becameReady() }

  func received(_ plaintext: inout WipedBuffer, _ connection: TLSConnection) {
    do throws(WireError) {
      while let (count, reply) = try next(plaintext) {
        plaintext.consume(count)
        guard reply.id != 0 else {
          // Whatever is in flight may have happened: that it was refused is said of the connection only.
          if case .failure(let status) = reply.outcome {
            link.failed(.connection("the server ended the connection: \(status)"))
          }
          return connection.close()
        }
        link.finish(reply.id, .success(reply))
      }
    } catch {
      link.failed(.wire("\(error)"))
      connection.close()
    }
  }

  private func next(_ plaintext: borrowing WipedBuffer) throws(WireError) -> (Int, Reply)? {
    try unsafe plaintext.withUnsafeBytes { bytes throws(WireError) in
      guard
        case .message(let count) = try unsafe Frame.next(in: bytes, messageBytesMax: Frame.messageBytesMax)
      else { return nil }
      let message = unsafe UnsafeRawBufferPointer(
        rebasing: bytes[Frame.prefixBytes..<Frame.prefixBytes + count]
      )
      return (Frame.prefixBytes + count, try unsafe decoder.decode(message))
    }
  }

  func writabilityChanged(_ connection: TLSConnection, isWritable: Bool) {}

  func closed(_ connection: TLSConnection, error: TLSError?) {
    link.failed(
      .connection(
        error.map { "the server ended the connection: \($0)" } ?? "the server closed the connection"
      )
    )
  }
}

/// The wall clock.
enum UnixClock {
  /// Since 1970.
  static var milliseconds: UInt64 {
    var time = timespec()
    // SAFETY: `time` lives for the call.
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
  }
}
