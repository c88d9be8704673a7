import Foundation
import Testing

/// The style that matters, as tests over the sources.
@Suite struct ArchitectureTests {
  private static let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// A layer may use itself and those before it; within Platform and Server, a module those before it.
  private static let layers = [
    ["COpenSSL", "CProtobufC", "CLinux", "CCurl", "CMessages", "CBenchmark"],
    ["SecureMemory", "KeyringCore", "MessageEncoding", "WireProtocol"],
    ["ConfigurationFiles", "Cryptography"], ["KeyringStorage"],
    ["AuditLog", "TLSTransport", "HTTPTransport", "CMKProviders"],
    ["TenantRegistry"], ["KeyringService"], ["keyringd"],
    ["KeyringClient", "ImportFormats"], ["keyringctl"],
    ["KeyringTestSupport", "keyringbench", "FuzzTargets"],
  ]

  struct Source {
    let path: String
    let module: String
    let lines: [Substring]
  }

  private static func sources(_ folder: String = "Sources", _ suffix: String = ".swift") throws -> [Source] {
    let root = top.appending(path: folder)
    let names = FileManager.default.enumerator(atPath: root.path)?.compactMap { $0 as? String } ?? []
    return try names.filter { $0.hasSuffix(suffix) }.map { name in
      let text = try String(contentsOf: root.appending(path: name), encoding: .utf8)
      let parts = name.split(separator: "/")
      return Source(
        path: name,
        module: parts.count > 1 ? String(parts[1]) : "",
        lines: text.split(separator: "\n", omittingEmptySubsequences: false)
      )
    }
  }

  private static func rank(_ module: String) -> Int? { layers.firstIndex { $0.contains(module) } }

  @Test func everyModuleHasALayerAndImportsPointDown() throws {
    for source in try Self.sources() {
      let own = try #require(Self.rank(source.module), "\(source.module) is in no layer")
      for line in source.lines where line.contains("import ") && !line.hasPrefix("//") && !line.hasPrefix(" ")
      {
        guard let name = line.split(separator: " ").last.map(String.init), let other = Self.rank(name) else {
          continue
        }
        #expect(other <= own, "\(source.path) imports \(name)")
        let isClientOfServer =
          source.path.hasPrefix("Clients/") && ["TenantRegistry", "KeyringService"].contains(name)
        #expect(!isClientOfServer, "\(source.path): a client imports the server's \(name)")
      }
    }
  }

  @Test func everyModuleIsDescribed() throws {
    let text = try String(contentsOf: Self.top.appending(path: "docs/ARCHITECTURE.md"), encoding: .utf8)
    let folders = try Set(Self.sources().map(\.module) + Self.sources("Sources", ".h").map(\.module))
    for module in folders {
      #expect(text.contains("**\(module)**"), "docs/ARCHITECTURE.md does not name \(module)")
    }
  }

  @Test func functionsAreShort() throws {
    let start =
      /^(\s*)((public|private|fileprivate|internal|package|static|final|mutating|borrowing|consuming|override|@\w+(\([^)]*\))?)\s+)*(func|init|deinit)\b.*/
    var lengths: [Int] = []
    for source in try Self.sources() {
      for (index, line) in source.lines.enumerated() {
        guard let match = line.wholeMatch(of: start) else { continue }
        let closing = match.1 + "}"
        // A requirement of a protocol has no body: its line, or the one that ends its parameters, has no brace.
        guard let end = source.lines[index...].firstIndex(where: { $0 == closing || $0.isEmpty }),
          source.lines[end] == closing || line.hasSuffix("{")
        else { continue }
        guard let last = source.lines[index...].firstIndex(where: { $0 == closing }) else { continue }
        guard source.lines[index...last].contains(where: { $0.hasSuffix("{") || $0.hasSuffix("in") }),
          source.lines[end] == closing || line.hasSuffix("{")
        else { continue }
        lengths.append(last - index + 1)
        #expect(last - index + 1 <= 70, "\(source.path):\(index + 1) has \(last - index + 1) lines")
      }
    }
    #expect(lengths.count > 300)
    #expect(lengths.sorted()[lengths.count / 2] <= 14)
  }

  @Test func filesAreNotLong() throws {
    for source in try Self.sources() {
      #expect(source.lines.count <= 400, "\(source.path) has \(source.lines.count) lines")
    }
  }

  @Test func noFileIsNamedAfterNothing() throws {
    let banned = ["Utils", "Utilities", "Helpers", "Helper", "Common", "Misc"]
    for source in try Self.sources() {
      let name = source.path.split(separator: "/").last?.split(separator: ".").first.map(String.init) ?? ""
      #expect(!banned.contains { name.hasSuffix($0) }, "\(source.path)")
    }
  }

  @Test func uncheckedSendableIsProved() throws {
    for source in try Self.sources() {
      for (index, line) in source.lines.enumerated()
      where line.contains("@unchecked Sendable") && !line.contains("//") {
        let around = source.lines[max(0, index - 2)...min(source.lines.count - 1, index + 2)]
        #expect(around.contains { $0.contains("SAFETY") }, "\(source.path):\(index + 1)")
      }
    }
  }

  @Test func errorsAreNotSwallowed() throws {
    for source in try Self.sources() where !source.path.hasPrefix("Testing/") {
      for (index, line) in source.lines.enumerated() where !line.contains("//") {
        #expect(!line.contains(" try? "), "\(source.path):\(index + 1): try? without a reason beside it")
        #expect(
          !line.contains("try!") && !line.contains("TODO") && !line.contains("FIXME"),
          "\(source.path):\(index + 1)"
        )
      }
    }
  }

  @Test func coreAndPlatformDoWithoutFoundation() throws {
    for source in try Self.sources() where !source.path.hasPrefix("Testing/") {
      #expect(!source.lines.contains { $0.hasSuffix("import Foundation") }, "\(source.path)")
    }
  }
}
