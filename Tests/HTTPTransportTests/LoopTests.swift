import Cryptography
import Foundation
import KeyringTestSupport
import Synchronization
import Testing

@testable import HTTPTransport

/// Many requests and pools on one thread.
@Suite(.timeLimit(.minutes(1))) struct LoopTests {
  private let loop: HTTPLoop
  private let server: TestHTTPServer

  init() async throws {
    loop = try HTTPLoop()
    server = try await TestHTTPServer()
  }

  private func echo(_ connections: HTTPConnections, _ path: String = "/echo") async throws -> Echo {
    try Echo(await connections.send(server.request(path)))
  }

  /// Waits until the server sees as many connections, those of `observer` among them.
  private func waitForOpen(_ count: Int, _ observer: HTTPConnections) async throws {
    while try await echo(observer).open != count { try await Task.sleep(for: .milliseconds(10)) }
  }

  // MARK: Connections

  @Test func aPoolUsesItsConnectionsAgainAndNoOtherPools() async throws {
    let (one, other) = (loop.connections(), loop.connections())
    var peers: [Set<Int>] = [[], []]
    for _ in 0..<5 {
      peers[0].insert(try await echo(one).peer)
      peers[1].insert(try await echo(other).peer)
    }
    #expect(peers[0].count == 1 && peers[1].count == 1 && peers[0] != peers[1])
  }

  @Test func aPoolHasAtMostEightConnections() async throws {
    let connections = loop.connections()
    let peers = try await withThrowingTaskGroup(of: Echo.self) { group in
      for _ in 0..<200 { group.addTask { try await echo(connections) } }
      return try await group.reduce(into: [Int: Int]()) { $0[$1.peer, default: 0] += 1 }
    }
    #expect(peers.count <= 8 && peers.values.reduce(0, +) == 200, "\(peers)")
  }

  @Test func twoHundredRequestsAreInFlightAtOnce() async throws {
    let pools = (0..<25).map { _ in loop.connections() }
    let peers = try await withThrowingTaskGroup(of: Echo.self) { group in
      // The server answers none of them before it has all.
      for index in 0..<200 { group.addTask { try await echo(pools[index / 8], "/wait/200") } }
      return try await group.reduce(into: Set<Int>()) { $0.insert($1.peer) }
    }
    #expect(peers.count == 200)
  }

  @Test func connectionsCloseWhenTheyAreIdleAndWhenTheirPoolIsLetGo() async throws {
    let observer = loop.connections()
    var options = HTTPConnections.Options()
    options.idleMilliseconds = 100
    let idle = loop.connections(options)
    let first = try await echo(idle)
    try await waitForOpen(1, observer)
    #expect(try await echo(idle).peer != first.peer, "the next one has a new connection")
    try await waitForOpen(1, observer)
    do {
      let dropped = loop.connections()
      _ = try await echo(dropped)
      try await waitForOpen(2, observer)
      withExtendedLifetime(dropped) {}
    }
    try await waitForOpen(1, observer)
  }

  @Test func ofManyIdlePoolsTheOldestCloseTheirConnections() async throws {
    let pools = (0..<TransferLoop.idlePoolsMax + 20).map { _ in loop.connections() }
    var first: [Int] = []
    for pool in pools { first.append(try await echo(pool).peer) }
    // The observer is one of them.
    try await waitForOpen(TransferLoop.idlePoolsMax, loop.connections())
    #expect(try await echo(pools[0]).peer != first[0], "it was closed, and serves again")
    #expect(try await echo(pools[pools.count - 1]).peer == first[pools.count - 1], "it was kept")
  }

  // MARK: Ends

  @Test func aCancelledTaskEndsItsRequest() async throws {
    let (observer, connections) = (loop.connections(), loop.connections())
    let request = server.request("/silence")
    let cancelled = HTTPError.local("127.0.0.1: the request was cancelled")
    let task = Task { await failure(connections, request) }
    try await waitForOpen(2, observer)
    task.cancel()
    #expect(await task.value == cancelled)
    try await waitForOpen(1, observer)
    // Before it began, and while it waits for others.
    let early = Task {
      while !Task.isCancelled { await Task.yield() }
      return await failure(connections, request)
    }
    early.cancel()
    #expect(await early.value == cancelled)
    let eight = (0..<8).map { _ in Task { await failure(connections, request) } }
    try await waitForOpen(9, observer)
    let ninth = Task { await failure(connections, request) }
    ninth.cancel()
    #expect(await ninth.value == cancelled)
    for task in eight { task.cancel() }
    for task in eight { #expect(await task.value == cancelled) }
  }

  @Test func closingFailsWhatIsInFlightAndWhatWaits() async throws {
    let (observer, connections) = (loop.connections(), loop.connections())
    let request = server.request("/silence")
    let closed = HTTPError.local("127.0.0.1: the connections were closed")
    let tasks = (0..<12).map { _ in Task { await failure(connections, request) } }
    try await waitForOpen(9, observer)
    connections.close()
    for task in tasks { #expect(await task.value == closed) }
    try await waitForOpen(1, observer)
    #expect(await failure(connections, request) == closed)
    connections.close()
  }

  @Test func whatWaitsForAConnectionFailsInTime() async throws {
    let connections = loop.connections()
    let eight = (0..<8).map { _ in Task { await failure(connections, server.request("/silence")) } }
    try await waitForOpen(9, loop.connections())
    var request = server.request("/echo")
    request.timeoutMilliseconds = 100
    #expect(await failure(connections, request) == .unreachable("127.0.0.1: no response within 100 ms"))
    for task in eight { task.cancel() }
    for task in eight { _ = await task.value }
  }

  @Test func moreThanAThousandDoNotWait() async throws {
    let connections = loop.connections()
    let request = server.request("/silence")
    let tasks = (0..<1033).map { _ in Task { await failure(connections, request) } }
    let refused = HTTPError.local("127.0.0.1: too many requests are waiting")
    // Eight run, 1,024 wait: one is refused, whichever came last.
    let first = await withTaskGroup(of: HTTPError?.self) { group in
      for task in tasks { group.addTask { await task.value } }
      defer { connections.close() }
      return await group.next()
    }
    #expect(first == refused)
  }

  @Test func theThreadIsOneSleepsAndEnds() async {
    await #expect(processExitsWith: .success) {
      var failures: [String] = []
      let server = try await TestHTTPServer()
      do {
        let loop = try HTTPLoop()
        while httpThreads().isEmpty { try await Task.sleep(for: .milliseconds(5)) }
        let thread = httpThreads()[0]
        // Of epoll_wait(2) or epoll_pwait(2) the fourth argument: no end.
        while !(try systemCall(thread).hasSuffix("0xffffffff")) {
          try await Task.sleep(for: .milliseconds(5))
        }
        let pools = (0..<100).map { _ in loop.connections() }
        for pool in pools { _ = try await pool.send(server.request("/echo")) }
        if httpThreads() != [thread] { failures.append("one thread for 100 pools: \(httpThreads())") }
      }
      while !httpThreads().isEmpty { try await Task.sleep(for: .milliseconds(5)) }
      finish(failures)
    }
  }

  // MARK: Names

  private func named(
    _ clock: TestClock = TestClock(),
    _ lookUp: @escaping NameResolver.LookUp
  ) async throws -> (
    HTTPLoop, TestHTTPServer, TestPKI
  ) {
    let pki = try TestPKI()
    try pki.issue("named", .server(hosts: ["kms.example"]))
    return (try HTTPLoop(lookUp: lookUp) { clock.now }, try await TestHTTPServer.secure(pki, "named"), pki)
  }

  @Test func aNameIsLookedUpOnceForAll() async throws {
    let count = Atomic(0)
    let (loop, server, pki) = try await named { name in
      count.add(1, ordering: .relaxed)
      return name == "kms.example" ? .success(["127.0.0.1"]) : .failure(.unreachable("\(name): no"))
    }
    var options = HTTPConnections.Options()
    options.caFile = pki.directory("ca.crt")
    let request = server.request("/echo", isSecure: true, host: "kms.example")
    let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<30 {
        let pool = loop.connections(options)
        for _ in 0..<3 { group.addTask { try await pool.send(request).status } }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    #expect(statuses == Array(repeating: 200, count: 90))
    #expect(count.load(ordering: .relaxed) == 1)
    let other = HTTPRequest(.get, "https://other.example/")
    for _ in 0..<2 { #expect(await failure(loop.connections(), other) == .unreachable("other.example: no")) }
    #expect(count.load(ordering: .relaxed) == 3, "a failure is not kept")
  }

  @Test func aNameServerThatHangsHoldsItsOwnNameOnly() async throws {
    let gate = DispatchSemaphore(value: 0)
    defer { gate.signal() }
    let (loop, server, pki) = try await named { name in
      if name == "hung.example" { gate.wait() }
      return .success(["127.0.0.1"])
    }
    var options = HTTPConnections.Options()
    options.caFile = pki.directory("ca.crt")
    let connections = loop.connections(options)
    var hung = HTTPRequest(.get, "https://hung.example/")
    hung.timeoutMilliseconds = 50_000
    let cancelled = Task { [hung] in await failure(connections, hung) }
    let request = server.request("/echo", isSecure: true, host: "kms.example")
    #expect(try await connections.send(request).status == 200)
    cancelled.cancel()
    #expect(await cancelled.value == .local("hung.example: the request was cancelled"))
    hung.connectTimeoutMilliseconds = 100
    let late = await failure(connections, hung)
    #expect(late == .unreachable("hung.example: the name was not looked up in time"))
  }

  @Test func knownAddressesAreUsedWhileTheyAreLookedUpAgain() async throws {
    let clock = TestClock()
    let (count, gate) = (Counter(), DispatchSemaphore(value: 0))
    defer { for _ in 0..<8 { gate.signal() } }
    let (loop, server, pki) = try await named(clock) { name in
      guard count.next() > 1 else { return .success(["127.0.0.1"]) }
      gate.wait()
      return .failure(.unreachable("\(name): lost"))
    }
    var options = HTTPConnections.Options()
    options.caFile = pki.directory("ca.crt")
    let request = server.request("/echo", isSecure: true, host: "kms.example")
    let connections = loop.connections(options)
    func isAnswered() async throws -> Bool { try await connections.send(request).status == 200 }
    #expect(try await isAnswered())
    clock.advance(milliseconds: 30_000)
    // The second lookup hangs, then fails: neither is noticed.
    for _ in 0..<3 { #expect(try await isAnswered()) }
    while count.value < 2 { await Task.yield() }
    gate.signal()
    for _ in 0..<3 { #expect(try await isAnswered()) }
    #expect(count.value == 2)
    // An hour after they were had they are known no more.
    clock.advance(milliseconds: 3_600_000)
    for _ in 0..<2 { gate.signal() }
    #expect(await failure(connections, request) == .unreachable("kms.example: lost"))
  }

  @Test func namesAreLookedUpThirtyTwoAtOnce() async throws {
    let (count, gate) = (Counter(), DispatchSemaphore(value: 0))
    defer { for _ in 0..<64 { gate.signal() } }
    let loop = try HTTPLoop(lookUp: { name in
      _ = count.next()
      gate.wait()
      return .failure(.unreachable("\(name): no"))
    })
    let connections = loop.connections()
    let tasks = (0..<32).map { number in
      Task { await failure(connections, HTTPRequest(.get, "https://\(number).example/")) }
    }
    while count.value < 32 { await Task.yield() }
    let more = await failure(connections, HTTPRequest(.get, "https://more.example/"))
    #expect(more == .local("more.example: too many names are being looked up"))
    for task in tasks { task.cancel() }
    for task in tasks { _ = await task.value }
  }

  @Test func theSystemKnowsNames() throws {
    let addresses = try NameResolver.system("localhost").get()
    #expect(addresses.contains("127.0.0.1") || addresses.contains("[::1]"), "\(addresses)")
  }

  // MARK: Alarms

  @Test func alarmsGoOffInOrderOnceEach() {
    var alarms = Alarms()
    func time(_ nanoseconds: UInt64) -> MonotonicTime { MonotonicTime(nanoseconds: nanoseconds) }
    var model: [UInt32: UInt64] = [:]
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      let pool = UInt32.random(in: 1...40, using: &random)
      let at = Bool.random() ? UInt64.random(in: 1...50, using: &random) : nil
      alarms.set(at.map(time), for: pool)
      model[pool] = at
      #expect(alarms.next == model.values.min().map(time))
      guard let soonest = model.values.min(), Int.random(in: 0..<4) == 0 else { continue }
      #expect(alarms.popDue(time(soonest - 1)) == [])
      let due = model.filter { $0.value <= soonest + 5 }.sorted { ($0.value, $0.key) < ($1.value, $1.key) }
      #expect(alarms.popDue(time(soonest + 5)) == due.map(\.key))
      for (pool, _) in due { model[pool] = nil }
    }
  }
}

/// Threads of this process that are called as the loop's is, by id.
private func httpThreads() -> [String] {
  let ids = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
  return ids.filter { id in
    (try? String(contentsOfFile: "/proc/self/task/\(id)/comm", encoding: .utf8)) == "http\n"
  }
}

/// What a thread waits in: number, and the first four arguments of its system call (proc_pid_syscall(5)).
private func systemCall(_ thread: String) throws -> String {
  let text = try String(contentsOfFile: "/proc/self/task/\(thread)/syscall", encoding: .utf8)
  return text.split(separator: " ").prefix(5).joined(separator: " ")
}

/// Counts from 1, for all threads.
private final class Counter: Sendable {
  private let count = Atomic(0)
  var value: Int { count.load(ordering: .acquiring) }

  func next() -> Int { count.add(1, ordering: .acquiringAndReleasing).newValue }
}
