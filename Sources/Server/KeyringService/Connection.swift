internal import AuditLog
internal import TenantRegistry
internal import KeyringCore
internal import Logging
internal import NIOCore
internal import SecureMemory
internal import Synchronization
internal import TLSTransport
internal import WireProtocol

/// One client's connection: frames in, replies out. On its event loop only.
///
/// A read that memory can answer is answered at once, within the round that it came in; everything else goes to a task, and its reply
/// comes back to the event loop. Past the bound of requests in flight nothing more is read: TCP holds the client back.
final class Connection: TLSConnectionDelegate {
  let service: Service
  private let decoder = RequestDecoder()
  var caller: Caller?
  var instance: InstanceName?
  var tenant: Tenant?
  private var isAdmitted = false
  private var isAuthenticated = false
  var inFlight: [UInt64: InFlight] = [:]
  /// Whose limits its requests count against.
  private var ownAdmission: Admission?
  /// True while the request that is being read has taken its part of the rates.
  var hasTaken = false
  /// Requests that a task works on: those in flight, and those that were answered at their deadline and go on.
  var executing = 0
  var started: UInt64 = 0
  private var reservedBytes = 0
  private var frameBytesAnnounced = 0
  private var frameStarted: UInt64 = 0
  var lastRequest = monotonicNanoseconds()
  /// Those by limits that are written to the audit log.
  var refusals = LimitRefusals()
  private var ends: UInt64 = .max
  var isEnding = false
  var isClosed = false
  private var isHeldBack = false
  private var ticker: RepeatedTask?

  /// Names it for as long as the server runs.
  private let number: UInt64
  private let limits: Limits
  /// A connection without a request for this long is idle enough to give its buffers back.
  private static let restlessNanoseconds: UInt64 = 500_000_000
  /// Replies not encrypted yet.
  private static let outputBytesMax = 256 * 1024

  init(_ service: Service) {
    self.service = service
    number = service.connectionsMade.add(1, ordering: .relaxed).newValue
    limits = Limits(service.resources.configuration.limits)
  }

  /// A request without a reply yet. An id is free again once its reply is sent: the serial tells its users apart.
  struct InFlight {
    let serial: UInt64
    let scheduled: Scheduled<Void>
    let deadline: RequestDeadline
    let doubt: Doubt
  }

  private struct Limits {
    let inFlightMax: Int
    let frame: UInt64
    let idle: UInt64

    init(_ limits: ServiceConfiguration.Limits) {
      inFlightMax = limits.requestsInFlightPerConnection
      frame = limits.frameTimeout.nanoseconds
      idle = limits.idleTimeout.nanoseconds
    }
  }

  // MARK: Life

  func connected(_ connection: TLSConnection, peer: TLSPeer) {
    service.connectionsUnauthenticated.subtract(1, ordering: .relaxed)
    isAuthenticated = true
    guard let identity = peer.identity else { return connection.close() }
    let uri = identity.uri(trustDomain: service.resources.configuration.trustDomain)
    let address = connection.remoteAddress.map { Self.text($0) } ?? ""
    let caller = Caller(
      identity: identity,
      uri: uri,
      notBefore: UInt64(clamping: peer.notBefore),
      notAfter: UInt64(clamping: peer.notAfter),
      fingerprint: peer.fingerprint,
      address: address,
      audit: AuditCaller(identity: uri, certificate: peer.fingerprint, address: address),
      listings: Listings(),
      connection: number
    )
    self.caller = caller
    instance = caller.instance
    service.live.add(caller, self, connection)
    service.logger.debug(
      "connected",
      metadata: [
        "caller": "\(uri)", "certificate": "\(peer.fingerprint)",
        "from": "\(String(describing: connection.remoteAddress))",
      ]
    )
    // Whatever came into force since the connection began: its handshake may have been with another list, and nobody looked at it since.
    if let tls = service.tls.withLock({ $0 }), service.live.examine(self, caller, connection, tls.context) {
      return
    }
    setEnd(peer.notAfter)
    startTicking(connection)
    findTenant(connection)
  }

  private static func text(_ address: SocketAddress) -> String {
    "\(address.ipAddress ?? ""):\(address.port ?? 0)"
  }

