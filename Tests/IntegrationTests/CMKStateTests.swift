import Foundation
import KeyringTestSupport
import Testing

/// Tenants of AWS whose CMKs are disabled, pending deletion, replicated: the built programs before LocalStack, which enforces that as KMS does.
@Suite struct CMKStateTests {
  @Test func theStateOfTheCMKIsTheTenants() async throws {
    let top = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    let programs = URL(filePath: try TestProgram(product: "keyringd").path).deletingLastPathComponent()
    let outcome = try await TestProgram(path: top.appending(path: "LocalStack/run").path).run(
      [programs.path],
      environment: ProcessInfo.processInfo.environment
    )
    #expect(outcome.status == 0 && !outcome.isSignal, "\(outcome.error)")
    #expect(
      outcome.text.split(separator: "\n") == [
        "enabled: a key is generated and fetched",
        "disabled: TENANT_LOCKED",
        "enabled again: the same key",
        "pending deletion: TENANT_LOCKED",
        "deletion cancelled: disabled, TENANT_LOCKED",
        "enabled again: the same key",
        "no such CMK: not found",
        "by-region: us-east-1 opens what eu-central-1, now disabled, wrapped: the same key",
        "by-region: both disabled: TENANT_LOCKED",
        "by-arn: us-east-1 opens what eu-central-1, now disabled, wrapped: the same key",
        "by-arn: both disabled: TENANT_LOCKED",
      ]
    )
  }
}
