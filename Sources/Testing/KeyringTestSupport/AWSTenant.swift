import Foundation

/// A tenant of AWS, as an operator puts it into the tenants directory; any instance may call.
public struct AWSTenant: Sendable {
  /// Its name.
  public var name = "acme"
  /// Its CMK.
  public var cmkID: String
  /// Where its KMS is.
  public var endpoint: String
  /// Line 1 of its credentials.
  public var accessKeyID = "AKIATESTTESTTEST0001"
  /// Line 2.
  public var secretAccessKey = "secret/of+a+test"
  /// Of its file.
  public var lines: [String] = []

  /// One with the credentials of nobody.
  public init(cmkID: String, endpoint: String, lines: [String] = []) {
    self.cmkID = cmkID
    self.endpoint = endpoint
    self.lines = lines
  }

  /// Writes its folder, or writes it again.
  ///
  /// - Parameter directory: of all tenants.
  public func put(in directory: String) throws {
    let folder = "\(directory)/\(name)"
    for path in [directory, folder] where !FileManager.default.fileExists(atPath: path) {
      try FileManager.default.createDirectory(
        atPath: path,
        withIntermediateDirectories: false,
        attributes: [.posixPermissions: 0o700]
      )
    }
    try putCredentials(in: directory)
    let yaml =
      ["cmk_id: \(cmkID)", "provider: aws", "endpoint: \(endpoint)", "instances: any"] + lines + [""]
    try Self.write("\(folder)/tenant.yaml", yaml.joined(separator: "\n"))
  }

  /// Writes its credentials alone.
  public func putCredentials(in directory: String, as file: String = "credentials") throws {
    try Self.write("\(directory)/\(name)/\(file)", "\(accessKeyID)\n\(secretAccessKey)\n")
  }

  private static func write(_ path: String, _ text: String) throws {
    try Data(text.utf8).write(to: URL(filePath: path))
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
  }
}
