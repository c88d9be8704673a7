import CMessages
import CProtobufC
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing
import WireProtocol

/// Every way in which a frame or a request can be wrong, with what it is told.
@Suite struct MalformedTests {
  static let id = Field.number(1, 7)
  static let name = Field.bytes(1, Field.number(1, 1) + Field.text(3, "k"))
  static let fetch = Field.bytes(16, name)
  static let whoAmI = Field.bytes(24, [])

  private func next(_ bytes: [UInt8], _ most: Int = 100) throws(WireError) -> Frame.Next {
    // SAFETY: the array lives for the call.
    try unsafe bytes.span.withUnsafeBytes { bytes throws(WireError) in
      try unsafe Frame.next(in: bytes, messageBytesMax: most)
    }
  }

  // MARK: Frames

  @Test func framesAreReadAByteAtATimeAndAllAtOnce() throws {
    for request in try RequestTests.requests() {
      let frame = request.frame
      for count in 0..<frame.count {
        #expect(try next(Array(frame.prefix(count)), .max) == .incomplete)
      }
      #expect(try next(frame, .max) == .message(bytes: frame.count - 5))
      #expect(try next(frame + frame, .max) == .message(bytes: frame.count - 5))
    }
  }

  @Test func aFrameIsRefusedAsSoonAsItCanBe() {
    #expect(throws: WireError.compressed) { try next([1]) }
    #expect(throws: WireError.flags(2)) { try next([2]) }
    #expect(throws: WireError.flags(0xff)) { try next([0xff, 0, 0, 0, 1, 0]) }
    #expect(throws: WireError.empty) { try next([0, 0, 0, 0, 0]) }
    // Before any of the payload.
    #expect(throws: WireError.tooLarge(bytes: 101, max: 100)) { try next([0, 0, 0, 0, 101]) }
    #expect(throws: WireError.tooLarge(bytes: 0xffff_ffff, max: 100)) { try next([0, 255, 255, 255, 255]) }
    #expect(throws: Never.self) { try next([0, 0, 0, 0, 100]) }
  }

