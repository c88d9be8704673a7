import Foundation
import Glibc
import KeyringTestSupport
import Synchronization
import Testing

/// A keyringd with one protection taken out of it.
enum Mutant: Sendable {
  /// A library that is loaded before all others: the file's name in Mutants.
  case preloaded(String)
  /// One text of a source file replaced by another.
  case edited(file: String, String, by: String)

  /// Nothing is ever synced.
  static let noSync = Mutant.preloaded("no-sync")
  /// The names of files are not synced.
  static let noDirectorySync = Mutant.preloaded("no-directory-sync")
  /// A file is truncated and written again instead of replaced.
  static let inPlace = Mutant.preloaded("in-place")
  /// After a failed sync the file is read again, and appended to: what the page cache shows is believed.
  static let reopenAndGoOn = Mutant.edited(
    file: "Platform/KeyringStorage/FileKeyringStore.swift",
    "let isExact = content.tornTail == nil && anchor?.position == content.position && !state.mustRecover",
    by: "let isExact = content.tornTail == nil"
  )
  /// Any damage of the last batch is taken for a torn tail.
  static let cutAnyTail = Mutant.edited(
    file: "Platform/KeyringStorage/StorageFileReader.swift",
    "let isCutOff = what.hasPrefix(\"the file ends\")",
    by: "let isCutOff = !what.isEmpty"
  )

  struct Failure: Error, CustomStringConvertible { let description: String }

  private static let tests = URL(filePath: #filePath).deletingLastPathComponent()
  private static let top = tests.deletingLastPathComponent().deletingLastPathComponent()

  /// Builds it, and answers how it is started.
  ///
  /// - Parameter folder: where a library comes to be.
  func build(in folder: TestDirectory) async throws -> (environment: [String: String], program: TestProgram?)
  {
    switch self {
    case .preloaded(let name):
      let (source, library) = (Self.tests.appending(path: "Mutants/\(name).c").path, folder("\(name).so"))
      let flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
      try await LoopFileSystem.run(["cc"] + flags + ["-o", library, source, "-ldl"])
      return (["LD_PRELOAD": library], nil)
    case .edited(let file, let original, let replacement):
      return ([:], try await Self.build(file, original, replacement))
    }
  }

  // MARK: From edited sources

  /// Kept from mutant to mutant, and from run to run, so that only the first is built from nothing.
  private static let scratch = top.appending(path: ".build/mutants")

  private static func build(_ file: String, _ original: String, _ replacement: String) async throws
    -> TestProgram
  {
    try copySources()
    let edited = scratch.appending(path: "Sources/\(file)")
    let text = try String(contentsOf: edited, encoding: .utf8)
    guard text.ranges(of: original).count == 1 else {
      throw Failure(
        description: "\(file) does not have this text once, so no mutant can be made of it: \(original)"
      )
    }
    try text.replacing(original, with: replacement).write(to: edited, atomically: true, encoding: .utf8)
    let output = try await TestProgram(path: "/usr/bin/env").run(
      ["swift", "build", "--package-path", scratch.path, "--product", "keyringd"],
      environment: ["HOME": ProcessInfo.processInfo.environment["HOME"] ?? "/root"]
    )
    guard output.status == 0 else {
      throw Failure(description: "the mutant is not built: \(output.text)\(output.error)")
    }
    return TestProgram(path: scratch.appending(path: ".build/debug/keyringd").path)
  }

  /// A package of keyringd alone; what is as it was is not written, so that it is not compiled again.
  private static func copySources() throws {
    let files = FileManager.default
    try files.createDirectory(at: scratch, withIntermediateDirectories: true)
    let manifest = try String(contentsOf: top.appending(path: "Package.swift"), encoding: .utf8)
    let all = "targets: cLibraries + core + platform + server + clients + testing + tests"
    guard manifest.contains(all) else { throw Failure(description: "Package.swift does not end in '\(all)'") }
    try write(
      Data(manifest.replacing(all, with: "targets: cLibraries + core + platform + server").utf8),
      "Package.swift"
    )
    let pins = top.appending(path: "Package.resolved")
    if files.fileExists(atPath: pins.path) { try write(Data(contentsOf: pins), "Package.resolved") }
    for layer in ["CLibraries", "Core", "Platform", "Server"] {
      let folder = top.appending(path: "Sources/\(layer)")
      for case let name as String in files.enumerator(atPath: folder.path) ?? .init() {
        let source = folder.appending(path: name)
        guard try source.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile == true else { continue }
        try write(Data(contentsOf: source), "Sources/\(layer)/\(name)")
      }
    }
  }

  private static func write(_ content: Data, _ name: String) throws {
    let file = scratch.appending(path: name)
    if FileManager.default.contents(atPath: file.path) == content { return }
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(),
      withIntermediateDirectories: true
    )
    try content.write(to: file)
  }
}
