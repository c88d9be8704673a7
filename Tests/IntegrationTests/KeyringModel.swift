import KeyringCore
import KeyringTestSupport
import SecureMemory
import WireProtocol

/// What a keyring is, said in a few lines: a dictionary of the versions of each key. It is what the server's answers are compared with.
struct KeyringModel: Equatable {
  /// A key as its tenant knows it; nil where the instances share it.
  struct Name: Hashable, Comparable {
    let instance: String?
    let owner: String
    let id: String

    var wire: KeyName {
      KeyName(
        scope: instance == nil ? .shared : .instance,
        owner: Array(owner.utf8),
        keyID: Array(id.utf8)
      )
    }

    /// By owner, then by id, as bytes.
    static func < (left: Self, right: Self) -> Bool {
      if left.owner != right.owner { return left.owner.utf8.lexicographicallyPrecedes(right.owner.utf8) }
      return left.id.utf8.lexicographicallyPrecedes(right.id.utf8)
    }
  }

  /// One change of one key.
  enum Change: Hashable {
    case store(Name, String)
    case generate(Name, Int)
    case remove(Name)
    case rotate(Name)

    var wire: WireProtocol.Change {
      get throws {
        switch self {
        case .store(let name, let text):
          guard case .change(let change) = try Call.store(name.wire, text) else { throw UnexpectedReply() }
          return change
        case .generate(let name, let length):
          return .generate(name.wire, type: "SECRET", length: UInt32(length))
        case .remove(let name): return .remove(name.wire)
        case .rotate(let name): return .rotate(name.wire)
        }
      }
    }
  }

  /// Version `n` is at `n - 1`: hexadecimal digits; nil until somebody has read what the server generated.
  private(set) var keys: [Name: [String?]] = [:]

  /// Makes changes, all or none.
  ///
  /// - Returns: a version for each, 0 for a removal.
  mutating func apply(_ changes: [Change]) -> Result<[UInt32], Refusal> {
    var next = keys
    var versions: [UInt32] = []
    for change in changes {
      switch change {
      case .store(let name, let text):
        guard next[name] == nil else { return .failure(.keyExists) }
        next[name] = [hexadecimal(text.utf8)]
        versions.append(1)
      case .generate(let name, _):
        guard next[name] == nil else { return .failure(.keyExists) }
        next[name] = [nil]
        versions.append(1)
      case .remove(let name):
        guard next.removeValue(forKey: name) != nil else { return .failure(.keyAbsent) }
        versions.append(0)
      case .rotate(let name):
        guard let values = next[name] else { return .failure(.keyAbsent) }
        next[name] = values + [nil]
        versions.append(UInt32(values.count + 1))
      }
    }
    keys = next
    return .success(versions)
  }

  /// Why a change is not made.
  enum Refusal: Error {
    case keyExists, keyAbsent

    init?(_ reason: Reason) {
      switch reason {
      case .keyExists: self = .keyExists
      case .keyAbsent: self = .keyAbsent
      default: return nil
      }
    }
  }

  /// Compares what was read with what there is, and remembers what was generated.
  ///
  /// - Returns: false where it is something else.
  mutating func agrees(_ name: Name, version: UInt32, _ read: FetchedKey?) -> Bool {
    let values = keys[name]
    let number = version == 0 ? UInt32(values?.count ?? 0) : version
    guard let values, number >= 1, number <= values.count else { return read == nil }
    guard let read, read.version == number, read.latestVersion == values.count else { return false }
    let value = unsafe read.value.withUnsafeBytes { unsafe hexadecimal($0) }
    if let known = values[Int(number) - 1] { return known == value }
    keys[name]?[Int(number) - 1] = value
    return true
  }

  /// The keys that a listing of an instance shows, in its order.
  func listed(_ instance: String?) -> [Name] { keys.keys.filter { $0.instance == instance }.sorted() }
}
