internal import CMessages
internal import CProtobufC
internal import Glibc
internal import HashTreeCollections
internal import KeyringCore
internal import MessageEncoding

/// Commits as `Protos/keyring/storage/v1/storage.proto` has them, in canonical form.
enum CommitCodec {
  // MARK: Encoding

  static func encode(_ commit: Commit) -> [UInt8] {
    encode(
      sequence: commit.sequence,
      timeMilliseconds: commit.timeMilliseconds,
      caller: commit.caller,
      idempotency: commit.idempotency
    ) { message in
      for operation in commit.operations {
        message.message(5) { write(operation, to: &$0) }
      }
    }
  }

  /// A key and its identity, as a snapshot lists them: by the identity's encoding, ascending.
  typealias ListedKey = (identity: KeyIdentity, key: Key)

  static func precedes(_ left: KeyIdentity, _ right: KeyIdentity) -> Bool {
    let count = min(left.encoded.count, right.encoded.count)
    // SAFETY: both have at least `count` bytes.
    let order = unsafe memcmp(left.encoded, right.encoded, count)
    return order != 0 ? order < 0 : left.encoded.count < right.encoded.count
  }

  /// The first commit of a file that is written anew.
  static func encode(_ image: KeyringImage) -> [UInt8] {
    let keys = image.keys.map { (identity: $0.key, key: $0.value) }
    return encode(image, keys.sorted { precedes($0.identity, $1.identity) })
  }

  private static func encode(_ image: KeyringImage, _ keys: [ListedKey]) -> [UInt8] {
    var snapshot = MessageWriter(capacity: keys.count * 256)
    for key in image.wrappingKeys { snapshot.message(1) { write(key, to: &$0) } }
    for (identity, key) in keys {
      for record in key.records { snapshot.message(2) { write(identity, key.type, record, to: &$0) } }
    }
    for entry in image.idempotency.entries { snapshot.message(3) { write(entry, to: &$0) } }
    snapshot.number(4, image.idempotency.horizonMilliseconds)
    var operation = MessageWriter(capacity: snapshot.bytes.count + 16)
    operation.element(4, snapshot.bytes)
    return encode(
      sequence: image.sequence,
      timeMilliseconds: image.timeMilliseconds,
      caller: image.caller,
      idempotency: nil
    ) { $0.element(5, operation.bytes) }
  }

  private static func encode(
    sequence: UInt64,
    timeMilliseconds: UInt64,
    caller: String,
    idempotency: Commit.Idempotency?,
    operations: (inout MessageWriter) -> Void
  ) -> [UInt8] {
    var message = MessageWriter(capacity: 256)
    message.number(1, sequence)
    message.number(2, timeMilliseconds)
    message.bytes(3, caller.utf8)
    if let idempotency {
      message.message(4) { writer in
        writer.bytes(1, idempotency.id.bytes)
        writer.bytes(2, idempotency.requestHash.bytes)
        writer.packed(3, idempotency.versions)
      }
    }
    operations(&message)
    return message.bytes
  }

  private static func write(_ entry: IdempotencyWindow.Entry, to message: inout MessageWriter) {
    message.bytes(1, entry.idempotency.id.bytes)
    message.bytes(2, entry.idempotency.requestHash.bytes)
    message.packed(3, entry.idempotency.versions)
    message.bytes(4, entry.caller.utf8)
    message.number(5, entry.sequence)
    message.number(6, entry.timeMilliseconds)
  }

  private static func write(_ operation: KeyringCore.Operation, to message: inout MessageWriter) {
    switch operation {
    case .put(let identity, let type, let record):
      message.message(1) { write(identity, type, record, to: &$0) }
    case .remove(let identity): message.message(2) { write(identity, to: &$0) }
    case .addWrappingKey(let key): message.message(3) { write(key, to: &$0) }
    case .replaced(let position):
      message.message(5) { message in
        message.number(1, position.sequence)
        message.bytes(2, position.digest.bytes)
      }
    }
  }

