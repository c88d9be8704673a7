internal import Glibc
internal import KeyringCore
internal import NIOCore
internal import NIOPosix
internal import SecureMemory
internal import Synchronization
internal import TLSTransport
public import WireProtocol

/// Where the server is, and who calls.
public struct KeyringClientConfiguration: Sendable {
  /// Host name or IP address; the server's certificate must name it.
  public var host: String
  /// 8550 by default.
  public var port: Int
  /// PEM.
  public var certificateFile: String
  /// PEM, mode 0600.
  public var privateKeyFile: String
  /// PEM: who issued the server's certificate.
  public var authorityFile: String
  /// How long a call may take, connecting included, unless it says otherwise.
  public var timeout: Duration = .seconds(30)
  /// How often a call that did not reach the server, or may be repeated, is tried.
  public var attempts = 5

  /// Puts the parts together.
  public init(host: String, port: Int, certificateFile: String, privateKeyFile: String, authorityFile: String)
  {
    self.host = host
    self.port = port
    self.certificateFile = certificateFile
    self.privateKeyFile = privateKeyFile
    self.authorityFile = authorityFile
  }
}

/// Why a call failed on the client's side of the wire, or on the server's.
public enum KeyringClientError: Error, Sendable, CustomStringConvertible {
  /// Certificate, key or CA cannot be used.
  case configuration(String)
  /// No connection: the server cannot be reached, or did not take the certificate.
  case connection(String)
  /// The time ran out; a change may have happened.
  case timeout
  /// The server refused.
  case refused(Status)
  /// The server broke the protocol.
  case wire(String)

  /// In words.
  public var description: String {
    switch self {
    case .configuration(let what), .connection(let what), .wire(let what): what
    case .timeout: "no answer in time"
    case .refused(let status): status.description
    }
  }
}

/// An asynchronous client of one server: pipelined calls over one connection, which is made at need and made again, with growing and jittered
/// pauses, where it was lost. A change is sent again only under the same idempotency id, so that it happens once.
public final class KeyringClient: Sendable {
  private let configuration: KeyringClientConfiguration
  private let context: TLSContext
  private let group: MultiThreadedEventLoopGroup
  private struct Connecting {
    var link: Link?
    /// Single flight: all calls that need a connection await the same one.
    var attempt: Task<Result<Link, KeyringClientError>, Never>?
  }
  private let state = Mutex(Connecting())
  private let nextID = Atomic<UInt64>(1)

  /// Loads certificate, key and CA; connects at the first call.
  ///
  /// - Throws: `KeyringClientError.configuration`.
  public init(_ configuration: KeyringClientConfiguration) throws(KeyringClientError) {
    self.configuration = configuration
    do {
      context = try TLSContext(
        TLSConfiguration(
          certificateFile: configuration.certificateFile,
          privateKeyFile: configuration.privateKeyFile,
          authorityFile: configuration.authorityFile
        ),
        role: .client
      )
    } catch {
      throw .configuration("\(error)")
    }
    group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  }

  /// Closes the connection; calls in flight fail.
  public func close() async {
    let last = state.withLock { state in
      defer { state.link = nil }
      return state.link
    }
    await last?.close()
    do {
      try await group.shutdownGracefully()
    } catch {
      return  // nothing of the client is left that could care
    }
  }

  // MARK: Calls

  /// Makes a call and answers its result.
  ///
  /// - Parameters:
  ///   - minSequence: refuse an answer from a keyring older than this.
  ///   - timeout: instead of the configuration's.
  /// - Throws: `KeyringClientError`.
  public func call(
    _ call: Call,
    minSequence: UInt64 = 0,
    timeout: Duration? = nil
  ) async throws(KeyringClientError) -> (sequence: UInt64, result: ReplyResult) {
    let deadline = ContinuousClock.now + (timeout ?? configuration.timeout)
    let idempotencyID = call.isChange ? Self.makeIdempotencyID() : nil
    var attempt = 0
    var (isSent, isInDoubt) = (false, false)
    while true {
      attempt += 1
      do throws(KeyringClientError) {
        isSent = false
        return try await once(call, minSequence, idempotencyID, deadline, &isSent)
      } catch {
        isInDoubt = isInDoubt || call.isChange && isSent && error.leavesInDoubt
        guard attempt < configuration.attempts, error.mayBeRepeated(call, isInDoubt),
          ContinuousClock.now < deadline
        else { throw isInDoubt ? error.inDoubt : error }
        try await pause(attempt, atLeast: error.retryAfterMilliseconds, until: deadline)
      }
    }
  }

  /// What the server asks for, and on top full jitter over 50 ms doubled with each attempt, at most 2 s.
  private func pause(
    _ attempt: Int,
    atLeast least: UInt32,
    until deadline: ContinuousClock.Instant
  ) async throws(KeyringClientError) {
    let most = min(2000, 50 << min(attempt, 10))
    let pause = Duration.milliseconds(Int(least) + Int.random(in: 0...most))
    do {
      try await Task.sleep(for: min(pause, deadline - ContinuousClock.now))
    } catch {
      throw .timeout
    }
  }

