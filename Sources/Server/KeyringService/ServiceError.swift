internal import CMKProviders
public import KeyringCore

/// Why a call failed; one function (`status`) turns each into what the wire says. No case carries key material.
public enum ServiceError: Error, Sendable, Equatable {
  /// A rule about keys.
  case keyring(KeyringError)
  /// This caller has no such call, or there is no such tenant: these look alike.
  case forbidden
  /// This instance may call, and may not do this.
  case notPermitted(String)
  /// For a service administrator, who may know.
  case tenantAbsent(TenantName)
  /// A tenant of this name is there, and differs from what was asked for: in one text, since an error of more than four words makes the compiler's
  /// debug builds lose their way in asynchronous functions that throw it.
  case tenantExists(String)
  /// An administrator disabled the tenant.
  case tenantDisabled
  /// The wrapping key went while it was in use, by rotate-keys for one: the caller looks again, and finds another or why there is none.
  case wrappingKeyReplaced
  /// A wrapping key that this needs is denied.
  case tenantLocked(String)
  /// The storage file is not the expected one.
  case tenantQuarantined(String)
  /// The tenant's configuration cannot be used.
  case configuration(String)
  /// The tenant is read-only.
  case readOnly
  /// The KMS did not answer.
  case kmsUnreachable(String)
  /// The KMS refuses the CMK.
  case kmsDenied(String)
  /// The provider cannot do this, or its limit is reached.
  case providerRefused(String)
  /// The storage file changed under the server; nothing was written.
  case storageChanged(String)
  /// The storage cannot be written; nothing changed.
  case storageUnavailable(String)
  /// The disk did not hand out a tenant's settings: whatever is asked of it cannot be answered, and nothing changed.
  case settingsUnread(String)
  /// The audit log cannot be written, and the tenant's is strict; nothing changed.
  case auditUnavailable(String)
  /// A deletion waits, goes on, is done, or is not there.
  case deletionRefused(String)
  /// The change may or may not have happened.
  case outcomeUnknown(String)
  /// Over a limit.
  case throttled(String, retryAfterMilliseconds: UInt32)
  /// The keyring is behind what the caller has seen.
  case stale(sequence: UInt64)
  /// The list token's snapshot is gone.
  case listExpired
  /// The request's time ran out before it was executed.
  case timeout
  /// No such variable, or not this value, or not at run time.
  case variableInvalid(String)
  /// rotate-keys while the cmk_id in force is not persisted.
  case cmkTransient
  /// What was sent is no backup that can be used, or one that was made does not open.
  case backupInvalid(String)
  /// A backup is not put in the place of what is there.
  case restoreRefused(String)
  /// A restore changed something and did not end, and what is to be done.
  case restoreUnfinished(String)
  /// Whether a tenant was made is not known.
  case onboardingUnfinished(String)
  /// The backup or restore is over.
  case transferExpired
  /// The server is shutting down.
  case shuttingDown
  /// A request that is well-formed but cannot be.
  case malformed(String)
  /// A defect.
  case defect(String)
}

extension ServiceError {
  /// What a provider's failure means for a call.
  init(_ error: CMKError) {
    switch error {
    case .unreachable(let why): self = .kmsUnreachable(why)
    case .denied(let why): self = .kmsDenied(why)
    case .invalidCiphertext(let why): self = .kmsDenied(why)
    case .refused(let why): self = .providerRefused(why)
    case .overloaded(let why, let retryAfterMilliseconds):
      self = .throttled(why, retryAfterMilliseconds: retryAfterMilliseconds)
    case .configuration(let why): self = .configuration(why)
    case .outcomeUnknown(let why): self = .outcomeUnknown(why)
    }
  }

  /// What a storage failure means for the call that met it.
  init(_ error: StoreError) {
    switch error {
    case .changed(let what): self = .storageChanged(what)
    case .damaged(let what): self = .tenantQuarantined(what)
    case .busy(let what), .unavailable(let what): self = .storageUnavailable(what)
    case .outcomeUnknown(let what): self = .outcomeUnknown(what)
    case .authenticatorUnavailable: self = .tenantLocked("the wrapping key is not held")
    }
  }
}