  private static func write(_ identity: KeyIdentity, to message: inout MessageWriter) {
    switch identity.scope {
    case .shared: message.number(1, 1)
    case .instance(let name):
      message.number(1, 2)
      message.bytes(2, name.text.utf8)
    case .server: message.number(1, 3)
    }
    message.bytes(3, identity.owner)
    message.bytes(4, identity.keyID)
  }

  private static func write(
    _ identity: KeyIdentity,
    _ type: KeyType,
    _ record: Record,
    to message: inout MessageWriter
  ) {
    message.message(1) { write(identity, to: &$0) }
    message.bytes(2, type.text.utf8)
    message.number(3, UInt64(record.version))
    message.number(4, UInt64(record.length))
    message.number(5, record.createdMilliseconds)
    message.bytes(6, record.id.bytes)
    message.bytes(7, record.wrappingKeyID.bytes)
    message.bytes(8, record.nonce)
    message.bytes(9, record.ciphertext)
  }

  private static func write(_ key: WrappingKey, to message: inout MessageWriter) {
    message.bytes(1, key.id.bytes)
    message.bytes(2, key.cmkID.text.utf8)
    message.bytes(3, key.provider.rawValue.utf8)
    message.bytes(4, key.wrapped)
    message.number(5, key.createdMilliseconds)
    message.number(6, key.encryptions)
    message.bytes(7, key.commitment.bytes)
  }

  // MARK: Decoding

  /// A commit of a file: ordinary, or the whole keyring that a file written anew begins with.
  enum Decoded {
    case commit(Commit)
    case image(KeyringImage, [ListedKey])
  }

  /// Why a commit cannot be had from its bytes.
  enum DecodingError: Error {
    /// The bytes are wrong, and stay so.
    case wrong(KeyringError)
    /// There is no memory to look at them; they may be right.
    case outOfMemory
  }

  /// Decodes one commit and checks that it is in canonical form.
  ///
  /// - Throws: `DecodingError.wrong` with `KeyringError.inconsistent`, `.outOfMemory`.
  static func decode(
    _ bytes: UnsafeRawBufferPointer,
    tenant: TenantName,
    keyring: KeyringID
  ) throws(DecodingError) -> Decoded {
    // protobuf-c needs about three times the encoded size for records; eight times leaves room and still bounds hostile files.
    let arena: MessageArena
    do {
      arena = try MessageArena(
        firstBlockBytes: bytes.count * 4 + 4096,
        budgetBytes: bytes.count * 8 + 65_536
      )
    } catch {
      throw .outOfMemory
    }
    do {
      return try unsafe decode(bytes, arena, tenant, keyring)
    } catch {
      throw arena.isStarved ? .outOfMemory : .wrong(error)
    }
  }

  private static func decode(
    _ bytes: UnsafeRawBufferPointer,
    _ arena: MessageArena,
    _ tenant: TenantName,
    _ keyring: KeyringID
  ) throws(KeyringError) -> Decoded {
    // SAFETY: the message lives in the arena, which the caller holds; what leaves is copied.
    guard
      let message = unsafe keyring__storage__v1__commit__unpack(
        arena.allocator,
        bytes.count,
        bytes.bindMemory(to: UInt8.self).baseAddress
      )
    else { throw .inconsistent("a commit is no protobuf message") }
    let decoded = try unsafe decode(message.pointee, tenant, keyring)
    let again: [UInt8]
    switch decoded {
    case .commit(let commit): again = encode(commit)
    case .image(let image, let keys): again = encode(image, keys)
    }
    // SAFETY: both have `again.count` bytes.
    guard again.count == bytes.count, let base = bytes.baseAddress,
      unsafe memcmp(again, base, again.count) == 0
    else {
      throw .inconsistent("a commit is not in canonical form")
    }
    return decoded
  }

