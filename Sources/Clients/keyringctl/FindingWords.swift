import KeyringCore
import WireProtocol

extension Finding {
  /// What is so, and what an operator does about it; nil where there is nothing to do.
  func words(tenant: String) -> (cause: String, advice: String?) {
    switch code {
    case .unspecified:
      ("this keyringctl has no words for what the server found", "use one of the server's version")
    case .configurationInvalid:
      (
        "the tenant's files do not load; what was loaded before, if anything, stays in force until the server restarts",
        "correct the file at that place, then `keyringctl tenant reload \(tenant)`"
      )
    case .disabledByAdministrator:
      (
        "an administrator disabled the tenant: every call of its instances is refused",
        "`keyringctl tenant enable \(tenant)`"
      )
    case .storageQuarantined, .storageNotAvailable, .storageSlow: storageWords(tenant)
    case .cmkDisabled, .cmkPendingDeletion, .cmkRefused, .kmsSilentInGrace, .kmsSilent: cmkWords(tenant)
    case .formerCMKNeeded, .cmkNotPersisted, .wrappingKeyWorn, .wrappingKeyUsedUp: rotationWords(tenant)
    case .credentialsFail, .credentialsExpire: credentialsWords(tenant)
    case .batchesNotVerified:
      (
        "\(count) batches of the storage file wait to be verified until wrapping key \(wrappingKeyID) can be had; no key is said to be absent before",
        "what hinders CMK \(printable(cmkID)) is said above"
      )
    case .tenantReadOnly:
      (
        "the tenant is read-only: every change is refused",
        "`keyringctl set persist read_only false --tenant \(tenant)`, if that is not meant"
      )
    case .rotationUnderWay: ("rotate-keys is under way: \(records) done", nil)
    case .notOpened: ("not opened since the server started: its first call opens it", nil)
    }
  }

  /// As the contract spells it.
  var name: String {
    switch code {
    case .unspecified: "FINDING_CODE_UNSPECIFIED"
    case .configurationInvalid: "CONFIGURATION_INVALID_FILE"
    case .disabledByAdministrator: "DISABLED_BY_ADMINISTRATOR"
    case .storageQuarantined: "STORAGE_QUARANTINED"
    case .storageNotAvailable: "STORAGE_NOT_AVAILABLE"
    case .storageSlow: "STORAGE_SLOW"
    case .cmkDisabled: "CMK_DISABLED"
    case .cmkPendingDeletion: "CMK_PENDING_DELETION"
    case .cmkRefused: "CMK_REFUSED"
    case .kmsSilentInGrace: "KMS_SILENT_IN_GRACE"
    case .kmsSilent: "KMS_SILENT"
    case .formerCMKNeeded: "FORMER_CMK_NEEDED"
    case .cmkNotPersisted: "CMK_NOT_PERSISTED"
    case .wrappingKeyWorn: "WRAPPING_KEY_WORN"
    case .wrappingKeyUsedUp: "WRAPPING_KEY_USED_UP"
    case .credentialsFail: "CREDENTIALS_FAIL"
    case .credentialsExpire: "CREDENTIALS_EXPIRE"
    case .batchesNotVerified: "BATCHES_NOT_VERIFIED"
    case .tenantReadOnly: "TENANT_READ_ONLY"
    case .rotationUnderWay: "ROTATION_UNDER_WAY"
    case .notOpened: "NOT_OPENED"
    }
  }

  private var records: String { count == 1 ? "1 record is" : "\(count) records are" }

  private var since: String { sinceMilliseconds > 0 ? " since \(dateText(sinceMilliseconds))" : "" }

  private func storageWords(_ tenant: String) -> (String, String?) {
    switch code {
    case .storageQuarantined:
      (
        "the storage file is not the one that was expected: every call is refused until somebody decides",
        "`keyringctl verify` the file; put the right one back and `keyringctl tenant enable \(tenant)`, restore a backup, or, knowing what is given up, "
          + "`keyringctl tenant accept \(tenant) --sequence N`"
      )
    case .storageSlow:
      (
        "a write to the disk has been under way\(since)",
        "look after the disk of the tenant's directory; other tenants are not held up"
      )
    default:  // of the three, the one left
      (
        "the storage cannot be used at this moment; it is tried again by itself",
        "free space on, or repair, the disk of the tenant's directory"
      )
    }
  }

