internal import Glibc

/// Nanoseconds of CLOCK_MONOTONIC.
struct MonotonicTime: Comparable, Hashable, Sendable {
  let nanoseconds: UInt64

  static var now: MonotonicTime {
    var time = timespec()
    // SAFETY: `time` lives for the call; the clock exists on every Linux.
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return MonotonicTime(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
  }

  static func < (one: MonotonicTime, other: MonotonicTime) -> Bool { one.nanoseconds < other.nanoseconds }

  func adding(milliseconds: Int) -> MonotonicTime {
    MonotonicTime(nanoseconds: nanoseconds + UInt64(milliseconds) * 1_000_000)
  }

  /// Rounded up: whoever sleeps as long does not wake before it.
  func milliseconds(from earlier: MonotonicTime) -> Int {
    self <= earlier ? 0 : Int((nanoseconds - earlier.nanoseconds + 999_999) / 1_000_000)
  }
}

/// What time it is: `MonotonicTime.now`, or as a test has it.
typealias Clock = @Sendable () -> MonotonicTime

/// When each pool is to be woken, soonest first.
struct Alarms {
  private var sorted: [(time: MonotonicTime, pool: UInt32)] = []
  private var times: [UInt32: MonotonicTime] = [:]

  /// The soonest.
  var next: MonotonicTime? { sorted.first?.time }

  /// Sets, moves or (nil) takes away a pool's one alarm.
  mutating func set(_ time: MonotonicTime?, for pool: UInt32) {
    let old = times[pool]
    guard old != time else { return }
    if let old { sorted.remove(at: place(of: old, pool)) }
    if let time { sorted.insert((time, pool), at: place(of: time, pool)) }
    times[pool] = time
  }

  /// Takes all that are due, and gives their pools.
  mutating func popDue(_ now: MonotonicTime) -> [UInt32] {
    let due = sorted.prefix { $0.time <= now }.map(\.pool)
    sorted.removeFirst(due.count)
    for pool in due { times[pool] = nil }
    return due
  }

  /// Where it stands, or would: the first that is not before it.
  private func place(of time: MonotonicTime, _ pool: UInt32) -> Int {
    var (low, high) = (0, sorted.count)
    while low < high {
      let middle = (low + high) / 2
      if (sorted[middle].time, sorted[middle].pool) < (time, pool) { low = middle + 1 } else { high = middle }
    }
    return low
  }
}
