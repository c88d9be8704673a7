public import KeyringCore
internal import SecureMemory

/// What every provider of CMKs does alike: one check a rule, run by each provider's tests on a subject of its own.
public enum CMKConformance: String, CaseIterable, Sendable {
  case aDataKeyOpensAgain, sizesOfPlaintext, sizesOfRandom, anotherContextIsRefused, anotherTenantIsRefused
  case anotherCMKIsRefused, tamperedIsRefused, unknownIsDenied, rotationKeepsOldVersions, disabledIsDenied
  case pendingDeletionIsDenied, deletionTakes7To30Days, cancelledDeletionIsDisabled, anotherProviderGoesOn

  /// What a check works on.
  public struct Subject: Sendable {
    let provider: any CMKLifecycle
    let ofAnotherTenant: any CMKLifecycle
    let again: any CMKLifecycle

    /// - Parameters:
    ///   - provider: a tenant's.
    ///   - ofAnotherTenant: another tenant's, of the same service.
    ///   - again: the first tenant's, as after a restart.
    public init(
      provider: any CMKLifecycle,
      ofAnotherTenant: any CMKLifecycle,
      again: any CMKLifecycle
    ) {
      self.provider = provider
      self.ofAnotherTenant = ofAnotherTenant
      self.again = again
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
    let run = Run(subject: subject, context: try context("acme", 1))
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

/// Why a call was refused, by the case of its error.
private enum Refusal: String {
  case unreachable, denied, invalidCiphertext, refused, configuration, outcomeUnknown
}

private func context(_ tenant: String, _ keyring: UInt128, _ purpose: String = "wrapping-key") throws
  -> EncryptionContext
{
  EncryptionContext(tenant: try TenantName(tenant), keyring: KeyringID(value: keyring), purpose: purpose)
}

private func need(_ condition: Bool, _ what: String) throws {
  guard condition else { throw CMKConformance.Violation(description: what) }
}

private func need<Value>(
  _ expected: Refusal...,
  from what: String,
  _ body: () async throws(CMKError) -> Value
) async throws {
  let refusal: Refusal
  do throws(CMKError) {
    _ = try await body()
    throw CMKError.configuration("it was not refused")
  } catch {
    switch error {
    case .unreachable, .overloaded: refusal = .unreachable
    case .denied: refusal = .denied
    case .invalidCiphertext: refusal = .invalidCiphertext
    case .refused: refusal = .refused
    case .configuration: refusal = .configuration
    case .outcomeUnknown: refusal = .outcomeUnknown
    }
    try need(expected.contains(refusal), "\(what): \(refusal), \(error), instead of \(expected)")
  }
}

private struct Run {
  let subject: CMKConformance.Subject
  let context: EncryptionContext
  var provider: any CMKLifecycle { subject.provider }

  private func made() async throws -> CMKID {
    let made = try await provider.create()
    try need(made.state == .enabled, "a new CMK is enabled")
    return made.id
  }

  private func secret(_ count: Int) throws -> Secret {
    try unsafe Secret(count: count) { room in
      for index in 0..<count { unsafe room[index] = UInt8(truncatingIfNeeded: index &* 7 &+ 3) }
    }
  }

  func aDataKeyOpensAgain() async throws {
    let cmk = try await made()
    let first = try await provider.generateDataKey(cmk: cmk, context: context)
    let second = try await provider.generateDataKey(cmk: cmk, context: context)
    try need(first.plaintext.count == 32, "a data key has 32 bytes")
    try need(!first.plaintext.isEqual(to: second.plaintext), "two data keys differ")
    try need(first.wrapped != second.wrapped, "two ciphertexts differ")
    let opened = try await provider.decrypt(first.wrapped, cmk: cmk, context: context)
    try need(opened.isEqual(to: first.plaintext), "a data key opens again")
  }

  func sizesOfPlaintext() async throws {
    let cmk = try await made()
    for count in [1, 32, 4095, 4096] {
      let wrapped = try await provider.encrypt(secret(count), cmk: cmk, context: context)
      let opened = try await provider.decrypt(wrapped, cmk: cmk, context: context)
      try need(opened.isEqual(to: secret(count)), "\(count) bytes open again")
    }
    for count in [0, 4097] {
      let plaintext = try secret(count)
      try await need(.refused, from: "\(count) bytes") { () async throws(CMKError) in
        try await provider.encrypt(plaintext, cmk: cmk, context: context)
      }
    }
  }

  func sizesOfRandom() async throws {
    for count in [1, 1024] {
      try need(try await provider.generateRandom(count: count).count == count, "\(count) random bytes")
    }
    let (one, other) = (
      try await provider.generateRandom(count: 32), try await provider.generateRandom(count: 32)
    )
    try need(!one.isEqual(to: other), "random bytes differ")
    for count in [-1, 0, 1025] {
      try await need(.refused, from: "\(count) random bytes") { () async throws(CMKError) in
        try await provider.generateRandom(count: count)
      }
    }
  }

  func anotherContextIsRefused() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    let others = [
      try KeyringTestSupport.context("acme", 2), try KeyringTestSupport.context("globex", 1),
      try KeyringTestSupport.context("acme", 1, "backup"),
    ]
    for other in others {
      try await need(.invalidCiphertext, .denied, from: "another context") { () async throws(CMKError) in
        try await provider.decrypt(wrapped, cmk: cmk, context: other)
      }
    }
  }

  func anotherTenantIsRefused() async throws {
    let cmk = try await made()
    let others = try await subject.ofAnotherTenant.create().id
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    try await need(.denied, from: "another tenant's CMK") { () async throws(CMKError) in
      try await subject.ofAnotherTenant.decrypt(wrapped, cmk: cmk, context: context)
    }
    try await need(.denied, from: "what is known of another tenant's CMK") { () async throws(CMKError) in
      try await subject.ofAnotherTenant.describe(cmk: cmk)
    }
    try await need(.invalidCiphertext, .denied, from: "another tenant's ciphertext") {
      () async throws(CMKError) in
      try await subject.ofAnotherTenant.decrypt(wrapped, cmk: others, context: context)
    }
  }

  func anotherCMKIsRefused() async throws {
    let (one, other) = (try await made(), try await made())
    let wrapped = try await provider.encrypt(secret(32), cmk: one, context: context)
    try await need(.invalidCiphertext, .denied, from: "another CMK") { () async throws(CMKError) in
      try await provider.decrypt(wrapped, cmk: other, context: context)
    }
  }

  func tamperedIsRefused() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    for index in wrapped.indices {
      var bad = wrapped
      bad[index] ^= 1
      let tampered = bad
      try await need(.invalidCiphertext, from: "byte \(index) flipped") { () async throws(CMKError) in
        try await provider.decrypt(tampered, cmk: cmk, context: context)
      }
    }
    for bad in [[], Array(wrapped.dropLast()), wrapped + [0], Array(wrapped.prefix(20))] {
      try await need(.invalidCiphertext, from: "\(bad.count) bytes") { () async throws(CMKError) in
        try await provider.decrypt(bad, cmk: cmk, context: context)
      }
    }
  }

