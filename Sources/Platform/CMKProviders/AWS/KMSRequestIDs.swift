internal import Synchronization

/// Collects the ids by which AWS KMS knows the requests that a call of this server led to.
public final class KMSRequestIDs: Sendable {
  /// That of the present task; what a task of its own does for several callers is collected for the first of them.
  @TaskLocal public static var current: KMSRequestIDs?

  /// The ids that are kept, at most: a rotation of many keys makes more requests.
  static let most = 16

  private let ids = Mutex<[String]>([])

  /// Makes an empty one.
  public init() {}

  /// The ids so far, oldest first.
  public var all: [String] { ids.withLock { $0 } }

  func add(_ id: String?) {
    guard let id, !id.isEmpty else { return }
    ids.withLock { ids in
      if ids.count < Self.most { ids.append(id) }
    }
  }
}

extension KMSRequestIDs? {
  /// Runs `body`, which another task may have begun, with this as its collector.
  public func collecting<Value>(_ body: () async -> Value) async -> Value {
    await KMSRequestIDs.$current.withValue(self, operation: body)
  }
}
