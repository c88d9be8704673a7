/// gRPC's status codes.
public enum Code: Int32, Sendable, CaseIterable {
  case ok = 0, cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists,
    permissionDenied
  case resourceExhausted, failedPrecondition, aborted, outOfRange, unimplemented, internalError, unavailable,
    dataLoss
  case unauthenticated
}

/// Why a call failed, for programs; keyring.proto says what each means and which code it comes with.
public enum Reason: Int32, Sendable, CaseIterable {
  case unspecified = 0, keyExists, keyAbsent, nameInvalid, typeInvalid, lengthInvalid, requestMalformed,
    forbidden
  case tenantLocked, tenantDisabled, tenantQuarantined, kmsUnreachable, kmsDenied, storageChanged,
    storageUnavailable
  case outcomeUnknown, throttled, wrappingKeyExhausted, idempotencyMismatch, stale, listExpired, timeout,
    variableInvalid
  case tenantExists, shuttingDown, internalError, messageTooLarge, cmkTransient, providerRefused, tenantAbsent
  case configurationInvalid, backupInvalid, restoreRefused, transferExpired
  case auditUnavailable = 40, deletionRefused

  /// As the contract spells it: `KEY_EXISTS`.
  public var name: String {
    switch self {
    case .unspecified: return "REASON_UNSPECIFIED"
    case .kmsUnreachable: return "KMS_UNREACHABLE"
    case .kmsDenied: return "KMS_DENIED"
    case .cmkTransient: return "CMK_TRANSIENT"
    case .keyExists, .keyAbsent, .nameInvalid, .typeInvalid, .lengthInvalid, .requestMalformed, .forbidden,
      .tenantLocked, .tenantDisabled, .tenantQuarantined, .storageChanged, .storageUnavailable,
      .outcomeUnknown,
      .throttled, .wrappingKeyExhausted, .idempotencyMismatch, .stale, .listExpired, .timeout,
      .variableInvalid,
      .tenantExists, .shuttingDown, .internalError, .messageTooLarge, .providerRefused, .tenantAbsent,
      .configurationInvalid, .backupInvalid, .restoreRefused, .transferExpired, .auditUnavailable,
      .deletionRefused:
      return "\(self)".reduce(into: "") { text, letter in
        if letter.isUppercase { text += "_" }
        text += letter.uppercased()
      }
    }
  }

  /// The code that the reason comes with.
  public var code: Code {
    switch self {
    case .unspecified: .unknown
    case .keyExists, .tenantExists: .alreadyExists
    case .keyAbsent, .tenantAbsent: .notFound
    case .nameInvalid, .typeInvalid, .lengthInvalid, .requestMalformed, .idempotencyMismatch,
      .variableInvalid, .backupInvalid:
      .invalidArgument
    case .forbidden: .permissionDenied
    case .tenantLocked, .tenantDisabled, .kmsDenied, .wrappingKeyExhausted, .stale, .listExpired,
      .cmkTransient,
      .providerRefused, .configurationInvalid, .restoreRefused, .transferExpired,
      .deletionRefused:
      .failedPrecondition
    case .tenantQuarantined, .storageChanged: .dataLoss
    case .kmsUnreachable, .storageUnavailable, .shuttingDown, .auditUnavailable: .unavailable
    case .outcomeUnknown: .unknown
    case .throttled, .messageTooLarge: .resourceExhausted
    case .timeout: .deadlineExceeded
    case .internalError: .internalError
    }
  }
}

/// How a call failed.
public struct Status: Error, Equatable, Sendable, CustomStringConvertible {
  /// gRPC's code.
  public let code: Code
  /// Why, for programs.
  public let reason: Reason
  /// Why, for people; safe to log.
  public let message: String
  /// When trying again may help; 0 if the server has no opinion.
  public let retryAfterMilliseconds: UInt32

  /// A failure with the code that its reason comes with; the message is cut at 1,024 bytes.
  public init(_ reason: Reason, _ message: String, retryAfterMilliseconds: UInt32 = 0) {
    self.init(code: reason.code, reason, message, retryAfterMilliseconds: retryAfterMilliseconds)
  }

  init(code: Code, _ reason: Reason, _ message: String, retryAfterMilliseconds: UInt32) {
    self.code = code
    self.reason = reason
    self.message = Self.cut(message)
    self.retryAfterMilliseconds = retryAfterMilliseconds
  }

  /// At most 1,024 bytes of whole characters.
  private static func cut(_ text: String) -> String {
    let bytes = text.utf8
    guard var end = bytes.index(text.startIndex, offsetBy: 1024, limitedBy: text.endIndex) else {
      return text
    }
    while end.samePosition(in: text.unicodeScalars) == nil { end = bytes.index(before: end) }
    return String(text[..<end])
  }

  /// Reason and message.
  public var description: String { "\(reason.name): \(message)" }
}
