internal import CMessages
internal import CProtobufC

extension RequestDecoder {
  // SAFETY (all of this file): a member of the union is read only where `call_case` says that it is set; it lives in the arena.
  func adminCall(_ message: Keyring__V1__Request) throws(FieldError) -> AdminCall {
    switch unsafe message.call_case {
    case KEYRING__V1__REQUEST__CALL_TENANT_CREATE:
      if let call = unsafe message.tenant_create {
        return .tenantCreate(try unsafe tenantCreate(call.pointee))
      }
    case KEYRING__V1__REQUEST__CALL_TENANT_LIST:
      if let call = unsafe message.tenant_list {
        return unsafe .tenantList(pageSize: call.pointee.page_size, after: text(call.pointee.after))
      }
    case KEYRING__V1__REQUEST__CALL_TENANT_SHOW:
      if let call = unsafe message.tenant_show { return .tenantShow(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_DISABLE:
      if let call = unsafe message.tenant_disable { return .tenantDisable(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_ENABLE:
      if let call = unsafe message.tenant_enable { return .tenantEnable(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_INSTANCE_ADD:
      if let call = unsafe message.instance_add { return unsafe instanceAdd(call.pointee) }
    case KEYRING__V1__REQUEST__CALL_INSTANCE_LIST:
      if let call = unsafe message.instance_list { return .instanceList(unsafe text(call.pointee.tenant)) }
    default: return try unsafe variablesOrRotation(message)
    }
    throw .malformed("the request has no call")
  }

  private func variablesOrRotation(_ message: Keyring__V1__Request) throws(FieldError) -> AdminCall {
    switch unsafe message.call_case {
    case KEYRING__V1__REQUEST__CALL_VARIABLES_SET:
      if let call = unsafe message.variables_set { return try unsafe variablesSet(call.pointee) }
    case KEYRING__V1__REQUEST__CALL_VARIABLES_LIST:
      if let call = unsafe message.variables_list { return .variablesList(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_ROTATE_CMK:
      if let call = unsafe message.rotate_cmk { return .rotateCMK(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_ROTATE_KEYS:
      if let call = unsafe message.rotate_keys {
        return unsafe .rotateKeys(
          text(call.pointee.tenant),
          allowTransient: call.pointee.allow_transient != 0
        )
      }
    case KEYRING__V1__REQUEST__CALL_STATUS:
      if let call = unsafe message.status { return .status(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_ACCEPT:
      if let call = unsafe message.tenant_accept {
        return unsafe .tenantAccept(text(call.pointee.tenant), sequence: call.pointee.sequence)
      }
    case KEYRING__V1__REQUEST__CALL_CMK_MANAGE:
      if let call = unsafe message.cmk_manage?.pointee {
        guard let action = unsafe CMKAction(rawValue: UInt64(call.action.rawValue)) else {
          throw .malformed("a CMK's action is missing")
        }
        return unsafe .cmk(tenant: text(call.tenant), action, cmkID: text(call.cmk_id), days: call.days)
      }
    case KEYRING__V1__REQUEST__CALL_TENANT_RELOAD:
      if let call = unsafe message.tenant_reload { return .tenantReload(unsafe text(call.pointee.tenant)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_MOVE:
      if let call = unsafe message.tenant_move?.pointee { return .tenantMove(unsafe tenantMove(call)) }
    case KEYRING__V1__REQUEST__CALL_EXPLAIN:
      if let call = unsafe message.explain?.pointee { return .explain(unsafe explain(call)) }
    case KEYRING__V1__REQUEST__CALL_TENANT_APPLY:
      if let call = unsafe message.tenant_apply?.pointee { return .tenantApply(try unsafe tenantApply(call)) }
    default: return try unsafe transfer(message)
    }
    throw .malformed("the request has no call that this server knows")
  }

  private func tenantMove(_ call: Keyring__V1__TenantMoveRequest) -> TenantMoveCall {
    let settings = unsafe settings(call.settings, call.n_settings)
    return unsafe TenantMoveCall(tenant: text(call.tenant), cmkID: text(call.cmk_id), settings: settings)
  }

  private func variablesSet(_ call: Keyring__V1__VariablesSetRequest) throws(FieldError) -> AdminCall {
    let persistence: Persistence
    switch unsafe call.persistence {
    case KEYRING__V1__PERSISTENCE__GLOBAL: persistence = .global
    case KEYRING__V1__PERSISTENCE__PERSIST: persistence = .persist
    case KEYRING__V1__PERSISTENCE__RESET_PERSIST: persistence = .reset
    default: throw .malformed("a variable's persistence is GLOBAL, PERSIST or RESET_PERSIST")
    }
    return unsafe .variablesSet(
      tenant: text(call.tenant),
      name: text(call.name),
      value: text(call.value),
      persistence
    )
  }
}
