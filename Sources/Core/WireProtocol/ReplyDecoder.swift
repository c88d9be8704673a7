internal import CMessages
internal import CProtobufC
internal import MessageEncoding
internal import SecureMemory

/// Reads replies; the client's side. A reply's fields that this client does not know are passed over: servers may be newer.
public final class ReplyDecoder {
  /// Made with the first message.
  private var arena: MessageArena?

  /// Takes no memory yet.
  public init() {}

  enum FieldError: Error {
    case malformed(String)
    case memory
  }

  /// Reads one message; key material goes into locked memory, and what it was read from is wiped.
  ///
  /// - Throws: `WireError.malformed`, `.overBudget`, `.noMemory`, with the request's id where it could be read.
  public func decode(_ bytes: UnsafeRawBufferPointer) throws(WireError) -> Reply {
    let arena = try takeArena()
    arena.reset()
    defer { arena.reset() }
    // SAFETY: the message lives in the arena until the reset at the end; what leaves is copied.
    guard
      let message = unsafe keyring__v1__reply__unpack(
        arena.allocator,
        bytes.count,
        bytes.bindMemory(to: UInt8.self).baseAddress
      )
    else {
      if arena.isStarved { throw .noMemory(requestID: 0) }
      throw arena.isExhausted
        ? .overBudget(requestID: 0) : .malformed("the frame does not hold a keyring.v1.Reply", requestID: 0)
    }
    let id = unsafe message.pointee.id
    do throws(FieldError) {
      return unsafe Reply(id: id, sequence: message.pointee.sequence, outcome: try outcome(message.pointee))
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

  private func outcome(_ message: Keyring__V1__Reply) throws(FieldError) -> Result<ReplyResult, Status> {
    if let status = unsafe message.status?.pointee, unsafe status.code != KEYRING__V1__CODE__OK {
      return unsafe .failure(
        Status(
          code: Code(rawValue: Int32(bitPattern: UInt32(status.code.rawValue))) ?? .unknown,
          Reason(rawValue: Int32(bitPattern: UInt32(status.reason.rawValue))) ?? .unspecified,
          text(status.message),
          retryAfterMilliseconds: status.retry_after_ms
        )
      )
    }
    return .success(try unsafe result(message))
  }

  private func result(_ message: Keyring__V1__Reply) throws(FieldError) -> ReplyResult {
    switch unsafe message.result_case {
    case KEYRING__V1__REPLY__RESULT_FETCH:
      if let reply = unsafe message.fetch { return .fetch(try unsafe fetched(reply.pointee)) }
    case KEYRING__V1__REPLY__RESULT_DESCRIBE:
      if let reply = unsafe message.describe {
        return .describe(unsafe reply.pointee.found != 0 ? try unsafe info(reply.pointee.info) : nil)
      }
    case KEYRING__V1__REPLY__RESULT_STORE:
      if let reply = unsafe message.store { return .store(version: unsafe reply.pointee.version) }
    case KEYRING__V1__REPLY__RESULT_GENERATE:
      if let reply = unsafe message.generate { return .generate(version: unsafe reply.pointee.version) }
    case KEYRING__V1__REPLY__RESULT_REMOVE: return .remove
    case KEYRING__V1__REPLY__RESULT_ROTATE:
      if let reply = unsafe message.rotate { return .rotate(version: unsafe reply.pointee.version) }
    case KEYRING__V1__REPLY__RESULT_LIST:
      if let reply = unsafe message.list { return try unsafe list(reply.pointee) }
    case KEYRING__V1__REPLY__RESULT_TRANSACT:
      if let reply = unsafe message.transact {
        return .transact(
          versions: unsafe (0..<reply.pointee.n_versions).map { unsafe reply.pointee.versions[$0] }
        )
      }
    case KEYRING__V1__REPLY__RESULT_IMPORT_KEYS:
      if let reply = unsafe message.import_keys { return .importKeys(stored: unsafe reply.pointee.stored) }
    case KEYRING__V1__REPLY__RESULT_WHO_AM_I:
      if let reply = unsafe message.who_am_i { return .whoAmI(unsafe identity(reply.pointee)) }
    default: return try unsafe adminResult(message)
    }
    throw .malformed("the reply has no result")
  }

  private func fetched(_ reply: Keyring__V1__FetchReply) throws(FieldError) -> FetchedKey? {
    guard unsafe reply.found != 0 else { return nil }
    do {
      return unsafe FetchedKey(
        type: text(reply.type),
        version: reply.version,
        latestVersion: reply.latest_version,
        value: try secret(reply.value)
      )
    } catch {
      throw .memory
    }
  }

  private func info(_ pointer: UnsafeMutablePointer<Keyring__V1__KeyInfo>?) throws(FieldError) -> KeyInfo {
    guard let info = unsafe pointer?.pointee, let name = unsafe info.name?.pointee else {
      throw .malformed("a key's description names no key")
    }
    return unsafe KeyInfo(
      name: KeyName(
        scope: name.scope == KEYRING__V1__SCOPE__SHARED ? .shared : .instance,
        owner: array(name.owner),
        keyID: array(name.key_id)
      ),
      type: text(info.type),
      version: info.version,
      latestVersion: info.latest_version,
      length: info.length,
      createdMilliseconds: info.created_ms,
      wrappingKeyID: text(info.wrapping_key_id)
    )
  }

  private func list(_ reply: Keyring__V1__ListReply) throws(FieldError) -> ReplyResult {
    var keys: [KeyInfo] = []
    for index in 0..<(unsafe reply.n_keys) { keys.append(try unsafe info(reply.keys[index])) }
    return unsafe .list(keys, nextPageToken: array(reply.next_page_token))
  }

  private func identity(_ reply: Keyring__V1__WhoAmIReply) -> Identity {
    unsafe Identity(
      uri: text(reply.uri),
      tenant: text(reply.tenant),
      instance: text(reply.instance),
      notAfter: reply.not_after,
      serverVersion: text(reply.server_version),
      profile: text(reply.profile),
      isReadOnly: reply.read_only != 0
    )
  }
}
