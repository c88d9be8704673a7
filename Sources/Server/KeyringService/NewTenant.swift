internal import CMKProviders
internal import Cryptography
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory
internal import Synchronization
internal import TenantRegistry
internal import WireProtocol

/// A tenant that is to be made: checked, its CMK proved, all its files in memory, none on a disk.
struct NewTenant: Sendable {
  let name: TenantName
  let configuration: NewTenantConfiguration
  let keyringID: KeyringID
  let keyring: NewKeyring
  /// A local CMK that is made with it; nil where it uses one that is there.
  let cmk: NewLocalCMK?
  let credentials: Secret?

  var entry: OnboardingJournal.Entry {
    OnboardingJournal.Entry(tenant: name, keyring: keyringID, cmk: cmk?.id)
  }
}

/// What was asked for, checked as far as that goes without a KMS.
struct WantedTenant: Sendable {
  let name: TenantName
  let call: TenantCreateCall
  let configuration: NewTenantConfiguration
  let cmk: NewLocalCMK?

  var settings: TenantSettings { configuration.settings }

  /// - Throws: `malformed`, `configuration`.
  init(_ call: TenantCreateCall, _ name: TenantName, _ resources: ServiceResources) throws(ServiceError) {
    self.name = name
    self.call = call
    let isLocal = ["", "local"].contains(call.provider)
    guard !call.cmkID.isEmpty || isLocal else {
      throw .malformed(
        "the provider '\(call.provider.prefix(64))' needs a cmk_id: CMKs are made there, not here"
      )
    }
    do {
      cmk = isLocal && call.cmkID.isEmpty ? try resources.newLocalCMK(name) : nil
    } catch {
      throw ServiceError(error)
    }
    do {
      configuration = try NewTenantConfiguration(
        NewTenantConfiguration.Request(
          cmkID: cmk?.id.text ?? call.cmkID,
          provider: call.provider,
          profile: call.profile,
          instances: call.instances,
          anyInstance: call.anyInstance,
          settings: call.settings.map { ($0.name, $0.value) }
        ),
        allowedEndpoints: resources.configuration.allowedEndpoints,
        hasAuditLog: resources.configuration.audit != nil
      )
    } catch {
      throw .malformed("\(error)")
    }
    try checkCredentials()
  }

  private func checkCredentials() throws(ServiceError) {
    let provider = settings.provider
    let takesFile = provider.kind == .aws && provider.credentials == .file
    guard takesFile != (call.credentials == nil) else {
      throw .malformed(
        takesFile
          ? "the provider 'aws' with `credentials: file` needs the file's two lines: access key id, secret access key"
          : "credentials were sent, and the tenant would have no file for them: that is for the provider 'aws' with `credentials: file`"
      )
    }
  }

  /// Has the CMK make the keyring's first wrapping key and open it again, and encodes the keyring under it.
  ///
  /// - Throws: what the KMS says.
  func proved(_ resources: ServiceResources) async throws(ServiceError) -> NewTenant {
    do {
      let keyringID = KeyringID(value: try SystemRandom.uint128())
      let made = try await NewWrappingKey(
        tenant: name,
        keyring: keyringID,
        settings: KeyringSettings(settings),
        provider: try await provider(resources)
      ).make()
      defer { made.held.wipe() }
      let keyring = try NewKeyring(
        tenant: name,
        id: keyringID,
        commits: [try made.firstCommit()],
        authenticator: made.held
      )
      return NewTenant(
        name: name,
        configuration: configuration,
        keyringID: keyringID,
        keyring: keyring,
        cmk: cmk,
        credentials: call.credentials
      )
    } catch let error as CMKError {
      throw ServiceError(error)
    } catch let error as StoreError {
      throw ServiceError(error)
    } catch let error as ServiceError {
      throw error
    } catch {
      throw .defect("a tenant cannot be prepared: \(error)")
    }
  }

  private func provider(_ resources: ServiceResources) async throws -> any CMKProvider {
    switch settings.provider.kind {
    case .local:
      if let cmk { return cmk }
      // Looked for first: the provider would make the tenant's folder of CMKs.
      let (name, cmks) = (self.name, resources.cmks)
      let found = await resources.flushPools.value(device: resources.transferDevice, .onboarding) {
        Result { () throws(FileError) in try cmks?.status(of: name.text) != nil }
      }
      guard try found.get() || cmks == nil else {
        throw CMKError.denied("CMK \(settings.cmkID) is not there")
      }
      return try resources.localProvider(name)
    case .aws:
      return try TenantProviders(name, nil, resources, nil, credentials: call.credentials)
        .provider(.aws, settings.provider, former: [])
    }
  }

  /// How a tenant that is there differs from what was asked for; what was left open does not count.
  func differences(from present: Tenant) async throws(ServiceError) -> [SettingDifference] {
    let settings = present.settings
    var differences: [SettingDifference] = []
    for name in configuration.asked where name != .cmkID || cmk == nil {
      let (wanted, shown) = (self.settings.shown(name), settings.shown(name))
      guard wanted != shown else { continue }
      differences.append(
        SettingDifference(name: name.rawValue, present: shown, wanted: wanted, isDynamic: name.isDynamic)
      )
    }
    if call.anyInstance, settings.file.instances != .any {
      let shown = settings.shown(.instances)
      differences.append(
        SettingDifference(name: "instances", present: shown, wanted: "any", isDynamic: false)
      )
    }
    for text in call.instances {
      let instance = try Self.instance(text)
      guard present.state.withLock({ $0.rules.access(of: instance) }) == nil else { continue }
      let shown = settings.shown(.instances)
      differences.append(
        SettingDifference(name: "instances", present: shown, wanted: text, isDynamic: true)
      )
    }
    if differences.isEmpty, let credentials = call.credentials,
      try await !Self.has(present, credentials)
    {
      differences.append(
        SettingDifference(name: "credentials", present: "its file", wanted: "others", isDynamic: false)
      )
    }
    return differences
  }

  private static func instance(_ text: String) throws(ServiceError) -> InstanceName {
    do {
      return try InstanceName(text)
    } catch {
      throw .keyring(error)
    }
  }

  /// True if the tenant's credentials' file has this content.
  private static func has(_ tenant: Tenant, _ credentials: Secret) async throws(ServiceError) -> Bool {
    let (files, name) = (tenant.files, tenant.settings.provider.credentialsFile)
    let read = await tenant.resources.flushPools.value(device: tenant.device, .onboarding) {
      Result { () throws(FileError) in
        try files.directory.readSecret(name, bytesMax: TenantCreateCall.credentialsBytesMax)
      }
    }
    switch read {
    case .success(let present): return present.isEqual(to: credentials)
    case .failure(.absent): return false
    case .failure(let error): throw .storageUnavailable("\(error)")
    }
  }
}

extension ServiceResources {
  /// A CMK of the embedded provider that is in no file yet.
  fileprivate func newLocalCMK(_ tenant: TenantName) throws(CMKError) -> NewLocalCMK {
    guard cmks != nil, let root else {
      throw .configuration("the service has no local_provider configured")
    }
    return try NewLocalCMK(tenant: tenant, root: root, nowMilliseconds: unixMilliseconds())
  }
}
