internal import HTTPTransport
internal import KeyringCore
internal import SecureMemory

/// An answer of KMS's, of which each member is checked before it is used: what is missing, short, or of another key is a failure of the server.
struct KMSReply {
  private let json: JSONObject
  private let call: KMSCall
  private let requestID: String?

  /// - Throws: what the response says, or `.serverFailure` where it is no JSON.
  init(_ response: HTTPResponse, to call: KMSCall) throws(CallFailure) {
    guard response.status == 200 else { throw CallFailure(response, to: call.operation) }
    self.call = call
    requestID = ErrorAnswer.requestID(response)
    // Not by its Content-Type: an emulator says text/html of its JSON.
    guard let body = response.body else {
      throw CallFailure(.serverFailure, "an empty answer", requestID: requestID)
    }
    do {
      json = try JSONObject(body)
    } catch {
      throw CallFailure(.serverFailure, "an answer that cannot be used: \(error)", requestID: requestID)
    }
  }

  private init(_ json: JSONObject, of reply: KMSReply) {
    self.json = json
    call = reply.call
    requestID = reply.requestID
  }

  func unusable(_ what: String) -> CallFailure {
    CallFailure(.serverFailure, "an answer that cannot be used: \(what)", requestID: requestID)
  }

  private func need<Value>(
    _ member: String,
    _ read: (String) throws(JSONObject.Malformed) -> Value?
  ) throws(CallFailure) -> Value {
    let value: Value?
    do {
      value = try read(member)
    } catch {
      throw unusable("\(error)")
    }
    guard let value else { throw unusable("it has no '\(member)'") }
    return value
  }

  /// A text that is no secret.
  func text(_ member: String) throws(CallFailure) -> String { try need(member, json.text) }

  /// An object in it.
  func object(_ member: String) throws(CallFailure) -> KMSReply {
    KMSReply(try need(member, json.object), of: self)
  }

  /// A time, Unix milliseconds; 0 where there is none that can be read: it is shown, and decides nothing.
  func time(_ member: String) -> UInt64 {
    do {
      return try json.seconds(member).map { UInt64(max(0, min($0, 1e12)) * 1000) } ?? 0
    } catch {
      return 0
    }
  }

  /// The ARN of a key, which is that of the call unless another one is given.
  func key(_ member: String = "KeyId", of other: KeyReference? = nil) throws(CallFailure) -> KeyARN {
    guard let key = KeyARN(try text(member)) else { throw unusable("'\(member)' is no ARN of a key") }
    guard let asked = other ?? call.reference, asked.isAnswered(by: key, in: call.target.region) else {
      throw unusable("another key answers, \(key), to a call of \(call.place)")
    }
    return key
  }

  /// What was encrypted, and by which key.
  func envelope() throws(CallFailure) -> CiphertextEnvelope {
    CiphertextEnvelope(key: try key(), ciphertext: try ciphertext())
  }

  /// A plaintext of one of these lengths, which is no row of zeros where it may be a key.
  func plaintext(_ lengths: ClosedRange<Int>) throws(CallFailure) -> Secret {
    let plaintext = try need("Plaintext", json.base64)
    guard lengths.contains(plaintext.count) else {
      throw unusable(
        "a plaintext of \(plaintext.count) bytes instead of \(lengths.lowerBound) to \(lengths.upperBound)"
      )
    }
    guard !plaintext.isRowOfZeros else { throw unusable("a plaintext of nothing but zeros") }
    return plaintext
  }

  private func ciphertext() throws(CallFailure) -> [UInt8] {
    let blob = try need("CiphertextBlob", json.base64)
    guard (1...CiphertextEnvelope.ciphertextBytesMax).contains(blob.count) else {
      throw unusable("a ciphertext of \(blob.count) bytes")
    }
    // SAFETY: a ciphertext is no secret; the copy is made within the call.
    let bytes = unsafe blob.withUnsafeBytes { unsafe Array($0) }
    guard bytes.contains(where: { $0 != 0 }) else { throw unusable("a ciphertext of nothing but zeros") }
    return bytes
  }
}

extension Secret {
  /// True for 8 zeros or more and nothing else: by chance that happens once in 2^64 times at most, so it is memory that nobody filled.
  var isRowOfZeros: Bool {
    guard count >= 8 else { return false }
    // SAFETY: the bytes are read during the call only; all of them, whatever they are.
    return unsafe withUnsafeBytes { unsafe $0.reduce(0) { $0 | $1 } } == 0
  }
}
