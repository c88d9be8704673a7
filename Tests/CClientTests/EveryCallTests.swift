import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing

/// libkeyring against a whole server: Programs/every-call.c, as it is, under each sanitizer, and under valgrind.
@Suite struct EveryCallTests {
  private let folder: TestDirectory

  init() throws { folder = try TestDirectory() }

  /// The program, built into the folder of the test.
  private func program(_ sanitizer: CClients.Sanitizer?) async throws -> String {
    let build = try await CClients.built(sanitizer)
    let path = folder("every-call")
    let flags = sanitizer.map { ["-fsanitize=\($0.rawValue)", "-fno-sanitize-recover=all"] } ?? []
    let outcome = try await TestProgram(path: "/usr/bin/gcc").run(
      ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror"] + flags + [
        "-I\(CClients.top)/Sources/Clients/CKeyringClient/include",
        "\(CClients.top)/Tests/CClientTests/Programs/every-call.c", "-o", path, "\(build)/libkeyring.a",
        "-lssl",
        "-lcrypto", "-lprotobuf-c", "-lpthread",
      ]
    )
    #expect(outcome.status == 0, "\(outcome.error)")
    return path
  }

  private func environment(_ files: TLSConfiguration, _ port: Int) -> [String: String] {
    [
      "KEYRING_SERVER": "localhost:\(port)", "KEYRING_CERT": files.certificateFile,
      "KEYRING_KEY": files.privateKeyFile, "KEYRING_CA": files.authorityFile,
    ]
  }

  private func run(_ sanitizer: CClients.Sanitizer?, wrapper: [String] = [], _ mode: String) async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let path = try await program(sanitizer)
    let command = wrapper + [path, mode]
    let outcome = try await TestProgram(path: command[0]).run(
      Array(command.dropFirst()),
      environment: environment(files, server.port)
    )
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
  }

  @Test(arguments: [nil] + CClients.Sanitizer.allCases.map { $0 }, ["calls", "threads"])
  func everyCall(_ sanitizer: CClients.Sanitizer?, _ mode: String) async throws {
    try await run(sanitizer, mode)
  }

  @Test func everyCallUnderValgrind() async throws {
    let valgrind = [
      "/usr/bin/valgrind", "-q", "--error-exitcode=9", "--leak-check=full",
      "--errors-for-leak-kinds=definite",
    ]
    try await run(nil, wrapper: valgrind, "calls")
  }

  /// What is cached serves while the server is away, where that was asked for, and nothing else does.
  @Test func theCacheOutlivesTheServer() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let files = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let path = try await program(nil)
    async let outcome = TestProgram(path: path).run(
      ["away", folder("sign")],
      environment: environment(files, server.port)
    )
    let isReady = try await eventually { FileManager.default.fileExists(atPath: folder("sign.ready")) }
    await server.shutdown()
    try folder.write("sign.gone", "")
    let ended = try await outcome
    #expect(isReady && ended.status == 0, "\(ended.error)")
  }

  /// Every way to be refused is told apart from "absent", with keyring, tenant and reason.
  @Test func refusalsAreNotAbsence() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let path = try await program(nil)
    let ours = try server.pki.client(.instance(TenantName("acme"), InstanceName("db1")))
    let stranger = try server.pki.client(.instance(TenantName("globex"), InstanceName("db1")))
    let strangers = try TestPKI()
    let otherCA = try strangers.client(.instance(TenantName("acme"), InstanceName("db1")))
    let program = TestProgram(path: path)
    let absent = try await program.run(["refused", "k"], environment: environment(ours, server.port))
    #expect(absent.text == "OK \n")
    let forbidden = try await program.run(["refused", "k"], environment: environment(stranger, server.port))
    #expect(
      forbidden.text.hasPrefix(
        "FORBIDDEN keyring localhost:\(server.port), tenant globex, instance db1: FORBIDDEN"
      )
    )
    let untrusted = try await program.run(["refused", "k"], environment: environment(otherCA, server.port))
    #expect(untrusted.text.hasPrefix("REFUSED keyring localhost:\(server.port)"), "\(untrusted.error)")
    withExtendedLifetime(strangers) {}
    let nobody = try await program.run(["refused", "k"], environment: environment(ours, 1))
    #expect(nobody.text.hasPrefix("UNREACHABLE keyring localhost:1"))
    try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: ours.privateKeyFile)
    let readable = try await program.run(["refused", "k"], environment: environment(ours, server.port))
    #expect(readable.status == 1 && readable.error.contains("BAD_CONFIGURATION"))
  }
}
