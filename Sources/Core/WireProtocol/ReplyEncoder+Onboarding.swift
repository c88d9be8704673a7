internal import MessageEncoding

extension ReplyEncoder {
  static func write(_ result: TenantApplyResult, to message: inout MessageWriter) {
    message.bytes(1, result.tenant.utf8)
    message.number(2, UInt64(result.refusal?.reason.rawValue ?? 0))
    message.bytes(3, (result.refusal?.message ?? "").utf8)
    message.bytes(4, result.cmkID.utf8)
    message.number(5, result.isUnchanged ? 1 : 0)
    for difference in result.differences {
      message.message(6) { inner in
        inner.bytes(1, difference.name.utf8)
        inner.bytes(2, difference.present.utf8)
        inner.bytes(3, difference.wanted.utf8)
        inner.number(4, difference.isDynamic ? 1 : 0)
      }
    }
  }
}
