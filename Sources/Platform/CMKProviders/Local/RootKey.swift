internal import Cryptography
public import KeyringCore
public import KeyringStorage
internal import SecureMemory

/// The key under which the local provider's CMKs lie on disk: 32 bytes from a file, a systemd credential or a passphrase.
public struct RootKey: Sendable {
  let secret: Secret

  /// Where a root key comes from.
  public enum Source: Sendable, Equatable {
    /// A file of 64 hexadecimal digits and a newline, mode 0600.
    case file(String)
    /// The systemd credential of this name: a file in $CREDENTIALS_DIRECTORY (systemd.exec(5)), content as of a file.
    case credential(String, directory: String)
    /// A file, mode 0600, whose first line is a passphrase of at least 12 bytes; stretched with scrypt.
    case passphrase(String)
  }

  static let checkName = "root-check"

  /// Reads the root key, and checks that the CMKs in `directory` were made under it; the first use of a directory records that: who calls
  /// this holds the directory's lock.
  ///
  /// - Throws: `CMKError.configuration`, saying what is wrong: an absent or readable file, a wrong length, another root key.
  public static func load(_ source: Source, directory: DirectoryDescriptor) throws(CMKError) -> RootKey {
    let (root, unrecorded) = try verified(source, directory)
    do {
      try unrecorded?.write(directory)
    } catch {
      throw .configuration("the root key cannot be used: \(error)")
    }
    return root
  }

  /// As `load`, but changes nothing.
  ///
  /// - Parameter directory: nil where it is not there yet.
  public static func check(_ source: Source, directory: DirectoryDescriptor?) throws(CMKError) {
    _ = try verified(source, directory)
  }

  /// The root key of a directory of CMKs that is in use; changes nothing, and needs no lock.
  ///
  /// - Throws: as `load`.
  public static func read(_ source: Source, directory: DirectoryDescriptor) throws(CMKError) -> RootKey {
    try verified(source, directory).root
  }

  /// - Returns: the root key, and what is to be recorded of it where nothing is.
  private static func verified(
    _ source: Source,
    _ directory: DirectoryDescriptor?
  ) throws(CMKError) -> (root: RootKey, unrecorded: RootCheck?) {
    do {
      let existing = try directory.flatMap { try RootCheck.read($0) }
      let check = try existing ?? RootCheck.make(isStretched: source.isStretched)
      guard check.isStretched == source.isStretched else {
        throw CMKError.configuration(
          "the CMKs were made under \(check.isStretched ? "a passphrase" : "a root key file"): configure that"
        )
      }
      let secret = try material(source, check)
      let proof = try HMACSHA256.authenticate(Array("keyring root check".utf8), key: secret).bytes
      guard existing == nil || check.proof == proof else {
        throw CMKError.configuration(
          "this is not the root key, or passphrase, that the CMKs in \(directory?.path ?? "") were made under"
        )
      }
      return (RootKey(secret: secret), existing == nil ? check.with(proof: proof) : nil)
    } catch let error as CMKError {
      throw error
    } catch {
      throw .configuration("the root key cannot be used: \(error)")
    }
  }

  private static func material(_ source: Source, _ check: RootCheck) throws -> Secret {
    switch source {
    case .file(let path): return try hexadecimalKey(try SecretFile.firstLine(path), path)
    case .credential(let name, let directory):
      let path = "\(directory)/\(name)"
      return try hexadecimalKey(try SecretFile.firstLine(path), path)
    case .passphrase(let path):
      let passphrase = try passphrase(path)
      return try Scrypt.derive(from: passphrase, salt: check.salt, n: check.cost, count: 32)
    }
  }

  /// The one line of a file, of at least 12 bytes.
  static func passphrase(_ path: String) throws -> Secret {
    let passphrase = try SecretFile.firstLine(path)
    guard passphrase.count >= 12 else {
      throw CMKError.configuration("\(path): a passphrase has at least 12 bytes")
    }
    return passphrase
  }

