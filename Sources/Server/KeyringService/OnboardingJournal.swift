internal import CMKProviders
internal import Cryptography
internal import KeyringCore
internal import KeyringStorage

/// What an onboarding makes outside of its own directory, written down before it is made; docs/FILE_FORMAT.md, "Onboarding".
struct OnboardingJournal: Sendable, Equatable {
  /// A tenant on its way.
  struct Entry: Sendable, Equatable {
    let tenant: TenantName
    let keyring: KeyringID
    /// A CMK that this onboarding makes; nil where it uses another.
    let cmk: CMKID?
  }

  /// 32 hexadecimal digits, never used again.
  let id: String
  let entries: [Entry]

  static let suffix = ".journal"
  var name: String { id + Self.suffix }

  /// Where a tenant's files lie until they are moved into place: a name that no other onboarding has, this tenant's later ones among them.
  func stagingName(_ tenant: TenantName) -> String { "\(id).\(tenant)" }

  init(entries: [Entry]) throws(CryptographyError) {
    id = hexadecimal(try SystemRandom.bytes(count: 16))
    self.entries = entries
  }

  // MARK: Its file

  private var body: String {
    var lines = ["keyring-onboarding 1", "id \(id)"]
    for entry in entries { lines.append("tenant \(entry.tenant) \(entry.keyring) \(entry.cmk?.text ?? "-")") }
    return lines.joined(separator: "\n") + "\n"
  }

  /// - Parameter root: authenticates it; nil for a service without local CMKs, which has none to name.
  func encode(_ root: RootKey?) throws(CMKError) -> [UInt8] {
    let body = Array(self.body.utf8)
    guard let root else {
      precondition(entries.allSatisfy { $0.cmk == nil }, "CMKs are made under a root key")
      do {
        let hash = try SHA256()
        try hash.update(body)
        return body + Array("sha256 \(hexadecimal(try hash.finish().bytes))\n".utf8)
      } catch {
        throw .unreachable("\(error)")
      }
    }
    let mac = try root.authenticationText(of: body, purpose: "onboarding journal")
    return body + Array("mac \(mac)\n".utf8)
  }

  /// Reads one; nil for anything that this service did not write: whoever can write into the directory could else have CMKs removed.
  ///
  /// - Parameter name: of the file.
  static func decode(_ bytes: [UInt8], name: String, root: RootKey?) throws(CMKError) -> OnboardingJournal? {
    guard let journal = OnboardingJournal(text: String(decoding: bytes, as: UTF8.self)), journal.name == name
    else { return nil }
    if try journal.encode(root, for: bytes) { return journal }
    // Written when the service had no root key: then it names no CMK.
    guard root != nil, journal.entries.allSatisfy({ $0.cmk == nil }) else { return nil }
    return try journal.encode(nil, for: bytes) ? journal : nil
  }

  /// True if `bytes` are what it is written as under `root`.
  private func encode(_ root: RootKey?, for bytes: [UInt8]) throws(CMKError) -> Bool {
    guard root != nil || entries.allSatisfy({ $0.cmk == nil }) else { return false }
    return try encode(root) == bytes
  }

  private init?(text: String) {
    let lines = text.split(separator: "\n").map { $0.split(separator: " ", omittingEmptySubsequences: false) }
    guard lines.count >= 3, lines[1].count == 2, lines[1][1].utf8.count == 32 else { return nil }
    var entries: [Entry] = []
    for line in lines[2...].dropLast() {
      guard line.count == 4, let entry = Entry(line) else { return nil }
      entries.append(entry)
    }
    id = String(lines[1][1])
    self.entries = entries
  }
}

extension OnboardingJournal.Entry {
  fileprivate init?(_ words: [Substring]) {
    do {
      guard let value = UInt128(words[2], radix: 16) else { return nil }
      let cmk = words[3] == "-" ? nil : try CMKID(String(words[3]))
      if let cmk, !NewLocalCMK.isID(cmk) { return nil }
      self.init(tenant: try TenantName(String(words[1])), keyring: KeyringID(value: value), cmk: cmk)
    } catch {
      return nil
    }
  }
}
