internal import CMessages
internal import CProtobufC

extension ReplyDecoder {
  // SAFETY (all of this file): a member of the union is read only where `result_case` says that it is set; it lives in the arena, and
  // repeated fields have as many elements as their counts say.
  func lifecycleResult(_ message: Keyring__V1__Reply) throws(FieldError) -> ReplyResult {
    switch unsafe message.result_case {
    case KEYRING__V1__REPLY__RESULT_INSTANCE_REVOKE:
      if let reply = unsafe message.instance_revoke {
        return .instanceRevoke(revokedAt: unsafe reply.pointee.revoked_at)
      }
    case KEYRING__V1__REPLY__RESULT_SERVICE_RELOAD:
      if let reply = unsafe message.service_reload?.pointee { return .serviceReload(unsafe report(reply)) }
    case KEYRING__V1__REPLY__RESULT_TENANT_LOCK: return .tenantLock
    case KEYRING__V1__REPLY__RESULT_TENANT_UNLOCK: return .tenantUnlock
    case KEYRING__V1__REPLY__RESULT_TENANT_DELETE:
      if let reply = unsafe message.tenant_delete?.pointee {
        return unsafe .tenantDelete(dueMilliseconds: reply.due_ms, isDone: reply.done != 0)
      }
    case KEYRING__V1__REPLY__RESULT_TENANT_UNDELETE: return .tenantUndelete
    case KEYRING__V1__REPLY__RESULT_TENANT_RECEIPT:
      if let reply = unsafe message.tenant_receipt?.pointee {
        return unsafe .tenantReceipt(text(reply.receipt), publicKey: text(reply.public_key))
      }
    default: break  // a C enum
    }
    throw .malformed("the reply has no result that this client knows")
  }

  func instance(_ pointer: UnsafeMutablePointer<Keyring__V1__Instance>?) -> InstanceEntry {
    guard let item = unsafe pointer?.pointee else {
      return InstanceEntry(name: "", source: "", connections: 0)
    }
    return unsafe InstanceEntry(
      name: text(item.name),
      source: text(item.source),
      connections: item.connections,
      notBefore: item.not_before,
      permissions: (0..<item.n_permissions).map { unsafe text(item.permissions[$0]) },
      scopes: (0..<item.n_scopes).map { unsafe text(item.scopes[$0]) }
    )
  }

  func loaded(
    _ count: Int,
    _ items: UnsafeMutablePointer<UnsafeMutablePointer<Keyring__V1__LoadedFiles>?>?
  ) -> [LoadedFiles] {
    (0..<count).compactMap { index in
      guard let item = unsafe items?[index]?.pointee else { return nil }
      var files = LoadedFiles(name: unsafe text(item.name))
      unsafe files.loadedMilliseconds = item.loaded_ms
      unsafe files.ends = item.ends
      unsafe files.failure = text(item.failure)
      return files
    }
  }

  private func report(_ reply: Keyring__V1__ServiceReloadReply) -> ReloadReport {
    var report = ReloadReport()
    unsafe report.files = loaded(reply.n_files, reply.files)
    unsafe report.tenantsReloaded = reply.tenants_reloaded
    for index in 0..<(unsafe reply.n_tenant_failures) {
      guard let item = unsafe reply.tenant_failures[index]?.pointee else { continue }
      report.tenantFailures.append(unsafe .init(tenant: text(item.tenant), failure: text(item.failure)))
    }
    return report
  }
}
