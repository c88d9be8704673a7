internal import HTTPTransport
internal import KeyringCore

extension CallFailure {
  /// Why there is no response.
  init(_ error: HTTPError) {
    switch error {
    case .unreachable(let why): self.init(.unreachable, why)
    case .local(let why): self.init(.local, why)
    case .malformed(let why): self.init(.serverFailure, why)
    case .configuration(let why): self.init(.configuration, why)
    }
  }

  /// What a response that is no success says.
  init(_ response: HTTPResponse, to operation: KMSOperation) {
    let answer = ErrorAnswer(response)
    let kind = Self.kind(answer, status: response.status, operation)
    let said = [answer.code, answer.message.isEmpty ? nil : answer.message].compactMap { $0 }
    let what =
      said.isEmpty ? "HTTP status \(response.status), and no word of KMS's" : said.joined(separator: ": ")
    self.init(
      kind,
      what + (Self.hint(answer, kind, operation).map { " (\($0))" } ?? ""),
      requestID: answer.requestID,
      retryAfterMilliseconds: answer.retryAfterMilliseconds
    )
  }

  /// By the code: of HTTP's statuses KMS uses 400 for most, throttling among them. What is not known wipes nothing: it is taken for a failure of
  /// whoever answers, and so is what comes with any other status than a refusal's.
  private static func kind(_ answer: ErrorAnswer, status: Int, _ operation: KMSOperation) -> Kind {
    guard let code = answer.code, let kind = kinds[code] else {
      return status == 429 ? .throttled : .serverFailure
    }
    guard (400..<500).contains(status) else { return kind == .throttled ? .throttled : .serverFailure }
    switch kind {
    case .throttled:
      // The rotations that a key has are no rate; of any other call this is one, as botocore takes it.
      return code == "LimitExceeded" && operation == .rotateKeyOnDemand ? .refused : .throttled
    case .disabled:
      return code == "KMSInvalidState" && answer.message.contains("deletion") ? .pendingDeletion : .disabled
    case .unreachable, .local, .serverFailure, .denied, .pendingDeletion, .notFound, .invalidCiphertext,
      .credential, .configuration, .refused, .outcomeUnknown:
      return kind
    }
  }

  /// KMS's errors, those common to AWS, and what its other services and emulators call them; without `Exception`.
  private static let kinds: [String: Kind] = {
    let codes: [Kind: [String]] = [
      .throttled: [
        "Throttling", "Throttled", "ThrottledRequest", "RequestThrottled", "RequestLimitExceeded",
        "TooManyRequests", "SlowDown", "LimitExceeded", "BandwidthLimitExceeded", "PriorRequestNotComplete",
      ],
      .denied: ["AccessDenied", "KMSAccessDenied", "NotAuthorized"],
      .disabled: ["Disabled", "KMSInvalidState"],
      .notFound: ["NotFound"],
      .invalidCiphertext: ["InvalidCiphertext", "IncorrectKey"],
      .credential: [
        "UnrecognizedClient", "InvalidSignature", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
        "InvalidClientTokenId", "MissingAuthenticationToken", "RequestExpired", "RequestTimeTooSkewed",
        "IncompleteSignature", "InvalidAccessKeyId", "AuthFailure", "OptInRequired",
      ],
      .configuration: [
        "Validation", "ValidationError", "InvalidArn", "InvalidKeyId", "InvalidKeyUsage", "InvalidParameter",
        "InvalidParameterValue", "UnknownOperation", "InvalidAction",
      ],
      .serverFailure: [
        "KeyUnavailable", "DependencyTimeout", "KMSInternal", "InternalFailure", "InternalError",
        "InternalServerError", "ServiceUnavailable",
      ],
      .refused: ["Conflict", "UnsupportedOperation"],
    ]
    return codes.reduce(into: [:]) { all, entry in for code in entry.value { all[code] = entry.key } }
  }()

  /// What to do about it, where AWS does not say.
  private static func hint(_ answer: ErrorAnswer, _ kind: Kind, _ operation: KMSOperation) -> String? {
    let isClock =
      ["RequestExpired", "RequestTimeTooSkewed"].contains(answer.code ?? "")
      || answer.message.contains("Signature expired") || answer.message.contains("not yet current")
    if kind == .credential, isClock { return "is this machine's clock right?" }
    guard operation == .rotateKeyOnDemand, kind == .refused else { return nil }
    switch answer.code {
    case "LimitExceeded":
      return
        "a key has a number of rotations on demand for good: make a new CMK, set cmk_id to it, and run rotate-keys"
    case "Conflict": return "a rotation is under way: once it is over, another one can be asked for"
    case "UnsupportedOperation":
      return
        "what rotates on demand is a symmetric key of KMS's own key store, and of a multi-Region key its primary"
    default: return nil
    }
  }
}
