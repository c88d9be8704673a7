import KeyringCore
import KeyringTestSupport
import SecureMemory
import WireProtocol

/// What a test knows of one key: a value a version; nil where the server made it and nobody read it yet.
typealias Versions = [[UInt8]?]

/// A request and what it makes of a writer's keys.
struct PlannedChange: Sendable {
  let call: Call
  /// Nil: sent without one, and so never repeated.
  let id: IdempotencyID?
  /// All of the writer's keys, once it happened.
  let after: [KeyName: Versions]
  /// What the server answers; 0 for a remove.
  let versions: [UInt32]
}

/// The keys of one writer as a plain dictionary, and what is not known of them: no more than the one change that was under way.
struct FleetModel: Sendable {
  /// What was acknowledged, and found after the last fault.
  private(set) var keys: [KeyName: Versions] = [:]
  /// Sent, and not answered, or answered that it is not known.
  private(set) var inDoubt: PlannedChange?
  /// The last that was acknowledged.
  private(set) var last: PlannedChange?

  mutating func send(_ change: PlannedChange) { inDoubt = change }

  /// The server said that it happened.
  mutating func acknowledge() {
    guard let change = inDoubt else { return }
    keys = change.after
    last = change
    inDoubt = nil
  }

  /// The server said that it did not happen.
  mutating func refuse() { inDoubt = nil }

  /// A reader was shown a version that the server made.
  mutating func learn(_ name: KeyName, _ version: Int, _ value: [UInt8]) { keys[name]?[version - 1] = value }

  /// What a reader finds is taken for what is there.
  ///
  /// - Returns: whether the change in doubt happened; nil where both would look the same, or none was.
  /// - Throws: `Violation` where it is neither the state before that change nor the one after it.
  mutating func settle(_ found: [KeyName: [[UInt8]]]) throws(Violation) -> Bool? {
    let before = Self.difference(found, keys)
    let after = inDoubt.map { Self.difference(found, $0.after) }
    defer { inDoubt = nil }
    if let before {
      guard let after else { throw Violation("\(before)") }
      if let after {
        throw Violation("neither the state before a change in doubt (\(before)) nor after it (\(after))")
      }
    }
    keys = found.mapValues { $0.map { $0 } }
    if after == .some(nil) { return before == nil ? nil : true }
    return after == nil ? nil : false
  }

  /// How what was found differs from what is expected; nil where it does not.
  private static func difference(_ found: [KeyName: [[UInt8]]], _ expected: [KeyName: Versions]) -> String? {
    for (name, versions) in expected {
      let text = String(decoding: name.keyID, as: UTF8.self)
      guard let values = found[name] else { return "\(text) is gone, of \(versions.count) versions" }
      guard values.count == versions.count else {
        return "\(text) has \(values.count) versions instead of \(versions.count)"
      }
      for (index, (value, wanted)) in zip(values, versions).enumerated()
      where wanted != nil && value != wanted {
        return "\(text) has another value at version \(index + 1)"
      }
    }
    let ghost = found.keys.first { expected[$0] == nil }
    return ghost.map { "\(String(decoding: $0.keyID, as: UTF8.self)) is there, and should not be" }
  }
}

/// A promise that was broken.
struct Violation: Error, CustomStringConvertible, Sendable {
  let description: String
  /// No violation itself, but what the server said of one.
  let isSaid: Bool
  init(_ description: String, isSaid: Bool = false) {
    (self.description, self.isSaid) = (description, isSaid)
  }
}

/// What one writer changes, at random: keys of its own, a few, over and over.
struct ChangePlan: Sendable {
  /// What a writer's changes are like.
  enum Kind: Sendable {
    /// One key at a time, and small transactions.
    case mixed
    /// Transactions of large keys that come and go: garbage for compaction.
    case heavy
  }

  let kind: Kind
  let names: [KeyName]
  /// The longest stored value, in bytes.
  let valueBytesMax: Int
  var generator: SeededGenerator

