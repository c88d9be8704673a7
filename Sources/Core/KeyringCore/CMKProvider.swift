public import SecureMemory

/// What a CMK's use is bound to: names and values that encryption and decryption must agree on, not secret, logged by the KMS.
public struct EncryptionContext: Hashable, Sendable {
  /// Sorted by name.
  public let pairs: [(name: String, value: String)]

  /// The context of a tenant's wrapping keys.
  public init(tenant: TenantName, keyring: KeyringID, purpose: String = "wrapping-key") {
    pairs = [
      (name: "keyring:id", value: keyring.description),
      (name: "keyring:purpose", value: purpose),
      (name: "keyring:tenant", value: tenant.text),
    ]
  }

  /// By names and values.
  public static func == (left: Self, right: Self) -> Bool {
    left.pairs.count == right.pairs.count && zip(left.pairs, right.pairs).allSatisfy { $0 == $1 }
  }

  /// By names and values.
  public func hash(into hasher: inout Hasher) {
    for pair in pairs {
      hasher.combine(pair.name)
      hasher.combine(pair.value)
    }
  }
}

/// A data key: in clear, and wrapped by a CMK.
public struct GeneratedDataKey: Sendable {
  /// In clear, in locked memory.
  public let plaintext: Secret
  /// The provider's ciphertext of it.
  public let wrapped: [UInt8]

  /// Puts both together.
  public init(plaintext: Secret, wrapped: [UInt8]) {
    self.plaintext = plaintext
    self.wrapped = wrapped
  }
}

/// What a provider tells of a CMK.
public struct CMKDescription: Sendable, Equatable {
  /// Whether it can be used.
  public enum State: String, Sendable {
    case enabled
    case disabled
    case pendingDeletion = "pending deletion"
  }
  /// Names it.
  public let id: CMKID
  /// Whether it can be used.
  public let state: State
  /// Its newest version, from 1; 0 where the provider does not tell.
  public let version: UInt32
  /// When it was made, Unix milliseconds; 0 where the provider does not tell.
  public let createdMilliseconds: UInt64

  /// Puts the parts together.
  public init(id: CMKID, state: State, version: UInt32, createdMilliseconds: UInt64 = 0) {
    self.id = id
    self.state = state
    self.version = version
    self.createdMilliseconds = createdMilliseconds
  }
}

/// Why a provider did not do what was asked, by what follows from it (design section 4). Descriptions have no secret.
public enum CMKError: Error, Sendable, Equatable, CustomStringConvertible {
  /// No answer, throttled, a server's failure, or trouble with the credentials: what is held may go on within the grace.
  case unreachable(String)
  /// The CMK may not be used: no access, disabled, pending deletion, not there. What it wrapped is wiped.
  case denied(String)
  /// The ciphertext is not one of this CMK, or not with this context.
  case invalidCiphertext(String)
  /// The provider's own limit, or something that it cannot do.
  case refused(String)
  /// Too many calls wait for the provider, or more were made than may be: this one was not made.
  case overloaded(String, retryAfterMilliseconds: UInt32 = 100)
  /// The configuration cannot work.
  case configuration(String)
  /// A change of a CMK may have happened or not; asking for the CMK tells.
  case outcomeUnknown(String)

  /// For a client and the log.
  public var description: String {
    switch self {
    case .unreachable(let why), .denied(let why), .invalidCiphertext(let why), .refused(let why),
      .overloaded(let why, _), .configuration(let why), .outcomeUnknown(let why):
      why
    }
  }
}

/// Who holds CMKs, which never leave it. Calls may take as long as the network does; they must end within the provider's own limits.
public protocol CMKProvider: Sendable {
  /// Which provider.
  var kind: ProviderKind { get }
  /// Makes a data key of 32 bytes under `cmk`.
  func generateDataKey(cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> GeneratedDataKey
  /// Encrypts 1 to 4,096 bytes under `cmk`.
  func encrypt(_ plaintext: Secret, cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> [UInt8]
  /// Decrypts what `cmk`, in any of its versions, encrypted with the same context.
  func decrypt(_ wrapped: [UInt8], cmk: CMKID, context: EncryptionContext) async throws(CMKError) -> Secret
  /// Random bytes: 1 to 1,024, as AWS's GenerateRandom has it; the caller asks several times for more.
  func generateRandom(count: Int) async throws(CMKError) -> Secret
  /// What is known of a CMK.
  func describe(cmk: CMKID) async throws(CMKError) -> CMKDescription
  /// Gives the CMK a new version; its id stays, and what older versions encrypted stays decryptable.
  func rotate(cmk: CMKID) async throws(CMKError) -> CMKDescription
}

/// A provider whose CMKs this service also makes and ends.
public protocol CMKLifecycle: CMKProvider {
  /// Makes a CMK, enabled, at version 1.
  func create() async throws(CMKError) -> CMKDescription
  /// Refuses its use until `enable`.
  func disable(cmk: CMKID) async throws(CMKError) -> CMKDescription
  /// The way back from `disable`.
  func enable(cmk: CMKID) async throws(CMKError) -> CMKDescription
  /// Refuses its use, and destroys it after `days` (7 to 30).
  func scheduleDeletion(cmk: CMKID, days: Int) async throws(CMKError) -> CMKDescription
  /// The way back while it is not carried out; the CMK is then disabled, as AWS has it.
  func cancelDeletion(cmk: CMKID) async throws(CMKError) -> CMKDescription
}
