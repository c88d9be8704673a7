internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory

/// The shared files of the AWS tools, and the profile that is wanted of them.
struct SharedProfiles: Sendable {
  /// Where one of the files is.
  struct Place: Sendable {
    let path: String
    /// A variable names it, and so it must be there.
    let isNamed: Bool
  }

  /// The profile.
  let name: String
  /// False: `default`, since nobody named one.
  let isNamed: Bool
  let nothingThere: String
  /// The credentials file first: what it says counts before what the other one says.
  private let files: [ProfileFile]
  private let configurationPath: String?

  /// Reads what there is of the two files.
  ///
  /// - Throws: `CMKError.configuration`, naming file and line, also for a credentials file that others may read.
  init(name: String?, credentials: Place?, configuration: Place?) throws(CMKError) {
    self.name = name ?? "default"
    isNamed = name != nil
    configurationPath = configuration?.path
    let paths = [credentials, configuration].compactMap { $0?.path }
    nothingThere =
      "profile '\(printable(self.name))' has no credentials in "
      + (paths.isEmpty ? "any file: HOME is not set" : paths.joined(separator: " and "))
    var files: [ProfileFile] = []
    if let place = credentials, let content = try Self.content(place, requirePrivate: true) {
      files.append(try ProfileFile(content, path: place.path, kind: .credentials))
    }
    if let place = configuration, let content = try Self.content(place, requirePrivate: false) {
      files.append(try ProfileFile(content, path: place.path, kind: .configuration))
    }
    self.files = files
  }

  private static func content(_ place: Place, requirePrivate: Bool) throws(CMKError) -> Secret? {
    try fileContent { () throws(FileError) in
      do throws(FileError) {
        return try SecretFile.read(place.path, requirePrivate: requirePrivate)
      } catch {
        if case .absent = error, !place.isNamed { return nil }
        throw error
      }
    }
  }

  // MARK: One profile

  /// The value of a key, and where it stands; of the credentials file where both have it.
  private func property(_ profile: String, _ key: ProfileKey) -> (
    file: ProfileFile, at: ProfileFile.Property
  )? {
    for file in files {
      if let property = file.profiles[profile]?[key] { return (file, property) }
    }
    return nil
  }

  /// A value that is no secret and has no spaces.
  func text(_ profile: String, _ key: ProfileKey) throws(CMKError) -> String? {
    guard let (file, property) = property(profile, key) else { return nil }
    guard file.text.isAll(property.value, isVisible) else {
      throw Self.error(file, property, key, "is a value without spaces; a comment has a line of its own")
    }
    return file.text.publicText(property.value)
  }

  /// Where a key stands, for messages.
  func place(_ profile: String, _ key: ProfileKey) -> String {
    property(profile, key).map { "\($0.file.path):\($0.at.line)" } ?? "profile '\(printable(profile))'"
  }

  private static func error(
    _ file: ProfileFile,
    _ property: ProfileFile.Property,
    _ key: ProfileKey,
    _ what: String
  ) -> CMKError {
    .configuration("\(file.path):\(property.line): \(key.name) \(what)")
  }

  /// - Throws: `CMKError.configuration` where the profile wants what this service does not do.
  func refuseUnsupported(_ profile: String) throws(CMKError) {
    for key in ProfileKey.unsupported {
      if key == .mfaSerial, property(profile, .roleARN) == nil { continue }
      guard let (file, property) = property(profile, key) else { continue }
      throw Self.error(
        file,
        property,
        key,
        "is not supported: use keys, a role, a web identity, or the two-line file"
      )
    }
  }

  /// The keys of a profile, all of one file: the credentials file where it has any of them.
  ///
  /// - Throws: `CMKError.configuration` where one is missing or malformed, or where they are in a file that others may read.
  func fixedCredentials(_ profile: String) throws(CMKError) -> AWSCredentials? {
    for file in files {
      guard let properties = file.profiles[profile],
        ProfileKey.fixed.contains(where: { properties[$0] != nil })
      else { continue }
      if file.path == configurationPath {
        _ = try Self.content(Place(path: file.path, isNamed: true), requirePrivate: true)
      }
      guard let accessKeyID = properties[.accessKeyID], let secretAccessKey = properties[.secretAccessKey]
      else {
        throw .configuration(
          "\(file.path): profile '\(printable(profile))' needs both aws_access_key_id and aws_secret_access_key"
        )
      }
      let place = { (property: ProfileFile.Property) in "\(file.path):\(property.line)" }
      return AWSCredentials(
        accessKeyID: try CredentialSyntax.accessKeyID(
          file.text.copy(accessKeyID.value),
          place(accessKeyID)
        ),
        secretAccessKey: try CredentialSyntax.secretAccessKey(
          file.text.copy(secretAccessKey.value),
          place(secretAccessKey)
        ),
        sessionToken: try properties[.sessionToken].map { property throws(CMKError) in
          try CredentialSyntax.sessionToken(file.text.copy(property.value), place(property))
        },
        expiresMilliseconds: nil
      )
    }
    return nil
  }
}
