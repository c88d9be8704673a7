import Foundation
import KeyringCore
import KeyringStorage
import KeyringTestSupport
import SecureMemory
import Testing
import WireProtocol

/// What is on the disk of a service, looked at from outside.
struct ServiceFolders {
  let data: TestDirectory

  /// Every path under the three directories, without what the server keeps of itself.
  func listing() -> Set<String> {
    var all: Set<String> = []
    for folder in ["tenants", "anchors", "cmks"] {
      let names = FileManager.default.enumerator(atPath: data(folder))?.compactMap { $0 as? String } ?? []
      all.formUnion(names.map { "\(folder)/\($0)" })
    }
    return all.filter { !$0.hasSuffix(".lock") && !["tenants/.transfers", "cmks/root-check"].contains($0) }
  }

  /// Everything of one tenant, its onboarding included.
  func paths(of tenant: String) -> Set<String> {
    listing().filter { path in
      path.split(separator: "/").contains {
        $0 == tenant || $0 == "\(tenant).anchor" || $0.hasSuffix(".\(tenant)")
      }
    }
  }

  /// What is left of onboardings: empty between them.
  var onboardings: Set<String> { listing().filter { $0.hasPrefix("tenants/.onboarding/") } }

  /// A tenant of the local provider is there wholly, with exactly one CMK, or there is nothing of it.
  ///
  /// - Returns: true where it is there.
  func isWhole(_ tenant: String, _ place: String) -> Bool {
    let found = paths(of: tenant).filter { !$0.hasSuffix(".new") }
    if found.isEmpty { return false }
    let cmks = found.filter { $0.hasPrefix("cmks/\(tenant)/local-") }
    #expect(cmks.count == 1, "\(place): \(cmks)")
    let expected: Set = [
      "tenants/\(tenant)", "tenants/\(tenant)/tenant.yaml", "tenants/\(tenant)/keyring",
      "anchors/\(tenant).anchor", "cmks/\(tenant)",
    ]
    #expect(found == expected.union(cmks), "\(place): \(found.sorted())")
    let yaml = (try? String(contentsOfFile: data("tenants/\(tenant)/tenant.yaml"), encoding: .utf8)) ?? ""
    let id = cmks.first.map { String($0.split(separator: "/")[2]) } ?? "none"
    #expect(yaml.contains("cmk_id: \(id)\n"), "\(place): \(yaml)")
    return true
  }
}

extension TestClient {
  /// Makes a tenant in which any instance may call.
  func create(_ tenant: String) -> Call {
    .admin(.tenantCreate(TenantCreateCall(tenant: tenant, anyInstance: true)))
  }

  /// Makes many; answers the results.
  func apply(_ calls: [TenantCreateCall]) async throws -> [TenantApplyResult] {
    guard case .tenantApply(let results) = try await call(.admin(.tenantApply(calls))) else {
      throw UnexpectedReply()
    }
    return results
  }
}

/// Text as a secret: of a test, none of anybody's.
func secretText(_ text: String) throws -> Secret {
  var bytes = Array(text.utf8)
  return try unsafe bytes.withUnsafeMutableBytes {
    try unsafe Secret(copying: UnsafeRawBufferPointer($0))
  }
}
