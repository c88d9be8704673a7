internal import CMessages
internal import CProtobufC
internal import KeyringCore

extension ReplyDecoder {
  // SAFETY (all of this file): a member of the union is read only where `result_case` says that it is set; it lives in the arena, and
  // repeated fields have as many elements as their counts say.
  func transferResult(_ message: Keyring__V1__Reply) throws(FieldError) -> ReplyResult {
    switch unsafe message.result_case {
    case KEYRING__V1__REPLY__RESULT_BACKUP_BEGIN:
      if let reply = unsafe message.backup_begin?.pointee {
        guard let digest = unsafe Digest(bytes: array(reply.sha256)) else {
          throw .malformed("a SHA-256 has 32 bytes")
        }
        return unsafe .backup(
          .begun(try transferID(reply.id), bytes: reply.bytes, digest: digest, summary(reply.summary))
        )
      }
    case KEYRING__V1__REPLY__RESULT_BACKUP_READ:
      if let reply = unsafe message.backup_read?.pointee { return .backup(.data(unsafe array(reply.data))) }
    case KEYRING__V1__REPLY__RESULT_BACKUP_END: return .backup(.ended)
    case KEYRING__V1__REPLY__RESULT_RESTORE_BEGIN:
      if let reply = unsafe message.restore_begin?.pointee {
        return .restore(.begun(try unsafe transferID(reply.id)))
      }
    case KEYRING__V1__REPLY__RESULT_RESTORE_WRITE: return .restore(.written)
    case KEYRING__V1__REPLY__RESULT_RESTORE_END:
      if let reply = unsafe message.restore_end?.pointee { return .restore(.ended(unsafe report(reply))) }
    default: return try unsafe lifecycleResult(message)
    }
    throw .malformed("the reply has no result that this client knows")
  }

  private func transferID(_ data: ProtobufCBinaryData) throws(FieldError) -> TransferID {
    guard let id = unsafe TransferID(bytes: array(data)) else {
      throw .malformed("the id of a backup or restore has 16 bytes")
    }
    return id
  }

  private func texts(_ count: Int, _ items: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> [String] {
    (0..<count).map { index in unsafe text(items?[index]) }
  }

  private func summary(_ pointer: UnsafeMutablePointer<Keyring__V1__BackupSummary>?) -> BackupSummary {
    var summary = BackupSummary()
    guard let item = unsafe pointer?.pointee else { return summary }
    unsafe summary.keyringID = text(item.keyring_id)
    unsafe summary.sequence = item.sequence
    unsafe summary.digest = text(item.digest)
    unsafe summary.keys = item.keys
    unsafe summary.records = item.records
    unsafe summary.cmksNeeded = texts(item.n_cmks_needed, item.cmks_needed)
    unsafe summary.cmksIncluded = texts(item.n_cmks_included, item.cmks_included)
    unsafe summary.unprovedWrappingKeys = texts(
      item.n_unproved_wrapping_keys,
      item.unproved_wrapping_keys
    )
    return summary
  }

  private func report(_ reply: Keyring__V1__RestoreEndReply) -> RestoreReport {
    var report = RestoreReport()
    unsafe report.summary = summary(reply.summary)
    unsafe report.cmksMade = texts(reply.n_cmks_made, reply.cmks_made)
    unsafe report.replacedSequence = reply.replaced_sequence
    unsafe report.isDryRun = reply.dry_run != 0
    unsafe report.notices = texts(reply.n_notices, reply.notices)
    return report
  }
}
