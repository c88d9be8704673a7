internal import COpenSSL
public import SecureMemory

/// Random bytes of libcrypto's generators, seeded by the kernel.
public enum SystemRandom {
  /// `count` secret bytes, in locked memory (RAND_priv_bytes(3)).
  public static func secret(count: Int) throws(CryptographyError) -> Secret {
    ERR_clear_error()
    var ok: Int32 = 0
    do {
      // SAFETY: the buffer has `count` bytes.
      let secret = try unsafe Secret(count: count) { room in
        ok = unsafe RAND_priv_bytes(room.bindMemory(to: UInt8.self).baseAddress, Int32(room.count))
      }
      guard ok == 1 || count == 0 else { throw CryptographyError.drained("random bytes") }
      return secret
    } catch let error as SecureMemoryError {
      throw .memory(error)
    } catch let error as CryptographyError {
      throw error
    } catch {
      throw .library("random bytes")
    }
  }

  /// `count` public bytes, for nonces, salts and identifiers (RAND_bytes(3)).
  public static func bytes(count: Int) throws(CryptographyError) -> [UInt8] {
    ERR_clear_error()
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the array has `count` bytes.
    guard unsafe RAND_bytes(&bytes, Int32(count)) == 1 else { throw .drained("random bytes") }
    return bytes
  }

  /// A public random number of 128 bits, for identifiers.
  public static func uint128() throws(CryptographyError) -> UInt128 {
    try bytes(count: 16).reduce(0) { $0 << 8 | UInt128($1) }
  }
}
