internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory

/// A tenant's credentials file, as MySQL's keyring_aws has it (`keyring_aws_conf_file`): the access key id on line 1, the secret access key on
/// line 2; here also, on a line 3, a session token.
enum CredentialsFile {
  static let bytesMax = 16_384

  /// Reads one that its owner alone may use.
  ///
  /// - Throws: `CMKError.configuration`, naming file and line; `.unreachable` where it cannot be read at this moment.
  static func read(_ directory: DirectoryDescriptor, _ name: String) throws(CMKError) -> AWSCredentials {
    let content = try fileContent { () throws(FileError) in
      try directory.readSecret(name, bytesMax: bytesMax)
    }
    return try parse(content, file: "\(directory.path)/\(name)")
  }

  /// Reads the content of one.
  static func parse(_ content: Secret, file: String) throws(CMKError) -> AWSCredentials {
    let text = SecretText(content)
    let lines = text.lines
    guard lines.count == 2 || lines.count == 3 else {
      throw .configuration(
        "\(file): \(lines.count) lines: line 1 is the access key id, line 2 the secret access key, line 3, if any, a session token"
      )
    }
    return AWSCredentials(
      accessKeyID: try CredentialSyntax.accessKeyID(text.copy(lines[0]), "\(file):1"),
      secretAccessKey: try CredentialSyntax.secretAccessKey(text.copy(lines[1]), "\(file):2"),
      sessionToken: lines.count == 3
        ? try CredentialSyntax.sessionToken(text.copy(lines[2]), "\(file):3") : nil,
      expiresMilliseconds: nil
    )
  }
}

/// Reads a file of credentials.
///
/// - Throws: `CMKError.configuration` where it is not there or must not be used, `.unreachable` where reading failed.
func fileContent<Content>(_ read: () throws(FileError) -> Content) throws(CMKError) -> Content {
  do {
    return try read()
  } catch {
    switch error {
    case .absent, .unacceptable: throw .configuration("\(error)")
    case .unchanged, .noRoom, .unknown: throw .unreachable("\(error)")
    }
  }
}
