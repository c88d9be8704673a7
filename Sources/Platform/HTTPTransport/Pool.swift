internal import CCurl
internal import CLinux
internal import Synchronization

/// The connections of one `HTTPConnections`: a multi handle of libcurl's, there only while it is used. On the loop's thread.
@safe
final class Pool {
  private static let connectionsMax = 8
  /// More are refused: who floods one set of credentials fills no memory.
  private static let waitingMax = 1024

  private struct Waiting {
    let call: Call
    let proxy: RequestURL?
    let addresses: [String]
  }

  private let id: UInt32
  private let options: HTTPConnections.Options
  // SAFETY: the loop owns its pools, and outlives them.
  private unowned let loop: TransferLoop
  private var multi: UnsafeMutableRawPointer?
  private var watched: Set<Int32> = []
  /// When libcurl wants to be called though no descriptor is ready.
  private var curlAlarm: MonotonicTime?
  /// When a multi handle that is not used is let go, and its connections with it.
  private var idleEnd: MonotonicTime?
  private var resolving: [ObjectIdentifier: (call: Call, deadline: MonotonicTime)] = [:]
  private var waiting: [Waiting] = []
  /// By what they are called in `Transfer.id`.
  private var running: [UInt: Transfer] = [:]

  init(id: UInt32, _ options: HTTPConnections.Options, loop: TransferLoop) {
    self.id = id
    self.options = options
    self.loop = loop
  }

  // MARK: Calls

  func start(_ call: Call) {
    guard !call.ticket.isCancelled.load(ordering: .acquiring) else { return finishCancelled(call) }
    guard resolving.count + waiting.count < Self.waitingMax else {
      return call.finish(.failure(.local("\(call.host): too many requests are waiting")))
    }
    do throws(HTTPError) {
      let proxy = try proxy(for: call)
      if let name = (proxy ?? call.request.url).nameToLookUp {
        resolve(name, for: call, proxy)
      } else {
        waiting.append(Waiting(call: call, proxy: proxy, addresses: []))
      }
    } catch {
      call.finish(.failure(error))
    }
    settle()
  }

  /// What the call goes through: plain HTTP, which stays on this machine and its link, takes no proxy.
  private func proxy(for call: Call) throws(HTTPError) -> RequestURL? {
    guard call.request.url.isSecure, let text = options.proxy else { return nil }
    let proxy = try RequestURL(text) { _ in true }
    guard !proxy.isSecure, proxy.path == "/", proxy.query.isEmpty else {
      throw .configuration("a proxy is http://host:port")
    }
    return proxy
  }

  private func resolve(_ name: String, for call: Call, _ proxy: RequestURL?) {
    let ticket = call.ticket
    let connectEnd = MonotonicTime.now.adding(milliseconds: call.request.connectTimeoutMilliseconds)
    resolving[ObjectIdentifier(ticket)] = (call, min(connectEnd, call.deadline))
    // It holds the ticket: no later one has the same identifier.
    loop.resolver.resolve(name) { [weak self] answer in
      guard let self, let call = resolving.removeValue(forKey: ObjectIdentifier(ticket))?.call else { return }
      switch answer {
      case .success(let addresses):
        waiting.append(Waiting(call: call, proxy: proxy, addresses: addresses))
      case .failure(let error): call.finish(.failure(error))
      }
      settle()
    }
  }

  func cancel(_ ticket: Call.Ticket) {
    if let call = resolving.removeValue(forKey: ObjectIdentifier(ticket))?.call {
      finishCancelled(call)
    } else if let place = waiting.firstIndex(where: { $0.call.ticket === ticket }) {
      finishCancelled(waiting.remove(at: place).call)
    } else if let transfer = running.values.first(where: { $0.call.ticket === ticket }) {
      remove(transfer)
      finishCancelled(transfer.call)
    }
    settle()
  }

  private func finishCancelled(_ call: Call) {
    call.finish(.failure(.local("\(call.host): the request was cancelled")))
  }

  /// Ends everything.
  func close(_ why: String) {
    let calls = resolving.values.map(\.call) + waiting.map(\.call) + running.values.map(\.call)
    resolving = [:]
    waiting = []
    for transfer in running.values { remove(transfer) }
    closeConnections()
    loop.setAlarm(nil, for: id)
    for call in calls { call.finish(.failure(.local("\(call.host): \(why)"))) }
  }

  // MARK: Events

  /// A descriptor is ready for what libcurl waits for, or broken; libcurl looks itself.
  func isReady(_ descriptor: Int32) { advance(descriptor) }

  /// The alarm went off.
  func wake(_ now: MonotonicTime) {
    for (ticket, late) in resolving where late.deadline <= now {
      resolving[ticket] = nil
      late.call.finish(.failure(.unreachable("\(late.call.host): the name was not looked up in time")))
    }
    for late in waiting where late.call.deadline <= now { late.call.finishLate() }
    waiting.removeAll { $0.call.deadline <= now }
    for late in running.values where late.call.deadline <= now {
      remove(late)
      late.call.finishLate()
    }
    if let time = idleEnd, time <= now { closeConnections() }
    if let time = curlAlarm, time <= now {
      curlAlarm = nil
      advance(CURL_SOCKET_TIMEOUT)
    } else {
      settle()
    }
  }

