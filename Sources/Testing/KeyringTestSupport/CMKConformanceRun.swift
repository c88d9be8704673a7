internal import KeyringCore
internal import SecureMemory

/// Why a call was refused, by the case of its error.
private enum Refusal: String {
  case unreachable, denied, invalidCiphertext, refused, configuration, outcomeUnknown
}

private func need(_ condition: Bool, _ what: String) throws {
  guard condition else { throw CMKConformance.Violation(description: what) }
}

private func need<Value>(
  _ expected: [Refusal],
  from what: String,
  _ body: () async throws(CMKError) -> Value
) async throws {
  var thrown: CMKError?
  do throws(CMKError) {
    _ = try await body()
  } catch {
    thrown = error
  }
  guard let thrown else { throw CMKConformance.Violation(description: "\(what): not refused") }
  let refusal: Refusal =
    switch thrown {
    case .unreachable: .unreachable
    case .denied: .denied
    case .invalidCiphertext: .invalidCiphertext
    case .refused: .refused
    case .configuration: .configuration
    case .outcomeUnknown: .outcomeUnknown
    }
  try need(expected.contains(refusal), "\(what): \(refusal), \(thrown), instead of \(expected)")
}

/// One check on one subject.
struct CMKConformanceRun {
  let subject: CMKConformance.Subject
  let context: EncryptionContext
  var provider: any CMKProvider { subject.provider }
  var steward: CMKConformance.Steward { subject.steward }

  static func context(_ tenant: String, _ keyring: UInt128, _ purpose: String = "wrapping-key") throws
    -> EncryptionContext
  {
    EncryptionContext(tenant: try TenantName(tenant), keyring: KeyringID(value: keyring), purpose: purpose)
  }

  private func made() async throws -> CMKID {
    let cmk = try await steward.make()
    try need(try await provider.describe(cmk: cmk).state == .enabled, "a new CMK is enabled")
    return cmk
  }

  private func lifecycle() throws -> any CMKLifecycle {
    guard let lifecycle = subject.lifecycle else {
      throw CMKConformance.Violation(description: "this check is of providers that make and end CMKs")
    }
    return lifecycle
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
      try await need([.refused], from: "\(count) bytes") { () async throws(CMKError) in
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
      try await need([.refused], from: "\(count) random bytes") { () async throws(CMKError) in
        try await provider.generateRandom(count: count)
      }
    }
  }

  func anotherContextIsRefused() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    let others = [
      try Self.context("acme", 2), try Self.context("globex", 1),
      try Self.context("acme", 1, "backup"),
    ]
    for other in others {
      try await need([.invalidCiphertext, .denied], from: "another context") { () async throws(CMKError) in
        try await provider.decrypt(wrapped, cmk: cmk, context: other)
      }
    }
  }

  func anotherTenantIsRefused() async throws {
    let cmk = try await made()
    let others = try await subject.ofAnotherTenantsSteward.make()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    try await need([.denied], from: "another tenant's CMK") { () async throws(CMKError) in
      try await subject.ofAnotherTenant.decrypt(wrapped, cmk: cmk, context: context)
    }
    try await need([.denied], from: "what is known of another tenant's CMK") { () async throws(CMKError) in
      try await subject.ofAnotherTenant.describe(cmk: cmk)
    }
    try await need([.invalidCiphertext, .denied], from: "another tenant's ciphertext") {
      () async throws(CMKError) in
      try await subject.ofAnotherTenant.decrypt(wrapped, cmk: others, context: context)
    }
  }

  func anotherCMKIsRefused() async throws {
    let (one, other) = (try await made(), try await made())
    let wrapped = try await provider.encrypt(secret(32), cmk: one, context: context)
    try await need([.invalidCiphertext, .denied], from: "another CMK") { () async throws(CMKError) in
      try await provider.decrypt(wrapped, cmk: other, context: context)
    }
  }

  func tamperedIsRefused() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    // A KMS that finds no key for a ciphertext may say that this one is forbidden.
    let refusals: [Refusal] = subject.lifecycle == nil ? [.invalidCiphertext, .denied] : [.invalidCiphertext]
    for index in wrapped.indices {
      var bad = wrapped
      bad[index] ^= 1
      let tampered = bad
      try await need(refusals, from: "byte \(index) flipped") { () async throws(CMKError) in
        try await provider.decrypt(tampered, cmk: cmk, context: context)
      }
    }
    for bad in [[], Array(wrapped.dropLast()), wrapped + [0], Array(wrapped.prefix(20))] {
      try await need(refusals, from: "\(bad.count) bytes") { () async throws(CMKError) in
        try await provider.decrypt(bad, cmk: cmk, context: context)
      }
    }
  }

  func unknownIsDenied() async throws {
    for id in [subject.absent] + subject.hostile {
      // What no CMK can be called need not be asked for.
      let refusals: [Refusal] = id == subject.absent ? [.denied] : [.denied, .configuration]
      try await need(refusals, from: "\(id)") { () async throws(CMKError) in
        try await provider.generateDataKey(cmk: id, context: context)
      }
      try await need(refusals, from: "\(id)") { () async throws(CMKError) in
        try await provider.describe(cmk: id)
      }
      try await need(refusals, from: "\(id)") { () async throws(CMKError) in
        try await provider.rotate(cmk: id)
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
    try await need([.denied], from: what) { () async throws(CMKError) in
      try await provider.decrypt(wrapped, cmk: cmk, context: context)
    }
    try await need([.denied], from: what) { () async throws(CMKError) in
      try await provider.encrypt(plaintext, cmk: cmk, context: context)
    }
    try await need([.denied], from: what) { () async throws(CMKError) in
      try await provider.generateDataKey(cmk: cmk, context: context)
    }
    try await need([.denied], from: what) { () async throws(CMKError) in try await provider.rotate(cmk: cmk) }
  }

  func disabledIsDenied() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    try await steward.disable(cmk)
    try need(try await provider.describe(cmk: cmk).state == .disabled, "it says that it is disabled")
    try await needUnusable(cmk, wrapped, "disabled")
    try await steward.enable(cmk)
    try need(try await provider.describe(cmk: cmk).state == .enabled, "it says that it is enabled")
    let opened = try await provider.decrypt(wrapped, cmk: cmk, context: context)
    try need(opened.isEqual(to: secret(32)), "it opens again once enabled")
  }

  func pendingDeletionIsDenied() async throws {
    let cmk = try await made()
    let wrapped = try await provider.encrypt(secret(32), cmk: cmk, context: context)
    try await steward.scheduleDeletion(cmk)
    let pending = try await provider.describe(cmk: cmk)
    try need(pending.state == .pendingDeletion, "it is pending deletion")
    try await needUnusable(cmk, wrapped, "pending deletion")
    guard let lifecycle = subject.lifecycle else { return }
    for change in [lifecycle.enable, lifecycle.disable] {
      try await need([.refused, .denied], from: "pending deletion") { () async throws(CMKError) in
        try await change(cmk)
      }
    }
  }

  func deletionTakes7To30Days() async throws {
    let (provider, cmk) = (try lifecycle(), try await made())
    for days in [-1, 0, 6, 31, Int.max] {
      try await need([.refused], from: "\(days) days") { () async throws(CMKError) in
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
    let (provider, cmk) = (try lifecycle(), try await made())
    try await need([.refused, .denied], from: "nothing to cancel") { () async throws(CMKError) in
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
    let disabled = try await made()
    try await steward.disable(disabled)
    try need(try await subject.again.describe(cmk: disabled).state == .disabled, "its state is kept")
  }
}
