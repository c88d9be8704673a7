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