  private static func decode(
    _ message: Keyring__Storage__V1__Commit,
    _ tenant: TenantName,
    _ keyring: KeyringID
  ) throws(KeyringError) -> Decoded {
    var operations: [KeyringCore.Operation] = []
    for index in 0..<(unsafe message.n_operations) {
      guard let operation = unsafe message.operations[index]?.pointee else {
        throw .inconsistent("no operation")
      }
      if unsafe operation.operation_case == KEYRING__STORAGE__V1__OPERATION__OPERATION_SNAPSHOT {
        guard index == 0, unsafe message.n_operations == 1, let snapshot = unsafe operation.snapshot else {
          throw .inconsistent("a snapshot is not alone in its commit")
        }
        return try unsafe image(snapshot.pointee, message, tenant, keyring)
      }
      operations.append(try unsafe decode(operation))
    }
    var idempotency: Commit.Idempotency?
    if let entry = unsafe message.idempotency { idempotency = try unsafe decode(entry.pointee) }
    return unsafe .commit(
      Commit(
        sequence: message.sequence,
        timeMilliseconds: message.time_ms,
        caller: text(message.caller),
        idempotency: idempotency,
        operations: operations
      )
    )
  }

  private static func decode(_ message: Keyring__Storage__V1__Operation) throws(KeyringError)
    -> KeyringCore.Operation
  {
    switch unsafe message.operation_case {
    case KEYRING__STORAGE__V1__OPERATION__OPERATION_PUT:
      guard let put = unsafe message.put else { break }
      let (identity, type, record) = try unsafe decode(put.pointee)
      return .put(identity, type, record)
    case KEYRING__STORAGE__V1__OPERATION__OPERATION_REMOVE:
      guard let remove = unsafe message.remove else { break }
      return .remove(try unsafe decode(remove.pointee))
    case KEYRING__STORAGE__V1__OPERATION__OPERATION_WRAPPING_KEY:
      guard let key = unsafe message.wrapping_key else { break }
      return .addWrappingKey(try unsafe decode(key.pointee))
    case KEYRING__STORAGE__V1__OPERATION__OPERATION_REPLACED:
      guard let replaced = unsafe message.replaced?.pointee,
        let digest = unsafe Digest(bytes: array(replaced.digest))
      else { break }
      return unsafe .replaced(StorePosition(sequence: replaced.sequence, digest: digest))
    default: break  // a C enum: protobuf-c hands on any number
    }
    throw .inconsistent("an operation of an unknown kind")
  }

  private static func image(
    _ snapshot: Keyring__Storage__V1__Snapshot,
    _ commit: Keyring__Storage__V1__Commit,
    _ tenant: TenantName,
    _ keyring: KeyringID
  ) throws(KeyringError) -> Decoded {
    var wrappingKeys: [WrappingKey] = []
    for index in 0..<(unsafe snapshot.n_wrapping_keys) {
      guard let key = unsafe snapshot.wrapping_keys[index]?.pointee else {
        throw .inconsistent("no wrapping key")
      }
      wrappingKeys.append(try unsafe decode(key))
    }
    var keys = SnapshotKeys()
    for index in 0..<(unsafe snapshot.n_records) {
      guard let record = unsafe snapshot.records[index]?.pointee else { throw .inconsistent("no record") }
      try keys.add(try unsafe decode(record))
    }
    var entries: [IdempotencyWindow.Entry] = []
    for index in 0..<(unsafe snapshot.n_idempotency) {
      guard let entry = unsafe snapshot.idempotency[index]?.pointee else { throw .inconsistent("no entry") }
      entries.append(
        unsafe IdempotencyWindow.Entry(
          caller: text(entry.caller),
          idempotency: try decode(entry),
          sequence: entry.sequence,
          timeMilliseconds: entry.time_ms
        )
      )
    }
    let image = unsafe KeyringImage(
      tenant: tenant,
      id: keyring,
      sequence: commit.sequence,
      timeMilliseconds: commit.time_ms,
      caller: text(commit.caller),
      wrappingKeys: wrappingKeys,
      keys: TreeDictionary(uniqueKeysWithValues: keys.listed.lazy.map { ($0.identity, $0.key) }),
      idempotency: try IdempotencyWindow(
        restoring: entries,
        horizonMilliseconds: snapshot.idempotency_horizon_ms
      )
    )
    return .image(image, keys.listed)
  }

