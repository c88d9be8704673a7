internal import CCurl
internal import CLinux
internal import Glibc
internal import Synchronization

/// The thread on which all of a process's HTTP runs, however many requests and credentials there are; it sleeps while nothing happens.
///
/// It ends when this object and all its `HTTPConnections` are gone.
public final class HTTPLoop: Sendable {
  /// Something to do on the loop's thread.
  typealias Job = @Sendable (TransferLoop) -> Void

  private let mailbox: Mailbox
  private let poolCount = Atomic<UInt32>(0)

  /// Initializes libcurl, and starts the thread.
  ///
  /// It comes after `SecureHeap`'s allocator is installed: libcurl initializes OpenSSL.
  ///
  /// - Throws: `HTTPError.configuration` where this process has used libcurl otherwise before, so that it would free memory without wiping
  ///   it, or libcurl has another TLS than OpenSSL; `HTTPError.unreachable` where the system has no more descriptors or threads.
  public convenience init() throws(HTTPError) { try self.init(lookUp: NameResolver.system) }

  /// As `init()`, with a resolver of a test's own, and a clock for what is kept for some time.
  init(lookUp: @escaping NameResolver.LookUp, now: @escaping Clock = { .now }) throws(HTTPError) {
    switch Self.libcurl {
    case keyring_curl_started: break
    case keyring_curl_was_used:
      throw .configuration("libcurl was used before its allocator could be set")
    case keyring_curl_other_tls: throw .configuration("this libcurl's TLS is not OpenSSL")
    default: throw .unreachable("libcurl cannot be initialized")
    }
    let (mailbox, epoll) = (try Mailbox(), epoll_create1(Int32(EPOLL_CLOEXEC)))
    self.mailbox = mailbox
    guard epoll >= 0 else { throw .unreachable("no descriptor for HTTP: errno \(errno)") }
    let isStarted = BackgroundThread.start(named: "http") {
      TransferLoop(epoll: epoll, mailbox: mailbox, lookUp: lookUp, now: now).run()
      mailbox.close()
      _ = Glibc.close(epoll)
    }
    guard isStarted else {
      _ = Glibc.close(epoll)
      throw .unreachable("no thread for HTTP")
    }
  }

  deinit { mailbox.post { $0.isEnding = true } }

  private static let libcurl = keyring_curl_start()

  /// Makes a pool of connections, which are used by its requests alone: one for each set of credentials.
  public func connections(_ options: HTTPConnections.Options = .init()) -> HTTPConnections {
    precondition(options.idleMilliseconds > 0, "connections are kept for some time")
    let pool = poolCount.wrappingAdd(1, ordering: .relaxed).newValue
    post { $0.pools[pool] = Pool(id: pool, options, loop: $0) }
    return HTTPConnections(loop: self, pool: pool)
  }

  /// Runs `job` on the thread, after those that were posted before.
  func post(_ job: @escaping Job) { mailbox.post(job) }
}

/// Jobs on their way to the loop's thread, and the descriptor that wakes it.
final class Mailbox: Sendable {
  private let jobs = Mutex<[HTTPLoop.Job]?>([])
  /// Of eventfd(2).
  let descriptor: Int32

  /// - Throws: `HTTPError.unreachable` where there is no descriptor left.
  init() throws(HTTPError) {
    descriptor = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard descriptor >= 0 else { throw .unreachable("no descriptor for HTTP: errno \(errno)") }
  }

  deinit { _ = Glibc.close(descriptor) }

  /// Adds a job. What comes after the loop's end is dropped: only the threads that look names up outlive it.
  func post(_ job: @escaping HTTPLoop.Job) {
    jobs.withLock { jobs in
      if jobs?.isEmpty == true { _ = eventfd_write(descriptor, 1) }
      jobs?.append(job)
    }
  }

  /// Takes all jobs.
  func take() -> [HTTPLoop.Job] {
    jobs.withLock { jobs in
      var count: eventfd_t = 0
      _ = unsafe eventfd_read(descriptor, &count)
      defer { if jobs != nil { jobs = [] } }
      return jobs ?? []
    }
  }

  /// Takes no more jobs.
  func close() { jobs.withLock { $0 = nil } }
}
