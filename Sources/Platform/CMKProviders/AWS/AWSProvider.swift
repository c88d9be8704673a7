public import HTTPTransport
public import KeyringCore
public import SecureMemory

/// CMKs in AWS KMS: each call goes to KMS, signed with the tenant's credentials, and its answer is checked before it is believed.
///
/// What it gives out as wrapped is a `CiphertextEnvelope`. Source: AWS KMS API Reference, 2014-11-01.
public final class AWSProvider: CMKProvider {
  /// Always `aws`.
  public let kind = ProviderKind.aws
  let place: AWSPlace
  let credentials: any AWSCredentialsSource
  let http: any HTTPSending
  let guarded: CallGuard

  /// - Parameters:
  ///   - place: the tenant's region and endpoint; what is wrong with them is said by each call.
  ///   - credentials: the tenant's; asked before each attempt.
  ///   - http: with connections that only these credentials use.
  ///   - guarded: what stands before the tenant's calls.
  public init(
    place: AWSPlace,
    credentials: any AWSCredentialsSource,
    http: any HTTPSending,
    guarded: CallGuard
  ) {
    self.place = place
    self.credentials = credentials
    self.http = http
    self.guarded = guarded
  }

  // MARK: CMKProvider

  /// GenerateDataKey, of 32 bytes.
  public func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> GeneratedDataKey
  {
    let call = try call(.generateDataKey, of: KeyReference(cmk)) { body in
      body.integer("NumberOfBytes", 32)
      body.texts("EncryptionContext", context.pairs)
    }
    return try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      let reply = try await self.send(call)
      let plaintext = try reply.plaintext(32...32)
      return GeneratedDataKey(plaintext: plaintext, wrapped: try reply.envelope().bytes)
    }
  }

  /// Encrypt, of 1 to 4,096 bytes.
  public func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> [UInt8]
  {
    guard (1...4096).contains(plaintext.count) else { throw .refused("a CMK encrypts 1 to 4,096 bytes") }
    guard !plaintext.isRowOfZeros else { throw .refused("a row of zeros is no secret") }
    let call = try call(.encrypt, of: KeyReference(cmk)) { body in
      body.base64("Plaintext", plaintext)
      body.texts("EncryptionContext", context.pairs)
    }
    return try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      try await self.send(call).envelope().bytes
    }
  }

  /// Decrypt, with the key that the envelope names; of a multi-Region key, in the region in force before its own.
  public func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> Secret
  {
    let envelope = try envelope(wrapped, of: cmk)
    let inForce = try place.regionInForce()
    func decryption(_ key: KeyARN) throws(CMKError) -> KMSCall {
      try KMSCall(.decrypt, .key(key), at: place.target(in: key.home.region)) { body in
        body.base64("CiphertextBlob", envelope.ciphertext)
        body.texts("EncryptionContext", context.pairs)
      }
    }
    let call = try decryption(envelope.key)
    let nearer = envelope.key.isMultiRegion ? inForce.map { envelope.key.replica(in: $0) } : nil
    let nearerCall = nearer == envelope.key ? nil : try nearer.map(decryption)
    if let nearerCall, let plaintext = try await plaintextIfThere(of: nearerCall) { return plaintext }
    return try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      try await self.plaintext(of: call)
    }
  }

  /// Nil where there is no such key: a CMK that was left for one in another region needs no replica there.
  private func plaintextIfThere(of call: KMSCall) async throws(CMKError) -> Secret? {
    try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      do throws(CallFailure) {
        return try await self.plaintext(of: call)
      } catch {
        guard error.saysThereIsNoKey else { throw error }
        return nil
      }
    }
  }

  private func plaintext(of call: KMSCall) async throws(CallFailure) -> Secret {
    let reply = try await send(call)
    _ = try reply.key()
    return try reply.plaintext(1...4096)
  }

  /// GenerateRandom, of 1 to 1,024 bytes, in the region in force.
  public func generateRandom(count: Int) async throws(CMKError) -> Secret {
    guard (1...1024).contains(count) else { throw .refused("random bytes come 1 to 1,024 at a time") }
    let call = try KMSCall(.generateRandom, nil, at: place.target()) { $0.integer("NumberOfBytes", count) }
    return try await guarded.attempt(at: call.target.url) { () async throws(CallFailure) in
      try await self.send(call).plaintext(count...count)
    }
  }

  /// DescribeKey. KMS does not tell versions.
  public func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    let metadata = try await metadata(of: KeyReference(cmk))
    return CMKDescription(
      id: cmk,
      state: metadata.state,
      version: 0,
      createdMilliseconds: metadata.createdMilliseconds
    )
  }

  /// RotateKeyOnDemand, which takes no alias: its key is asked for first.
  ///
  /// - Throws: `CMKError.outcomeUnknown` where it was sent and no answer came: it is not sent again, since a key has a limited number of rotations.
  public func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    switch try KeyReference(cmk) {
    case .id(let id): try await rotate(.id(id), id: id)
    case .key(let key): try await rotate(.key(key), id: key.id)
    case .alias, .aliasARN:
      let key = try await metadata(of: KeyReference(cmk)).key
      try await rotate(.key(key), id: key.id)
    }
    do {
      return try await describe(cmk: cmk)
    } catch {
      // The rotation is made all the same; and KMS rotates enabled keys alone.
      return CMKDescription(id: cmk, state: .enabled, version: 0)
    }
  }
}

extension AWSProvider {
  /// True if `wrapped` is of `region`, or of a multi-Region key, which is wherever its replicas are.
  public static func isOf(region: String?, _ wrapped: [UInt8]) -> Bool {
    guard let key = CiphertextEnvelope(wrapped)?.key else { return false }
    return key.isMultiRegion || key.home.region.text == region
  }

  /// The ARN of the key that made `wrapped`, and its account; nil where it is no ciphertext of this provider.
  public static func key(of wrapped: [UInt8]) -> (arn: String, account: String)? {
    CiphertextEnvelope(wrapped).map { ($0.key.description, $0.key.home.account) }
  }
}
