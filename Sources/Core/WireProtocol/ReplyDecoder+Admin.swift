internal import CMessages
internal import CProtobufC

extension ReplyDecoder {
  // SAFETY (all of this file): a member of the union is read only where `result_case` says that it is set; it lives in the arena, and
  // repeated fields have as many elements as their counts say.
  func adminResult(_ message: Keyring__V1__Reply) throws(FieldError) -> ReplyResult {
    switch unsafe message.result_case {
    case KEYRING__V1__REPLY__RESULT_TENANT_CREATE:
      if let reply = unsafe message.tenant_create {
        return unsafe .tenantCreate(
          cmkID: text(reply.pointee.cmk_id),
          isUnchanged: reply.pointee.unchanged != 0
        )
      }
    case KEYRING__V1__REPLY__RESULT_TENANT_LIST:
      if let reply = unsafe message.tenant_list?.pointee {
        let tenants = unsafe (0..<reply.n_tenants).map { unsafe summary(reply.tenants[$0]) }
        return unsafe .tenantList(tenants, more: reply.more != 0)
      }
    case KEYRING__V1__REPLY__RESULT_TENANT_SHOW:
      if let reply = unsafe message.tenant_show?.pointee { return .tenantShow(unsafe details(reply)) }
    case KEYRING__V1__REPLY__RESULT_TENANT_DISABLE: return .tenantDisable
    case KEYRING__V1__REPLY__RESULT_TENANT_ENABLE: return .tenantEnable
    case KEYRING__V1__REPLY__RESULT_INSTANCE_ADD:
      if let reply = unsafe message.instance_add?.pointee {
        return .instanceAdd(unsafe instance(reply.instance))
      }
    case KEYRING__V1__REPLY__RESULT_INSTANCE_LIST:
      if let reply = unsafe message.instance_list?.pointee {
        let instances = unsafe (0..<reply.n_instances).map { unsafe instance(reply.instances[$0]) }
        return unsafe .instanceList(instances, anyInstance: reply.any_instance != 0)
      }
    case KEYRING__V1__REPLY__RESULT_VARIABLES_SET:
      if let reply = unsafe message.variables_set?.pointee {
        return unsafe .variablesSet(oldValue: text(reply.old_value), newValue: text(reply.new_value))
      }
    default: return try unsafe rotationOrStatus(message)
    }
    throw .malformed("the reply has no result")
  }

  private func rotationOrStatus(_ message: Keyring__V1__Reply) throws(FieldError) -> ReplyResult {
    switch unsafe message.result_case {
    case KEYRING__V1__REPLY__RESULT_VARIABLES_LIST:
      if let reply = unsafe message.variables_list?.pointee {
        return .variablesList(unsafe (0..<reply.n_variables).map { unsafe variable(reply.variables[$0]) })
      }
    case KEYRING__V1__REPLY__RESULT_ROTATE_CMK:
      if let reply = unsafe message.rotate_cmk?.pointee {
        return unsafe .rotateCMK(cmkID: text(reply.cmk_id), version: reply.cmk_version)
      }
    case KEYRING__V1__REPLY__RESULT_ROTATE_KEYS:
      if let reply = unsafe message.rotate_keys?.pointee {
        return unsafe .rotateKeys(
          KeyRotationReport(
            cmkID: text(reply.cmk_id),
            wrappingKeyID: text(reply.wrapping_key_id),
            records: reply.records,
            recordsElsewhere: reply.records_elsewhere,
            formerCMKIDs: (0..<reply.n_former_cmk_ids).map { unsafe text(reply.former_cmk_ids[$0]) }
          )
        )
      }
    case KEYRING__V1__REPLY__RESULT_STATUS_REPORT:
      if let reply = unsafe message.status_report?.pointee {
        if let service = unsafe reply.service?.pointee { return .service(unsafe self.service(service)) }
        if let tenant = unsafe reply.tenant?.pointee { return .tenant(unsafe self.tenant(tenant)) }
      }
    case KEYRING__V1__REPLY__RESULT_TENANT_ACCEPT:
      if let reply = unsafe message.tenant_accept {
        return .tenantAccept(sequence: unsafe reply.pointee.sequence)
      }
    case KEYRING__V1__REPLY__RESULT_CMK_MANAGE:
      if let reply = unsafe message.cmk_manage?.pointee {
        return unsafe .cmk(id: text(reply.cmk_id), state: text(reply.state), version: reply.version)
      }
    case KEYRING__V1__REPLY__RESULT_TENANT_RELOAD:
      if let reply = unsafe message.tenant_reload {
        return .tenantReload(credentials: unsafe text(reply.pointee.credentials))
      }
    case KEYRING__V1__REPLY__RESULT_TENANT_MOVE:
      if let reply = unsafe message.tenant_move {
        return .tenantMove(cmkID: unsafe text(reply.pointee.cmk_id))
      }
    case KEYRING__V1__REPLY__RESULT_EXPLAIN:
      if let reply = unsafe message.explain?.pointee { return .explain(unsafe explanation(reply)) }
    case KEYRING__V1__REPLY__RESULT_TENANT_APPLY:
      if let reply = unsafe message.tenant_apply?.pointee { return .tenantApply(unsafe results(reply)) }
    default: return try unsafe transferResult(message)
    }
    throw .malformed("the reply has no result that this client knows")
  }