  @Test(arguments: [1, 100, 65_536, 4 << 20])
  func thePrefixIsTheLength(count: Int) throws {
    #expect(try next(Frame.prefix(count: count), count) == .incomplete)
    #expect(throws: WireError.tooLarge(bytes: count, max: count - 1)) {
      try next(Frame.prefix(count: count), count - 1)
    }
  }

  // MARK: Requests

  private static let shortest =
    "the request is not in the shortest encoding: a field is there twice, or a string holds a NUL"
  private static let unknown = "the request has a field that this server does not know"
  private static let noMessage = "the frame does not hold a keyring.v1.Request"

  static let malformed: [(String, [UInt8], String, UInt64)] = [
    ("cut off", Array((id + fetch).dropLast()), noMessage, 0),
    ("no protobuf", [0xff, 0xff, 0xff], noMessage, 0),
    ("a group", [0x0b], noMessage, 0),
    ("a tag of field 0", id + [0x00, 0x01], noMessage, 0),
    ("wrong wire type", Field.bytes(1, [7]) + whoAmI, noMessage, 0),
    ("unknown field", id + whoAmI + Field.number(100, 1), unknown, 7),
    ("unknown field, nested", id + Field.bytes(16, name + Field.number(9, 1)), unknown, 7),
    (
      "unknown field, deeper", id + Field.bytes(16, Field.bytes(1, Field.number(1, 1) + Field.number(9, 1))),
      unknown, 7
    ),
    ("a field twice", id + id + whoAmI, shortest, 7),
    ("a call twice", id + fetch + fetch, shortest, 7),
    ("two calls", id + fetch + whoAmI, shortest, 7),
    ("a default written out", id + Field.number(2, 0) + whoAmI, shortest, 7),
    ("a long varint", [0x08, 0x87, 0x00] + whoAmI, shortest, 7),
    ("a long length", id + [0xc2, 0x01, 0x80, 0x00], shortest, 7),
    ("a NUL in a string", id + Field.text(3, "a\0b") + whoAmI, shortest, 7),
    (
      "a NUL in a type", id + Field.bytes(19, name + Field.text(2, "AES\0") + Field.number(3, 16)), shortest,
      7
    ),
    ("no UTF-8", id + Field.bytes(3, [0xff]) + whoAmI, "a string of the request is not UTF-8", 7),
    (
      "a surrogate", id + Field.bytes(3, [0xed, 0xa0, 0x80]) + whoAmI, "a string of the request is not UTF-8",
      7
    ),
    (
      "an overlong form", id + Field.bytes(3, [0xc0, 0xaf]) + whoAmI, "a string of the request is not UTF-8",
      7
    ),
    (
      "no UTF-8 in a list of strings", id + Field.bytes(64, Field.text(1, "acme") + Field.bytes(5, [0xf8])),
      "a string of the request is not UTF-8", 7
    ),
    (
      "an unknown enum", id + Field.bytes(16, Field.bytes(1, Field.number(1, 3) + Field.text(3, "k"))),
      "the request has an enum number that this server does not know", 7
    ),
    (
      "no scope", id + Field.bytes(16, Field.bytes(1, Field.text(3, "k"))),
      "a key's scope is INSTANCE or SHARED", 7
    ),
    ("no scope to list", id + Field.bytes(22, []), "a key's scope is INSTANCE or SHARED", 7),
    ("id 0", whoAmI, "a request's id is not 0", 0),
    ("no call", id, "the request has no call", 7),
    ("no name", id + Field.bytes(16, []), "the request names no key", 7),
    ("no name to remove", id + Field.bytes(20, []), "the request names no key", 7),
    (
      "a long traceparent", id + Field.text(3, String(repeating: "x", count: 65)) + whoAmI,
      "traceparent has at most 64 bytes", 7
    ),
    ("15 bytes", id + Field.bytes(4, Array(1...15)) + whoAmI, "an idempotency id has 16 bytes", 7),
    ("17 bytes", id + Field.bytes(4, Array(1...17)) + whoAmI, "an idempotency id has 16 bytes", 7),
    ("no change", id + Field.bytes(23, []), "a transaction has 1 to 128 changes", 7),
    ("129 changes", id + Field.bytes(23, changes(129)), "a transaction has 1 to 128 changes", 7),
    ("an empty change", id + Field.bytes(23, Field.bytes(1, [])), "a change is empty", 7),
    (
      "a large page", id + Field.bytes(22, Field.number(1, 1) + Field.number(3, 501)),
      "a page has at most 500 keys", 7
    ),
    (
      "no persistence", id + Field.bytes(71, Field.text(1, "acme")),
      "a variable's persistence is GLOBAL, PERSIST or RESET_PERSIST", 7
    ),
    ("no action", id + Field.bytes(77, Field.text(1, "acme")), "a CMK's action is missing", 7),
    (
      "a transfer's id of 15 bytes",
      id + Field.bytes(79, Field.text(1, "acme") + Field.bytes(2, Array(repeating: 1, count: 15))),
      "the id of a backup or restore has 16 bytes", 7
    ),
    (
      "a transfer without an id", id + Field.bytes(83, Field.text(1, "acme")),
      "the id of a backup or restore has 16 bytes", 7
    ),
    (
      "a SHA-256 of 31 bytes",
      id + Field.bytes(81, Field.text(1, "acme") + Field.bytes(3, Array(repeating: 1, count: 31))),
      "a SHA-256 has 32 bytes", 7
    ),
  ]

  private static func changes(_ count: Int) -> [UInt8] {
    (0..<count).flatMap { _ in Field.bytes(1, Field.bytes(3, name)) }
  }

  @Test func everyWayToBeWrongIsToldApart() throws {
    let decoder = RequestDecoder()
    for (what, bytes, message, id) in Self.malformed {
      #expect(decoder.refusal(bytes) == .malformed(message, requestID: id), "\(what)")
      // A decoder is as it was.
      #expect(try decoder.decode(Self.id + Self.fetch).id == 7)
    }
    #expect(decoder.refusal(Self.id + Field.bytes(23, Self.changes(128))) == nil)
    #expect(decoder.refusal(Self.id + Field.bytes(22, Field.number(1, 1) + Field.number(3, 500))) == nil)
    #expect(decoder.refusal(Self.id + Field.text(3, String(repeating: "x", count: 64)) + Self.whoAmI) == nil)
    #expect(decoder.refusal(Self.id + Field.bytes(4, Array(1...16)) + Self.whoAmI) == nil)
  }

  /// No prefix of a request is taken for a request of its own with the wrong meaning; none crashes.
  @Test func whatIsCutOffIsRefusedOrWhole() throws {
    let decoder = RequestDecoder()
    var (whole, refused) = (0, 0)
    for request in try RequestTests.requests() {
      let message = request.message
      for count in 0..<message.count {
        let part = Array(message.prefix(count))
        guard let decoded = try? decoder.decode(part) else {  // refused: counted
          refused += 1
          continue
        }
        #expect(decoded.message == part)
        whole += 1
      }
    }
    #expect(refused > 1000)
    #expect(whole == 0, "a call is the last field")
  }

  @Test func whateverComesIsRefusedOrRead() throws {
    let decoder = RequestDecoder()
    var random = SplitMix(state: 2)
    var (read, refused) = (0, 0)
    for request in try RequestTests.requests() {
      for _ in 0..<200 {
        var bytes = request.message
        for _ in 0...Int.random(in: 0..<3, using: &random) {
          bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
        }
        guard let decoded = try? decoder.decode(bytes) else {  // refused: counted
          refused += 1
          continue
        }
        #expect(decoded.message.count == bytes.count)
        read += 1
      }
    }
    #expect(read > 100 && refused > 1000)
  }

  // MARK: Memory

  @Test func hostileInputTakesNoMoreMemoryThanItMay() {
    let count = 1 << 19
    let empties = [[UInt8]](repeating: [0x0a, 0x00], count: count).flatMap { $0 }
    #expect(empties.count == 1 << 20)
    let decoder = RequestDecoder()
    // Half a million empty changes; a million bytes of one field again and again; unknown fields.
    #expect(decoder.refusal(Self.id + Field.bytes(23, empties)) == .overBudget(requestID: 0))
    let unknown = [[UInt8]](repeating: Field.number(100, 1), count: count).flatMap { $0 }
    #expect(decoder.refusal(Self.id + Self.whoAmI + unknown) == .overBudget(requestID: 0))
    #expect(throws: WireError.overBudget(requestID: 0)) {
      try ReplyDecoder().decode(Field.bytes(22, empties))
    }
    #expect(decoder.refusal(Self.id + Self.fetch) == nil)
  }

  @Test func theBudgetHoldsToTheByte() throws {
    let budget = 4 << 20
    guard let arena = unsafe keyring_arena_create(8192, budget) else { throw UnexpectedReply() }
    defer { unsafe keyring_arena_destroy(arena) }
    let empties = [[UInt8]](repeating: [0x0a, 0x00], count: 1 << 19).flatMap { $0 }
    let bytes = Self.id + Field.bytes(23, empties)
    let message = unsafe keyring__v1__request__unpack(keyring_arena_allocator(arena), bytes.count, bytes)
    #expect(unsafe message == nil)
    #expect(unsafe keyring_arena_exhausted(arena))
    #expect(unsafe keyring_arena_used(arena) <= budget)
    unsafe keyring_arena_reset(arena)
    #expect(unsafe keyring_arena_used(arena) == 0)
    #expect(unsafe !keyring_arena_exhausted(arena))
  }

  /// What the system has no memory for is told apart from what is over the budget: it may be a good message.
  @Test func noMemoryIsNotOverTheBudget() throws {
    #expect(unsafe keyring_arena_create(Int.max, 4096) == nil)
    guard let arena = unsafe keyring_arena_create(4096, Int.max) else { throw UnexpectedReply() }
    defer { unsafe keyring_arena_destroy(arena) }
    let allocator = unsafe keyring_arena_allocator(arena).pointee
    #expect(unsafe allocator.alloc(allocator.allocator_data, Int.max - 64) == nil)
    #expect(unsafe keyring_arena_starved(arena) && !keyring_arena_exhausted(arena))
    unsafe keyring_arena_reset(arena)
    #expect(unsafe !keyring_arena_starved(arena))
  }

  /// Credentials of many tenants are counted before the first of them is copied into locked memory, which is everybody's.
  @Test func aBatchOfTenantsTakesNoMoreLockedMemoryThanItMay() throws {
    let longest = try secret([UInt8](repeating: 7, count: TenantCreateCall.credentialsBytesMax))
    let most = TenantApplyCall.lockedBytesMax / TenantCreateCall.credentialsBytesMax
    func message(_ count: Int) -> [UInt8] {
      let calls = (0..<count).map { TenantCreateCall(tenant: "t\($0)", credentials: longest) }
      return Request(id: 7, call: .admin(.tenantApply(calls + [TenantCreateCall(tenant: "last")]))).message
    }
    #expect(RequestDecoder().refusal(message(most)) == nil)
    let refusal = RequestDecoder().refusal(message(most + 1))
    guard case .malformed(let why, 7) = refusal else { throw UnexpectedReply() }
    #expect(why.contains("of locked memory"))
  }

  /// The largest transaction that can succeed is within the budget.
  @Test func theLargestTransactionIsRead() throws {
    let name = KeyName(
      scope: .shared,
      owner: [UInt8](repeating: 1, count: KeyIdentity.ownerBytesMax),
      keyID: [UInt8](repeating: 2, count: KeyIdentity.keyIDBytesMax)
    )
    let value = try secret([UInt8](repeating: 3, count: Profile.valueBytesMax))
    let type = String(repeating: "t", count: KeyType.bytesMax)
    let changes = (0..<RequestDecoder.changesMax).map { _ in Change.store(name, type: type, value: value) }
    let request = Request(id: 1, call: .transact(changes))
    #expect(request.message.count <= Frame.messageBytesMax)
    #expect(try RequestDecoder().decode(request.message).everything == request.everything)
  }

  @Test func theArenaWipesWhatItHeld() throws {
    guard let arena = unsafe keyring_arena_create(4096, 1 << 20) else { throw UnexpectedReply() }
    defer { unsafe keyring_arena_destroy(arena) }
    let value = [UInt8](repeating: 0xa5, count: 1000)
    let bytes = Self.id + Field.bytes(18, Self.name + Field.text(2, "SECRET") + Field.bytes(3, value))
    let message = unsafe keyring__v1__request__unpack(keyring_arena_allocator(arena), bytes.count, bytes)
    guard let data = unsafe message?.pointee.store.pointee.value.data else { throw UnexpectedReply() }
    // SAFETY: it lies in the first block, which the arena keeps until it is destroyed.
    let held = unsafe Array(UnsafeBufferPointer(start: data, count: 1000))
    #expect(held == value)
    unsafe keyring_arena_reset(arena)
    let left = unsafe Array(UnsafeBufferPointer(start: data, count: 1000))
    #expect(left.allSatisfy { $0 == 0 })
  }
}
