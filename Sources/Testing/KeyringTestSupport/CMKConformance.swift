public import KeyringCore

/// What every provider of CMKs does alike: one check a rule, run by each provider's tests on a subject of its own.
public enum CMKConformance: String, CaseIterable, Sendable {
  case aDataKeyOpensAgain, sizesOfPlaintext, sizesOfRandom, anotherContextIsRefused, anotherTenantIsRefused
  case anotherCMKIsRefused, tamperedIsRefused, unknownIsDenied, rotationKeepsOldVersions, disabledIsDenied
  case pendingDeletionIsDenied, deletionTakes7To30Days, cancelledDeletionIsDisabled, anotherProviderGoesOn

  /// What a check needs beyond the calls of `CMKProvider`.
  public enum Need: Sendable {
    /// Nothing.
    case nothing
    /// That another tenant's provider has not the right to this tenant's CMKs.
    case tenants
    /// That a CMK which is disabled or pending deletion is refused.
    case states
    /// That the provider makes and ends CMKs itself.
    case lifecycle
  }

  /// What this check needs: an emulator of a KMS has not all of it.
  public var need: Need {
    switch self {
    case .aDataKeyOpensAgain, .sizesOfPlaintext, .sizesOfRandom, .anotherContextIsRefused,
      .anotherCMKIsRefused, .tamperedIsRefused, .unknownIsDenied, .rotationKeepsOldVersions:
      .nothing
    case .anotherTenantIsRefused: .tenants
    case .disabledIsDenied, .pendingDeletionIsDenied, .anotherProviderGoesOn: .states
    case .deletionTakes7To30Days, .cancelledDeletionIsDisabled: .lifecycle
    }
  }

  /// Who makes and ends CMKs for a check: the provider where it does that, else whoever administers the KMS.
  public struct Steward: Sendable {
    let make: @Sendable () async throws -> CMKID
    let disable: @Sendable (CMKID) async throws -> Void
    let enable: @Sendable (CMKID) async throws -> Void
    let scheduleDeletion: @Sendable (CMKID) async throws -> Void

    /// - Parameters:
    ///   - make: makes a CMK, enabled, that the tenant may use.
    ///   - disable: refuses its use.
    ///   - enable: the way back.
    ///   - scheduleDeletion: refuses its use until it is deleted, in 7 days.
    public init(
      make: @escaping @Sendable () async throws -> CMKID,
      disable: @escaping @Sendable (CMKID) async throws -> Void,
      enable: @escaping @Sendable (CMKID) async throws -> Void,
      scheduleDeletion: @escaping @Sendable (CMKID) async throws -> Void
    ) {
      self.make = make
      self.disable = disable
      self.enable = enable
      self.scheduleDeletion = scheduleDeletion
    }

    /// The provider itself.
    public init(_ provider: any CMKLifecycle) {
      self.init(
        make: { try await provider.create().id },
        disable: { _ = try await provider.disable(cmk: $0) },
        enable: { _ = try await provider.enable(cmk: $0) },
        scheduleDeletion: { _ = try await provider.scheduleDeletion(cmk: $0, days: 7) }
      )
    }
  }

  /// What a check works on.
  public struct Subject: Sendable {
    let provider: any CMKProvider
    let ofAnotherTenant: any CMKProvider
    let again: any CMKProvider
    let steward: Steward
    let ofAnotherTenantsSteward: Steward
    let absent: CMKID
    let hostile: [CMKID]
    let lifecycle: (any CMKLifecycle)?

    /// - Parameters:
    ///   - provider: a tenant's.
    ///   - ofAnotherTenant: another tenant's, of the same service.
    ///   - again: the first tenant's, as after a restart.
    ///   - steward: of the first tenant's CMKs.
    ///   - ofAnotherTenantsSteward: of the other tenant's.
    ///   - absent: a CMK that is not there.
    ///   - hostile: names that no CMK can have.
    public init(
      provider: any CMKProvider,
      ofAnotherTenant: any CMKProvider,
      again: any CMKProvider,
      steward: Steward,
      ofAnotherTenantsSteward: Steward,
      absent: CMKID,
      hostile: [CMKID]
    ) {
      self.provider = provider
      self.ofAnotherTenant = ofAnotherTenant
      self.again = again
      self.steward = steward
      self.ofAnotherTenantsSteward = ofAnotherTenantsSteward
      self.absent = absent
      self.hostile = hostile
      lifecycle = provider as? any CMKLifecycle
    }
  }

  /// What a provider did that it must not.
  public struct Violation: Error, CustomStringConvertible {
    /// In words.
    public let description: String
  }

  /// Runs this check.
  ///
  /// - Throws: `Violation`, or what the provider throws where it should not.
  public func run(_ subject: Subject) async throws {
    let run = CMKConformanceRun(subject: subject, context: try CMKConformanceRun.context("acme", 1))
    switch self {
    case .aDataKeyOpensAgain: try await run.aDataKeyOpensAgain()
    case .sizesOfPlaintext: try await run.sizesOfPlaintext()
    case .sizesOfRandom: try await run.sizesOfRandom()
    case .anotherContextIsRefused: try await run.anotherContextIsRefused()
    case .anotherTenantIsRefused: try await run.anotherTenantIsRefused()
    case .anotherCMKIsRefused: try await run.anotherCMKIsRefused()
    case .tamperedIsRefused: try await run.tamperedIsRefused()
    case .unknownIsDenied: try await run.unknownIsDenied()
    case .rotationKeepsOldVersions: try await run.rotationKeepsOldVersions()
    case .disabledIsDenied: try await run.disabledIsDenied()
    case .pendingDeletionIsDenied: try await run.pendingDeletionIsDenied()
    case .deletionTakes7To30Days: try await run.deletionTakes7To30Days()
    case .cancelledDeletionIsDisabled: try await run.cancelledDeletionIsDisabled()
    case .anotherProviderGoesOn: try await run.anotherProviderGoesOn()
    }
  }
}
