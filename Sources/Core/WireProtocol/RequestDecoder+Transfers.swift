internal import CMessages
internal import CProtobufC
internal import KeyringCore

extension RequestDecoder {
  // SAFETY (all of this file): a member of the union is read only where `call_case` says that it is set; it lives in the arena.
  func transfer(_ message: Keyring__V1__Request) throws(FieldError) -> AdminCall {
    switch unsafe message.call_case {
    case KEYRING__V1__REQUEST__CALL_BACKUP_BEGIN:
      if let call = unsafe message.backup_begin?.pointee {
        return unsafe .backup(text(call.tenant), .begin(allowUnproved: call.allow_unproved != 0))
      }
    case KEYRING__V1__REQUEST__CALL_BACKUP_READ:
      if let call = unsafe message.backup_read?.pointee {
        return unsafe .backup(text(call.tenant), .read(try transferID(call.id), offset: call.offset))
      }
    case KEYRING__V1__REQUEST__CALL_BACKUP_END:
      if let call = unsafe message.backup_end?.pointee {
        return unsafe .backup(text(call.tenant), .end(try transferID(call.id)))
      }
    case KEYRING__V1__REQUEST__CALL_RESTORE_BEGIN:
      if let call = unsafe message.restore_begin?.pointee {
        return unsafe .restore(text(call.tenant), .begin(try restoreBegin(call)))
      }
    case KEYRING__V1__REQUEST__CALL_RESTORE_WRITE:
      if let call = unsafe message.restore_write?.pointee {
        let data = unsafe array(call.data)
        guard (1...TransferID.chunkBytes).contains(data.count) else {
          throw .malformed("a piece of a backup has 1 to \(TransferID.chunkBytes) bytes")
        }
        return unsafe .restore(
          text(call.tenant),
          .write(try transferID(call.id), offset: call.offset, data: data)
        )
      }
    case KEYRING__V1__REQUEST__CALL_RESTORE_END:
      if let call = unsafe message.restore_end?.pointee {
        return unsafe .restore(text(call.tenant), .end(try transferID(call.id)))
      }
    default: return try unsafe lifecycle(message)
    }
    throw .malformed("the request has no call that this server knows")
  }

  private func transferID(_ data: ProtobufCBinaryData) throws(FieldError) -> TransferID {
    guard let id = unsafe TransferID(bytes: array(data)) else {
      throw .malformed("the id of a backup or restore has 16 bytes")
    }
    return id
  }

  private func restoreBegin(_ call: Keyring__V1__RestoreBeginRequest) throws(FieldError) -> RestoreBeginCall {
    guard let digest = unsafe Digest(bytes: array(call.sha256)) else {
      throw .malformed("a SHA-256 has 32 bytes")
    }
    return unsafe RestoreBeginCall(
      bytes: call.bytes,
      digest: digest,
      acceptRollback: call.accept_rollback != 0,
      acceptUnproved: call.accept_unproved != 0,
      isDryRun: call.dry_run != 0
    )
  }
}
