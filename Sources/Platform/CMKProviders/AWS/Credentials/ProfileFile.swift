package import KeyringCore
package import SecureMemory

/// What a profile of the shared files may say that matters here; everything else in them is other tools' affair.
package enum ProfileKey: CaseIterable {
  case accessKeyID, secretAccessKey, sessionToken
  case roleARN, sourceProfile, credentialSource, externalID, roleSessionName, webIdentityTokenFile
  /// Ways to credentials that this service does not go.
  case credentialProcess, ssoSession, ssoStartURL, ssoAccountID, ssoRoleName, loginSession, mfaSerial

  /// As the file has it.
  package var name: StaticString {
    switch self {
    case .accessKeyID: "aws_access_key_id"
    case .secretAccessKey: "aws_secret_access_key"
    case .sessionToken: "aws_session_token"
    case .roleARN: "role_arn"
    case .sourceProfile: "source_profile"
    case .credentialSource: "credential_source"
    case .externalID: "external_id"
    case .roleSessionName: "role_session_name"
    case .webIdentityTokenFile: "web_identity_token_file"
    case .credentialProcess: "credential_process"
    case .ssoSession: "sso_session"
    case .ssoStartURL: "sso_start_url"
    case .ssoAccountID: "sso_account_id"
    case .ssoRoleName: "sso_role_name"
    case .loginSession: "login_session"
    case .mfaSerial: "mfa_serial"
    }
  }

  static let fixed: [ProfileKey] = [.accessKeyID, .secretAccessKey, .sessionToken]
  static let unsupported: [ProfileKey] = [
    .credentialProcess, .ssoSession, .ssoStartURL, .ssoAccountID, .ssoRoleName, .loginSession, .mfaSerial,
  ]
}

/// One of the two shared files: `[sections]` of `key = value` lines (AWS SDKs and Tools Reference Guide, "shared config and credentials files").
package struct ProfileFile: Sendable {
  /// Which of the two; they name their sections differently.
  package enum Kind: Sendable {
    /// `[name]`
    case credentials
    /// `[default]` and `[profile name]`; other sections are no profiles.
    case configuration
  }

  /// A value, and its line, from 1.
  package struct Property: Sendable {
    /// Where it lies in the file, in bytes.
    package let value: Range<Int>
    /// Of the file.
    package let line: Int
  }

  let path: String
  let text: SecretText
  /// By name.
  package private(set) var profiles: [String: [ProfileKey: Property]] = [:]

  /// Reads the content of one, strictly: a profile or a key that is there twice is an error, as is a line that is neither.
  ///
  /// - Throws: `CMKError.configuration`, naming file and line.
  package init(_ content: Secret, path: String, kind: Kind) throws(CMKError) {
    self.path = path
    text = SecretText(content)
    var section = Section.none
    for (index, range) in text.lines.enumerated() {
      let line = index + 1
      guard text.isAll(range, { $0 >= 0x20 && $0 != 0x7f || $0 == UInt8(ascii: "\t") }) else {
        throw error(line, "a control character")
      }
      let content = text.trimmed(range)
      guard let first = content.first.map({ text[$0] }) else { continue }
      if first == UInt8(ascii: "#") || first == UInt8(ascii: ";") { continue }
      if first == UInt8(ascii: "["), content.lowerBound == range.lowerBound {
        section = try self.section(content, line, kind)
      } else if content.lowerBound > range.lowerBound {
        guard section.mayContinue else { throw error(line, "an indented line continues nothing") }
      } else {
        try property(content, line, &section)
      }
    }
  }

  /// Where a line stands.
  private struct Section {
    /// nil: no section yet.
    var isProfile: Bool?
    var profile = ""
    /// An indented line belongs to a key that does not matter here.
    var mayContinue = false
    static let none = Section()
  }

  private func error(_ line: Int, _ what: String) -> CMKError { .configuration("\(path):\(line): \(what)") }

  private mutating func section(_ content: Range<Int>, _ line: Int, _ kind: Kind) throws(CMKError) -> Section
  {
    guard let end = text.first(UInt8(ascii: "]"), in: content) else { throw error(line, "']' is missing") }
    let rest = text.trimmed(end + 1..<content.upperBound)
    guard
      rest.isEmpty || text[rest.lowerBound] == UInt8(ascii: "#") || text[rest.lowerBound] == UInt8(ascii: ";")
    else { throw error(line, "a section is [name] and nothing else") }
    let words = text.publicText(content.lowerBound + 1..<end).split { $0 == " " || $0 == "\t" }.map(
      String.init
    )
    let name: String
    switch kind {
    case .credentials:
      guard words.count == 1 else { throw error(line, "a profile is [name], a name without spaces") }
      name = words[0]
    case .configuration:
      if words == ["default"] {
        name = words[0]
      } else if words.count == 2, words[0] == "profile" {
        name = words[1]
      } else {
        return Section(isProfile: false)
      }
    }
    guard profiles.updateValue([:], forKey: name) == nil else {
      throw error(line, "profile '\(printable(String(name.unicodeScalars.prefix(64))))' is there twice")
    }
    return Section(isProfile: true, profile: name)
  }

  private mutating func property(
    _ content: Range<Int>,
    _ line: Int,
    _ section: inout Section
  ) throws(CMKError) {
    guard let isProfile = section.isProfile, let equals = text.first(UInt8(ascii: "="), in: content) else {
      throw error(line, "a line is [name], key = value, or a comment that begins with '#'")
    }
    let keyRange = text.trimmed(content.lowerBound..<equals)
    // Keys are compared where they lie: in a file that went wrong, what stands before '=' may be part of a secret.
    let key = isProfile ? ProfileKey.allCases.first { text.equals(keyRange, ignoringCase: $0.name) } : nil
    section.mayContinue = key == nil
    guard let key else { return }
    let property = Property(value: text.trimmed(equals + 1..<content.upperBound), line: line)
    guard !property.value.isEmpty else { throw error(line, "\(key.name) has no value") }
    guard profiles[section.profile]?.updateValue(property, forKey: key) == nil else {
      throw error(line, "\(key.name) is there twice")
    }
  }
}