  func unknownIsDenied() async throws {
    let absent = try CMKID("local-" + String(repeating: "0", count: 32))
    let hostile = try ["local-../../etc/passwd", "..", "/etc/passwd", "local-"].map { try CMKID($0) }
    for id in [absent] + hostile {
      try await need(.denied, from: "\(id)") { () async throws(CMKError) in
        try await provider.generateDataKey(cmk: id, context: context)
      }
      try await need(.denied, from: "\(id)") { () async throws(CMKError) in
        try await provider.describe(cmk: id)
      }
      try await need(.denied, from: "\(id)") { () async throws(CMKError) in try await provider.rotate(cmk: id)
      }
    }
  }

  func rotationKeepsOldVersions() async throws {
    let cmk = try await made()
    var wrapped: [[UInt8]] = []
    for version in 1...3 {
      wrapped.append(try await provider.encrypt(secret(32), cmk: cmk, context: context))
      let rotated = try await provider.rotate(cmk: cmk)
      try need(rotated.id == cmk, "a rotated CMK keeps its id")
      try need(
        rotated.version == 0 || rotated.version == UInt32(version + 1),
        "a rotated CMK has a version more"
      )
    }
    wrapped.append(try await provider.encrypt(secret(32), cmk: cmk, context: context))
    for old in wrapped {
      let opened = try await provider.decrypt(old, cmk: cmk, context: context)
      try need(opened.isEqual(to: secret(32)), "what an old version encrypted opens")
    }
  }