  private static func hexadecimalKey(_ text: Secret, _ path: String) throws -> Secret {
    var isHexadecimal = text.count == 64
    // SAFETY: `room` has 32 bytes and `text` 64, checked above where they are used.
    let key = try unsafe Secret(count: 32) { room in
      unsafe text.withUnsafeBytes { text in
        guard isHexadecimal else { return }
        for index in 0..<32 {
          guard let high = unsafe hexadecimalDigit(text[2 * index]),
            let low = unsafe hexadecimalDigit(text[2 * index + 1])
          else {
            isHexadecimal = false
            return
          }
          unsafe room[index] = high << 4 | low
        }
      }
    }
    guard isHexadecimal else {
      throw CMKError.configuration(
        "\(path): a root key is 64 hexadecimal digits on one line (openssl rand -hex 32)"
      )
    }
    return key
  }

  func derive(_ purpose: String, _ parts: [String]) throws(CryptographyError) -> Secret {
    try HKDFSHA256.derive(
      from: secret,
      salt: Array("keyring local provider".utf8),
      info: lengthPrefixed([purpose] + parts),
      count: 32
    )
  }
}

extension RootKey.Source {
  fileprivate var isStretched: Bool {
    switch self {
    case .file, .credential: false
    case .passphrase: true
    }
  }
}

/// Joins texts so that no two lists give the same bytes.
func lengthPrefixed(_ parts: [String]) -> [UInt8] {
  var bytes: [UInt8] = []
  for part in parts {
    appendBigEndian(UInt32(part.utf8.count), to: &bytes)
    bytes += part.utf8
  }
  return bytes
}

/// The value of one hexadecimal digit; nil for any other byte.
func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
  switch byte {
  case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
  case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
  default: nil
  }
}

/// Bytes of lower-case hexadecimal digits, two a byte; nil for anything else.
func hexadecimalBytes(_ text: some StringProtocol) -> [UInt8]? {
  let digits = text.utf8.map(hexadecimalDigit)
  guard digits.count % 2 == 0, !digits.contains(nil) else { return nil }
  return stride(from: 0, to: digits.count, by: 2).map { (digits[$0] ?? 0) << 4 | (digits[$0 + 1] ?? 0) }
}

/// What the CMK directory remembers of its root key: how it is made, and a proof to recognise it by.
private struct RootCheck {
  let isStretched: Bool
  let cost: UInt64
  let salt: [UInt8]
  let proof: [UInt8]

  static func make(isStretched: Bool) throws -> RootCheck {
    RootCheck(
      isStretched: isStretched,
      cost: isStretched ? Scrypt.defaultN : 0,
      salt: isStretched ? try SystemRandom.bytes(count: 16) : [],
      proof: []
    )
  }

  func with(proof: [UInt8]) -> RootCheck {
    RootCheck(isStretched: isStretched, cost: cost, salt: salt, proof: proof)
  }

  private var text: String {
    "keyring-root 1\nscrypt \(cost) \(hexadecimal(salt))\nproof \(hexadecimal(proof))\n"
  }

  func write(_ directory: DirectoryDescriptor) throws(FileError) {
    try AtomicFile.replace(RootKey.checkName, in: directory, with: [Array(text.utf8)])
  }

  static func read(_ directory: DirectoryDescriptor) throws -> RootCheck? {
    guard try directory.status(of: RootKey.checkName) != nil else {
      // A crash in the first start may have left a check that was on its way.
      let leftovers = ["\(RootKey.checkName).new", ".lock"]
      guard try directory.names().allSatisfy(leftovers.contains) else {
        throw CMKError.configuration(
          "\(directory.path) holds CMKs but no \(RootKey.checkName): restore it from a backup"
        )
      }
      return nil
    }
    let bytes = try directory.readFile(RootKey.checkName, bytesMax: 4096)
    let text = String(decoding: bytes, as: UTF8.self)
    let words = text.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: false) }
    guard words.count == 3, words[1].count == 3, words[2].count == 2, let cost = UInt64(words[1][1]),
      let salt = hexadecimalBytes(words[1][2]), let proof = hexadecimalBytes(words[2][1])
    else { throw CMKError.configuration("\(directory.path)/\(RootKey.checkName) is damaged") }
    let check = RootCheck(isStretched: cost > 0, cost: cost, salt: salt, proof: proof)
    guard check.text == text else {
      throw CMKError.configuration("\(directory.path)/\(RootKey.checkName) is damaged")
    }
    return check
  }
}