  /// The certificate's end, or the age of a connection less up to a tenth, whichever comes first.
  private func setEnd(_ notAfter: Int64) {
    let age = service.resources.configuration.limits.connectionAge.nanoseconds
    let now = monotonicNanoseconds()
    let validSeconds = UInt64(clamping: notAfter - Int64(unixMilliseconds() / 1000))
    let (valid, isForever) = validSeconds.multipliedReportingOverflow(by: 1_000_000_000)
    ends = now + min(age - UInt64.random(in: 0...(age / 10)), isForever ? age : valid)
  }

  private func startTicking(_ connection: TLSConnection) {
    guard let eventLoop = connection.eventLoop else { return }
    let bound = NIOLoopBound((self, connection), eventLoop: eventLoop)
    ticker = eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
      let (me, connection) = bound.value
      me.tick(connection)
    }
  }

  private func tick(_ connection: TLSConnection) {
    let now = monotonicNanoseconds()
    if now >= ends || service.isShuttingDown.load(ordering: .relaxed) { isEnding = true }
    let isLate = !isHeldBack && frameStarted > 0 && now - frameStarted > limits.frame
    let isIdle = inFlight.isEmpty && now - lastRequest > limits.idle
    if isLate || isIdle || (isEnding && inFlight.isEmpty) { return connection.close() }
    if now - lastRequest > Self.restlessNanoseconds { connection.releaseBuffers() }
  }

  /// Finds the tenant once; reading waits for it. An unknown tenant is no error here: its calls are refused as forbidden ones are.
  private func findTenant(_ connection: TLSConnection) {
    guard let eventLoop = connection.eventLoop else { return }
    guard let name = caller?.tenant else { return admit(nil, connection) }
    if let known = service.tenants.known(name) { return admit(known, connection) }
    holdBack(connection)
    let service = self.service
    let bound = NIOLoopBound((self, connection), eventLoop: eventLoop)
    Task {
      let found: Tenant?
      do throws(ServiceError) {
        found = try await service.tenants.find(name)
      } catch {
        service.logger.error("\(error.status.message)", metadata: ["tenant": "\(name)"])
        found = nil
      }
      eventLoop.execute {
        let (me, connection) = bound.value
        me.admit(found, connection)
      }
    }
  }

  private func admit(_ found: Tenant?, _ connection: TLSConnection) {
    guard !isClosed else { return }
    let most = service.resources.configuration.limits.connectionsPerTenant
    isAdmitted =
      found.map { $0.admitConnection(caller?.instance) }
      ?? service.strangers.admit(caller?.tenant, most: most)
    guard isAdmitted else {
      if found == nil { service.resources.admission.count(.connections) }
      return refuse(
        Status(.throttled, LimitKind.connections.message, retryAfterMilliseconds: 1000),
        connection
      )
    }
    tenant = found
    if let caller { found?.noteRefusal(of: caller) }
    ownAdmission = found?.admission ?? (caller?.tenant == nil ? service.administration : nil)
    letGo(connection)
  }

  /// Whose limits count for a request: those of its tenant, also of one that was made since the connection came.
  var admission: Admission {
    if let ownAdmission { return ownAdmission }
    return caller?.tenant.flatMap { service.tenants.known($0)?.admission } ?? service.strangerAdmission
  }

  /// Whose limits count for frames on their way; the same as long as the connection lasts.
  private var frameAdmission: Admission { ownAdmission ?? service.strangerAdmission }

  /// True for the service's administrators and a tenant's.
  var isAdministrator: Bool { instance == nil }

  private func refuse(_ status: Status, _ connection: TLSConnection) {
    if let caller { service.auditRefusedConnection(caller, status) }
    ReplyEncoder.appendFrame(ReplyEncoder.bytes(id: 0, sequence: 0, status), to: &connection.output)
    connection.close()
  }

  func writabilityChanged(_ connection: TLSConnection, isWritable: Bool) {
    if isWritable { letGoIfPossible(connection) } else { holdBack(connection) }
  }

  private func holdBack(_ connection: TLSConnection) {
    isHeldBack = true
    connection.pauseReading()
  }

  /// The client may go on; a frame that it could not finish meanwhile has its time anew.
  private func letGo(_ connection: TLSConnection) {
    if isHeldBack, frameStarted > 0 { frameStarted = monotonicNanoseconds() }
    isHeldBack = false
    connection.resumeReading()
  }

  func letGoIfPossible(_ connection: TLSConnection) {
    guard !isClosed else { return }
    if isEnding, inFlight.isEmpty { return connection.close() }
    if !isEnding, executing <= limits.inFlightMax / 2, connection.isWritable { letGo(connection) }
  }

  func closed(_ connection: TLSConnection, error: TLSError?) {
    isClosed = true
    ticker?.cancel()
    if let caller { service.live.remove(caller) }
    service.transfers.drop(connection: number)
    if !isAuthenticated { service.connectionsUnauthenticated.subtract(1, ordering: .relaxed) }
    service.connections.subtract(1, ordering: .relaxed)
    if isAdmitted {
      if let tenant {
        tenant.releaseConnection(caller?.instance)
      } else {
        service.strangers.release(caller?.tenant)
      }
    }
    frameAdmission.release(reservedBytes)
    for request in inFlight.values { request.scheduled.cancel() }
    inFlight = [:]
    if let error, !isAuthenticated { service.logger.info("a connection was refused: \(error)") }
  }

  // MARK: Frames

  func received(_ plaintext: inout WipedBuffer, _ connection: TLSConnection) {
    // Once a round: what is answered at once is sent when the round is over, and it came in with the round.
    guard connection.isWritable else { return holdBack(connection) }
    while !isEnding {
      if connection.output.count > Self.outputBytesMax, !sendEarly(connection) { return }
      guard executing < limits.inFlightMax else { return holdBack(connection) }
      do throws(WireError) {
        guard try readFrame(&plaintext, connection) else { return }
      } catch {
        service.callsFailed.add(1, ordering: .relaxed)
        return refuse(error.status, connection)
      }
    }
    if inFlight.isEmpty { connection.close() } else { holdBack(connection) }
  }

  /// Replies can be a thousand times longer than their requests: within a round, too, they are sent before they pile up.
  ///
  /// - Returns: false where the client does not take them.
  private func sendEarly(_ connection: TLSConnection) -> Bool {
    connection.flush()
    guard !isClosed else { return false }
    if !connection.isWritable { holdBack(connection) }
    return connection.isWritable
  }

  /// - Returns: false where there is no whole frame.
  private func readFrame(_ plaintext: inout WipedBuffer, _ connection: TLSConnection) throws(WireError)
    -> Bool
  {
    let next = try unsafe plaintext.withUnsafeBytes { bytes throws(WireError) in
      try unsafe Frame.next(in: bytes, messageBytesMax: Frame.messageBytesMax)
    }
    guard case .message(let count) = next else {
      try awaitFrame(plaintext)
      return false
    }
    frameStarted = 0
    lastRequest = monotonicNanoseconds()
    let total = Frame.prefixBytes + count
    let decoded: Result<Request, WireError>? = unsafe plaintext.withUnsafeBytes { bytes in
      let message = unsafe UnsafeRawBufferPointer(rebasing: bytes[Frame.prefixBytes..<total])
      if unsafe answerFetch(message, connection) { return nil }
      connection.hasReceivedSecrets = true
      return Result { () throws(WireError) in try unsafe decoder.decode(message) }
    }
    plaintext.consume(total)
    releaseFrame()
    switch decoded {
    case nil: break
    case .success(let request): execute(request, messageBytes: count, connection)
    case .failure(let error):
      guard error.requestID != 0 else { throw error }
      answerMalformed(error, connection)
    }
    return true
  }

  /// A frame is on its way: its time runs, and a large one is counted against the tenant before it is waited for.
  private func awaitFrame(_ plaintext: borrowing WipedBuffer) throws(WireError) {
    guard !plaintext.isEmpty else {
      frameStarted = 0
      return
    }
    if frameStarted == 0 { frameStarted = monotonicNanoseconds() }
    guard frameBytesAnnounced == 0, plaintext.count >= Frame.prefixBytes else { return }
    let announced = unsafe plaintext.withUnsafeBytes { bytes in
      (1..<5).reduce(0) { unsafe $0 << 8 | Int(bytes[$1]) }
    }
    guard announced > Frame.messageBytesDefault else { return }
    do throws(ServiceError) {
      try frameAdmission.reserve(announced, isAdministrator: isAdministrator)
    } catch {
      throw .overShare(bytes: announced)
    }
    frameBytesAnnounced = announced
    reservedBytes += announced
  }

  private func releaseFrame() {
    guard frameBytesAnnounced > 0 else { return }
    frameAdmission.release(frameBytesAnnounced)
    reservedBytes -= frameBytesAnnounced
    frameBytesAnnounced = 0
  }
}
