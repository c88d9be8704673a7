internal import AuditLog
internal import CMKProviders
internal import Cryptography
internal import KeyringCore
internal import KeyringStorage
internal import TenantRegistry

/// What a tenant had when its deletion was carried out, and what became of it. No secret is in it.
struct DeletionReceipt: Sendable {
  /// What became of a CMK.
  struct CMK: Sendable {
    let id: String
    let provider: ProviderKind
    let fate: String
  }

  let deletion: TenantDeletion
  /// Of the storage file; nil where it could not be read.
  var content: StorageFileContent?
  /// Why it could not.
  var storageFailure = ""
  var cmks: [CMK] = []
  var backups = TakenBackups()

  /// The first line but for its end, which `signed` adds.
  var draft: [UInt8] {
    var members: [(String, String)] = [
      ("receipt", "1"), ("tenant", Self.text(deletion.tenant.text)),
      ("requested_by", Self.text(deletion.requestedBy)),
      ("requested", Self.date(deletion.requestedMilliseconds)),
    ]
    if let content {
      members += [
        ("keyring_id", Self.text("\(content.state.id)")), ("sequence", "\(content.position.sequence)"),
        ("digest", Self.text("\(content.position.digest)")), ("records", "\(content.state.recordCount)"),
        ("wrapping_keys", Self.list(content.state.wrappingKeys.values.map(Self.object).sorted())),
      ]
    } else {
      members.append(("storage_failure", Self.text(storageFailure)))
    }
    members += [
      ("cmks", Self.list(cmks.map(Self.object))), ("backups", Self.list(backups.entries.map(object))),
      ("backups_not_named", "\(backups.forgotten)"),
    ]
    return Array(Self.members(members).utf8)
  }

  /// The two lines: what was destroyed, and the signature of that line.
  static func signed(
    _ draft: [UInt8],
    doneMilliseconds: UInt64,
    _ signer: SigningKey
  ) throws(CryptographyError) -> [UInt8] {
    let line = Array("{".utf8) + draft + Array(",\"carried_out\":\(date(doneMilliseconds))}".utf8)
    let signature = try signer.sign(line)
    let second = members([
      ("key", text("\(signer.verifier.fingerprint)")), ("signature", text(hexadecimal(signature))),
    ])
    return line + Array("\n{\(second)}\n".utf8)
  }

  // MARK: Parts

  private static func object(_ key: WrappingKey) -> String {
    let all = members([
      ("id", text("\(key.id)")), ("provider", text(key.provider.rawValue)), ("cmk_id", text(key.cmkID.text)),
    ])
    return "{\(all)}"
  }

  private static func object(_ cmk: CMK) -> String {
    let all = members([
      ("id", text(cmk.id)), ("provider", text(cmk.provider.rawValue)), ("fate", text(cmk.fate)),
    ])
    return "{\(all)}"
  }

  private func object(_ backup: TakenBackups.Entry) -> String {
    let all = Self.members([
      ("taken", Self.date(backup.takenMilliseconds)), ("sequence", "\(backup.sequence)"),
      ("sha256", Self.text(backup.sha256)), ("readable", Self.text(readability(backup))),
    ])
    return "{\(all)}"
  }

  /// Who can still read a backup that was taken.
  private func readability(_ backup: TakenBackups.Entry) -> String {
    if backup.hasCMKs { return "with the service's backup passphrase: destroy the file" }
    guard cmks.contains(where: { $0.provider == .aws }) else { return "by nobody" }
    return deletion.cmkDays == nil
      ? "as long as its CMKs can be used: destroy the file" : "until KMS deletes its CMKs"
  }

  // MARK: JSON

  private static func text(_ text: String) -> String {
    var bytes: [UInt8] = []
    AuditText.append(text, to: &bytes)
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func date(_ milliseconds: UInt64) -> String {
    "\"\(AuditText.dateText(milliseconds))\""
  }

  private static func list(_ items: [String]) -> String { "[\(items.joined(separator: ","))]" }

  private static func members(_ members: [(String, String)]) -> String {
    members.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",")
  }
}
