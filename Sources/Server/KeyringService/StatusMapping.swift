internal import KeyringCore
internal import WireProtocol

extension ServiceError {
  /// What the wire says of a failure: the one place that decides.
  var status: Status {
    switch self {
    case .keyring(let error): error.status
    case .forbidden: Status(.forbidden, "this certificate may not do this")
    case .notPermitted(let why): Status(.forbidden, why)
    case .tenantAbsent(let name): Status(.tenantAbsent, "there is no tenant '\(name)'")
    case .tenantExists(let what): Status(.tenantExists, what)
    case .tenantDisabled: Status(.tenantDisabled, "the tenant is disabled")
    case .wrappingKeyReplaced:
      Status(.throttled, "the wrapping key was replaced meanwhile", retryAfterMilliseconds: 10)
    case .tenantLocked(let why): Status(.tenantLocked, "locked: \(why)", retryAfterMilliseconds: 30_000)
    case .tenantQuarantined:
      Status(.tenantQuarantined, "the storage file is not the expected one: an operator must decide")
    case .configuration(let why): Status(.configurationInvalid, why)
    case .readOnly: Status(.forbidden, "the tenant is read-only")
    case .kmsUnreachable(let why): Status(.kmsUnreachable, why, retryAfterMilliseconds: 1000)
    case .kmsDenied(let why): Status(.kmsDenied, why)
    case .providerRefused(let why): Status(.providerRefused, why)
    case .storageChanged:
      Status(.storageChanged, "the storage file changed under the server; nothing was written")
    case .storageUnavailable:
      Status(
        .storageUnavailable,
        "the storage cannot be written; nothing changed",
        retryAfterMilliseconds: 1000
      )
    case .settingsUnread:
      Status(
        .storageUnavailable,
        "the tenant's settings cannot be read; nothing changed",
        retryAfterMilliseconds: 1000
      )
    case .deletionRefused(let why): Status(.deletionRefused, why)
    case .auditUnavailable:
      Status(
        .auditUnavailable,
        "the audit log cannot be written, without which nothing is done here: nothing changed",
        retryAfterMilliseconds: 1000
      )
    case .outcomeUnknown:
      Status(
        .outcomeUnknown,
        "whether the change happened is not known: ask again with the same idempotency id"
      )
    case .throttled(let what, let retry): Status(.throttled, what, retryAfterMilliseconds: retry)
    case .stale(let sequence):
      Status(.stale, "the keyring is at sequence \(sequence), behind what the caller has seen")
    case .listExpired: Status(.listExpired, "the listing is over: begin again")
    case .timeout: Status(.timeout, "the time of the request ran out before it was executed")
    case .variableInvalid(let why): Status(.variableInvalid, why)
    case .cmkTransient:
      Status(
        .cmkTransient,
        "the cmk_id in force ends with the next restart: `set persist cmk_id` first, or --allow-transient"
      )
    case .backupInvalid(let why): Status(.backupInvalid, why)
    case .restoreRefused(let why): Status(.restoreRefused, why)
    case .restoreUnfinished(let why): Status(.outcomeUnknown, why)
    case .onboardingUnfinished:
      Status(
        .outcomeUnknown,
        "whether the tenant was made is not known: run the same again, which completes or undoes it"
      )
    case .transferExpired:
      Status(
        .transferExpired,
        "this backup or restore is over, or was begun on another connection: begin again"
      )
    case .shuttingDown: Status(.shuttingDown, "the server is shutting down: connect again")
    case .malformed(let what): Status(.requestMalformed, what)
    case .defect: Status(.internalError, "an internal error; the server's log has it")
    }
  }
}

extension KeyringError {
  fileprivate var status: Status {
    switch self {
    case .keyExists: Status(.keyExists, description)
    case .keyAbsent: Status(.keyAbsent, description)
    case .nameInvalid: Status(.nameInvalid, description)
    case .typeInvalid: Status(.typeInvalid, description)
    case .lengthInvalid: Status(.lengthInvalid, description)
    case .transactionInvalid: Status(.requestMalformed, description)
    case .idempotencyMismatch: Status(.idempotencyMismatch, description)
    case .idempotencyExpired: Status(.outcomeUnknown, description)
    case .versionsExhausted: Status(.throttled, description)
    case .wrappingKeyExhausted: Status(.wrappingKeyExhausted, description)
    case .inconsistent: Status(.internalError, "an internal error; the server's log has it")
    }
  }
}

extension WireError {
  /// What the wire says of a frame or message that is none.
  var status: Status {
    switch self {
    case .compressed, .flags, .empty, .malformed: Status(.requestMalformed, description)
    case .tooLarge, .overBudget: Status(.messageTooLarge, description)
    case .noMemory, .overShare: Status(.throttled, description, retryAfterMilliseconds: 100)
    }
  }
}
