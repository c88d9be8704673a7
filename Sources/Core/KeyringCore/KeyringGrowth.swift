internal import HashTreeCollections

/// What a keyring may hold.
public struct KeyringLimits: Sendable, Equatable {
  /// Keys, the server's own not counted.
  public let keys: Int
  /// `KeyringState.usefulBytes` of them.
  public let bytes: Int

  /// - Parameters:
  ///   - keys: `Int.max` for no limit.
  ///   - bytes: `Int.max` for no limit.
  public init(keys: Int, bytes: Int) {
    self.keys = keys
    self.bytes = bytes
  }

  /// Which limit a commit passes.
  public enum Excess: Sendable, Equatable {
    case keys, bytes
  }
}

extension KeyringState {
  /// The limit that a commit would pass if it were applied; nil where it passes none. What adds no key passes none of keys, and what adds no
  /// bytes none of bytes: removing is always possible, and so is what the server does on its own.
  public func excess(of commit: Commit, over limits: KeyringLimits) -> KeyringLimits.Excess? {
    let growth = growth(of: commit)
    if growth.keys > 0, growth.keys > limits.keys - keyCount { return .keys }
    let bytes = Int(clamping: usefulBytes)
    if growth.bytes > 0, growth.bytes > limits.bytes - bytes { return .bytes }
    return nil
  }

  /// Keys, and bytes of theirs, that a commit adds; negative where it takes away more. Of a commit that cannot be applied it says nothing useful.
  private func growth(of commit: Commit) -> (keys: Int, bytes: Int) {
    var growth = (keys: 0, bytes: 0)
    // What the keys that it changed take by then: a remove takes away what the commit itself put, too.
    var changed: [KeyIdentity: Int] = [:]
    for operation in commit.operations {
      switch operation {
      case .put(.requestHashKey, _, _), .addWrappingKey, .replaced: break
      case .put(let identity, let type, let record):
        let bytes = Int(Compaction.usefulBytes(of: record, identity, type))
        growth.bytes += bytes
        if record.version == 1 { growth.keys += 1 }
        if commit.operations.count > 1 { changed[identity, default: self.bytes(of: identity)] += bytes }
      case .remove(let identity):
        growth.keys -= 1
        growth.bytes -= changed[identity] ?? bytes(of: identity)
        changed[identity] = 0
      }
    }
    return growth
  }

  private func bytes(of identity: KeyIdentity) -> Int {
    guard let key = keys[identity] else { return 0 }
    return key.records.reduce(0) { $0 + Int(Compaction.usefulBytes(of: $1, identity, key.type)) }
  }
}