  private func state(_ value: Keyring__V1__TenantState) -> TenantState {
    TenantState(rawValue: UInt64(value.rawValue)) ?? .cold
  }

  func summary(_ pointer: UnsafeMutablePointer<Keyring__V1__TenantSummary>?) -> TenantSummary {
    guard let item = unsafe pointer?.pointee else {
      return TenantSummary(tenant: "", state: .cold, provider: "", cmkID: "")
    }
    return unsafe TenantSummary(
      tenant: text(item.tenant),
      state: state(item.state),
      provider: text(item.provider),
      cmkID: text(item.cmk_id)
    )
  }

  private func variable(_ pointer: UnsafeMutablePointer<Keyring__V1__Variable>?) -> VariableEntry {
    guard let item = unsafe pointer?.pointee else {
      return VariableEntry(name: "", value: "", source: "", isDynamic: false, meaning: "")
    }
    return unsafe VariableEntry(
      name: text(item.name),
      value: text(item.value),
      source: text(item.source),
      isDynamic: item.dynamic != 0,
      meaning: text(item.meaning)
    )
  }

  private func details(_ reply: Keyring__V1__TenantShowReply) -> TenantDetails {
    unsafe TenantDetails(
      summary: summary(reply.summary),
      profile: text(reply.profile),
      instances: (0..<reply.n_instances).map { unsafe instance(reply.instances[$0]) },
      anyInstance: reply.any_instance != 0,
      variables: (0..<reply.n_variables).map { unsafe variable(reply.variables[$0]) }
    )
  }

  private func service(_ item: Keyring__V1__ServiceStatus) -> ServiceStatus {
    var status = ServiceStatus()
    unsafe status.version = text(item.version)
    unsafe status.startedMilliseconds = item.started_ms
    unsafe status.connections = item.connections
    unsafe status.connectionsUnauthenticated = item.connections_unauthenticated
    unsafe status.tenants = item.tenants
    for index in 0..<(unsafe item.n_states) {
      guard let entry = unsafe item.states[index]?.pointee else { continue }
      unsafe status.states.append((state(entry.state), entry.tenants))
    }
    unsafe status.isMemoryLocked = item.memory_locked != 0
    unsafe status.secureBytesUsed = item.secure_bytes_used
    unsafe status.calls = item.calls
    unsafe status.callsFailed = item.calls_failed
    unsafe status.files = loaded(item.n_files, item.files)
    unsafe status.auditWritten = item.audit_written
    unsafe status.auditDropped = item.audit_dropped
    unsafe status.auditFailure = text(item.audit_failure)
    unsafe status.syslogDropped = item.syslog_dropped
    return status
  }

  private func tenant(_ item: Keyring__V1__TenantStatus) -> TenantStatus {
    var status = unsafe TenantStatus(summary: summary(item.summary))
    unsafe status.reason = text(item.reason)
    unsafe status.sequence = item.sequence
    unsafe status.keys = item.keys
    unsafe status.records = item.records
    unsafe status.storageBytes = item.storage_bytes
    unsafe status.digest = text(item.digest)
    for index in 0..<(unsafe item.n_wrapping_keys) {
      guard let key = unsafe item.wrapping_keys[index]?.pointee else { continue }
      status.wrappingKeys.append(unsafe wrappingKeyStatus(key))
    }
    unsafe status.connections = item.connections
    unsafe status.batchesUnverified = item.batches_unverified
    unsafe status.rotationDone = item.rotation_done
    unsafe status.rotationTotal = item.rotation_total
    unsafe status.keyringID = text(item.keyring_id)
    unsafe status.audit = text(item.audit)
    unsafe status.auditWritten = item.audit_written
    unsafe status.auditDropped = item.audit_dropped
    unsafe status.auditFailure = text(item.audit_failure)
    if let credentials = unsafe item.credentials?.pointee {
      status.credentials = unsafe self.credentials(credentials)
    }
    for index in 0..<(unsafe item.n_limits_hit) {
      guard let hit = unsafe item.limits_hit[index]?.pointee else { continue }
      status.limitsHit.append(unsafe LimitHit(limit: text(hit.limit), count: hit.count))
    }
    return status
  }

  func credentials(_ item: Keyring__V1__CredentialsStatus) -> CredentialsStatus {
    var status = CredentialsStatus()
    unsafe status.source = text(item.source)
    unsafe status.accessKeyID = text(item.access_key_id)
    unsafe status.loadedMilliseconds = item.loaded_ms
    unsafe status.expiresMilliseconds = item.expires_ms
    unsafe status.lastFailure = text(item.last_failure)
    return status
  }

  func wrappingKeyStatus(_ item: Keyring__V1__WrappingKeyStatus) -> WrappingKeyStatus {
    var status = WrappingKeyStatus()
    unsafe status.id = text(item.id)
    unsafe status.cmkID = text(item.cmk_id)
    unsafe status.state = text(item.state)
    unsafe status.encryptions = item.encryptions
    unsafe status.records = item.records
    unsafe status.isCurrent = item.current != 0
    unsafe status.createdMilliseconds = item.created_ms
    return status
  }
}
