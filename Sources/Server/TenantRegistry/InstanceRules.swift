internal import ConfigurationFiles
public import KeyringCore

/// An instance that may call, and what it may do.
public struct AllowedInstance: Sendable, Equatable {
  /// As in its certificate's URI.
  public let name: InstanceName
  /// What it may do.
  public var access: InstanceAccess

  /// Puts both together; without more it may do everything.
  public init(name: InstanceName, access: InstanceAccess = .all) {
    self.name = name
    self.access = access
  }

  static let keys = ["name", "permissions", "scopes"]

  /// Reads `db1`, or `{name: db1, permissions: [read], scopes: [own, shared]}`.
  init(_ item: StrictYAML.Item) throws(ConfigurationError) {
    switch item {
    case .word(let word): self.init(name: try TenantConfiguration.instance(word))
    case .mapping(var mapping):
      guard let name = try mapping.take("name", TenantConfiguration.instance) else {
        throw mapping.error("an instance has a 'name'")
      }
      func word(_ text: String) -> String { text }
      let permissions = try mapping.words("permissions", word)
      let scopes = try mapping.words("scopes", word)
      try mapping.finish(known: Self.keys)
      do {
        self.init(name: name, access: try InstanceAccess(permissions: permissions, scopes: scopes))
      } catch {
        throw mapping.error("\(error)")
      }
    }
  }

  /// As `persisted.json` has it: the name alone where it may do everything.
  var json: String {
    func list(_ words: [String]) -> String { "[\(words.map { "\"\($0)\"" }.joined(separator: ", "))]" }
    if access == .all { return "\"\(name)\"" }
    return
      "{\"name\": \"\(name)\", \"permissions\": \(list(access.permissions)), \"scopes\": \(list(access.scopes))}"
  }

  /// For people.
  var text: String {
    access == .all
      ? name.text : "\(name) (\((access.permissions + access.scopes).joined(separator: " ")))"
  }
}

/// Who of a tenant's instances may do what: of its file, of what was added, and of what was revoked.
public struct InstanceRules: Sendable, Equatable {
  /// What a certificate that nothing else is said of may do; nil: nothing.
  private let others: InstanceAccess?
  private let access: [InstanceName: InstanceAccess]
  /// When names were revoked, Unix seconds; and whether they were added again.
  private let revoked: [InstanceName: (at: UInt64, isBack: Bool)]
  private let tombstone: UInt64

  /// Puts together what the file lists and what was persisted. The persisted access of a name goes before the file's; a tombstone before both.
  ///
  /// - Parameter tombstone: when a tenant of the same name was deleted, Unix seconds: no certificate that begins no later may call; 0: none was.
  public init(file: AllowedInstances, persisted: PersistedState, tombstone: UInt64 = 0) {
    self.tombstone = tombstone
    var access: [InstanceName: InstanceAccess] = [:]
    switch file {
    case .any: others = .all
    case .listed(let listed):
      others = nil
      for instance in listed { access[instance.name] = instance.access }
    }
    for instance in persisted.instances { access[instance.name] = instance.access }
    self.access = access
    let added = Set(persisted.instances.map(\.name))
    var revoked: [InstanceName: (at: UInt64, isBack: Bool)] = [:]
    for (name, second) in persisted.revoked { revoked[name] = (second, added.contains(name)) }
    self.revoked = revoked
  }

  /// What a certificate may do; nil where it may not call at all.
  ///
  /// - Parameter notBefore: start of its validity, Unix seconds. Of a name that was revoked only those that begin in a later second than that
  ///   count: what was issued within the same one may have been issued before.
  public func access(of instance: InstanceName, notBefore: UInt64) -> InstanceAccess? {
    guard notBefore > tombstone || tombstone == 0 else { return nil }
    if !revoked.isEmpty, let tombstone = revoked[instance] {
      guard tombstone.isBack, notBefore > tombstone.at else { return nil }
    }
    return access.isEmpty ? others : access[instance] ?? others
  }

  /// What an instance may do whose certificate is new enough; nil where none is.
  public func access(of instance: InstanceName) -> InstanceAccess? {
    access(of: instance, notBefore: .max)
  }

  /// Field by field.
  public static func == (left: Self, right: Self) -> Bool {
    left.others == right.others && left.tombstone == right.tombstone && left.access == right.access
      && left.revoked.mapValues { [$0.at, $0.isBack ? 1 : 0] }
        == right.revoked.mapValues { [$0.at, $0.isBack ? 1 : 0] }
  }
}

extension PersistedState {
  /// Lets an instance call, or changes what it may do; what was revoked of its name stays revoked.
  public mutating func add(_ instance: AllowedInstance) {
    instances.removeAll { $0.name == instance.name }
    instances.append(instance)
  }

  /// Refuses an instance for good, and of its name every certificate that begins at `second` or before.
  public mutating func revoke(_ instance: InstanceName, at second: UInt64) {
    instances.removeAll { $0.name == instance }
    revoked[instance] = max(second, revoked[instance] ?? 0)
  }

  /// What a restore puts in the place of `present`: it enables nobody, and lets nobody in who was revoked since.
  public func replacing(_ present: PersistedState) -> PersistedState {
    var next = self
    next.isDisabled = isDisabled || present.isDisabled
    let back = Set(present.instances.map(\.name))
    for (name, second) in present.revoked {
      next.revoked[name] = max(second, next.revoked[name] ?? 0)
      if !back.contains(name) { next.instances.removeAll { $0.name == name } }
    }
    return next
  }
}
