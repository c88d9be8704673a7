internal import KeyringCore
internal import Logging
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

// What an instance may do is decided here, for every call: `Call.needs` says what a call needs, `Tenant.access` what a certificate has.

extension RequestedScope {
  var access: InstanceAccess {
    switch self {
    case .instance: .own
    case .shared: .shared
    }
  }
}

extension Change {
  /// The permission and the scope that it needs.
  fileprivate var needs: InstanceAccess {
    switch self {
    case .store(let name, _, _), .generate(let name, _, _), .remove(let name), .rotate(let name):
      [.write, name.scope.access]
    }
  }
}

extension Call {
  /// The permissions and scopes that an instance needs for it, all of them; nil where it is not about an instance's keys.
  var needs: InstanceAccess? {
    switch self {
    case .fetch(let name, _), .describe(let name, _): [.read, name.scope.access]
    case .list(let call): [.read, call.scope.access]
    case .change(let change): change.needs
    case .transact(let changes): changes.reduce(.write) { $0.union($1.needs) }
    case .importKeys(let keys): keys.reduce(.write) { $0.union($1.name.scope.access) }
    case .whoAmI, .admin: nil
    }
  }
}

extension Tenant {
  /// What the caller's certificate may do with the tenant's keys; nil where it may not call.
  static func access(of caller: Caller, _ state: borrowing State) -> InstanceAccess? {
    guard let instance = caller.instance else { return nil }
    return state.rules.access(of: instance, notBefore: caller.notBefore)
  }

  /// As the static one, at this moment.
  func access(of caller: Caller) -> InstanceAccess? { state.withLock { Self.access(of: caller, $0) } }

  /// Lets a call go on, if the instance may make it.
  ///
  /// - Throws: `forbidden` where the certificate may not call, as for a tenant that there is not; `notPermitted` where it may not do this.
  func admit(_ caller: Caller, _ needs: InstanceAccess) throws(ServiceError) {
    guard let access = access(of: caller) else { throw .forbidden }
    let missing = needs.subtracting(access)
    guard missing.isEmpty else {
      let what =
        missing.permissions.first.map { "not \($0)" } ?? "not use its \(missing.scopes.joined()) scope"
      throw .notPermitted("this instance may \(what): an administrator allows more by `instance add`")
    }
  }

  /// For the log, once a connection: why a certificate of a name that may call again may not.
  func noteRefusal(of caller: Caller) {
    guard let instance = caller.instance, access(of: caller) == nil else { return }
    let tombstone = state.withLock { state in
      state.rules.access(of: instance) == nil ? nil : state.persisted.revoked[instance]
    }
    guard let tombstone else { return }
    logger.notice(
      "the instance \(instance) was revoked and added again: its certificate, which begins at \(caller.notBefore), is refused; only one that begins after \(tombstone) (Unix seconds) is taken: issue a new one",
      metadata: ["certificate": "\(caller.fingerprint)"]
    )
  }
}
