internal import Glibc

/// Names to addresses, as the system's resolver has them: one thread for each name that is being looked up, whoever asks for it.
///
/// libcurl's own resolver takes a thread for each connection of each pool. On the loop's thread.
final class NameResolver {
  /// What a lookup brought: addresses in text, or why there are none.
  typealias Answer = Result<[String], HTTPError>
  /// Blocks; runs on a thread of its own.
  typealias LookUp = @Sendable (_ name: String) -> Answer
  private typealias Waiter = (Answer) -> Void

  private struct Known {
    let addresses: [String]
    /// From when on they are looked up again, beside their use.
    var refresh: MonotonicTime
    let end: MonotonicTime
  }

  private static let freshMilliseconds = 30_000
  /// A name server that does not answer takes no address away for as long.
  private static let keptMilliseconds = 3_600_000
  /// Lookups at once, each of which has a thread: more fail at once.
  static let lookUpsMax = 32
  private let lookUp: LookUp
  private let now: Clock
  private let post: @Sendable (@escaping HTTPLoop.Job) -> Void
  private var known: [String: Known] = [:]
  private var waiting: [String: [Waiter]] = [:]
  private var underWay: Set<String> = []

  /// - Parameter post: brings a job to the loop's thread.
  init(
    _ lookUp: @escaping LookUp,
    now: @escaping Clock,
    post: @escaping @Sendable (@escaping HTTPLoop.Job) -> Void
  ) {
    self.lookUp = lookUp
    self.now = now
    self.post = post
  }

  /// Calls `then` with the addresses: at once where they are known.
  func resolve(_ name: String, then: @escaping (Answer) -> Void) {
    let now = now()
    if let known = known[name], now < known.end {
      if now >= known.refresh { begin(name) }
      return then(.success(known.addresses))
    }
    waiting[name, default: []].append(then)
    begin(name)
  }

  /// Looks the name up, unless it is being looked up.
  private func begin(_ name: String) {
    guard !underWay.contains(name) else { return }
    guard underWay.count < Self.lookUpsMax else {
      return end(name, .failure(.local("\(name): too many names are being looked up")))
    }
    underWay.insert(name)
    let isBegun = BackgroundThread.start(named: "http-names") { [lookUp, post] in
      let answer = lookUp(name)
      post { loop in loop.resolver.end(name, answer) }
    }
    if !isBegun { end(name, .failure(.local("\(name): no thread to look the name up"))) }
  }

  private func end(_ name: String, _ answer: Answer) {
    underWay.remove(name)
    let now = now()
    let refresh = now.adding(milliseconds: Self.freshMilliseconds)
    switch answer {
    case .success(let addresses):
      let end = now.adding(milliseconds: Self.keptMilliseconds)
      known[name] = Known(addresses: addresses, refresh: refresh, end: end)
    case .failure: known[name]?.refresh = refresh
    }
    for then in waiting.removeValue(forKey: name) ?? [] { then(answer) }
  }

  /// getaddrinfo(3).
  static let system: LookUp = { name in
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let failure = unsafe getaddrinfo(name, nil, &hints, &list)
    // SAFETY: the list is freed once; gai_strerror gives a constant.
    defer { unsafe list.map { unsafe freeaddrinfo($0) } }
    var addresses: [String] = []
    var next = unsafe list
    while let entry = unsafe next {
      if let address = unsafe text(entry.pointee) { addresses.append(address) }
      unsafe next = entry.pointee.ai_next
    }
    if failure == 0, !addresses.isEmpty { return .success(addresses) }
    let why = unsafe failure == 0 ? "no address" : String(cString: gai_strerror(failure))
    return .failure(.unreachable("\(name): the name cannot be looked up: \(why)"))
  }

  private static func text(_ entry: addrinfo) -> String? {
    var text = [CChar](repeating: 0, count: 64)
    let failure = unsafe getnameinfo(entry.ai_addr, entry.ai_addrlen, &text, 64, nil, 0, NI_NUMERICHOST)
    guard failure == 0, let end = text.firstIndex(of: 0) else { return nil }
    let address = String(decoding: text[..<end].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // An address of one link only has a zone, which libcurl does not take here.
    guard !address.contains("%") else { return nil }
    return address.contains(":") ? "[\(address)]" : address
  }
}
