internal import Glibc
internal import KeyringStorage
public import SecureMemory

/// One key as another keyring held it.
public struct FoundKey: Sendable {
  /// The database user, `user@host`; empty for the server itself.
  public let owner: [UInt8]
  /// Not empty.
  public let keyID: [UInt8]
  /// As it was stored.
  public let type: String
  /// The key material, in clear.
  public let value: Secret
  /// Where it was found, for people: which element, which byte, which file.
  public let place: String

  init(owner: [UInt8], keyID: [UInt8], type: String, value: Secret, place: String) {
    self.owner = owner
    self.keyID = keyID
    self.type = type
    self.value = value
    self.place = place
  }
}

/// Why keys cannot be taken from a file. Says where, never what.
public enum ImportError: Error, Equatable, Sendable, CustomStringConvertible {
  /// It cannot be read, or not into locked memory.
  case unreadable(String)
  /// It is not whole, or not what its own checksum says.
  case damaged(String)
  /// It is something else than what can be imported.
  case unsupported(String)

  /// In words.
  public var description: String {
    switch self {
    case .unreadable(let what), .damaged(let what), .unsupported(let what): what
    }
  }
}

/// The keys of another keyring: a file of MySQL's `component_keyring_file`, one of its plugin `keyring_file`, or a directory of raw keys.
///
/// Files are read whole into locked memory, and keys are taken from there: no key material is ever elsewhere.
public struct KeyFile: Sendable {
  /// What holds the keys.
  public enum Format: String, Sendable, CaseIterable {
    case component = "component_keyring_file"
    case plugin = "keyring_file 2.0"
    case directory = "raw keys"
  }

  /// A larger file is not read: 16 MiB.
  public static let bytesMax = 16 << 20

  /// What was found.
  public let format: Format
  /// In the order of the file, of names in a directory. No two have the same owner and id.
  public let keys: [FoundKey]
  /// Files of a directory that were passed over: their names begin with a dot.
  public let passedOver: Int

  /// Reads what stands at `path`; its first byte says which format it has.
  ///
  /// - Parameters:
  ///   - owner: of the keys of a directory.
  ///   - type: of the keys of a directory.
  /// - Throws: `ImportError`.
  public init(path: String, owner: [UInt8], type: String) throws(ImportError) {
    if Self.isDirectory(path) {
      let (keys, passedOver) = try KeyDirectory.keys(path, owner: owner, type: type)
      self.init(format: .directory, keys: keys, passedOver: passedOver)
      return
    }
    let parts = path.split(separator: "/", omittingEmptySubsequences: true)
    guard let name = parts.last.map(String.init) else { throw .unreadable("'\(path)' names no file") }
    let parent = (path.hasPrefix("/") ? "/" : "") + parts.dropLast().joined(separator: "/")
    try self.init(content: Self.content(of: name, in: parent.isEmpty ? "." : parent, path))
  }

  private static func content(
    of name: String,
    in parent: String,
    _ path: String
  ) throws(ImportError) -> Secret {
    do {
      let folder = try DirectoryDescriptor(path: parent, requirePrivate: false)
      // MySQL removes it when a change is whole: which of the two is the good one, the plugin and the component decide differently.
      guard try folder.status(of: "\(name).backup") == nil else {
        throw ImportError.unsupported(
          "\(path).backup is there: MySQL was interrupted while it wrote; start it once so that it settles which file is good, "
            + "or copy the file that you trust elsewhere and import that"
        )
      }
      return try folder.readSecret(name, bytesMax: bytesMax, requirePrivate: false)
    } catch let error as ImportError {
      throw error
    } catch FileError.absent {
      throw .unreadable("\(path) is not there")
    } catch {
      throw .unreadable("\(error)")
    }
  }

  /// Takes the keys from what a file holds.
  ///
  /// - Throws: `ImportError`.
  public init(content: Secret) throws(ImportError) {
    if PluginFile.isOne(content) {
      self.init(format: .plugin, keys: try PluginFile.keys(content), passedOver: 0)
    } else {
      self.init(format: .component, keys: try ComponentFile.keys(content), passedOver: 0)
    }
    try Self.checkThatNoneIsTwice(keys)
  }

  private init(format: Format, keys: [FoundKey], passedOver: Int) {
    self.format = format
    self.keys = keys
    self.passedOver = passedOver
  }

  private static func isDirectory(_ path: String) -> Bool {
    var status = stat()
    // SAFETY: path and status live for the call.
    return unsafe lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  private static func checkThatNoneIsTwice(_ keys: [FoundKey]) throws(ImportError) {
    struct Name: Hashable {
      let owner: [UInt8]
      let keyID: [UInt8]
    }
    var seen: [Name: String] = [:]
    for key in keys {
      let name = Name(owner: key.owner, keyID: key.keyID)
      if let first = seen.updateValue(key.place, forKey: name) {
        throw .damaged("\(first) and \(key.place) are keys of the same id and owner")
      }
    }
  }
}

/// Checks that all three formats share.
enum FoundKeys {
  /// Puts a key together.
  ///
  /// - Throws: `ImportError.damaged` for what is no name, no type, or no key.
  static func make(
    owner: [UInt8],
    keyID: [UInt8],
    type: [UInt8],
    value: Secret,
    place: String
  ) throws(ImportError) -> FoundKey {
    guard !keyID.isEmpty else { throw .damaged("\(place) has no key id") }
    guard value.count > 0 else { throw .damaged("\(place) has no key material") }
    // A NUL ends a string for whoever reads it in C.
    guard let text = String(validating: type, as: UTF8.self), !type.isEmpty, !type.contains(0) else {
      throw .damaged("\(place) has no key type")
    }
    return FoundKey(owner: owner, keyID: keyID, type: text, value: value, place: place)
  }
}
