internal import Cryptography
internal import KeyringCore
internal import SecureMemory

/// One CMK of the local provider, as its file has it. docs/FILE_FORMAT.md, "CMK files".
struct LocalCMK: Equatable {
  enum State: Equatable {
    case enabled
    case disabled
    /// Destroyed when this moment comes, Unix milliseconds.
    case pendingDeletion(at: UInt64)
    case destroyed
  }

  struct Version: Equatable {
    let createdMilliseconds: UInt64
    let nonce: [UInt8]
    /// 32 bytes and a tag, under a key derived from the root key.
    let sealed: [UInt8]
  }

  let tenant: String
  let id: CMKID
  let createdMilliseconds: UInt64
  var state: State
  /// Version `n` is at `n - 1`; empty once destroyed.
  var versions: [Version]

  // MARK: Its file

  /// All lines but the last, which is the HMAC of these.
  private var body: String {
    var lines = ["keyring-cmk 1", "tenant \(tenant)", "id \(id)", "created \(createdMilliseconds)"]
    switch state {
    case .enabled: lines.append("state enabled")
    case .disabled: lines.append("state disabled")
    case .pendingDeletion(let at): lines.append("state pending-deletion \(at)")
    case .destroyed: lines.append("state destroyed")
    }
    for (index, version) in versions.enumerated() {
      lines.append(
        "version \(index + 1) \(version.createdMilliseconds) \(hexadecimal(version.nonce)) \(hexadecimal(version.sealed))"
      )
    }
    return lines.joined(separator: "\n") + "\n"
  }

  func encode(_ root: RootKey) throws(CryptographyError) -> [UInt8] {
    let bytes = Array(body.utf8)
    let mac = try HMACSHA256.authenticate(bytes, key: root.derive("cmk file", [tenant]))
    return bytes + Array("mac \(hexadecimal(mac.bytes))\n".utf8)
  }

  /// Reads a CMK's file; one text a value, so that what is read encodes to the same bytes again.
  static func decode(_ bytes: [UInt8], tenant: TenantName, id: CMKID, root: RootKey) throws(CMKError)
    -> LocalCMK
  {
    let damaged = CMKError.unreachable(
      "the file of CMK \(id) is damaged; nothing was changed: restore it from a backup"
    )
    guard let cmk = parse(String(decoding: bytes, as: UTF8.self)), cmk.id == id, cmk.tenant == tenant.text
    else { throw damaged }
    do {
      // The whole text is compared, its HMAC included: neither content nor form can differ.
      guard try cmk.encode(root) == bytes else { throw damaged }
    } catch {
      throw damaged
    }
    return cmk
  }

  private static func parse(_ text: String) -> LocalCMK? {
    let lines = text.split(separator: "\n").map { $0.split(separator: " ") }
    guard lines.count >= 6, lines[1].count == 2, lines[2].count == 2, lines[3].count == 2,
      let created = UInt64(lines[3][1]), let state = state(lines[4]), let id = identifier(lines[2][1])
    else { return nil }
    var versions: [Version] = []
    for line in lines[5...].dropLast() {
      guard line.count == 5, line[0] == "version", let created = UInt64(line[2]),
        let nonce = hexadecimalBytes(line[3]),
        let sealed = hexadecimalBytes(line[4]), nonce.count == 12, sealed.count == 48
      else { return nil }
      versions.append(Version(createdMilliseconds: created, nonce: nonce, sealed: sealed))
    }
    return LocalCMK(
      tenant: String(lines[1][1]),
      id: id,
      createdMilliseconds: created,
      state: state,
      versions: versions
    )
  }

  private static func state(_ words: [Substring]) -> State? {
    switch (words.count, words.dropFirst().first) {
    case (2, "enabled"): return .enabled
    case (2, "disabled"): return .disabled
    case (2, "destroyed"): return .destroyed
    case (3, "pending-deletion"): return UInt64(words[2]).map { .pendingDeletion(at: $0) }
    default: return nil
    }
  }

  private static func identifier(_ text: Substring) -> CMKID? {
    do {
      return try CMKID(String(text))
    } catch {
      return nil
    }
  }

  // MARK: Its versions

  mutating func addVersion(_ root: RootKey, nowMilliseconds: UInt64) throws(CryptographyError) {
    let number = versions.count + 1
    let nonce = try SystemRandom.bytes(count: 12)
    let sealed = try versionCipher(root).seal(
      SystemRandom.secret(count: 32),
      nonce: nonce,
      authenticatedData: versionData(number)
    )
    versions.append(Version(createdMilliseconds: nowMilliseconds, nonce: nonce, sealed: sealed))
  }

  /// The cipher of one version, made for one use: its key is not kept.
  func cipher(version number: Int, _ root: RootKey) throws(CryptographyError) -> RecordCipher {
    try RecordCipher(key: material(version: number, root))
  }

  /// The same CMK under another root key: every version decrypted, and encrypted anew.
  func rewrapped(from old: RootKey, to new: RootKey) throws(CryptographyError) -> LocalCMK {
    var other = self
    for (index, version) in versions.enumerated() {
      let nonce = try SystemRandom.bytes(count: 12)
      let sealed = try versionCipher(new).seal(
        try material(version: index + 1, old),
        nonce: nonce,
        authenticatedData: versionData(index + 1)
      )
      other.versions[index] = Version(
        createdMilliseconds: version.createdMilliseconds,
        nonce: nonce,
        sealed: sealed
      )
    }
    return other
  }

  /// True where `other`, under a root key of its own, begins with the same versions.
  func isExtended(by other: LocalCMK, _ root: RootKey, _ otherRoot: RootKey) throws(CryptographyError) -> Bool
  {
    guard id == other.id, tenant == other.tenant, createdMilliseconds == other.createdMilliseconds,
      versions.count <= other.versions.count
    else { return false }
    for number in 1..<(versions.count + 1) {
      let (mine, its) = (try material(version: number, root), try other.material(version: number, otherRoot))
      guard mine.isEqual(to: its) else { return false }
    }
    return true
  }

  private func material(version number: Int, _ root: RootKey) throws(CryptographyError) -> Secret {
    let version = versions[number - 1]
    return try versionCipher(root).open(
      version.sealed,
      nonce: version.nonce,
      authenticatedData: versionData(number)
    )
  }

  private func versionCipher(_ root: RootKey) throws(CryptographyError) -> RecordCipher {
    try RecordCipher(key: root.derive("cmk version", [tenant, id.text]))
  }

  private func versionData(_ number: Int) -> [UInt8] {
    lengthPrefixed(["cmk version", tenant, id.text, "\(number)"])
  }
}

extension RecordCipher {
  /// Decrypts into locked memory.
  func open(_ sealed: [UInt8], nonce: [UInt8], authenticatedData: [UInt8]) throws(CryptographyError) -> Secret
  {
    guard sealed.count >= Self.tagBytes else { throw .invalidLength("ciphertext") }
    var failure: CryptographyError?
    let secret: Secret
    do {
      secret = try unsafe Secret(count: sealed.count - Self.tagBytes) { room in
        do throws(CryptographyError) {
          try unsafe open(
            ciphertextAndTag: sealed,
            nonce: nonce,
            authenticatedData: authenticatedData,
            into: room
          )
        } catch {
          failure = error
        }
      }
    } catch {
      throw .memory(error)
    }
    if let failure { throw failure }
    return secret
  }
}
