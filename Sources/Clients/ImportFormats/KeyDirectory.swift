internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory

/// A directory of raw keys: a file's name is its key's id, its bytes are the key.
enum KeyDirectory {
  /// - Returns: the keys in order of their names, and how many files were passed over because their names begin with a dot.
  /// - Throws: `ImportError`, for anything in it that is no regular file among others.
  static func keys(
    _ path: String,
    owner: [UInt8],
    type: String
  ) throws(ImportError) -> ([FoundKey], passedOver: Int) {
    do {
      let directory = try DirectoryDescriptor(path: path, requirePrivate: false)
      let names = try directory.names()
      var keys: [FoundKey] = []
      for name in names where !name.hasPrefix(".") {
        // Names come from the disk, and a symbolic link leads anywhere: neither followed nor passed over.
        let value = try directory.readSecret(name, bytesMax: Profile.valueBytesMax, requirePrivate: false)
        keys.append(
          try FoundKeys.make(
            owner: owner,
            keyID: Array(name.utf8),
            type: Array(type.utf8),
            value: value,
            place: "\(path)/\(printable(name))"
          )
        )
      }
      return (keys, names.count - keys.count)
    } catch let error as ImportError {
      throw error
    } catch FileError.absent {
      throw .unreadable("a file of \(path) is gone, or its name is not UTF-8")
    } catch {
      throw .unreadable("\(error)")
    }
  }
}
