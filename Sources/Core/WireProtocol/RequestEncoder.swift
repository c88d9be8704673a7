internal import KeyringCore
internal import MessageEncoding
public import SecureMemory

/// Writes requests as frames; the client's side.
public enum RequestEncoder {
  // SECRET: the values of stores leave locked memory here, for a buffer that is wiped as it is sent.
  /// Appends the frame of a request. Key material goes from locked memory straight into `output`.
  public static func appendFrame(_ request: Request, to output: inout WipedBuffer) {
    var body = WipedBuffer(capacity: 256)
    append(request, to: &body)
    output.append(Frame.prefix(count: body.count))
    output.append(body)
  }

  private static func append(_ request: Request, to body: inout WipedBuffer) {
    var head = MessageWriter(capacity: 64)
    head.number(1, request.id)
    head.number(2, UInt64(request.timeoutMilliseconds))
    head.bytes(3, request.traceparent.utf8)
    head.bytes(4, request.idempotencyID?.bytes ?? [])
    head.number(5, request.minSequence)
    body.append(head.bytes)
    switch request.call {
    case .fetch(let name, let version): body.append(named(16, name, version))
    case .describe(let name, let version): body.append(named(17, name, version))
    case .change(let change): append(change, fields: (18, 19, 20, 21), to: &body)
    case .list(let call): body.append(list(call))
    case .transact(let changes):
      var inner = WipedBuffer(capacity: 256)
      for change in changes {
        var one = WipedBuffer(capacity: 128)
        append(change, fields: (1, 2, 3, 4), to: &one)
        append(field: 1, one, to: &inner)
      }
      append(field: 23, inner, to: &body)
    case .importKeys(let keys):
      var inner = WipedBuffer(capacity: ImportLimits.messageBytes(of: keys))
      for key in keys {
        append(.store(key.name, type: key.type, value: key.value), fields: (1, 1, 1, 1), to: &inner)
      }
      append(field: 25, inner, to: &body)
    case .whoAmI: body.append(message(24) { _ in })
    case .admin(.tenantCreate(let call)): append(call, field: 64, to: &body)
    case .admin(.tenantApply(let calls)): append(calls, field: 91, to: &body)
    case .admin(let call): body.append(admin(call))
    }
  }

  private static func append(
    _ change: Change,
    fields: (store: Int, generate: Int, remove: Int, rotate: Int),
    to body: inout WipedBuffer
  ) {
    switch change {
    case .store(let name, let type, let value):
      var head = MessageWriter()
      head.message(1) { ReplyEncoder.write(name, to: &$0) }
      head.bytes(2, type.utf8)
      var inner = WipedBuffer(capacity: head.bytes.count + value.count + 8)
      inner.append(head.bytes)
      if value.count > 0 {
        inner.append(prefix(field: 3, count: value.count))
        unsafe value.withUnsafeBytes { unsafe inner.append($0) }
      }
      append(field: fields.store, inner, to: &body)
    case .generate(let name, let type, let length):
      body.append(
        message(fields.generate) { inner in
          inner.message(1) { ReplyEncoder.write(name, to: &$0) }
          inner.bytes(2, type.utf8)
          inner.number(3, UInt64(length))
        }
      )
    case .remove(let name): body.append(named(fields.remove, name, 0))
    case .rotate(let name): body.append(named(fields.rotate, name, 0))
    }
  }

  static func append(field: Int, _ inner: borrowing WipedBuffer, to body: inout WipedBuffer) {
    body.append(prefix(field: field, count: inner.count))
    body.append(inner)
  }

  /// The tag and length of a field of `count` bytes.
  static func prefix(field: Int, count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    for value in [field << 3 | 2, count] {
      var rest = value
      while rest >= 0x80 {
        bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
        rest >>= 7
      }
      bytes.append(UInt8(truncatingIfNeeded: rest))
    }
    return bytes
  }

  private static func message(_ field: Int, _ write: (inout MessageWriter) -> Void) -> [UInt8] {
    var writer = MessageWriter()
    writer.message(field, write)
    return writer.bytes
  }

  private static func named(_ field: Int, _ name: KeyName, _ version: UInt32) -> [UInt8] {
    message(field) { inner in
      inner.message(1) { ReplyEncoder.write(name, to: &$0) }
      inner.number(2, UInt64(version))
    }
  }

  private static func list(_ call: ListCall) -> [UInt8] {
    message(22) { inner in
      inner.number(1, call.scope.rawValue)
      if let owner = call.owner { inner.message(2) { $0.bytes(1, owner) } }
      inner.number(3, UInt64(call.pageSize))
      inner.bytes(4, call.pageToken)
    }
  }

