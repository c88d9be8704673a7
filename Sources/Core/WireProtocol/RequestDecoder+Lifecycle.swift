internal import CMessages
internal import CProtobufC

extension RequestDecoder {
  // SAFETY (all of this file): a member of the union is read only where `call_case` says that it is set; it lives in the arena, and
  // repeated fields have as many elements as their counts say.
  func lifecycle(_ message: Keyring__V1__Request) throws(FieldError) -> AdminCall {
    switch unsafe message.call_case {
    case KEYRING__V1__REQUEST__CALL_INSTANCE_REVOKE:
      if let call = unsafe message.instance_revoke?.pointee {
        return unsafe .instanceRevoke(tenant: text(call.tenant), instance: text(call.instance))
      }
    case KEYRING__V1__REQUEST__CALL_SERVICE_RELOAD: return .serviceReload
    case KEYRING__V1__REQUEST__CALL_TENANT_LOCK:
      if let call = unsafe message.tenant_lock { return .tenantLock(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_UNLOCK:
      if let call = unsafe message.tenant_unlock { return .tenantUnlock(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_DELETE:
      if let call = unsafe message.tenant_delete?.pointee {
        return unsafe .tenantDelete(
          TenantDeleteCall(
            tenant: text(call.tenant),
            afterSeconds: call.after_seconds,
            cmkDays: call.cmk_days
          )
        )
      }
    case KEYRING__V1__REQUEST__CALL_TENANT_UNDELETE:
      if let call = unsafe message.tenant_undelete {
        return .tenantUndelete(unsafe text(call.pointee.tenant))
      }
    case KEYRING__V1__REQUEST__CALL_TENANT_RECEIPT:
      if let call = unsafe message.tenant_receipt { return .tenantReceipt(unsafe text(call.pointee.tenant)) }
    default: break  // a C enum
    }
    throw .malformed("the request has no call that this server knows")
  }

  func instanceAdd(_ call: Keyring__V1__InstanceAddRequest) -> AdminCall {
    unsafe .instanceAdd(
      tenant: text(call.tenant),
      instance: text(call.instance),
      permissions: (0..<call.n_permissions).map { unsafe text(call.permissions[$0]) },
      scopes: (0..<call.n_scopes).map { unsafe text(call.scopes[$0]) }
    )
  }
}
