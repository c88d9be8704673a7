public import KeyringCore

extension CMKError {
  /// AWS's id of the request that failed, as `CallFailure.text` writes it down; nil where it came with none.
  public var requestID: String? { Self.requestID(in: description) }

  /// The same, of what an error said.
  public static func requestID(in text: String) -> String? {
    let (before, after) = (CallFailure.requestIDBefore, CallFailure.requestIDAfter)
    guard text.hasSuffix(after), let start = text.ranges(of: before).last?.upperBound else { return nil }
    let id = text[start...].dropLast(after.count)
    return id.isEmpty ? nil : String(id)
  }
}

/// Why one attempt of a call to AWS failed, by what follows from it.
struct CallFailure: Error, Sendable, Equatable {
  /// The classes of failures.
  enum Kind: String, Sendable, CaseIterable {
    /// No answer: the network, a time that ran out, TLS.
    case unreachable
    /// Nothing of AWS's: the call was cancelled, too many wait, or there is no memory for it.
    case local = "trouble of this server's own"
    /// Asked too often.
    case throttled
    /// AWS's own trouble (HTTP 5xx), or an answer that cannot be used.
    case serverFailure = "server failure"
    /// These credentials may not do this.
    case denied
    /// The CMK is disabled, or in another state in which it cannot be used.
    case disabled
    /// The CMK waits for its deletion.
    case pendingDeletion = "pending deletion"
    /// There is no such CMK, in this region.
    case notFound = "not found"
    /// The ciphertext is not one of this CMK with this context.
    case invalidCiphertext = "invalid ciphertext"
    /// The credentials are unknown, expired or sign wrongly, or the clock is wrong.
    case credential
    /// What was asked for cannot be: a wrong region, a malformed key id.
    case configuration
    /// A limit of the service, or something that it does not do.
    case refused
    /// A change was asked for, and whether it was made is not known.
    case outcomeUnknown = "outcome unknown"
  }

  let kind: Kind
  /// What AWS said, or what went wrong; no secret.
  let message: String
  /// AWS's id of the request, where it answered with one.
  let requestID: String?
  /// How long AWS wants to be left alone.
  let retryAfterMilliseconds: Int?
  /// What the source of the credentials said, which goes on unchanged.
  private let ofCredentials: CMKError?

  init(_ kind: Kind, _ message: String, requestID: String? = nil, retryAfterMilliseconds: Int? = nil) {
    self.kind = kind
    self.message = message
    self.requestID = requestID
    self.retryAfterMilliseconds = retryAfterMilliseconds
    ofCredentials = nil
  }

  /// No credentials could be had, and nothing was sent.
  init(withoutCredentials error: CMKError) {
    kind = .credential
    message = error.description
    requestID = nil
    retryAfterMilliseconds = nil
    ofCredentials = error
  }

  /// True where the same call may succeed a moment later.
  var isTransient: Bool {
    switch kind {
    case .unreachable, .throttled, .serverFailure: true
    case .local, .denied, .disabled, .pendingDeletion, .notFound, .invalidCiphertext, .credential,
      .configuration, .refused, .outcomeUnknown:
      false
    }
  }

  /// False where the endpoint had no part in it: that is neither a failure nor an answer of its own.
  var isOfEndpoint: Bool { kind != .local && ofCredentials == nil }

  /// In words.
  var text: String {
    "AWS: \(kind.rawValue): \(message)"
      + (requestID.map { "\(Self.requestIDBefore)\($0)\(Self.requestIDAfter)" } ?? "")
  }

  fileprivate static let requestIDBefore = " (request id "
  fileprivate static let requestIDAfter = ")"

  /// What it means for the CMK (design section 4): trouble with the credentials is as no answer.
  var cmkError: CMKError {
    if let ofCredentials { return ofCredentials }
    return switch kind {
    case .unreachable, .local, .throttled, .serverFailure, .credential: .unreachable(text)
    case .denied, .disabled, .pendingDeletion, .notFound: .denied(text)
    case .invalidCiphertext: .invalidCiphertext(text)
    case .configuration: .configuration(text)
    case .refused: .refused(text)
    case .outcomeUnknown: .outcomeUnknown(text)
    }
  }
}
