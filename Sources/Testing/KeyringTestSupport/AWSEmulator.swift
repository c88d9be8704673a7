import Foundation

/// moto on loopback, with signatures and IAM checked: what `deploy/aws-emulator/run` starts.
public final class AWSEmulator: Sendable {
  /// Somebody whom it knows.
  public struct User: Decodable, Sendable {
    /// Line 1 of a credentials file.
    public let accessKeyID: String
    /// Line 2.
    public let secretAccessKey: String

    private enum CodingKeys: String, CodingKey {
      case accessKeyID = "access_key_id"
      case secretAccessKey = "secret_access_key"
    }
  }

  private struct Ready: Decodable {
    let endpoint: String
    let region: String
    let keys: [String]
    let users: [User]
    let administrator: User
  }

  /// It did not start.
  public struct NotReady: Error, CustomStringConvertible {
    /// What it said.
    public let description: String
  }

  private let ready: Ready
  private let process: TestProcess
  private let folder: TestDirectory

  /// Starts one.
  ///
  /// - Parameters:
  ///   - keys: CMKs that it has.
  ///   - users: each may use every CMK, but for the last one, who may use none.
  public init(keys: Int = 2, users: Int = 3) async throws {
    let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
    folder = try TestDirectory()
    let file = folder("ready")
    process = try TestProgram(path: top.appending(path: "deploy/aws-emulator/run").path).start(
      ["--ready", file, "--users", "\(users)", "--keys", "\(keys)"],
      environment: ProcessInfo.processInfo.environment,
      error: folder("log")
    )
    while !FileManager.default.fileExists(atPath: file) {
      guard process.isRunning else {
        throw NotReady(description: try String(contentsOfFile: folder("log"), encoding: .utf8))
      }
      try await Task.sleep(for: .milliseconds(20))
    }
    ready = try JSONDecoder().decode(Ready.self, from: Data(contentsOf: URL(filePath: file)))
  }

  /// For a tenant's file.
  public var endpoint: String { ready.endpoint }
  /// Of its CMKs.
  public var region: String { ready.region }
  /// ARNs.
  public var keys: [String] { ready.keys }
  /// Who may do what: see `init`.
  public var users: [User] { ready.users }
  /// Makes, disables and ends CMKs, and may use none.
  public var administrator: User { ready.administrator }

  /// A tenant of it.
  public func tenant(_ name: String = "acme", key: Int = 0, user: Int = 0, lines: [String] = []) -> AWSTenant
  {
    var tenant = AWSTenant(cmkID: keys[key], endpoint: endpoint, lines: lines)
    tenant.name = name
    tenant.accessKeyID = users[user].accessKeyID
    tenant.secretAccessKey = users[user].secretAccessKey
    return tenant
  }

  /// Ends it.
  public func shutdown() async {
    process.signal(SIGTERM)
    await process.ended()
  }
}
