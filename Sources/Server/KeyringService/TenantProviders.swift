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
    var generation: UInt64 = 0
  }

  private let tenant: TenantName
  private let files: TenantFiles?
  private let resources: ServiceResources
  private let content: Secret?
  private let state = Mutex(State())
  /// The tenant's turns, and what is known of endpoints that do not answer: both outlive a change of credentials.
  private let guarded: CallGuard

  /// - Parameters:
  ///   - files: where the credentials are; nil for a tenant that has no directory yet.
  ///   - admission: whose limit of KMS calls counts; nil for a tenant that is not there yet: an administrator asks for it.
  ///   - credentials: what their file is to hold, of such a tenant.
  init(
    _ tenant: TenantName,
    _ files: TenantFiles?,
    _ resources: ServiceResources,
    _ admission: Admission?,
    credentials: Secret? = nil
  ) {
    content = credentials
    guarded = CallGuard(
      .init(
        now: { monotonicNanoseconds() },
        sleep: { await TenantProviders.pause(nanoseconds: $0) },
        random: { .random(in: 0...1) }
      ),
      budget: { isRefusable in admission?.takeKMSCall(isRefusable: isRefusable) }
    )
    self.tenant = tenant
    self.files = files
    self.resources = resources
  }

  /// Another number once others are in force.
  var generation: UInt64 { state.withLock { $0.generation } }

  /// What reaches the CMKs of `kind`, under the settings in force.
  func provider(
    _ kind: ProviderKind,
    _ present: ProviderSettings,
    former: [ProviderSettings]
  ) throws(CMKError) -> any CMKProvider {
    try provider(kind, [present] + former) { settings throws(CMKError) in try aws(settings) }
  }

  private func provider(
    _ kind: ProviderKind,
    _ settings: [ProviderSettings],
    _ access: (ProviderSettings) throws(CMKError) -> AWSAccess
  ) throws(CMKError) -> any CMKProvider {
    switch kind {
    case .local: return try local()
    case .aws:
      let settings = settings.filter { $0.kind == .aws }
      var members: [SuccessiveProviders.Member] = []
      for each in settings { members.append((account: each.account, provider: try access(each).provider)) }
      guard let first = members.first else {
        throw .configuration(
          "the tenant has no provider 'aws': a change of the provider is a `tenant move`, which keeps the way to old keys"
        )
      }
      return members.count == 1 ? first.provider : SuccessiveProviders(members: members)
    }
  }

  /// Whose credentials settings that are not in force yet are tried with.
  enum Credentials {
    /// Those in force, where the settings name the same.
    case inForce
    /// Read now.
    case readAnew
  }

  /// What reaches the CMKs under settings that are not in force yet, the former providers among them.
  func candidate(_ settings: TenantSettings, _ credentials: Credentials) throws(CMKError) -> Candidate {
    var access: [ProviderSettings: AWSAccess] = [:]
    for each in [settings.provider] + settings.former where each.kind == .aws {
      switch credentials {
      case .readAnew: access[each] = try makeAWS(each)
      case .inForce:
        if let known = cached(each) {
          access[each] = known
        } else {
          access[each] = try makeAWS(each, sharing: likeCredentials(each))
        }
      }
    }
    return Candidate(settings: settings, access: access, providers: self)
  }

  /// Settings that are not in force yet, and what reaches their CMKs.
  struct Candidate: Sendable {
    let settings: TenantSettings
    fileprivate let access: [ProviderSettings: AWSAccess]
    fileprivate let providers: TenantProviders

    /// The same ways to the CMKs, once the proof has told whose accounts they lead to.
    func knowing(_ settings: TenantSettings) throws(CMKError) -> Candidate {
      var access: [ProviderSettings: AWSAccess] = [:]
      for each in [settings.provider] + settings.former where each.kind == .aws {
        guard let known = self.access.first(where: { $0.key.isSame(butForAccount: each) })?.value else {
          throw .configuration("not a provider of the tenant")
        }
        access[each] = known
      }
      return Candidate(settings: settings, access: access, providers: providers)
    }

    /// As `TenantProviders.provider`, under these settings.
    func provider(_ kind: ProviderKind) throws(CMKError) -> any CMKProvider {
      try providers.provider(kind, [settings.provider] + settings.former) { each throws(CMKError) in
        guard let access = access[each] else { throw .configuration("not a provider of the tenant") }
        return access
      }
    }
  }

  /// Takes a candidate that was proved, in the settings' turn in which they come into force: all else is let go.
  func adopt(_ candidate: Candidate) {
    state.withLock { state in
      state.aws = candidate.access
      state.generation += 1
    }
  }

  /// Lets go of all: what is used next is made anew.
  func forget() {
    state.withLock { state in
      state.aws = [:]
      state.generation += 1
    }
  }

  /// What is known of the credentials in use under these settings; nil for a provider that has none, or before their first use.
  func credentials(_ settings: ProviderSettings) -> AWSCredentialsStatus? {
    cached(settings)?.credentials.status
  }

  private func cached(_ settings: ProviderSettings) -> AWSAccess? { state.withLock { $0.aws[settings] } }

  /// Credentials in use that another region or endpoint is reached with too.
  private func likeCredentials(_ settings: ProviderSettings) -> AWSCredentialsCache? {
    state.withLock { state in
      state.aws.first { $0.key.hasSameCredentials(as: settings) }?.value.credentials
    }
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
    if let access = cached(settings) { return access }
    let made = try makeAWS(settings)
    return state.withLock { state in
      if let first = state.aws[settings] { return first }
      state.aws[settings] = made
      return made
    }
  }

  private func makeAWS(
    _ settings: ProviderSettings,
    sharing credentials: AWSCredentialsCache? = nil
  ) throws(CMKError) -> AWSAccess {
    return try AWSAccess(
      settings,
      tenant,
      .init(files: files, content: content),
      resources,
      guarded,
      credentials
    )
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

/// Several providers of one kind: the first for everything new, the others for what was encrypted before a move.
struct SuccessiveProviders: CMKProvider {
  typealias Member = (account: String?, provider: any CMKProvider)

  let members: [Member]
  private var primary: any CMKProvider { members[0].provider }

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

  /// Those of the account that encrypted it are asked, and nobody else: one that cannot know the CMK neither refuses it nor excuses its silence.
  /// A refusal by any of them is one, though another does not answer: it never fails open.
  func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> Secret {
    let account = AWSProvider.key(of: wrapped)?.account
    let own = members.filter { $0.account != nil && $0.account == account }
    var failures: [CMKError] = []
    for member in own.isEmpty ? members : own {
      do throws(CMKError) {
        return try await member.provider.decrypt(wrapped, cmk: cmk, context: context)
      } catch {
        failures.append(error)
      }
    }
    throw failures.first(where: \.isRefusal) ?? failures.first ?? .configuration("there is no provider")
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
