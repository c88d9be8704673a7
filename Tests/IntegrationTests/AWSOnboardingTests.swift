import Foundation
import KeyringCore
import KeyringTestSupport
import TLSTransport
import Testing
import WireProtocol

/// A tenant of AWS is made with its credentials, once its CMK is proved; its secret is in its file, and nowhere else.
@Suite struct AWSOnboardingTests {
  private static func call(_ kms: ScriptedKMS, _ cmk: String, _ credentials: String) throws
    -> TenantCreateCall
  {
    TenantCreateCall(
      tenant: "acme",
      provider: "aws",
      cmkID: cmk,
      anyInstance: true,
      settings: [.init(name: "endpoint", value: kms.endpoint)],
      credentials: try secretText(credentials)
    )
  }

  @Test func aFailedProofLeavesNothingAndTheRightOneMakesIt() async throws {
    let kms = try await ScriptedKMS()
    let cmk = kms.makeKey()
    let server = try await TestServer()
    let folders = ServiceFolders(data: server.data)
    let admin = try server.client(.serviceAdmin)
    let before = folders.listing()
    let (good, bad) = ("AKIATESTTESTTEST0001\nsecret/of+a+test\n", "AKIATESTTESTTEST0002\nother/of+a+test\n")
    func refused(_ call: TenantCreateCall, _ reasons: [Reason], _ what: String) async throws {
      let refusal = try await admin.refusal(.admin(.tenantCreate(call)))
      #expect(refusal.map { reasons.contains($0.reason) } == true, "\(what): \(String(describing: refusal))")
      #expect(refusal?.message.contains("other/of") != true && refusal?.message.contains("secret/of") != true)
      #expect(folders.listing() == before, "\(what)")
    }
    kms.refuse("AKIATESTTESTTEST0002", with: "UnrecognizedClientException")
    try await refused(Self.call(kms, cmk, bad), [.kmsUnreachable], "wrong credentials")
    try await refused(Self.call(kms, cmk, "one line\n"), [.kmsUnreachable], "one line")
    kms.refuse("AKIATESTTESTTEST0001", with: "AccessDeniedException")
    try await refused(Self.call(kms, cmk, good), [.kmsDenied], "denied")
    kms.refuse("AKIATESTTESTTEST0001", with: nil)
    kms.set(cmk, .disabled)
    try await refused(Self.call(kms, cmk, good), [.kmsDenied], "disabled")
    kms.set(cmk, .enabled)
    kms.behave("Decrypt", .error("AccessDeniedException", "no"))
    try await refused(Self.call(kms, cmk, good), [.kmsDenied], "no Decrypt")
    kms.behave("Decrypt", nil)
    kms.behave(.hangUp)
    try await refused(Self.call(kms, cmk, good), [.kmsUnreachable], "unreachable")
    kms.behave(.normal)
    var call = try Self.call(kms, cmk, good)
    call.isDryRun = true
    #expect(try await admin.refusal(.admin(.tenantCreate(call))) == nil)
    #expect(folders.listing() == before)
    kms.forgetCalls()
    call.isDryRun = false
    #expect(try await admin.refusal(.admin(.tenantCreate(call))) == nil)
    #expect(
      kms.calls.map(\.operation) == ["GenerateDataKey", "Decrypt"],
      "the proof is the first wrapping key"
    )
    #expect(kms.calls.allSatisfy { $0.context.contains("keyring:tenant=acme") })
    let file = server.data("tenants/acme/credentials")
    let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? NSNumber
    #expect(try String(contentsOfFile: file, encoding: .utf8) == good && mode?.intValue == 0o600)
    #expect(folders.paths(of: "acme").filter { $0.hasPrefix("cmks/") }.isEmpty && folders.onboardings.isEmpty)
    guard case .tenantCreate(cmk, true) = try await admin.call(.admin(.tenantCreate(call))) else {
      throw UnexpectedReply()
    }
    let differing = try await admin.refusal(.admin(.tenantCreate(Self.call(kms, cmk, bad))))
    #expect(differing?.reason == .tenantExists && differing?.message.contains("credentials") == true)
    let instance = try server.instance("acme", "db1")
    _ = try await instance.call(.generate(.own("k")))
    for client in [admin, instance] { await client.close() }
    await server.shutdown()
    try await kms.shutdown()
  }

  /// Of a creation that is refused and of one that is not: nothing in the log, and nothing outside of locked memory.
  @Test func theSecretIsInItsFileAlone() async throws {
    let kms = try await ScriptedKMS()
    let cmk = kms.makeKey()
    let daemon = try await TestDaemon(
      configuration: ["log_level: debug", "allowed_endpoints: [127.0.0.1]"]
    )
    let admin = try daemon.client(.serviceAdmin)
    let canary = (0..<40).map { _ in
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".randomElement() ?? "a"
    }
    let text = String(canary)
    let credentials = "AKIATESTTESTTEST0001\n\(text)\n"
    kms.behave(.error("AccessDeniedException", "no"))
    let call = try Self.call(kms, cmk, credentials)
    #expect(try await admin.refusal(.admin(.tenantCreate(call)))?.reason == .kmsDenied)
    kms.behave(.normal)
    #expect(try await admin.refusal(.admin(.tenantCreate(call))) == nil)
    let results = try await admin.apply([call, TenantCreateCall(tenant: "other")])
    #expect(results[0].isUnchanged && results[1].refusal == nil)
    let memory = ProcessMemory(id: daemon.process.id)
    let scan = try memory.scan(ProcessMemory.Needle.of("secret access key", Array(text.utf8.prefix(32))))
    #expect(scan.outsideLockedMemory.isEmpty && scan.bytesRead > 0, "\(scan.outsideLockedMemory)")
    #expect(try !daemon.log.contains(text.prefix(12)))
    #expect(
      try String(contentsOfFile: daemon.data("tenants/acme/credentials"), encoding: .utf8) == credentials
    )
    await admin.close()
    await daemon.shutdown()
    try await kms.shutdown()
  }
}
