import KeyringCore
import Testing

@Suite struct IdempotencyWindowTests {
  static let day: UInt64 = 24 * 3600 * 1000
  static let start: UInt64 = 1_700_000_000_000

  private func id(_ time: UInt64, _ number: UInt128 = 1) -> IdempotencyID {
    IdempotencyID(value: UInt128(time) << 80 | number)
  }

  private func hash(_ number: UInt8) -> Digest {
    Digest(bytes: [UInt8](repeating: number, count: 32)) ?? .zero
  }

  private func entry(_ id: IdempotencyID, caller: String = "a", time: UInt64, hash number: UInt8 = 1)
    -> IdempotencyWindow.Entry
  {
    IdempotencyWindow.Entry(
      caller: caller,
      idempotency: Commit.Idempotency(id: id, requestHash: hash(number), versions: [3]),
      sequence: 5,
      timeMilliseconds: time
    )
  }

  /// What a window says of an id.
  private func answer(_ window: IdempotencyWindow, _ id: IdempotencyID, caller: String = "a", now: UInt64)
    -> String
  {
    do throws(KeyringError) {
      let found = try window.find(caller: caller, id: id, requestHash: hash(1), nowMilliseconds: now)
      return found == nil ? "new" : "known"
    } catch {
      switch error {
      case .idempotencyMismatch: return "mismatch"
      case .idempotencyExpired: return "expired"
      case .nameInvalid: return "future"
      default: return "\(error)"
      }
    }
  }

  @Test func theSameRequestIsKnownAndAnotherIsRefused() {
    var window = IdempotencyWindow()
    let known = id(Self.start)
    window.insert(entry(known, time: Self.start))
    #expect(answer(window, known, now: Self.start) == "known")
    #expect(
      answer(window, known, caller: "b", now: Self.start) == "new",
      "ids of different callers never meet"
    )
    #expect(answer(window, id(Self.start, 2), now: Self.start) == "new")
    #expect(throws: KeyringError.idempotencyMismatch) {
      try window.find(caller: "a", id: known, requestHash: hash(2), nowMilliseconds: Self.start)
    }
  }

  @Test func idsOfThePastAndOfTheFutureAreNotExecuted() {
    let window = IdempotencyWindow(horizonMilliseconds: Self.start)
    let now = Self.start + Self.day
    #expect(answer(window, id(Self.start), now: now) == "expired", "the horizon itself is past")
    #expect(answer(window, id(Self.start + 1), now: now) == "new")
    #expect(answer(window, id(Self.start + 1), now: now + 1) == "expired", "a day old")
    #expect(answer(window, id(now + 5 * 60_000), now: now) == "new")
    #expect(answer(window, id(now + 5 * 60_000 + 1), now: now) == "future")
    #expect(answer(IdempotencyWindow(), id(0), now: 0) == "expired")
  }

  @Test func whatIsForgottenIsNeverNewAgain() {
    var window = IdempotencyWindow()
    for number in 0...UInt64(IdempotencyWindow.entriesMax) {
      window.insert(entry(id(Self.start + number), time: Self.start + number))
    }
    #expect(window.entries.count == IdempotencyWindow.entriesMax)
    #expect(window.horizonMilliseconds == Self.start)
    #expect(answer(window, id(Self.start), now: Self.start + 20_000) == "expired")
    #expect(answer(window, id(Self.start + 1), now: Self.start + 20_000) == "known")
    // A second id of the forgotten one's millisecond may be the forgotten one's: it is not new either.
    #expect(answer(window, id(Self.start, 77), now: Self.start + 20_000) == "expired")
  }

  @Test func commitsADayApartAreForgotten() {
    var window = IdempotencyWindow()
    window.insert(entry(id(Self.start), time: Self.start))
    window.insert(entry(id(Self.start + Self.day), time: Self.start + Self.day))
    #expect(window.entries.count == 2, "a day old, and not more")
    window.insert(entry(id(Self.start + Self.day + 1), time: Self.start + Self.day + 1))
    #expect(window.entries.count == 2)
    #expect(window.horizonMilliseconds == Self.start)
  }

  @Test func theFirstOfTwoAlikeStays() {
    var window = IdempotencyWindow()
    window.insert(entry(id(Self.start), time: Self.start))
    window.insert(entry(id(Self.start), time: Self.start + 1, hash: 1))
    #expect(window.entries.count == 1)
  }

  @Test func timesOfAHostileFileDoNotOverflow() {
    var window = IdempotencyWindow()
    window.insert(entry(id(Self.start), time: .max))
    window.insert(entry(id(Self.start, 2), time: 0))
    window.insert(entry(id(Self.start, 3), time: .max))
    #expect(window.entries.count == 3, "the one of time 0 waits behind the first, which is the newest")
  }

  /// The window is the same, in whatever pieces it was read: what `entries` says makes it again.
  @Test func aWindowIsMadeAgainOfItsEntries() {
    var window = IdempotencyWindow()
    for number in 0..<12_000 as Range<UInt64> {
      window.insert(entry(id(Self.start + number), time: Self.start + number))
    }
    var again = IdempotencyWindow(horizonMilliseconds: window.horizonMilliseconds)
    for entry in window.entries { again.insert(entry) }
    #expect(again.entries == window.entries)
    #expect(again.horizonMilliseconds == window.horizonMilliseconds)
  }
}
