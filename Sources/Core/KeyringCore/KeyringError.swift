/// Why an operation on a keyring was refused. Descriptions are safe for a client: they name no key material.
public enum KeyringError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The key is there; it was left as it is.
  case keyExists
  /// The key to remove or rotate is not there.
  case keyAbsent
  /// A key id, owner, tenant, instance or CMK id that is not one.
  case nameInvalid(String)
  /// The profile has no such type.
  case typeInvalid(String)
  /// The profile does not allow this length.
  case lengthInvalid(String)
  /// A transaction with no change, or with too many.
  case transactionInvalid(String)
  /// The idempotency id belongs to another request.
  case idempotencyMismatch
  /// The idempotency id is older than what is remembered, or from the future.
  case idempotencyExpired(String)
  /// The key has as many versions as it may.
  case versionsExhausted
  /// The wrapping key has made as many encryptions as it may.
  case wrappingKeyExhausted
  /// A commit that does not follow from the state: damage, or a defect.
  case inconsistent(String)

  /// For a client.
  public var description: String {
    switch self {
    case .keyExists: "the key exists already; it was left as it is"
    case .keyAbsent: "there is no such key"
    case .nameInvalid(let why), .typeInvalid(let why), .lengthInvalid(let why), .transactionInvalid(let why):
      why
    case .idempotencyMismatch: "this idempotency id was used for another request"
    case .idempotencyExpired(let why): why
    case .versionsExhausted:
      "the key has \(Key.versionsMax) versions, as many as it may: store its material under another key id, or remove it"
    case .wrappingKeyExhausted: "the wrapping key has made 2^31 encryptions: run rotate-keys"
    case .inconsistent(let what): "the keyring is inconsistent: \(what)"
    }
  }
}
