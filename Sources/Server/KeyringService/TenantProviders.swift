internal import CMKProviders
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory
internal import Synchronization
internal import TenantRegistry

/// What reaches the CMKs of one tenant: the provider in force, and those before a move, which old wrapping keys still need.
final class TenantProviders: Sendable {
  private struct State {
    var local: LocalProvider?
    var aws: [ProviderSettings: AWSAccess] = [:]
    /// By endpoint: what is known of one that does not answer outlives a change of credentials.
    var guards: [String: CallGuard] = [:]
  }

  private let tenant: TenantName
  private let files: TenantFiles?
  private let resources: ServiceResources
  private let state = Mutex(State())

  /// - Parameter files: where the credentials are; nil for a tenant that has no directory yet.
  init(_ tenant: TenantName, _ files: TenantFiles?, _ resources: ServiceResources) {
    self.tenant = tenant
    self.files = files
    self.resources = resources
  }

  /// What reaches the CMKs of `kind`, under these settings.
  func provider(
    _ kind: ProviderKind,
    _ present: ProviderSettings,
    former: [ProviderSettings]
  ) throws(CMKError) -> any CMKProvider {
    switch kind {
    case .local: return try local()
    case .aws:
      let settings = ([present] + former).filter { $0.kind == .aws }
      guard let first = settings.first else {
        throw .configuration("the tenant has no provider 'aws', and had none")
      }
      var others: [any CMKProvider] = []
      for other in settings.dropFirst() { others.append(try aws(other).provider) }
      let primary = try aws(first).provider
      return others.isEmpty ? primary : SuccessiveProviders(primary: primary, former: others)
    }
  }

  /// What reaches a CMK under settings that are not in force yet: with credentials read now.
  func candidate(_ settings: ProviderSettings) throws(CMKError) -> Candidate {
    switch settings.kind {
    case .local: return Candidate(settings: settings, provider: try local(), access: nil)
    case .aws:
      let access = try makeAWS(settings)
      return Candidate(settings: settings, provider: access.provider, access: access)
    }
  }

  /// Settings that were not in force yet, and what reaches their CMK.
  struct Candidate: Sendable {
    let settings: ProviderSettings
    let provider: any CMKProvider
    fileprivate let access: AWSAccess?
  }

  /// Takes a candidate that was proved; what is neither in force nor needed by old wrapping keys is let go.
  func adopt(_ candidate: Candidate, keeping others: [ProviderSettings]) {
    state.withLock { state in
      state.aws = state.aws.filter { others.contains($0.key) }
      if let access = candidate.access { state.aws[candidate.settings] = access }
    }
  }

  /// What is known of the credentials in use under these settings; nil for a provider that has none, or before their first use.
  func credentials(_ settings: ProviderSettings) -> AWSCredentialsStatus? {
    state.withLock { $0.aws[settings] }?.credentials.status
  }

  private func local() throws(CMKError) -> LocalProvider {
    if let local = state.withLock({ $0.local }) { return local }
    let made = try resources.localProvider(tenant)
    return state.withLock { state in
      if let first = state.local { return first }
      state.local = made
      return made
    }
  }

  private func aws(_ settings: ProviderSettings) throws(CMKError) -> AWSAccess {
    if let access = state.withLock({ $0.aws[settings] }) { return access }
    let made = try makeAWS(settings)
    return state.withLock { state in
      if let first = state.aws[settings] { return first }
      state.aws[settings] = made
      return made
    }
  }

  private func makeAWS(_ settings: ProviderSettings) throws(CMKError) -> AWSAccess {
    let endpoint = settings.endpoint ?? settings.region ?? ""
    let guarded = state.withLock { state in
      if let known = state.guards[endpoint] { return known }
      let made = CallGuard(
        .init(
          now: { monotonicNanoseconds() },
          sleep: { await Self.pause(nanoseconds: $0) },
          random: { .random(in: 0...1) }
        )
      )
      state.guards[endpoint] = made
      return made
    }
    return try AWSAccess(settings, tenant, files, resources, guarded)
  }
}

extension TenantProviders {
  private static func pause(nanoseconds: UInt64) async {
    do {
      try await Task.sleep(nanoseconds: nanoseconds)
    } catch {
      return  // cancelled: the next attempt sees to that
    }
  }
}

/// Several providers of one kind: one for everything new, and others that may know what it does not, after a move from account to account.
struct SuccessiveProviders: CMKProvider {
  let primary: any CMKProvider
  let former: [any CMKProvider]

  var kind: ProviderKind { primary.kind }

  func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> GeneratedDataKey {
    try await primary.generateDataKey(cmk: cmk, context: context)
  }

  func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> [UInt8]
  {
    try await primary.encrypt(plaintext, cmk: cmk, context: context)
  }

  func generateRandom(count: Int) async throws(CMKError) -> Secret {
    try await primary.generateRandom(count: count)
  }

  func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription { try await primary.describe(cmk: cmk) }

  func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription { try await primary.rotate(cmk: cmk) }

  /// Whoever opens it. That all refuse is a refusal; where one did not answer, nobody knows.
  func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> Secret {
    var failure: CMKError?
    for provider in [primary] + former {
      do throws(CMKError) {
        return try await provider.decrypt(wrapped, cmk: cmk, context: context)
      } catch {
        failure = Self.worse(failure, error)
      }
    }
    throw failure ?? .configuration("there is no provider")
  }

  private static func worse(_ first: CMKError?, _ second: CMKError) -> CMKError {
    guard let first else { return second }
    switch first {
    case .denied, .invalidCiphertext: return second.isRefusal ? first : second
    case .unreachable, .overloaded, .refused, .configuration, .outcomeUnknown: return first
    }
  }
}

extension CMKError {
  /// True where the CMK was found not to be usable, and not merely not asked.
  fileprivate var isRefusal: Bool {
    switch self {
    case .denied, .invalidCiphertext: true
    case .unreachable, .overloaded, .refused, .configuration, .outcomeUnknown: false
    }
  }
}
