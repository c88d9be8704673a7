import ConfigurationFiles
import TenantRegistry
import Testing

/// What `tenant create` writes is what was asked for, no less and no more.
@Suite struct NewTenantConfigurationTests {
  private func made(
    instances: [String] = [],
    anyInstance: Bool = false,
    settings: [(name: String, value: String)] = [],
    hasAuditLog: Bool = true
  ) throws(ConfigurationError) -> NewTenantConfiguration {
    try NewTenantConfiguration(
      NewTenantConfiguration.Request(
        cmkID: "a",
        provider: "",
        profile: "",
        instances: instances,
        anyInstance: anyInstance,
        settings: settings
      ),
      allowedEndpoints: [],
      hasAuditLog: hasAuditLog
    )
  }

  @Test func auditIsAsTheServiceCanHaveIt() throws {
    #expect(try made(settings: [("audit", "strict")]).settings.audit == .strict)
    #expect(try made().settings.audit == .lenient)
    #expect(try made(hasAuditLog: false).settings.audit == .off)
    #expect(throws: ConfigurationError.self) {
      try made(settings: [("audit", "strict")], hasAuditLog: false)
    }
  }

  /// `instances: [any]` of the file would let all of them in, where one of that name was asked for.
  @Test func anInstanceCalledAnyIsNotEverybody() throws {
    #expect(throws: ConfigurationError.self) { try made(instances: ["any"]) }
    #expect(throws: ConfigurationError.self) { try made(instances: ["db1", "any"]) }
    #expect(try made(anyInstance: true).settings.file.instances == .any)
  }
}
