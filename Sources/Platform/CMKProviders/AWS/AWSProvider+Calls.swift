internal import HTTPTransport
public import KeyringCore
internal import SecureMemory

extension AWSProvider {
  /// ReEncrypt: what `old` encrypted, encrypted by `new` with the same context, and in clear within KMS alone.
  ///
  /// - Returns: as `encrypt` does.
  /// - Throws: as `decrypt` and `encrypt`; `CMKError.refused` where the two are in different regions.
  public func reEncrypt(_ wrapped: [UInt8], from old: CMKID, to new: CMKID, context: EncryptionContext)
    async throws(CMKError) -> [UInt8]
  {
    let envelope = try envelope(wrapped, of: old)
    let reference = try KeyReference(new)
    let target = try place.target(of: reference)
    let source = envelope.key.isMultiRegion ? envelope.key.replica(in: target.region) : envelope.key
    guard source.home.region == target.region else {
      throw .refused("KMS re-encrypts within one region, and \(source) is not in \(target.region)")
    }
    let call = try KMSCall(.reEncrypt, reference, at: target, keyMember: "DestinationKeyId") { body in
      body.text("SourceKeyId", "\(source)")
      body.base64("CiphertextBlob", envelope.ciphertext)
      body.texts("SourceEncryptionContext", context.pairs)
      body.texts("DestinationEncryptionContext", context.pairs)
    }
    return try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      let reply = try await self.send(call)
      _ = try reply.key("SourceKeyId", of: .key(source))
      return try reply.envelope().bytes
    }
  }

  /// One attempt: credentials of this moment, a signature, an answer.
  func send(_ call: KMSCall) async throws(CallFailure) -> KMSReply {
    let credentials: AWSCredentials
    do {
      credentials = try await self.credentials.credentials()
    } catch {
      throw CallFailure(withoutCredentials: error)
    }
    let response: HTTPResponse
    do {
      var request = call.request(credentials)
      request.timeoutMilliseconds = guarded.attemptMilliseconds(request.timeoutMilliseconds)
      response = try await http.send(request)
      KMSRequestIDs.current?.add(ErrorAnswer.requestID(response))
    } catch {
      throw CallFailure(error)
    }
    do {
      return try KMSReply(response, to: call)
    } catch {
      if error.kind == .credential { self.credentials.invalidate() }
      throw error
    }
  }

  /// A call that names a CMK.
  func call(
    _ operation: KMSOperation,
    of reference: KeyReference,
    _ fill: (inout JSONWriter) -> Void
  ) throws(CMKError) -> KMSCall {
    try KMSCall(operation, reference, at: place.target(of: reference), fill)
  }

  /// The envelope that `wrapped` is.
  ///
  /// - Throws: `CMKError.invalidCiphertext` where it is none, or of another key than `cmk`.
  func envelope(_ wrapped: [UInt8], of cmk: CMKID) throws(CMKError) -> CiphertextEnvelope {
    let reference = try KeyReference(cmk)
    guard let envelope = CiphertextEnvelope(wrapped) else {
      throw .invalidCiphertext("not a ciphertext of the provider 'aws'")
    }
    guard reference.mayHaveEncrypted(with: envelope.key) else {
      throw .invalidCiphertext("a ciphertext of \(envelope.key), not of CMK \(cmk)")
    }
    return envelope
  }

  /// Which key it is, and how it stands (AWS KMS Developer Guide, Key states of AWS KMS keys).
  func metadata(of reference: KeyReference) async throws(CMKError) -> (
    key: KeyARN, state: CMKDescription.State, createdMilliseconds: UInt64
  ) {
    let call = try call(.describeKey, of: reference) { _ in }
    return try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      let metadata = try await self.send(call).object("KeyMetadata")
      return (try metadata.key("Arn"), try metadata.keyState(), metadata.time("CreationDate"))
    }
  }

  /// RotateKeyOnDemand, sent once.
  func rotate(_ reference: KeyReference, id: String) async throws(CMKError) {
    let call = try call(.rotateKeyOnDemand, of: reference) { _ in }
    try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      do throws(CallFailure) {
        let named = try await self.send(call).text("KeyId")
        guard named == id || KeyARN(named)?.id == id else {
          throw CallFailure(.serverFailure, "another key answers: \(printable(String(named.prefix(300))))")
        }
      } catch {
        throw error.afterAChange
      }
    }
  }
}

extension KMSReply {
  /// A state in which the key encrypts and decrypts is `enabled`: `Updating` is one (its primary region changes).
  func keyState() throws(CallFailure) -> CMKDescription.State {
    let state = try text("KeyState")
    switch state {
    case "Enabled", "Updating": return .enabled
    case "Disabled", "Creating", "PendingImport", "Unavailable": return .disabled
    case "PendingDeletion", "PendingReplicaDeletion": return .pendingDeletion
    default:
      throw unusable("a key state that this version does not know: \(printable(String(state.prefix(64))))")
    }
  }
}

extension CallFailure {
  /// Whether KMS says that the key is not there, or may not be: of a ciphertext it does not tell absent from forbidden.
  var saysThereIsNoKey: Bool { kind == .notFound || kind == .denied && message.contains("does not exist") }

  /// The same failure of a call that changes something: without an answer that can be used, it may have been made.
  var afterAChange: CallFailure {
    switch kind {
    case .unreachable, .local, .serverFailure:
      CallFailure(
        .outcomeUnknown,
        "whether the CMK was rotated is not known, and its rotations in AWS (ListKeyRotations) tell: \(message)",
        requestID: requestID
      )
    case .throttled, .denied, .disabled, .pendingDeletion, .notFound, .invalidCiphertext, .credential,
      .configuration, .refused, .outcomeUnknown:
      self
    }
  }
}
