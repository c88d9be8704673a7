internal import CMessages
internal import CProtobufC
internal import KeyringCore
internal import MessageEncoding
internal import SecureMemory

/// Reads requests; one a connection. Its memory is bounded, and wiped when the next request is read.
///
/// A request must be in the shortest encoding, as every protobuf library writes it: a field that is there twice, a default written
/// out, or a NUL inside a string (which protobuf-c would cut) shows in the length, and is refused.
public final class RequestDecoder {
  /// What the objects of one request may take: 8 MiB, room for an import of the longest message.
  public static let budgetBytes = 8 << 20
  /// Changes of one transaction, at most.
  public static let changesMax = 128

  /// Made with the first message.
  private var arena: MessageArena?

  /// Takes no memory yet.
  public init() {}

  /// Wipes what the last request left.
  public func reset() { arena?.reset() }

  /// Reads one message.
  ///
  /// - Throws: `WireError.malformed`, `.overBudget`, `.noMemory`, with the request's id where it could be read.
  public func decode(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Request {
    let arena = try takeArena()
    arena.reset()
    defer { arena.reset() }
    // SAFETY: the message lives in the arena until the reset at the end; what leaves is copied.
    guard
      let message = unsafe keyring__v1__request__unpack(
        arena.allocator,
        bytes.count,
        bytes.bindMemory(to: UInt8.self).baseAddress
      )
    else {
      if arena.isStarved { throw .noMemory(requestID: 0) }
      throw arena.isExhausted
        ? .overBudget(requestID: 0) : .malformed("the frame does not hold a keyring.v1.Request", requestID: 0)
    }
    let id = unsafe message.pointee.id
    do throws(FieldError) {
      try unsafe check(message, bytes.count)
      return try unsafe request(message.pointee)
    } catch {
      switch error {
      case .memory: throw .noMemory(requestID: id)
      case .malformed(let what): throw .malformed(what, requestID: id)
      }
    }
  }

  private func takeArena() throws(WireError) -> MessageArena {
    if let arena { return arena }
    do {
      let made = try MessageArena(firstBlockBytes: 8192, budgetBytes: RequestDecoder.budgetBytes)
      arena = made
      return made
    } catch {
      throw .noMemory(requestID: 0)
    }
  }

  private func check(_ message: UnsafeMutablePointer<Keyring__V1__Request>, _ count: Int) throws(FieldError) {
    let verdict = unsafe message.withMemoryRebound(to: ProtobufCMessage.self, capacity: 1) {
      unsafe keyring_message_check($0)
    }
    switch verdict {
    case KEYRING_MESSAGE_OK: break
    case KEYRING_MESSAGE_UNKNOWN_FIELD:
      throw .malformed("the request has a field that this server does not know")
    case KEYRING_MESSAGE_NOT_UTF8: throw .malformed("a string of the request is not UTF-8")
    default: throw .malformed("the request has an enum number that this server does not know")
    }
    guard unsafe keyring__v1__request__get_packed_size(message) == count else {
      throw .malformed(
        "the request is not in the shortest encoding: a field is there twice, or a string holds a NUL"
      )
    }
  }

  enum FieldError: Error {
    case malformed(String)
    case memory
  }

  private func request(_ message: Keyring__V1__Request) throws(FieldError) -> Request {
    guard unsafe message.id != 0 else { throw .malformed("a request's id is not 0") }
    let traceparent = unsafe text(message.traceparent)
    guard traceparent.utf8.count <= 64 else { throw .malformed("traceparent has at most 64 bytes") }
    var idempotencyID: IdempotencyID?
    if unsafe message.idempotency_id.len > 0 {
      guard let id = unsafe IdempotencyID(bytes: array(message.idempotency_id)) else {
        throw .malformed("an idempotency id has 16 bytes")
      }
      idempotencyID = id
    }
    return unsafe Request(
      id: message.id,
      timeoutMilliseconds: message.timeout_ms,
      traceparent: traceparent,
      idempotencyID: idempotencyID,
      minSequence: message.min_sequence,
      call: try call(message)
    )
  }

  private func call(_ message: Keyring__V1__Request) throws(FieldError) -> Call {
    switch unsafe message.call_case {
    case KEYRING__V1__REQUEST__CALL_FETCH:
      guard let fetch = unsafe message.fetch else { break }
      return unsafe .fetch(try name(fetch.pointee.name), version: fetch.pointee.version)
    case KEYRING__V1__REQUEST__CALL_DESCRIBE:
      guard let describe = unsafe message.describe else { break }
      return unsafe .describe(try name(describe.pointee.name), version: describe.pointee.version)
    case KEYRING__V1__REQUEST__CALL_STORE:
      guard let store = unsafe message.store else { break }
      return unsafe .change(try change(store.pointee))
    case KEYRING__V1__REQUEST__CALL_GENERATE:
      guard let generate = unsafe message.generate else { break }
      return unsafe .change(try change(generate.pointee))
    case KEYRING__V1__REQUEST__CALL_REMOVE:
      guard let remove = unsafe message.remove else { break }
      return unsafe .change(.remove(try name(remove.pointee.name)))
    case KEYRING__V1__REQUEST__CALL_ROTATE:
      guard let rotate = unsafe message.rotate else { break }
      return unsafe .change(.rotate(try name(rotate.pointee.name)))
    case KEYRING__V1__REQUEST__CALL_LIST:
      guard let list = unsafe message.list else { break }
      return unsafe .list(try listing(list.pointee))
    case KEYRING__V1__REQUEST__CALL_TRANSACT:
      guard let transact = unsafe message.transact else { break }
      return unsafe .transact(try changes(transact.pointee))
    case KEYRING__V1__REQUEST__CALL_IMPORT_KEYS:
      guard let call = unsafe message.import_keys else { break }
      return unsafe .importKeys(try importedKeys(call.pointee))
    case KEYRING__V1__REQUEST__CALL_WHO_AM_I: return .whoAmI
    case KEYRING__V1__REQUEST__CALL__NOT_SET: throw .malformed("the request has no call")
    default: return .admin(try unsafe adminCall(message))
    }
    throw .malformed("the request has no call")
  }

  func name(_ pointer: UnsafeMutablePointer<Keyring__V1__KeyName>?) throws(FieldError) -> KeyName {
    guard let message = unsafe pointer?.pointee else { throw .malformed("the request names no key") }
    return unsafe KeyName(
      scope: try scope(message.scope),
      owner: array(message.owner),
      keyID: array(message.key_id)
    )
  }

  private func scope(_ value: Keyring__V1__Scope) throws(FieldError) -> RequestedScope {
    switch value {
    case KEYRING__V1__SCOPE__INSTANCE: .instance
    case KEYRING__V1__SCOPE__SHARED: .shared
    default: throw .malformed("a key's scope is INSTANCE or SHARED")
    }
  }

  private func change(_ message: Keyring__V1__StoreRequest) throws(FieldError) -> Change {
    do {
      return unsafe .store(try name(message.name), type: text(message.type), value: try secret(message.value))
    } catch let error as FieldError {
      throw error
    } catch {
      throw .memory
    }
  }

  private func change(_ message: Keyring__V1__GenerateRequest) throws(FieldError) -> Change {
    unsafe .generate(try name(message.name), type: text(message.type), length: message.length)
  }

  private func listing(_ message: Keyring__V1__ListRequest) throws(FieldError) -> ListCall {
    guard unsafe message.page_size <= 500 else { throw .malformed("a page has at most 500 keys") }
    var owner: [UInt8]?
    if let filter = unsafe message.owner { owner = unsafe array(filter.pointee.owner) }
    return unsafe ListCall(
      scope: try scope(message.scope),
      owner: owner,
      pageSize: message.page_size,
      pageToken: array(message.page_token)
    )
  }

  private func changes(_ message: Keyring__V1__TransactRequest) throws(FieldError) -> [Change] {
    guard unsafe (1...Self.changesMax).contains(message.n_changes) else {
      throw .malformed("a transaction has 1 to \(Self.changesMax) changes")
    }
    var changes: [Change] = []
    for index in 0..<(unsafe message.n_changes) {
      guard let item = unsafe message.changes[index]?.pointee else { throw .malformed("a change is empty") }
      changes.append(try unsafe change(item))
    }
    return changes
  }

  private func change(_ message: Keyring__V1__Change) throws(FieldError) -> Change {
    switch unsafe message.change_case {
    case KEYRING__V1__CHANGE__CHANGE_STORE:
      if let store = unsafe message.store { return try unsafe change(store.pointee) }
    case KEYRING__V1__CHANGE__CHANGE_GENERATE:
      if let generate = unsafe message.generate { return try unsafe change(generate.pointee) }
    case KEYRING__V1__CHANGE__CHANGE_REMOVE:
      if let remove = unsafe message.remove { return .remove(try unsafe name(remove.pointee.name)) }
    case KEYRING__V1__CHANGE__CHANGE_ROTATE:
      if let rotate = unsafe message.rotate { return .rotate(try unsafe name(rotate.pointee.name)) }
    default: break  // a C enum: not set
    }
    throw .malformed("a change is empty")
  }
}
