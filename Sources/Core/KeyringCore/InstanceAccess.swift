/// What an instance may do with its tenant's keys: `read`, `write`, and in which scopes. An operation is allowed where both its kind and its
/// scope are.
public struct InstanceAccess: OptionSet, Sendable, Hashable {
  /// The set, as bits.
  public let rawValue: UInt8

  /// Of bits.
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Fetch, describe, list.
  public static let read = InstanceAccess(rawValue: 1)
  /// Store, generate, remove, rotate, transact.
  public static let write = InstanceAccess(rawValue: 2)
  /// Keys of the instance's own scope.
  public static let own = InstanceAccess(rawValue: 4)
  /// Keys that the tenant's instances share.
  public static let shared = InstanceAccess(rawValue: 8)
  /// Everything: what an instance has of which nothing else is said.
  public static let all: InstanceAccess = [.read, .write, .own, .shared]

  /// `read`, `write`, in this order.
  public var permissions: [String] { names(Self.permissionNames) }
  /// `own`, `shared`, in this order.
  public var scopes: [String] { names(Self.scopeNames) }

  /// The permissions, by name.
  public static let permissionNames: [(name: String, access: InstanceAccess)] = [
    ("read", .read), ("write", .write),
  ]
  /// The scopes, by name.
  public static let scopeNames: [(name: String, access: InstanceAccess)] = [
    ("own", .own), ("shared", .shared),
  ]

  private func names(_ known: [(name: String, access: InstanceAccess)]) -> [String] {
    known.filter { contains($0.access) }.map(\.name)
  }

  /// Reads both lists of names.
  ///
  /// - Parameters:
  ///   - permissions: at least one of `permissionNames`; nil for what `base` has.
  ///   - scopes: at least one of `scopeNames`; nil for what `base` has.
  /// - Throws: `KeyringError.nameInvalid`, for an unknown name and for none.
  public init(
    permissions: [String]?,
    scopes: [String]?,
    base: InstanceAccess = .all
  ) throws(KeyringError) {
    func read(
      _ words: [String]?,
      _ known: [(name: String, access: InstanceAccess)],
      _ what: String
    ) throws(KeyringError) -> InstanceAccess {
      guard let words else { return base.intersection(InstanceAccess(known.map(\.access))) }
      var access: InstanceAccess = []
      for word in words {
        guard let entry = known.first(where: { $0.name == word }) else {
          throw .nameInvalid("\(what) are \(known.map(\.name).joined(separator: " and "))")
        }
        access.insert(entry.access)
      }
      guard !access.isEmpty else {
        throw .nameInvalid("\(what) has none: an instance that may do nothing is revoked")
      }
      return access
    }
    self = try read(permissions, Self.permissionNames, "permissions")
      .union(read(scopes, Self.scopeNames, "scopes"))
  }
}
