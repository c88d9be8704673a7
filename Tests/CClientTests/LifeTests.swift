import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// A program that lives with libkeyring through what happens to servers, certificates, processes and memory.
@Suite struct LifeTests {
  private let folder: TestDirectory

  init() throws { folder = try TestDirectory() }

  private static func db1(_ pki: TestPKI) throws -> TLSConfiguration {
    try pki.client(.instance(TenantName("acme"), InstanceName("db1")))
  }

  private func run(_ arguments: [String], _ sanitizer: CClients.Sanitizer? = nil) async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let outcome = try await CProgram.built("life", folder, sanitizer).run(
      arguments,
      environment: CProgram.environment(try Self.db1(server.pki), "localhost:\(server.port)")
    )
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
    await server.shutdown()
  }

  /// 8 threads of changes while keyringd is restarted and killed: what was acknowledged is there, and what was repeated happened once.
  @Test func changesUnderRestarts() async throws {
    var daemon = try await TestDaemon()
    try await daemon.makeTenant("acme")
    let (pki, data, port) = (daemon.pki, daemon.data, daemon.port)
    let files = try Self.db1(pki)
    let process = try await CProgram.built("life", folder, .thread).start(
      ["changes", folder("stop")],
      environment: CProgram.environment(files, "localhost:\(port)"),
      output: folder("out"),
      error: folder("err")
    )
    func dots() throws -> Int { try String(contentsOfFile: folder("out"), encoding: .utf8).count }
    for round in 0..<6 {
      // In the midst of changes: how many there are in flight is different each time, and all of it is right.
      let before = try dots()
      #expect(try await eventually { try dots() >= before + 5 || !process.isRunning })
      daemon.process.signal(round % 3 == 2 ? SIGTERM : SIGKILL)
      await daemon.process.ended()
      daemon = try await TestDaemon(pki: pki, data: data, port: port)
    }
    try folder.write("stop", "")
    await process.ended()
    let said = try String(contentsOfFile: folder("err"), encoding: .utf8)
    #expect(process.status == 0 && !process.isSignal, "\(said)")
    let lines = try String(contentsOfFile: folder("out"), encoding: .utf8).split(separator: "\n")
    #expect(lines.count == 2 && lines[1] == "\(lines[0].count)" && lines[0].count >= 30)
    await daemon.shutdown()
  }

  @Test(arguments: [nil, .address] as [CClients.Sanitizer?])
  func bothSidesOfAForkGoOn(_ sanitizer: CClients.Sanitizer?) async throws {
    try await run(["fork"], sanitizer)
  }

  /// Memory that cannot be locked is an error, unless it was asked for; nor does the child of a fork go on without.
  @Test(arguments: [["locked"], ["locked", "allow"]])
  func memoryThatCannotBeLocked(_ arguments: [String]) async throws {
    try await run(arguments)
  }

  /// The cache never takes the locked memory that a call needs.
  @Test func theCacheGivesWay() async throws { try await run(["scarce"]) }

  /// After what was fetched is freed, no copy of it is left in memory: of ours, of OpenSSL's, or on a stack.
  @Test func noCopyOfAKeyIsLeft() async throws { try await run(["scan"]) }

  /// Calls get a connection in the order in which they came.
  @Test func connectionsAreTakenInTurn() async throws { try await run(["fair"]) }

  /// What is past its time is asked for again; what the server says then, absent or forbidden, ends what was cached, also for an outage;
  /// and an outage longer than the time for it is one.
  @Test(arguments: [true, false]) func theCachesClocks(_ isRevoked: Bool) async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let writer = try server.instance("acme", "db1")
    let program = try await PolledProgram(folder, Self.db1(server.pki), server.port)
    #expect(try await program.ask("x") == "OK absent")
    _ = try await writer.call(.generate(.own("k")))
    #expect(try await program.ask("x") == "OK")
    #expect(try await program.ask("b") == "OK")
    _ = try await writer.call(.generate(.own("j")))
    #expect(try await program.ask("j") == "OK")
    _ = try await writer.call(.remove(.own("k")))
    #expect(try await program.ask("x") == "OK absent")
    let admin = try server.client(.serviceAdmin)
    if isRevoked {
      _ = try await writer.call(.generate(.own("k")))
      #expect(try await program.ask("x") == "OK")
      _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db1")))
      #expect(try await program.ask("x") == "FORBIDDEN absent")
    }
    await writer.close()
    await admin.close()
    await server.shutdown()
    // A refusal to read is of all keys.
    #expect(try await program.ask("j") == (isRevoked ? "UNREACHABLE absent" : "OK stale"))
    // Neither has it: it was taken out, and it is past its time.
    #expect(try await program.ask("x") == "UNREACHABLE absent")
    #expect(try await program.ask("b") == "UNREACHABLE absent")
    try await program.end()
  }

  @Test func anOutageIsBridgedForItsTime() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let writer = try server.instance("acme", "db1")
    _ = try await writer.call(.generate(.own("k")))
    await writer.close()
    let program = try await PolledProgram(folder, Self.db1(server.pki), server.port)
    #expect(try await program.ask("x") == "OK")
    #expect(try await program.ask("b") == "OK")
    await server.shutdown()
    #expect(try await program.ask("x") == "OK stale")
    #expect(try await program.ask("b") == "UNREACHABLE absent")
    try await program.end()
  }

  /// A revoked instance that is added again needs a later certificate: the connection that was refused under the old one is not kept.
  @Test func aRevokedInstanceComesBackWithANewCertificate() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let admin = try server.client(.serviceAdmin)
    let program = try await PolledProgram(folder, Self.db1(server.pki), server.port)
    #expect(try await program.ask("x") == "OK absent")
    _ = try await admin.call(.admin(.instanceRevoke(tenant: "acme", instance: "db1")))
    #expect(try await program.ask("x") == "FORBIDDEN absent")
    _ = try await admin.call(.admin(.instanceAdd(tenant: "acme", instance: "db1")))
    #expect(try await program.ask("x") == "FORBIDDEN absent")
    _ = try Self.db1(server.pki)
    #expect(try await program.ask("x") == "OK absent")
    try await program.end()
    await admin.close()
    await server.shutdown()
  }

  /// Renewed files are taken at the next connection; broken ones, and another identity's, are not, and the last good ones go on.
  @Test func certificatesAreRenewedInPlace() async throws {
    let server = try await TestServer()
    try await server.makeTenant("acme")
    let strangers = try TestPKI()
    let (ours, theirs) = (try Self.db1(server.pki), try Self.db1(strangers))
    let other = try server.pki.client(.instance(TenantName("globex"), InstanceName("db1")))
    func installCertificate(_ files: TLSConfiguration) throws {
      try folder.write("client.crt", try String(contentsOfFile: files.certificateFile, encoding: .utf8))
    }
    func install(_ files: TLSConfiguration) throws {
      try installCertificate(files)
      try folder.write("client.key", try String(contentsOfFile: files.privateKeyFile, encoding: .utf8))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: folder("client.key"))
    }
    try install(ours)
    let used = TLSConfiguration(
      certificateFile: folder("client.crt"),
      privateKeyFile: folder("client.key"),
      authorityFile: ours.authorityFile
    )
    let program = try await PolledProgram(folder, used, server.port)
    #expect(try await program.ask("d") == "OK absent")
    try folder.write("client.crt", "-----BEGIN CERTIFICATE-----\nhalf of")
    #expect(try await program.ask("d") == "OK absent")
    try install(other)
    #expect(try await program.ask("d") == "OK absent")
    // Of the same identity, and another CA: that it is refused says that it was taken. Not before its key is there.
    try install(ours)
    #expect(try await program.ask("d") == "OK absent")
    try installCertificate(theirs)
    #expect(try await program.ask("d") == "OK absent")
    try install(theirs)
    // Good files that cannot be read for a moment are read at the next connection, though they do not change any more.
    #expect(try await program.ask("e") == "UNREACHABLE absent")
    #expect(try await eventually { try await program.ask("d") == "REFUSED absent" })
    try install(ours)
    #expect(try await program.ask("d") == "OK absent")
    withExtendedLifetime(strangers) {}
    try await program.end()
    await server.shutdown()
  }
}