  private func advance(_ descriptor: Int32) {
    guard let multi = unsafe multi else { return }
    var count: Int32 = 0
    // SAFETY: the multi handle is open, and this is no callback of its.
    unsafe curl_multi_socket_action(multi, descriptor, 0, &count)
    settle()
  }

  /// After every change: ended transfers are finished, others begun in their place, and the alarm is set.
  private func settle() {
    finishEnded()
    beginWaiting()
    if running.isEmpty, unsafe multi != nil {
      if idleEnd == nil {
        idleEnd = .now.adding(milliseconds: options.idleMilliseconds)
        loop.becameIdle(id)
      }
    } else {
      endIdling()
    }
    let soonest = [
      resolving.values.lazy.map(\.deadline).min(), waiting.lazy.map(\.call.deadline).min(),
      running.values.lazy.map(\.call.deadline).min(), curlAlarm, idleEnd,
    ]
    loop.setAlarm(soonest.compactMap { $0 }.min(), for: id)
  }

  private func finishEnded() {
    guard let multi = unsafe multi else { return }
    var easy: UnsafeMutableRawPointer?
    var code = CURLE_OK
    // SAFETY: both are written where it answers true; the handle is one of `running`.
    while unsafe keyring_curl_multi_next_ended(multi, &easy, &code) {
      guard let transfer = running[UInt(bitPattern: easy)] else { continue }
      let result = transfer.outcome(code)
      remove(transfer)
      transfer.call.finish(result)
    }
  }

  private func beginWaiting() {
    while running.count < Self.connectionsMax, !waiting.isEmpty {
      let next = waiting.removeFirst()
      do throws(HTTPError) {
        try begin(next)
      } catch {
        next.call.finish(.failure(error))
      }
    }
  }

  private func begin(_ next: Waiting) throws(HTTPError) {
    let route = unsafe Transfer.Route(
      addresses: next.addresses,
      proxy: next.proxy,
      trust: try loop.trust.store(options.caFile),
      idleSecondsMax: max(1, (options.idleMilliseconds + 999) / 1000)
    )
    let transfer = try Transfer(next.call, route)
    let multi = unsafe try openMulti()
    guard unsafe curl_multi_add_handle(multi, transfer.easy) == CURLM_OK else {
      throw .local("\(next.call.host): out of memory")
    }
    running[transfer.id] = transfer
  }

  private func remove(_ transfer: Transfer) {
    // SAFETY: the transfer's handle is in this multi handle; libcurl closes its connection, unless the response is complete.
    unsafe curl_multi_remove_handle(multi, transfer.easy)
    running[transfer.id] = nil
  }

  // MARK: The multi handle

  private func openMulti() throws(HTTPError) -> UnsafeMutableRawPointer {
    if let multi = unsafe multi { return unsafe multi }
    guard let made = unsafe curl_multi_init() else { throw .local("out of memory") }
    // SAFETY: this object outlives the multi handle, whose callbacks come on the loop's thread.
    let this = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe keyring_curl_multi_set_pointer(made, CURLMOPT_SOCKETDATA, this)
    unsafe keyring_curl_multi_set_pointer(made, CURLMOPT_TIMERDATA, this)
    unsafe keyring_curl_multi_set_on_socket(made) { _, descriptor, what, this, _ in
      unsafe Pool.of(this).watch(descriptor, what)
      return 0
    }
    unsafe keyring_curl_multi_set_on_timer(made) { _, milliseconds, this in
      unsafe Pool.of(this).curlAlarm = milliseconds < 0 ? nil : .now.adding(milliseconds: milliseconds)
      return 0
    }
    unsafe keyring_curl_multi_set_long(made, CURLMOPT_MAXCONNECTS, Self.connectionsMax)
    unsafe keyring_curl_multi_set_long(made, CURLMOPT_MAX_TOTAL_CONNECTIONS, Self.connectionsMax)
    unsafe multi = made
    return unsafe made
  }

  private static func of(_ this: UnsafeMutableRawPointer?) -> Pool {
    guard let this = unsafe this else { preconditionFailure("libcurl lost a pool's data") }
    return unsafe Unmanaged<Pool>.fromOpaque(this).takeUnretainedValue()
  }

  /// libcurl waits for something else of a descriptor, or (CURL_POLL_REMOVE) for nothing any more.
  private func watch(_ descriptor: Int32, _ what: Int32) {
    let isKnown = watched.contains(descriptor)
    guard what != CURL_POLL_REMOVE else {
      watched.remove(descriptor)
      return loop.watch(descriptor, for: 0, pool: id, EPOLL_CTL_DEL)
    }
    let reads: UInt32 = what & CURL_POLL_IN != 0 ? EPOLLIN.rawValue : 0
    let writes: UInt32 = what & CURL_POLL_OUT != 0 ? EPOLLOUT.rawValue : 0
    watched.insert(descriptor)
    loop.watch(descriptor, for: reads | writes, pool: id, isKnown ? EPOLL_CTL_MOD : EPOLL_CTL_ADD)
  }

  private func endIdling() {
    guard idleEnd != nil else { return }
    idleEnd = nil
    loop.endedIdling(id)
  }

  /// Lets go of connections that nobody uses.
  func closeIdle() {
    closeConnections()
    settle()
  }

  private func closeConnections() {
    guard let made = unsafe multi else { return }
    unsafe curl_multi_cleanup(made)
    unsafe multi = nil
    watched = []
    curlAlarm = nil
    endIdling()
  }
}