  private static func admin(_ call: AdminCall) -> [UInt8] {
    func tenant(_ field: Int, _ name: String, _ more: @escaping (inout MessageWriter) -> Void = { _ in })
      -> [UInt8]
    {
      message(field) { inner in
        inner.bytes(1, name.utf8)
        more(&inner)
      }
    }
    switch call {
    case .tenantCreate, .tenantApply: preconditionFailure("written where its secrets are wiped")
    case .tenantList(let pageSize, let after):
      return message(65) { inner in
        inner.number(1, UInt64(pageSize))
        inner.bytes(2, after.utf8)
      }
    case .tenantShow(let name): return tenant(66, name)
    case .tenantDisable(let name): return tenant(67, name)
    case .tenantEnable(let name): return tenant(68, name)
    case .instanceAdd(let name, let instance, let permissions, let scopes):
      return tenant(69, name) { inner in
        inner.bytes(2, instance.utf8)
        for permission in permissions { inner.element(3, permission.utf8) }
        for scope in scopes { inner.element(4, scope.utf8) }
      }
    case .instanceRevoke(let name, let instance): return tenant(87, name) { $0.bytes(2, instance.utf8) }
    case .instanceList(let name): return tenant(70, name)
    case .variablesSet(let name, let variable, let value, let persistence):
      return tenant(71, name) { inner in
        inner.bytes(2, variable.utf8)
        inner.bytes(3, value.utf8)
        inner.number(4, persistence.rawValue)
      }
    case .variablesList(let name): return tenant(72, name)
    case .rotateCMK(let name): return tenant(73, name)
    case .rotateKeys(let name, let transient): return tenant(74, name) { $0.number(2, transient ? 1 : 0) }
    case .status(let name): return tenant(75, name)
    case .tenantAccept(let name, let sequence): return tenant(76, name) { $0.number(2, sequence) }
    case .cmk(let name, let action, let cmkID, let days):
      return tenant(77, name) { inner in
        inner.number(2, action.rawValue)
        inner.bytes(3, cmkID.utf8)
        inner.number(4, UInt64(days))
      }
    case .backup(let name, let call): return backup(name, call)
    case .restore(let name, let call): return restore(name, call)
    case .explain(let call): return explain(call)
    case .tenantReload(let name): return tenant(84, name)
    case .tenantLock(let name): return tenant(97, name)
    case .tenantUnlock(let name): return tenant(98, name)
    case .tenantDelete(let call):
      return tenant(89, call.tenant) { inner in
        inner.number(2, call.afterSeconds)
        inner.number(3, UInt64(call.cmkDays))
      }
    case .tenantUndelete(let name): return tenant(90, name)
    case .tenantReceipt(let name): return tenant(92, name)
    case .serviceReload: return message(88) { _ in }
    case .tenantMove(let call):
      return tenant(85, call.tenant) { inner in
        inner.bytes(2, call.cmkID.utf8)
        write(call.settings, field: 3, to: &inner)
      }
    }
  }

  private static func explain(_ call: ExplainCall) -> [UInt8] {
    message(96) { inner in
      inner.bytes(1, call.tenant.utf8)
      guard let key = call.key else { return }
      inner.message(2) { inner in
        inner.bytes(1, key.instance.utf8)
        inner.bytes(2, key.owner)
        inner.bytes(3, key.keyID)
      }
    }
  }

  private static func backup(_ name: String, _ call: BackupCall) -> [UInt8] {
    switch call {
    case .begin(let allowUnproved):
      return message(78) { inner in
        inner.bytes(1, name.utf8)
        inner.number(2, allowUnproved ? 1 : 0)
      }
    case .read(let id, let offset):
      return message(79) { inner in
        inner.bytes(1, name.utf8)
        inner.bytes(2, id.bytes)
        inner.number(3, offset)
      }
    case .end(let id):
      return message(80) { inner in
        inner.bytes(1, name.utf8)
        inner.bytes(2, id.bytes)
      }
    }
  }

  private static func restore(_ name: String, _ call: RestoreCall) -> [UInt8] {
    switch call {
    case .begin(let call):
      return message(81) { inner in
        inner.bytes(1, name.utf8)
        inner.number(2, call.bytes)
        inner.bytes(3, call.digest.bytes)
        inner.number(4, call.acceptRollback ? 1 : 0)
        inner.number(5, call.acceptUnproved ? 1 : 0)
        inner.number(6, call.isDryRun ? 1 : 0)
      }
    case .write(let id, let offset, let data):
      return message(82) { inner in
        inner.bytes(1, name.utf8)
        inner.bytes(2, id.bytes)
        inner.number(3, offset)
        inner.bytes(4, data)
      }
    case .end(let id):
      return message(83) { inner in
        inner.bytes(1, name.utf8)
        inner.bytes(2, id.bytes)
      }
    }
  }
}