  init(_ kind: Kind, _ writer: String, valueBytesMax: Int, _ generator: SeededGenerator) {
    self.kind = kind
    self.valueBytesMax = valueBytesMax
    self.generator = generator
    names = (0..<(kind == .heavy ? 16 : 6)).map { index in
      let id = "\(writer)-\(index)"
      return index % 2 == 0 ? .shared(id) : .own(id)
    }
  }

  /// The next change of the keys that are there.
  ///
  /// - Parameter isRepeatable: always with an id.
  mutating func next(_ keys: [KeyName: Versions], isRepeatable: Bool = false) -> PlannedChange {
    var after = keys
    var changes: [Change] = []
    var versions: [UInt32] = []
    let isTransaction = kind == .heavy || Int.random(in: 0..<4, using: &generator) == 0
    for name in kind == .heavy ? heavyNames(keys) : mixedNames(isTransaction) {
      let (change, value) = change(of: name, after[name])
      versions.append(apply(change, value, name, &after))
      changes.append(change)
    }
    // One in five is sent as by a client that knows nothing of repeating.
    let id = !isRepeatable && Int.random(in: 0..<5, using: &generator) == 0 ? nil : makeID()
    return PlannedChange(
      call: isTransaction ? .transact(changes) : .change(changes[0]),
      id: id,
      after: after,
      versions: versions
    )
  }

  private mutating func mixedNames(_ isTransaction: Bool) -> [KeyName] {
    (0..<(isTransaction ? Int.random(in: 2...6, using: &generator) : 1)).map { _ in
      names[Int.random(in: 0..<names.count, using: &generator)]
    }
  }

  /// All that are there, to be removed; or all, to be stored.
  private func heavyNames(_ keys: [KeyName: Versions]) -> [KeyName] {
    let there = names.filter { keys[$0] != nil }
    return there.isEmpty ? names : there
  }

  private mutating func change(of name: KeyName, _ present: Versions?) -> (Change, [UInt8]?) {
    guard let present else {
      let isGenerated = kind == .mixed && Bool.random(using: &generator)
      guard isGenerated else { return store(name) }
      let length = [16, 24, 32][Int.random(in: 0..<3, using: &generator)]
      return (.generate(name, type: "AES", length: UInt32(length)), nil)
    }
    let isRotated = kind == .mixed && present.count < 4 && Int.random(in: 0..<10, using: &generator) < 6
    return isRotated ? (.rotate(name), nil) : (.remove(name), nil)
  }

  private mutating func store(_ name: KeyName) -> (Change, [UInt8]?) {
    let most = kind == .heavy ? valueBytesMax : 200
    let count =
      kind == .heavy
      ? Int.random(in: most / 2...most, using: &generator) : Int.random(in: 1...most, using: &generator)
    var value: [UInt8] = []
    value.reserveCapacity(count + 8)
    while value.count < count { appendBigEndian(generator.next(), to: &value) }
    value.removeLast(value.count - count)
    guard let secret = try? unsafe value.withUnsafeBytes({ try unsafe Secret(copying: $0) }) else {
      preconditionFailure("a test has memory")  // only a full locked arena throws, and tests have none
    }
    return (.store(name, type: "SECRET", value: secret), value)
  }

  private func apply(_ change: Change, _ value: [UInt8]?, _ name: KeyName, _ keys: inout [KeyName: Versions])
    -> UInt32
  {
    switch change {
    case .store, .generate: keys[name] = [value]
    case .rotate: keys[name]?.append(nil)
    case .remove:
      keys[name] = nil
      return 0
    }
    return UInt32(keys[name]?.count ?? 0)
  }

  /// As a UUIDv7: the first 48 bits are the time.
  private mutating func makeID() -> IdempotencyID {
    let random = UInt128(generator.next()) << 64 | UInt128(generator.next())
    return IdempotencyID(value: UInt128(wallClockMilliseconds()) << 80 | random & (1 << 80 - 1))
  }
}
