internal import Cryptography
public import KeyringCore
public import KeyringStorage
internal import SecureMemory

/// The passphrase under which CMKs of the local provider lie in backups: the service's own, never one that a caller brings.
public struct BackupPassphrase: Sendable {
  private let passphrase: Secret

  /// Reads a file, mode 0600, whose one line it is: at least 12 bytes.
  ///
  /// - Throws: `CMKError.configuration`.
  public init(file: String) throws(CMKError) {
    do {
      passphrase = try RootKey.passphrase(file)
    } catch let error as CMKError {
      throw error
    } catch {
      throw .configuration("the backup passphrase cannot be used: \(error)")
    }
  }

  /// How a new backup stretches it: scrypt with a salt of its own.
  ///
  /// - Throws: `CMKError.unreachable` without random bytes.
  public static func newStretching() throws(CMKError) -> BackupManifest.Stretching {
    do {
      return BackupManifest.Stretching(salt: try SystemRandom.bytes(count: 16), cost: Scrypt.defaultN)
    } catch {
      throw .unreachable("no random bytes: \(error)")
    }
  }

  /// The root key of the CMKs in one backup. Takes 128 MiB and about half a second: not for an event loop.
  ///
  /// - Throws: `CMKError.configuration` for another cost than this version's: a file must not choose how much memory is taken.
  public func rootKey(_ stretching: BackupManifest.Stretching) throws(CMKError) -> RootKey {
    guard stretching.cost == Scrypt.defaultN else {
      throw .configuration("the backup stretches its passphrase in a way that this program does not know")
    }
    do {
      let secret = try Scrypt.derive(from: passphrase, salt: stretching.salt, n: stretching.cost, count: 32)
      return RootKey(secret: secret)
    } catch {
      throw .unreachable("the backup passphrase cannot be stretched: \(error)")
    }
  }
}
