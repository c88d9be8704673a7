internal import CLinux
internal import Glibc

/// What lives on the loop's thread: the pools, what they wait for, and the names being looked up.
///
/// All of libcurl's handles are used here alone, so that no call ever blocks another thread, and none is locked.
final class TransferLoop {
  /// Set by the last job.
  var isEnding = false
  var pools: [UInt32: Pool] = [:]
  let resolver: NameResolver
  let trust: TrustStores
  private var alarms = Alarms()
  /// Pools that keep connections for nobody at this moment, the longest first.
  private var idlePools: [UInt32] = []
  /// Idle pools, each with up to its own most connections: ten thousand tenants' credentials do not fill the table of descriptors.
  static let idlePoolsMax = 128
  private let epoll: Int32
  private let mailbox: Mailbox

  init(epoll: Int32, mailbox: Mailbox, lookUp: @escaping NameResolver.LookUp, now: @escaping Clock) {
    self.epoll = epoll
    self.mailbox = mailbox
    resolver = NameResolver(lookUp, now: now, post: mailbox.post)
    trust = TrustStores(now: now)
    watch(mailbox.descriptor, for: EPOLLIN.rawValue, pool: Self.noPool, EPOLL_CTL_ADD)
  }

  /// Pools count from 1.
  private static let noPool: UInt32 = 0

  /// Runs until `isEnding`.
  func run() {
    var ready = [UInt64](repeating: 0, count: 64)
    while !isEnding {
      // SAFETY: the array has room for as many tags as are asked for.
      let count = unsafe keyring_epoll_wait(epoll, &ready, Int32(ready.count), sleepMilliseconds())
      for tag in ready.prefix(Int(max(0, count))) {
        pools[UInt32(tag >> 32)]?.isReady(Int32(truncatingIfNeeded: tag))
      }
      for job in mailbox.take() { job(self) }
      let now = MonotonicTime.now
      for pool in alarms.popDue(now) { pools[pool]?.wake(now) }
    }
    for pool in pools.values { pool.close("HTTP is ending") }
  }

  private func sleepMilliseconds() -> Int32 {
    guard let next = alarms.next else { return -1 }
    return Int32(clamping: next.milliseconds(from: .now))
  }

  /// A pool has no request any more, and keeps its connections: where too many do, the one that did for longest closes them.
  func becameIdle(_ pool: UInt32) {
    idlePools.append(pool)
    if idlePools.count > Self.idlePoolsMax { pools[idlePools[0]]?.closeIdle() }
  }

  /// It has requests again, or no connections.
  func endedIdling(_ pool: UInt32) { idlePools.removeAll { $0 == pool } }

  /// Wakes `pool` at `time`, and no more at the one that was set before.
  func setAlarm(_ time: MonotonicTime?, for pool: UInt32) { alarms.set(time, for: pool) }

  /// Hands readiness of a descriptor to `pool`: EPOLL_CTL_ADD, _MOD and _DEL as in epoll_ctl(2).
  func watch(_ descriptor: Int32, for events: UInt32, pool: UInt32, _ operation: Int32) {
    // It fails where libcurl has closed the descriptor already, which then is watched no more.
    let tag = UInt64(pool) << 32 | UInt64(UInt32(bitPattern: descriptor))
    _ = keyring_epoll_control(epoll, operation, descriptor, events, tag)
  }
}
