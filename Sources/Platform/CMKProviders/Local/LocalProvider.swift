internal import Cryptography
internal import Dispatch
public import KeyringCore
public import KeyringStorage
public import SecureMemory

/// The embedded provider: one tenant's CMKs, in files under the service's root key. It obeys the same rules as AWS KMS.
public final class LocalProvider: CMKLifecycle, @unchecked Sendable {
  // SAFETY: @unchecked Sendable because `directory`, `loaded` and `unsettled` are touched on `queue` alone.

  /// Always `local`.
  public let kind = ProviderKind.local
  let tenant: TenantName
  let parent: DirectoryDescriptor
  let root: RootKey
  let nowMilliseconds: @Sendable () -> UInt64
  private let queue = DispatchQueue(label: "keyring.local-provider")
  private var directory: DirectoryDescriptor?
  private var isEnded = false
  private var loaded: [CMKID: LocalCMK] = [:]
  /// CMKs after whose last change the disk may hold the old file or the new one, whatever the page cache shows: written anew before any use.
  private var unsettled: Set<CMKID> = []

  /// - Parameters:
  ///   - directory: of all tenants' CMKs; the tenant's own is made in it at need.
  ///   - nowMilliseconds: the clock, Unix milliseconds.
  public init(
    tenant: TenantName,
    directory: DirectoryDescriptor,
    root: RootKey,
    nowMilliseconds: @escaping @Sendable () -> UInt64
  ) {
    self.tenant = tenant
    parent = directory
    self.root = root
    self.nowMilliseconds = nowMilliseconds
  }

  /// File reads and writes are short, and happen here: on no event loop, none of Swift's threads, no tenant's queue.
  func onQueue<Value: Sendable>(
    _ body: @escaping @Sendable (LocalProvider) throws(CMKError) -> Value
  ) async throws(CMKError) -> Value {
    let result = await withCheckedContinuation { continuation in
      queue.async {
        continuation.resume(returning: Result { () throws(CMKError) in try body(self) })
      }
    }
    return try result.get()
  }

  // MARK: CMKProvider

  /// 32 random bytes, and their ciphertext under the CMK's newest version.
  public func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> GeneratedDataKey
  {
    try await onQueue { provider throws(CMKError) in
      let plaintext = try provider.random(count: 32)
      return GeneratedDataKey(plaintext: plaintext, wrapped: try provider.wrap(plaintext, cmk, context))
    }
  }

  /// Encrypts 1 to 4,096 bytes under the CMK's newest version.
  public func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> [UInt8]
  {
    guard (1...4096).contains(plaintext.count) else { throw .refused("a CMK encrypts 1 to 4,096 bytes") }
    return try await onQueue { provider throws(CMKError) in try provider.wrap(plaintext, cmk, context) }
  }

