internal import CMessages
internal import CProtobufC
internal import SecureMemory

extension RequestDecoder {
  // SAFETY (all of this file): the messages live in the arena, and repeated fields have as many elements as their counts say.
  func tenantCreate(_ call: Keyring__V1__TenantCreateRequest) throws(FieldError) -> TenantCreateCall {
    var credentials: Secret?
    let bytes = unsafe call.credentials.len
    if bytes > 0 {
      guard bytes <= TenantCreateCall.credentialsBytesMax else {
        throw .malformed("credentials have at most \(TenantCreateCall.credentialsBytesMax) bytes")
      }
      do {
        credentials = try unsafe secret(call.credentials)
      } catch {
        throw .memory
      }
    }
    return unsafe TenantCreateCall(
      tenant: text(call.tenant),
      provider: text(call.provider),
      cmkID: text(call.cmk_id),
      profile: text(call.profile),
      instances: (0..<call.n_instances).map { unsafe text(call.instances[$0]) },
      anyInstance: call.any_instance != 0,
      settings: settings(call.settings, call.n_settings),
      credentials: credentials,
      isDryRun: call.dry_run != 0
    )
  }

  func tenantApply(_ call: Keyring__V1__TenantApplyRequest) throws(FieldError) -> [TenantCreateCall] {
    guard unsafe (1...TenantApplyCall.tenantsMax).contains(call.n_tenants) else {
      throw .malformed("1 to \(TenantApplyCall.tenantsMax) tenants are applied at once")
    }
    // Before the first of them is copied: locked memory is everybody's.
    let locked = (0..<(unsafe call.n_tenants)).reduce(0) { sum, index in
      let bytes = unsafe call.tenants[index]?.pointee.credentials.len ?? 0
      return bytes > 0 ? sum + ImportLimits.lockedBytes(bytes) : sum
    }
    guard locked <= TenantApplyCall.lockedBytesMax else {
      throw .malformed(
        "the credentials of one call take up to \(TenantApplyCall.lockedBytesMax) bytes of locked memory, each the next power of two, and these take \(locked)"
      )
    }
    var calls: [TenantCreateCall] = []
    for index in 0..<(unsafe call.n_tenants) {
      guard let item = unsafe call.tenants[index]?.pointee else { throw .malformed("a tenant is empty") }
      calls.append(try unsafe tenantCreate(item))
    }
    return calls
  }

  func settings(
    _ items: UnsafeMutablePointer<UnsafeMutablePointer<Keyring__V1__Setting>?>?,
    _ count: Int
  ) -> [TenantMoveCall.Setting] {
    (0..<count).compactMap { index in
      guard let setting = unsafe items?[index]?.pointee else { return nil }
      return unsafe TenantMoveCall.Setting(name: text(setting.name), value: text(setting.value))
    }
  }
}
