import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// The programs of this folder, each built into the folder of its test.
enum CProgram {
  static func built(_ name: String, _ folder: TestDirectory, _ sanitizer: CClients.Sanitizer? = nil)
    async throws -> TestProgram
  {
    let build = try await CClients.built(sanitizer)
    let path = folder(name)
    let flags = sanitizer.map { ["-fsanitize=\($0.rawValue)", "-fno-sanitize-recover=all"] } ?? []
    let outcome = try await TestProgram(path: "/usr/bin/gcc").run(
      ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror"] + flags + [
        "-I\(CClients.top)/Sources/Clients/CKeyringClient/include",
        "-I\(CClients.top)/Sources/CLibraries/CMessages/include",
        "\(CClients.top)/Tests/CClientTests/Programs/\(name).c", "-o", path, "\(build)/libkeyring.a",
        "-lssl", "-lcrypto", "-lprotobuf-c", "-lpthread",
      ]
    )
    #expect(outcome.status == 0, "\(outcome.error)")
    return TestProgram(path: path)
  }

  static func environment(_ files: TLSConfiguration, _ servers: String) -> [String: String] {
    [
      "KEYRING_SERVER": servers, "KEYRING_CERT": files.certificateFile, "KEYRING_KEY": files.privateKeyFile,
      "KEYRING_CA": files.authorityFile,
    ]
  }
}

/// `life poll`: a program that fetches a key for one order after the other.
struct PolledProgram {
  private let process: TestProcess
  private let folder: TestDirectory

  init(_ folder: TestDirectory, _ files: TLSConfiguration, _ port: Int) async throws {
    try folder.write("orders", "")
    process = try await CProgram.built("life", folder, .address).start(
      ["poll", folder("orders")],
      environment: CProgram.environment(files, "localhost:\(port)"),
      output: folder("polled"),
      error: folder("polled.err")
    )
    self.folder = folder
  }

  func ask(_ order: String) async throws -> String {
    let output = folder("polled")
    let before = try String(contentsOfFile: output, encoding: .utf8).count
    let orders = try FileHandle(forWritingTo: URL(filePath: folder("orders")))
    try orders.seekToEnd()
    try orders.write(contentsOf: Data("\(order)\n".utf8))
    try orders.close()
    var text = ""
    _ = try await eventually {
      text = try String(contentsOfFile: output, encoding: .utf8)
      return !process.isRunning || (text.count > before && text.hasSuffix("\n"))
    }
    return text.dropFirst(before).trimmingCharacters(in: .newlines)
  }

  func end() async throws {
    _ = try await ask("q")
    let said = try String(contentsOfFile: folder("polled.err"), encoding: .utf8)
    #expect(process.status == 0 && !process.isSignal, "\(said)")
  }
}
