internal import AuditLog
internal import KeyringCore
internal import TLSTransport
internal import TenantRegistry
internal import WireProtocol

/// Who is calling: what the certificate of the connection says.
struct Caller: Sendable {
  let identity: PeerIdentity
  let uri: String
  /// Start of the certificate's validity, Unix seconds.
  let notBefore: UInt64
  /// End of the certificate's validity, Unix seconds.
  let notAfter: UInt64
  /// SHA-256 of the certificate, 64 hexadecimal digits.
  let fingerprint: String
  /// Where the connection comes from, as IP address and port; empty where that is not known.
  let address: String
  /// The same, for entries of the audit log.
  let audit: AuditCaller
  /// Where the caller's listings are kept.
  let listings: Listings
  /// Names the connection.
  let connection: UInt64

  /// The tenant that the certificate belongs to; nil for a service administrator.
  var tenant: TenantName? {
    switch identity {
    case .serviceAdmin: nil
    case .tenantAdmin(let tenant), .instance(let tenant, _): tenant
    }
  }

  /// The instance that the certificate belongs to; nil for an administrator.
  var instance: InstanceName? {
    switch identity {
    case .serviceAdmin, .tenantAdmin: nil
    case .instance(_, let instance): instance
    }
  }
}

/// The one table of who may do what; tenants are compared where a call names one.
enum Authorization {
  /// - Returns: the tenant that an administrator's call is about; nil where it is about the service.
  /// - Throws: `forbidden`, for an unknown tenant and for one that is not the caller's alike.
  static func admit(_ call: AdminCall, _ caller: Caller) throws(ServiceError) -> TenantName? {
    guard case .instance = caller.identity else { return try admitAdministrator(call, caller) }
    throw .forbidden
  }

  private static func admitAdministrator(_ call: AdminCall, _ caller: Caller) throws(ServiceError)
    -> TenantName?
  {
    let (name, isForServiceAdminOnly) = subject(of: call)
    if isForServiceAdminOnly, caller.identity != .serviceAdmin { throw .forbidden }
    // Names of keys are the tenant's own affair.
    if case .explain(let call) = call, call.key != nil, caller.identity == .serviceAdmin { throw .forbidden }
    guard let name else { return nil }
    do {
      let tenant = try TenantName(name)
      if let own = caller.tenant, own != tenant { throw ServiceError.forbidden }
      return tenant
    } catch let error as KeyringError {
      if caller.tenant != nil { throw .forbidden }
      throw .keyring(error)
    } catch {
      throw .forbidden
    }
  }

  private static func subject(of call: AdminCall) -> (tenant: String?, isForServiceAdminOnly: Bool) {
    switch call {
    case .tenantCreate(let call): (call.tenant, true)
    case .tenantList, .tenantApply: (nil, true)
    case .tenantDisable(let name), .tenantEnable(let name), .tenantAccept(let name, _): (name, true)
    case .instanceAdd(let name, _, _, _), .instanceRevoke(let name, _): (name, true)
    case .tenantLock(let name), .tenantUnlock(let name), .tenantUndelete(let name), .tenantReceipt(let name):
      (name, true)
    case .tenantDelete(let call): (call.tenant, true)
    // A limit is there for everybody else.
    case .variablesSet(let name, let variable, _, _):
      (name, VariableName(rawValue: variable)?.limit != nil)
    case .serviceReload: (nil, true)
    case .status(let name): name.isEmpty ? (nil, true) : (name, false)
    case .tenantShow(let name), .instanceList(let name), .variablesList(let name),
      .rotateCMK(let name), .rotateKeys(let name, _), .cmk(let name, _, _, _), .backup(let name, _):
      (name, false)
    case .restore(let name, _): (name, true)
    case .tenantReload(let name): (name, false)
    case .tenantMove(let call): (call.tenant, true)
    case .explain(let call): (call.tenant, false)
    }
  }
}