  private static func decode(_ entry: Keyring__Storage__V1__Idempotency) throws(KeyringError)
    -> Commit.Idempotency
  {
    guard let id = unsafe IdempotencyID(bytes: array(entry.id)),
      let hash = unsafe Digest(bytes: array(entry.request_hash))
    else { throw .inconsistent("an idempotency id or hash of a wrong length") }
    let versions = unsafe (0..<entry.n_versions).map { unsafe entry.versions[$0] }
    return Commit.Idempotency(id: id, requestHash: hash, versions: versions)
  }

  private static func decode(_ message: Keyring__Storage__V1__KeyIdentity) throws(KeyringError) -> KeyIdentity
  {
    let scope: Scope
    switch unsafe message.scope {
    case 1: scope = .shared
    case 2: scope = .instance(try InstanceName(unsafe text(message.instance)))
    case 3: scope = .server
    default: throw .inconsistent("a scope of an unknown kind")
    }
    return try unsafe KeyIdentity(scope: scope, owner: array(message.owner), keyID: array(message.key_id))
  }

  private static func decode(
    _ message: Keyring__Storage__V1__Record
  ) throws(KeyringError) -> (KeyIdentity, KeyType, Record) {
    guard let identity = unsafe message.identity, let id = unsafe RecordID(bytes: array(message.record_id)),
      let wrappingKeyID = unsafe WrappingKeyID(bytes: array(message.wrapping_key_id))
    else { throw .inconsistent("a record without identity, id or wrapping key") }
    let record = try unsafe Record(
      version: message.version,
      length: message.length,
      createdMilliseconds: message.created_ms,
      id: id,
      wrappingKeyID: wrappingKeyID,
      nonce: array(message.nonce),
      ciphertext: array(message.ciphertext)
    )
    return (try unsafe decode(identity.pointee), try KeyType(unsafe text(message.type)), record)
  }

  private static func decode(_ message: Keyring__Storage__V1__WrappingKey) throws(KeyringError) -> WrappingKey
  {
    guard let id = unsafe WrappingKeyID(bytes: array(message.id)),
      let provider = ProviderKind(rawValue: unsafe text(message.provider)),
      let commitment = unsafe Digest(bytes: array(message.commitment))
    else { throw .inconsistent("a wrapping key without id, provider or commitment") }
    return WrappingKey(
      id: id,
      cmkID: try CMKID(unsafe text(message.cmk_id)),
      provider: provider,
      wrapped: unsafe array(message.wrapped),
      commitment: commitment,
      createdMilliseconds: unsafe message.created_ms,
      encryptions: unsafe message.encryptions
    )
  }

  private static func text(_ string: UnsafeMutablePointer<CChar>?) -> String {
    guard let string = unsafe string else { return "" }
    return unsafe String(cString: string)
  }

  private static func array(_ data: ProtobufCBinaryData) -> [UInt8] {
    unsafe Array(UnsafeBufferPointer(start: data.data, count: data.len))
  }
}

/// Gathers the records of a snapshot: identities ascend, and the versions of a key follow one another.
private struct SnapshotKeys {
  private(set) var listed: [CommitCodec.ListedKey] = []

  mutating func add(_ item: (identity: KeyIdentity, type: KeyType, record: Record)) throws(KeyringError) {
    guard listed.last?.identity == item.identity else {
      guard item.record.version == 1 else { throw .inconsistent("a key's first version is not 1") }
      if let last = listed.last?.identity, !CommitCodec.precedes(last, item.identity) {
        throw .inconsistent("the keys of a snapshot are not in ascending order")
      }
      listed.append((item.identity, Key(type: item.type, records: [item.record])))
      return
    }
    try listed[listed.count - 1].key.append(item.record, type: item.type)
  }
}