  private func needUnusable(_ cmk: CMKID, _ wrapped: [UInt8], _ what: String) async throws {
    let plaintext = try secret(32)
    try await need(.denied, from: what) { () async throws(CMKError) in
      try await provider.decrypt(wrapped, cmk: cmk, context: context)
    }
    try await need(.denied, from: what) { () async throws(CMKError) in
      try await provider.encrypt(plaintext, cmk: cmk, context: context)
    }
    try await need(.denied, from: what) { () async throws(CMKError) in
      try await provider.generateDataKey(cmk: cmk, context: context)
    }
    try await need(.denied, from: what) { () async throws(CMKError) in try await provider.rotate(cmk: cmk) }
  }

  func disabledIsDenied() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    try need(try await provider.disable(cmk: cmk).state == .disabled, "it is disabled")
    try need(try await provider.describe(cmk: cmk).state == .disabled, "it says so")
    try await needUnusable(cmk, wrapped, "disabled")
    try need(try await provider.enable(cmk: cmk).state == .enabled, "it is enabled")
    let opened = try await provider.decrypt(wrapped, cmk: cmk, context: context)
    try need(opened.isEqual(to: secret(32)), "it opens again once enabled")
  }

  func pendingDeletionIsDenied() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    let pending = try await provider.scheduleDeletion(cmk: cmk, days: 7)
    try need(pending.state == .pendingDeletion, "it is pending deletion")
    try await needUnusable(cmk, wrapped, "pending deletion")
    for change in [provider.enable, provider.disable] {
      try await need(.refused, .denied, from: "pending deletion") { () async throws(CMKError) in
        try await change(cmk)
      }
    }
  }

  func deletionTakes7To30Days() async throws {
    let cmk = try await made()
    for days in [-1, 0, 6, 31, Int.max] {
      try await need(.refused, from: "\(days) days") { () async throws(CMKError) in
        try await provider.scheduleDeletion(cmk: cmk, days: days)
      }
      try need(try await provider.describe(cmk: cmk).state == .enabled, "it stays enabled")
    }
    try need(
      try await provider.scheduleDeletion(cmk: cmk, days: 30).state == .pendingDeletion,
      "30 days are taken"
    )
  }

  func cancelledDeletionIsDisabled() async throws {
    let cmk = try await made()
    try await need(.refused, .denied, from: "nothing to cancel") { () async throws(CMKError) in
      try await provider.cancelDeletion(cmk: cmk)
    }
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    _ = try await provider.scheduleDeletion(cmk: cmk, days: 7)
    try need(try await provider.cancelDeletion(cmk: cmk).state == .disabled, "then it is disabled")
    try await needUnusable(cmk, wrapped, "disabled after a cancelled deletion")
    _ = try await provider.enable(cmk: cmk)
    let opened = try await provider.decrypt(wrapped, cmk: cmk, context: context)
    try need(opened.isEqual(to: secret(32)), "it opens again once enabled")
  }

  func anotherProviderGoesOn() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    _ = try await provider.rotate(cmk: cmk)
    let opened = try await subject.again.decrypt(wrapped, cmk: cmk, context: context)
    try need(opened.isEqual(to: secret(32)), "it opens after a restart")
    _ = try await subject.again.disable(cmk: cmk)
    try need(try await subject.again.describe(cmk: cmk).state == .disabled, "its state is kept")
  }
}
