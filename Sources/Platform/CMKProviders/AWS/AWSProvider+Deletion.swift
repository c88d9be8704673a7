public import KeyringCore

extension AWSProvider {
  /// ScheduleKeyDeletion, which takes no alias: its key is asked for first. Until KMS carries it out (CancelKeyDeletion undoes it), the key is
  /// refused as it is after.
  ///
  /// - Parameter days: 7 to 30.
  /// - Returns: the ARN of the key. One that is to be deleted already counts as scheduled.
  public func scheduleDeletion(cmk: CMKID, days: Int) async throws(CMKError) -> String {
    guard (7...30).contains(days) else { throw .refused("a CMK is deleted after 7 to 30 days") }
    let metadata = try await metadata(of: KeyReference(cmk))
    let key = metadata.key
    guard metadata.state != .pendingDeletion else { return key.description }
    let call = try call(.scheduleKeyDeletion, of: .key(key)) { $0.integer("PendingWindowInDays", days) }
    try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      let reply = try await self.send(call)
      let named = try reply.text("KeyId")
      guard named == key.id || KeyARN(named)?.id == key.id else {
        throw reply.unusable("another key answers: \(printable(String(named.prefix(300))))")
      }
    }
    return key.description
  }
}
