internal import MessageEncoding
internal import SecureMemory

extension RequestEncoder {
  // SECRET: credentials leave locked memory here, for a buffer that is wiped as it is sent.
  /// A `TenantCreateRequest` as the message's field of this number.
  static func append(_ call: TenantCreateCall, field: Int, to body: inout WipedBuffer) {
    var head = MessageWriter()
    head.bytes(1, call.tenant.utf8)
    head.bytes(2, call.provider.utf8)
    head.bytes(3, call.cmkID.utf8)
    head.bytes(4, call.profile.utf8)
    for instance in call.instances { head.element(5, instance.utf8) }
    head.number(6, call.anyInstance ? 1 : 0)
    write(call.settings, field: 7, to: &head)
    var tail = MessageWriter()
    tail.number(9, call.isDryRun ? 1 : 0)
    let secretBytes = call.credentials?.count ?? 0
    var inner = WipedBuffer(capacity: head.bytes.count + secretBytes + 16)
    inner.append(head.bytes)
    if let credentials = call.credentials, secretBytes > 0 {
      inner.append(prefix(field: 8, count: secretBytes))
      unsafe credentials.withUnsafeBytes { unsafe inner.append($0) }
    }
    inner.append(tail.bytes)
    append(field: field, inner, to: &body)
  }

  /// A `TenantApplyRequest`.
  static func append(_ calls: [TenantCreateCall], field: Int, to body: inout WipedBuffer) {
    var inner = WipedBuffer(capacity: 256)
    for call in calls { append(call, field: 1, to: &inner) }
    append(field: field, inner, to: &body)
  }

  static func write(_ settings: [TenantMoveCall.Setting], field: Int, to message: inout MessageWriter) {
    for setting in settings {
      message.message(field) { entry in
        entry.bytes(1, setting.name.utf8)
        entry.bytes(2, setting.value.utf8)
      }
    }
  }
}
