internal import Foundation

/// The C clients as their Makefile builds them: libkeyring, the MySQL components, the MariaDB plugin.
public enum CClients {
  /// What watches the code while it runs; each builds into a folder of its own.
  public enum Sanitizer: String, Sendable, CaseIterable {
    /// Out of bounds, use after free, leaks.
    case address
    /// What C leaves undefined.
    case undefined
    /// Races.
    case thread
  }

  /// It does not build.
  public struct NotBuilt: Error, CustomStringConvertible {
    /// What make said.
    public let description: String
  }

  /// The top of the repository.
  public static let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path

  /// Brings a build up to date, one at a time over all processes.
  ///
  /// - Returns: the folder with what was built.
  public static func built(_ sanitizer: Sanitizer? = nil) async throws -> String {
    let variant = sanitizer.map { "-\($0.rawValue)" } ?? ""
    let outcome = try await TestProgram(path: "/usr/bin/flock").run([
      "\(top)/.build/c.lock", "make", "-s", "-j", "2", "-C", "\(top)/Sources/Clients",
      "SANITIZE=\(sanitizer?.rawValue ?? "")",
    ])
    guard outcome.status == 0 else { throw NotBuilt(description: outcome.error) }
    return "\(top)/.build/c\(variant)"
  }
}
