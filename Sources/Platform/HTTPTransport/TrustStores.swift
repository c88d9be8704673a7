internal import CCurl
internal import COpenSSL
internal import Glibc

/// The CA certificates, parsed once for all connections of all pools; libcurl would parse them, 140 of the system's, for each.
///
/// On the loop's thread.
@safe
final class TrustStores {
  /// What tells one state of a file from the next.
  private struct Stamp: Equatable {
    let inode: UInt
    let bytes: Int
    let seconds: Int
    let nanoseconds: Int
  }

  @safe
  private struct Store {
    let stamp: Stamp
    let pointer: OpaquePointer
    /// When the file was looked at, which is what may block here.
    var seen: MonotonicTime
  }

  private static let freshMilliseconds = 1_000
  private let now: Clock
  private var stores: [String: Store] = [:]

  init(now: @escaping Clock) { self.now = now }

  deinit {
    for store in stores.values { unsafe X509_STORE_free(store.pointer) }
  }

  /// The system's bundle, at the path that libcurl was built with.
  private static let systemFile: String = {
    // SAFETY: a constant of libcurl's.
    unsafe keyring_curl_system_ca_file().map { unsafe String(cString: $0) }
      ?? "/etc/ssl/certs/ca-certificates.crt"
  }()

  /// The certificates of a file (nil: the system's), read again when the file was changed, within a second; valid until the next call. While it
  /// cannot be read, as in the middle of being written, those that were read last stay.
  ///
  /// - Throws: `HTTPError.configuration` where there is no such file, or no certificate in it, and there never was.
  func store(_ file: String?) throws(HTTPError) -> OpaquePointer {
    let path = file ?? Self.systemFile
    let now = now()
    if let store = stores[path], now < store.seen.adding(milliseconds: Self.freshMilliseconds) {
      return unsafe store.pointer
    }
    do throws(HTTPError) {
      try read(path)
    } catch {
      guard stores[path] != nil else { throw error }
    }
    stores[path]?.seen = now
    guard let store = stores[path] else { throw .configuration("the CA file \(path) cannot be read") }
    return unsafe store.pointer
  }

  private func read(_ path: String) throws(HTTPError) {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else {
      throw .configuration("the CA file \(path) cannot be read")
    }
    let stamp = Stamp(
      inode: UInt(status.st_ino),
      bytes: Int(status.st_size),
      seconds: status.st_mtim.tv_sec,
      nanoseconds: status.st_mtim.tv_nsec
    )
    if let store = stores[path], store.stamp == stamp { return }
    // SAFETY: the store belongs to this object, or is freed here; each connection takes a reference of its own.
    guard let pointer = unsafe X509_STORE_new() else { throw .local("out of memory") }
    ERR_clear_error()
    guard unsafe X509_STORE_load_file(pointer, path) == 1 else {
      unsafe X509_STORE_free(pointer)
      ERR_clear_error()
      throw .configuration("the CA file \(path) has no certificates in PEM, or cannot be read")
    }
    if let old = stores.updateValue(unsafe Store(stamp: stamp, pointer: pointer, seen: now()), forKey: path) {
      unsafe X509_STORE_free(old.pointer)
    }
  }
}
