internal import CMessages
internal import CProtobufC

extension ReplyDecoder {
  // SAFETY (all of this file): the messages live in the arena, and repeated fields have as many elements as their counts say.
  func results(_ reply: Keyring__V1__TenantApplyReply) -> [TenantApplyResult] {
    unsafe (0..<reply.n_results).compactMap { index in
      guard let item = unsafe reply.results[index]?.pointee else { return nil }
      var result = unsafe TenantApplyResult(tenant: text(item.tenant))
      let reason = unsafe item.reason
      if reason != 0 {
        // A reason that this client does not know is a refusal all the same.
        result.refusal = unsafe Status(
          Reason(rawValue: Int32(clamping: reason)) ?? .unspecified,
          text(item.message)
        )
      }
      unsafe result.cmkID = text(item.cmk_id)
      unsafe result.isUnchanged = item.unchanged != 0
      unsafe result.differences = (0..<item.n_differences).compactMap {
        unsafe difference(item.differences[$0])
      }
      return result
    }
  }

  private func difference(
    _ pointer: UnsafeMutablePointer<Keyring__V1__SettingDifference>?
  ) -> SettingDifference? {
    guard let item = unsafe pointer?.pointee else { return nil }
    return unsafe SettingDifference(
      name: text(item.name),
      present: text(item.present),
      wanted: text(item.wanted),
      isDynamic: item.dynamic != 0
    )
  }
}