  /// Makes a call once, under an idempotency id of the caller's choice.
  func once(
    _ call: Call,
    _ minSequence: UInt64,
    _ idempotencyID: IdempotencyID?,
    _ deadline: ContinuousClock.Instant,
    _ isSent: inout Bool
  ) async throws(KeyringClientError) -> (UInt64, ReplyResult) {
    let link = try await connected()
    let left = deadline - ContinuousClock.now
    let milliseconds = left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000
    guard milliseconds > 0 else { throw .timeout }
    // The server has a little less, so that what it knows at its deadline is here before this side gives up.
    let request = Request(
      id: nextID.add(1, ordering: .relaxed).newValue,
      timeoutMilliseconds: UInt32(clamping: milliseconds - min(milliseconds / 10, 250)),
      idempotencyID: idempotencyID,
      minSequence: minSequence,
      call: call
    )
    isSent = true
    let reply = try await link.send(request, milliseconds: milliseconds).get()
    switch reply.outcome {
    case .success(let result): return (reply.sequence, result)
    case .failure(let status): throw .refused(status)
    }
  }

  /// 48 bits of time, 74 random ones: a UUIDv7 (RFC 9562 section 5.7).
  private static func makeIdempotencyID() -> IdempotencyID {
    let now = UnixClock.milliseconds
    let random = UInt128.random(in: 0...UInt128.max)
    let low = random & ((1 << 62) - 1) | (2 << 62)
    let middle = (random >> 64) & 0xfff | 0x7000
    return IdempotencyID(value: UInt128(now) << 80 | middle << 64 | low)
  }

  // MARK: The connection

  private enum Connected {
    case already(Link)
    case soon(Task<Result<Link, KeyringClientError>, Never>)
  }

  private func connected() async throws(KeyringClientError) -> Link {
    let connected = state.withLock { state -> Connected in
      if let link = state.link, link.isUsable { return .already(link) }
      let attempt = state.attempt ?? Task { await self.attemptToConnect() }
      state.attempt = attempt
      return .soon(attempt)
    }
    switch connected {
    case .already(let link): return link
    case .soon(let attempt): return try await attempt.value.get()
    }
  }

  private func attemptToConnect() async -> Result<Link, KeyringClientError> {
    let result: Result<Link, KeyringClientError>
    do throws(KeyringClientError) {
      result = .success(try await connect())
    } catch {
      result = .failure(error)
    }
    state.withLock { state in
      state.attempt = nil
      if case .success(let link) = result { state.link = link }
    }
    return result
  }

  /// Why there is no connection, without the layers around it.
  private static func reason(_ error: any Error) -> String {
    guard let failure = error as? NIOConnectionError else { return "\(error)" }
    if let cause = failure.connectionErrors.last?.error {
      // SAFETY: strerror answers a C string that is copied at once.
      if let cause = cause as? IOError { return unsafe String(cString: strerror(cause.errnoCode)) }
      if cause is ChannelError { return "no answer in time" }
      return "\(cause)"
    }
    return "there is no such host"
  }

  private func connect() async throws(KeyringClientError) -> Link {
    let link = Link()
    let (context, host) = (self.context, configuration.host)
    let longest = min(.seconds(5), TimeAmount(configuration.timeout))
    do {
      let channel = try await ClientBootstrap(group: group)
        .connectTimeout(longest)
        .channelOption(.tcpOption(.tcp_nodelay), value: 1)
        .channelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            let connection = TLSConnection(
              try TLSEngine(context, serverName: host),
              delegate: link.delegate,
              handshakeTimeout: longest
            )
            link.attach(connection, channel.eventLoop)
            try channel.pipeline.syncOperations.addHandler(connection)
          }
        }
        .connect(host: configuration.host, port: configuration.port).get()
      link.attach(channel)
    } catch let error as TLSError {
      throw .configuration("\(error)")
    } catch {
      throw .connection("cannot reach \(configuration.host):\(configuration.port): \(Self.reason(error))")
    }
    try await link.ready().get()
    return link
  }
}

extension Call {
  /// True if it changes keys: then it carries an idempotency id, and may be repeated under it.
  var isChange: Bool {
    switch self {
    case .change, .transact, .importKeys: true
    case .fetch, .describe, .list, .whoAmI, .admin: false
    }
  }

  fileprivate var isAdmin: Bool {
    if case .admin = self { return true }
    return false
  }
}

extension KeyringClientError {
  fileprivate var retryAfterMilliseconds: UInt32 {
    if case .refused(let status) = self { status.retryAfterMilliseconds } else { 0 }
  }

  /// True where a call that was sent may have happened all the same.
  fileprivate var leavesInDoubt: Bool {
    switch self {
    case .configuration: false
    case .connection, .timeout, .wire: true
    case .refused(let status): status.reason == .outcomeUnknown
    }
  }

  /// What is to be said after an attempt before this one left the change in doubt: a refusal of this attempt tells nothing of that one, unless it
  /// is about the request itself, which an id that was executed before never meets.
  fileprivate var inDoubt: KeyringClientError {
    guard case .refused(let status) = self else { return self }
    switch status.reason {
    case .keyExists, .keyAbsent, .nameInvalid, .typeInvalid, .lengthInvalid, .requestMalformed,
      .idempotencyMismatch, .outcomeUnknown:
      return self
    default:  // tells nothing
      let text = "whether the change happened is not known, and asking again was refused: \(status.message)"
      return .refused(Status(.outcomeUnknown, text, retryAfterMilliseconds: status.retryAfterMilliseconds))
    }
  }

  /// An administrator's call is repeated only where it cannot have happened.
  fileprivate func mayBeRepeated(_ call: Call, _ isInDoubt: Bool) -> Bool {
    switch self {
    case .configuration, .timeout, .wire: false
    case .connection: !call.isAdmin
    case .refused(let status):
      switch status.reason {
      case .shuttingDown, .throttled: true
      case .outcomeUnknown: call.isChange
      case .storageUnavailable, .auditUnavailable: isInDoubt
      default: false  // the server will answer the same again
      }
    }
  }
}
