internal import MessageEncoding
public import SecureMemory

/// Writes replies as frames.
public enum ReplyEncoder {
  /// A whole reply that has no key material, as the bytes of its message.
  public static func bytes(id: UInt64, sequence: UInt64, _ result: ReplyResult) -> [UInt8] {
    var message = MessageWriter(capacity: 64)
    message.number(1, id)
    message.number(3, sequence)
    write(result, to: &message)
    return message.bytes
  }

  /// A refusal, as the bytes of its message.
  public static func bytes(id: UInt64, sequence: UInt64, _ status: Status) -> [UInt8] {
    var message = MessageWriter(capacity: 64)
    message.number(1, id)
    message.message(2) { inner in
      inner.number(1, UInt64(status.code.rawValue))
      inner.number(2, UInt64(status.reason.rawValue))
      inner.bytes(3, status.message.utf8)
      inner.number(4, UInt64(status.retryAfterMilliseconds))
    }
    message.number(3, sequence)
    return message.bytes
  }

  /// Appends a frame.
  public static func appendFrame(_ message: [UInt8], to output: inout WipedBuffer) {
    output.append(Frame.prefix(count: message.count))
    output.append(message)
  }

  // SECRET: the plaintext leaves locked memory here, for a buffer that is wiped as it is sent.
  /// Appends the frame of a present key. The key material is written straight into `output` by `writeValue`, which is given exactly
  /// `valueBytes` bytes; where it throws, `output` is left as it was.
  @inline(__always)
  public static func appendFetch<E: Error>(
    id: UInt64,
    sequence: UInt64,
    type: String,
    version: UInt32,
    latestVersion: UInt32,
    valueBytes: Int,
    to output: inout WipedBuffer,
    writeValue: (UnsafeMutableRawBufferPointer) throws(E) -> Void
  ) throws(E) {
    let typeBytes = type.utf8.count
    let inner =
      2 + 1 + varintBytes(UInt64(typeBytes)) + typeBytes + 1 + varintBytes(UInt64(version)) + 1
      + varintBytes(UInt64(latestVersion)) + 1 + varintBytes(UInt64(valueBytes)) + valueBytes
    let outer =
      1 + varintBytes(id) + (sequence == 0 ? 0 : 1 + varintBytes(sequence)) + 2 + varintBytes(UInt64(inner))
      + inner
    try unsafe output.append(minimum: Frame.prefixBytes + outer) { room throws(E) in
      var writer = unsafe RawWriter(room)
      unsafe writer.byte(0)
      for shift in [24, 16, 8, 0] { unsafe writer.byte(UInt8(truncatingIfNeeded: outer >> shift)) }
      unsafe writer.field(1 << 3, id)
      if sequence != 0 { unsafe writer.field(3 << 3, sequence) }
      unsafe writer.byte(0x82)  // field 16, length-delimited, as a varint of two bytes
      unsafe writer.byte(0x01)
      unsafe writer.varint(UInt64(inner))
      unsafe writer.field(1 << 3, 1)
      unsafe writer.field(2 << 3 | 2, UInt64(typeBytes))
      for byte in type.utf8 { unsafe writer.byte(byte) }
      unsafe writer.field(3 << 3, UInt64(version))
      unsafe writer.field(4 << 3, UInt64(latestVersion))
      unsafe writer.field(5 << 3 | 2, UInt64(valueBytes))
      try unsafe writeValue(
        UnsafeMutableRawBufferPointer(rebasing: room[writer.count..<writer.count + valueBytes])
      )
      return unsafe writer.count + valueBytes
    }
  }

  private static func write(_ result: ReplyResult, to message: inout MessageWriter) {
    switch result {
    case .fetch(let key):
      precondition(key == nil, "a present key is written by appendFetch")
      message.message(16) { _ in }
    case .describe(let info):
      message.message(17) { inner in
        inner.number(1, info == nil ? 0 : 1)
        if let info { inner.message(2) { write(info, to: &$0) } }
      }
    case .store(let version): message.message(18) { $0.number(1, UInt64(version)) }
    case .generate(let version): message.message(19) { $0.number(1, UInt64(version)) }
    case .remove: message.message(20) { _ in }
    case .rotate(let version): message.message(21) { $0.number(1, UInt64(version)) }
    case .list(let keys, let token):
      message.message(22) { inner in
        for key in keys { inner.message(1) { write(key, to: &$0) } }
        inner.bytes(2, token)
      }
    case .transact(let versions): message.message(23) { $0.packed(1, versions) }
    case .importKeys(let stored): message.message(25) { $0.number(1, UInt64(stored)) }
    case .whoAmI(let identity): message.message(24) { write(identity, to: &$0) }
    case .tenantCreate, .tenantList, .tenantShow, .tenantDisable, .tenantEnable, .instanceAdd, .instanceList,
      .variablesSet, .variablesList, .rotateCMK, .rotateKeys, .service, .tenant, .tenantAccept, .cmk,
      .backup, .restore, .tenantReload, .tenantMove, .instanceRevoke, .tenantLock, .tenantUnlock,
      .tenantDelete, .tenantUndelete, .tenantReceipt,
      .serviceReload, .explain, .tenantApply:
      writeAdmin(result, to: &message)
    }
  }

  static func write(_ name: KeyName, to message: inout MessageWriter) {
    message.number(1, name.scope.rawValue)
    message.bytes(2, name.owner)
    message.bytes(3, name.keyID)
  }

  private static func write(_ info: KeyInfo, to message: inout MessageWriter) {
    message.message(1) { write(info.name, to: &$0) }
    message.bytes(2, info.type.utf8)
    message.number(3, UInt64(info.version))
    message.number(4, UInt64(info.latestVersion))
    message.number(5, UInt64(info.length))
    message.number(6, info.createdMilliseconds)
    message.bytes(7, info.wrappingKeyID.utf8)
  }

  private static func write(_ identity: Identity, to message: inout MessageWriter) {
    message.bytes(1, identity.uri.utf8)
    message.bytes(2, identity.tenant.utf8)
    message.bytes(3, identity.instance.utf8)
    message.number(4, identity.notAfter)
    message.bytes(5, identity.serverVersion.utf8)
    message.bytes(6, identity.profile.utf8)
    message.number(7, identity.isReadOnly ? 1 : 0)
  }
}

private func varintBytes(_ value: UInt64) -> Int { max(1, (64 - value.leadingZeroBitCount + 6) / 7) }

/// Writes into memory of a known size; bounds are checked by the buffer in debug builds and by the size computed before.
@unsafe
private struct RawWriter {
  let room: UnsafeMutableRawBufferPointer
  var count = 0

  init(_ room: UnsafeMutableRawBufferPointer) { unsafe self.room = room }

  mutating func byte(_ value: UInt8) {
    unsafe room[count] = value
    unsafe count += 1
  }

  mutating func varint(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      unsafe byte(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    unsafe byte(UInt8(truncatingIfNeeded: rest))
  }

  mutating func field(_ tag: UInt8, _ value: UInt64) {
    unsafe byte(tag)
    unsafe varint(value)
  }
}
