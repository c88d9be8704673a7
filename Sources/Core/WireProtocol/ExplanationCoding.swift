internal import CMessages
internal import CProtobufC
internal import MessageEncoding

extension RequestDecoder {
  // SAFETY (all of this file): what is read lives in the arena until the message is decoded; repeated fields have as many elements as
  // their counts say.
  func explain(_ call: Keyring__V1__ExplainRequest) -> ExplainCall {
    let key = unsafe call.key.map { key in
      unsafe ExplainCall.Key(
        instance: text(key.pointee.instance),
        owner: array(key.pointee.owner),
        keyID: array(key.pointee.key_id)
      )
    }
    return unsafe ExplainCall(tenant: text(call.tenant), key: key)
  }
}

extension ReplyEncoder {
  static func write(_ explanation: Explanation, to message: inout MessageWriter) {
    message.message(1) { write(explanation.summary, to: &$0) }
    message.bytes(2, explanation.reason.utf8)
    message.number(3, explanation.nowMilliseconds)
    for cmk in explanation.cmks { message.message(4) { write(cmk, to: &$0) } }
    for key in explanation.wrappingKeys { message.message(5) { write(key, to: &$0) } }
    if let failure = explanation.lastFailure { message.message(6) { write(failure, to: &$0) } }
    for finding in explanation.findings { message.message(7) { write(finding, to: &$0) } }
    if let key = explanation.key { message.message(8) { write(key, to: &$0) } }
    if let credentials = explanation.credentials { message.message(9) { write(credentials, to: &$0) } }
  }

  private static func write(_ failure: KMSFailure, to message: inout MessageWriter) {
    message.bytes(1, failure.message.utf8)
    message.bytes(2, failure.requestID.utf8)
    message.number(3, failure.atMilliseconds)
  }

  private static func write(_ cmk: ExplainedCMK, to message: inout MessageWriter) {
    message.bytes(1, cmk.id.utf8)
    message.bytes(2, cmk.provider.utf8)
    message.bytes(3, cmk.state.utf8)
    message.bytes(4, cmk.why.utf8)
    message.number(5, cmk.createdMilliseconds)
    message.number(6, cmk.isInForce ? 1 : 0)
    message.number(7, cmk.records)
  }

  private static func write(_ key: ExplainedWrappingKey, to message: inout MessageWriter) {
    message.message(1) { write(key.key, to: &$0) }
    message.number(2, key.sinceMilliseconds)
    message.number(3, key.heldUntilMilliseconds)
    if let failure = key.failure { message.message(4) { write(failure, to: &$0) } }
  }

  private static func write(_ finding: Finding, to message: inout MessageWriter) {
    message.number(1, finding.code.rawValue)
    message.bytes(2, finding.cmkID.utf8)
    message.bytes(3, finding.wrappingKeyID.utf8)
    message.number(4, finding.count)
    message.number(5, finding.sinceMilliseconds)
    message.number(6, finding.untilMilliseconds)
    message.bytes(7, finding.detail.utf8)
  }

  private static func write(_ key: ExplainedKey, to message: inout MessageWriter) {
    message.number(1, key.presence.rawValue)
    message.bytes(2, key.why.utf8)
    message.bytes(3, key.type.utf8)
    message.number(4, UInt64(key.latestVersion))
    for dependency in key.dependencies {
      message.message(5) { inner in
        inner.bytes(1, dependency.wrappingKeyID.utf8)
        inner.number(2, UInt64(dependency.versions))
        inner.number(3, UInt64(dependency.firstVersion))
        inner.number(4, UInt64(dependency.lastVersion))
        inner.number(5, dependency.createdMilliseconds)
      }
    }
  }
}

extension ReplyDecoder {
  func explanation(_ reply: Keyring__V1__ExplainReply) -> Explanation {
    var explanation = unsafe Explanation(summary: summary(reply.summary))
    unsafe explanation.reason = text(reply.reason)
    unsafe explanation.nowMilliseconds = reply.now_ms
    explanation.cmks = unsafe (0..<reply.n_cmks).compactMap {
      unsafe reply.cmks[$0].map { unsafe cmk($0.pointee) }
    }
    explanation.wrappingKeys = unsafe (0..<reply.n_wrapping_keys).compactMap {
      unsafe reply.wrapping_keys[$0].map { unsafe wrappingKey($0.pointee) }
    }
    explanation.lastFailure = unsafe failure(reply.last_failure)
    explanation.findings = unsafe (0..<reply.n_findings).compactMap {
      unsafe reply.findings[$0].map { unsafe finding($0.pointee) }
    }
    explanation.key = unsafe reply.key.map { unsafe key($0.pointee) }
    explanation.credentials = unsafe reply.credentials.map { unsafe credentials($0.pointee) }
    return explanation
  }

  private func failure(_ pointer: UnsafeMutablePointer<Keyring__V1__KmsFailure>?) -> KMSFailure? {
    unsafe pointer.map { failure in
      unsafe KMSFailure(
        message: text(failure.pointee.message),
        requestID: text(failure.pointee.request_id),
        atMilliseconds: failure.pointee.at_ms
      )
    }
  }

  private func cmk(_ message: Keyring__V1__ExplainedCmk) -> ExplainedCMK {
    var cmk = ExplainedCMK()
    unsafe (cmk.id, cmk.provider) = (text(message.id), text(message.provider))
    unsafe (cmk.state, cmk.why) = (text(message.state), text(message.why))
    unsafe cmk.createdMilliseconds = message.created_ms
    unsafe cmk.isInForce = message.in_force != 0
    unsafe cmk.records = message.records
    return cmk
  }

  private func wrappingKey(_ message: Keyring__V1__ExplainedWrappingKey) -> ExplainedWrappingKey {
    var key = ExplainedWrappingKey()
    if let status = unsafe message.key { key.key = unsafe wrappingKeyStatus(status.pointee) }
    unsafe key.sinceMilliseconds = message.since_ms
    unsafe key.heldUntilMilliseconds = message.held_until_ms
    key.failure = unsafe failure(message.failure)
    return key
  }

  private func finding(_ message: Keyring__V1__Finding) -> Finding {
    // A newer server may find what this client has no name for.
    var finding = unsafe Finding(FindingCode(rawValue: UInt64(message.code.rawValue)) ?? .unspecified)
    unsafe (finding.cmkID, finding.wrappingKeyID) = (text(message.cmk_id), text(message.wrapping_key_id))
    unsafe finding.count = message.count
    unsafe (finding.sinceMilliseconds, finding.untilMilliseconds) = (message.since_ms, message.until_ms)
    unsafe finding.detail = text(message.detail)
    return finding
  }

  private func key(_ message: Keyring__V1__ExplainedKey) -> ExplainedKey {
    var key = ExplainedKey()
    key.presence = unsafe ExplainedKey.Presence(rawValue: UInt64(message.presence.rawValue)) ?? .cannotTell
    unsafe (key.why, key.type, key.latestVersion) = (
      text(message.why), text(message.type), message.latest_version
    )
    key.dependencies = unsafe (0..<message.n_dependencies).compactMap { index in
      unsafe message.dependencies[index].map { dependency in
        var entry = ExplainedKey.Dependency()
        unsafe entry.wrappingKeyID = text(dependency.pointee.wrapping_key_id)
        unsafe entry.versions = dependency.pointee.versions
        unsafe entry.firstVersion = dependency.pointee.first_version
        unsafe entry.lastVersion = dependency.pointee.last_version
        unsafe entry.createdMilliseconds = dependency.pointee.created_ms
        return entry
      }
    }
    return key
  }
}