  /// What depends on a CMK that is not to be had, and until when that is bridged.
  private var dependents: String {
    guard count > 0 else { return "no key depends on it, and none can be made under it" }
    let dependents = count == 1 ? "1 record depends on it" : "\(count) records depend on it"
    guard untilMilliseconds > 0 else { return "\(dependents), and cannot be read" }
    return
      "\(dependents), and can be read until what is held must be confirmed, \(dateText(untilMilliseconds)) at the latest"
  }

  private func cmkWords(_ tenant: String) -> (String, String?) {
    let id = printable(cmkID)
    let isLocal = id.hasPrefix("local-")
    let other = "for new keys alone: `keyringctl set persist cmk_id OTHER --tenant \(tenant)`"
    switch code {
    case .cmkDisabled:
      return (
        "CMK \(id) is disabled\(since): \(dependents)",
        "enable it: \(isLocal ? "`keyringctl cmk enable \(tenant) \(id)`" : "EnableKey in AWS KMS"); \(other)"
      )
    case .cmkPendingDeletion:
      return (
        "CMK \(id) waits for its deletion\(since): \(dependents), and are lost with it",
        "cancel that, then enable it: \(isLocal ? "`keyringctl cmk cancel-deletion \(tenant) \(id)`, `keyringctl cmk enable \(tenant) \(id)`" : "CancelKeyDeletion and EnableKey in AWS KMS"); \(other)"
      )
    case .cmkRefused:
      let allow =
        isLocal
        ? "restore the CMK with a backup that has it"
        : "allow the tenant's credentials kms:Decrypt, kms:GenerateDataKey and kms:DescribeKey on it, or give it credentials that may, "
          + "then `keyringctl tenant reload \(tenant)`"
      return ("the KMS refuses CMK \(id)\(since): \(dependents)", "\(allow); \(other)")
    case .kmsSilentInGrace:
      return (
        "the KMS of CMK \(id) does not answer\(since); \(records) served from what is held, until \(dateText(untilMilliseconds)); nothing new can be made",
        "look after the network, the endpoint and the credentials before then; more time: `keyringctl set global outage_grace 48h --tenant \(tenant)`"
      )
    default:  // of the five, the one left
      return (
        "the KMS of CMK \(id) does not answer\(since), and nothing of it is held: \(dependents)",
        "look after the network, the endpoint and the credentials; once it answers, the tenant goes on by itself"
      )
    }
  }

  private func rotationWords(_ tenant: String) -> (String, String?) {
    let id = printable(cmkID)
    let rotate = "`keyringctl rotate-keys \(tenant)`"
    switch code {
    case .formerCMKNeeded:
      return (
        "CMK \(id) is not in force any more, and \(records) still under it",
        "\(rotate) before that CMK is disabled or deleted; backups taken before go on needing it"
      )
    case .cmkNotPersisted:
      return (
        "CMK \(id) is in force until the server restarts, and then another one is",
        "`keyringctl set persist cmk_id \(id) --tenant \(tenant)`"
      )
    case .wrappingKeyWorn:
      return ("\(count) of 2147483648 encryptions were made under wrapping key \(wrappingKeyID)", rotate)
    default:  // of the four, the one left
      return (
        "wrapping key \(wrappingKeyID) takes no more encryptions: no key can be made or changed", rotate
      )
    }
  }

  private func credentialsWords(_ tenant: String) -> (String, String?) {
    let expiry = untilMilliseconds > 0 ? "; those in use expire at \(dateText(untilMilliseconds))" : ""
    switch code {
    case .credentialsFail:
      return (
        "newer credentials for the KMS cannot be had\(expiry)",
        "look after their source, then `keyringctl tenant reload \(tenant)`"
      )
    default:  // of the two, the one left
      return (
        "the credentials for the KMS are past their renewal: they expire at \(dateText(untilMilliseconds))",
        "the next call to the KMS renews them; where that fails, `keyringctl tenant reload \(tenant)` says why"
      )
    }
  }
}
