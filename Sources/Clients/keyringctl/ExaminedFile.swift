import KeyringCore
import KeyringStorage

/// A storage file or a backup, read on the operator's machine; every digest in it is right.
struct ExaminedFile {
  let path: String
  /// Bytes of the storage file, torn tail included.
  let storageBytes: Int
  let content: StorageFileContent
  /// Nil for a storage file.
  let backup: Backup?

  /// - Throws: `Failure`, saying where it is damaged.
  init(_ path: String) throws {
    self.path = path
    let file = try LocalFile(path)
    do {
      let first = try file.read(at: 0, count: min(file.size, Backup.magic.count))
      if first == Backup.magic {
        let backup = try Backup(file)
        self.backup = backup
        content = backup.content
        storageBytes = content.validBytes
      } else if OfflineCheck.isStorageFile(first) {
        let bytes = try file.bytes()
        content = try StorageFileReader.read(bytes, tenant: try OfflineCheck.tenant(ofStorageFile: bytes))
        storageBytes = bytes.count
        backup = nil
      } else {
        throw Failure("\(path) is neither a storage file nor a backup")
      }
    } catch let error as Failure {
      throw error
    } catch BackupError.unavailable(let what), StoreError.unavailable(let what) {
      throw Failure("\(path) cannot be checked: \(what)")
    } catch {
      throw Failure("\(path) is not whole: \(error)")
    }
  }

  var kind: String { backup == nil ? "storage file" : "backup" }
}