  /// Decrypts what any version of the CMK encrypted with this context.
  public func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError)
    -> Secret
  {
    try await onQueue { provider throws(CMKError) in try provider.unwrap(wrapped, cmk, context) }
  }

  /// 1 to 1,024 bytes of libcrypto's private generator.
  public func generateRandom(count: Int) async throws(CMKError) -> Secret {
    guard (1...1024).contains(count) else { throw .refused("random bytes come 1 to 1,024 at a time") }
    return try random(count: count)
  }

  /// What is known of a CMK.
  public func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    try await onQueue { provider throws(CMKError) in try provider.load(cmk).described }
  }

  /// Adds a version, durably.
  public func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    try await onQueue { provider throws(CMKError) in
      var key = try provider.usable(cmk)
      do {
        try key.addVersion(provider.root, nowMilliseconds: provider.nowMilliseconds())
      } catch {
        throw .unreachable("a version cannot be made: \(error)")
      }
      return try provider.store(key)
    }
  }

  // MARK: CMKLifecycle

  /// Makes a CMK with one version, durably.
  public func create() async throws(CMKError) -> CMKDescription {
    try await onQueue { provider throws(CMKError) in
      let made = try NewLocalCMK(
        tenant: provider.tenant,
        root: provider.root,
        nowMilliseconds: provider.nowMilliseconds()
      )
      return try provider.store(made.cmk)
    }
  }

  /// Refuses the CMK's use until `enable`.
  public func disable(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    try await change(cmk) { key, _ throws(CMKError) in
      guard key.state == .enabled || key.state == .disabled else {
        throw .refused("the CMK is pending deletion")
      }
      key.state = .disabled
    }
  }

  /// The way back from `disable`.
  public func enable(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    try await change(cmk) { key, _ throws(CMKError) in
      guard key.state == .enabled || key.state == .disabled else {
        throw .refused("the CMK is pending deletion: cancel that first")
      }
      key.state = .enabled
    }
  }

  /// Refuses the CMK's use, and destroys its versions after `days`.
  public func scheduleDeletion(cmk: CMKID, days: Int) async throws(CMKError) -> CMKDescription {
    guard (7...30).contains(days) else { throw .refused("a CMK is deleted after 7 to 30 days") }
    return try await change(cmk) { key, now in
      key.state = .pendingDeletion(at: now + UInt64(days) * 86_400_000)
    }
  }

  /// The way back; the CMK is then disabled.
  public func cancelDeletion(cmk: CMKID) async throws(CMKError) -> CMKDescription {
    try await change(cmk) { key, _ throws(CMKError) in
      guard case .pendingDeletion = key.state else { throw .refused("the CMK is not pending deletion") }
      key.state = .disabled
    }
  }

  private func change(
    _ cmk: CMKID,
    _ body: @escaping @Sendable (inout LocalCMK, UInt64) throws(CMKError) -> Void
  ) async throws(CMKError) -> CMKDescription {
    try await onQueue { provider throws(CMKError) in
      var key = try provider.load(cmk)
      try body(&key, provider.nowMilliseconds())
      return try provider.store(key)
    }
  }

  // MARK: On the queue

  func random(count: Int) throws(CMKError) -> Secret {
    do {
      return try SystemRandom.secret(count: count)
    } catch {
      throw .unreachable("no random bytes: \(error)")
    }
  }

  /// Lets go of every CMK: none is loaded or made any more.
  func end() {
    isEnded = true
    loaded = [:]
    unsettled = []
    directory = nil
  }

  func tenantDirectory() throws(CMKError) -> DirectoryDescriptor {
    guard !isEnded else { throw .denied("the tenant's CMKs were destroyed") }
    if let directory { return directory }
    do {
      let made = try parent.directory(tenant.text, create: true)
      try parent.synchronize()
      // What an ended process left: half a file, or one that was renamed and would not be there after a power cut.
      let files = try made.names().filter { $0.hasPrefix("local-") && $0.hasSuffix(".new") }
      try made.removeLeftovers(of: files.map { String($0.dropLast(4)) })
      try made.synchronize()
      directory = made
      return made
    } catch {
      throw .unreachable("the CMK directory cannot be used: \(error)")
    }
  }

  func load(_ id: CMKID) throws(CMKError) -> LocalCMK {
    dispatchPrecondition(condition: .onQueue(queue))
    let key: LocalCMK
    if let known = loaded[id] { key = known } else { key = try settled(id) }
    loaded[id] = key
    switch key.state {
    case .enabled, .disabled: return key
    case .destroyed: throw .denied("CMK \(id) is not there")
    case .pendingDeletion(let at):
      guard nowMilliseconds() >= at else { return key }
      var ended = key
      ended.state = .destroyed
      ended.versions = []
      _ = try store(ended)
      throw .denied("CMK \(id) is not there")
    }
  }

  /// What the file says, once that is what the disk has: a wrapping key made under a version that a crash takes away is lost.
  func settled(_ id: CMKID) throws(CMKError) -> LocalCMK {
    let key = try read(id)
    guard unsettled.contains(id) else { return key }
    do {
      try AtomicFile.replace(id.text, in: tenantDirectory(), with: [try key.encode(root)])
    } catch {
      throw .unreachable("CMK \(id) is not used before its file is written anew, which failed: \(error)")
    }
    unsettled.remove(id)
    return key
  }

  func read(_ id: CMKID) throws(CMKError) -> LocalCMK {
    // A name of the wrong form, a CMK of another tenant and one that is not there look alike.
    let absent = CMKError.denied("CMK \(id) is not there")
    guard LocalCMK.isID(id) else {
      throw absent
    }
    let bytes: [UInt8]
    do {
      bytes = try tenantDirectory().readFile(id.text, bytesMax: 16 << 20)
    } catch FileError.absent {
      throw absent
    } catch let error as CMKError {
      throw error
    } catch {
      throw .unreachable("CMK \(id) cannot be read: \(error)")
    }
    return try LocalCMK.decode(bytes, tenant: tenant, id: id, root: root)
  }

  /// Durable when it returns; memory changes after the file.
  ///
  /// - Throws: `CMKError.outcomeUnknown` where the file may be the old one or the new one; other errors where it is the old one.
  func store(_ key: LocalCMK) throws(CMKError) -> CMKDescription {
    loaded[key.id] = nil  // after a failure the file is read again
    do {
      let bytes = try key.encode(root)
      try AtomicFile.replace(key.id.text, in: tenantDirectory(), with: [bytes])
    } catch let error as CMKError {
      throw error
    } catch FileError.unknown(let what) {
      unsettled.insert(key.id)
      throw .outcomeUnknown(
        "whether CMK \(key.id) was changed is not known, and describing it tells: \(what)"
      )
    } catch {
      throw .unreachable("CMK \(key.id) cannot be written: \(error)")
    }
    unsettled.remove(key.id)
    loaded[key.id] = key
    return key.described
  }

  private func usable(_ id: CMKID) throws(CMKError) -> LocalCMK {
    let key = try load(id)
    try key.checkUsable()
    return key
  }

  private func wrap(_ plaintext: Secret, _ id: CMKID, _ context: EncryptionContext) throws(CMKError)
    -> [UInt8]
  {
    try usable(id).wrap(plaintext, context, root)
  }

  private func unwrap(_ blob: [UInt8], _ id: CMKID, _ context: EncryptionContext) throws(CMKError) -> Secret {
    try usable(id).unwrap(blob, context, root)
  }
}
