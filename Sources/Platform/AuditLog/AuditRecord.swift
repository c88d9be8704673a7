public import KeyringCore

/// Who called.
public final class AuditCaller: Sendable {
  let encoded: [UInt8]

  /// - Parameters:
  ///   - identity: the URI SAN of the certificate.
  ///   - certificate: its SHA-256, 64 hexadecimal digits.
  ///   - address: IP address and port; empty where that is not known.
  public init(identity: String, certificate: String, address: String) {
    var bytes: [UInt8] = []
    for (name, value) in [("identity", identity), ("certificate", certificate), ("address", address)] {
      AuditRecord.append(name, value, to: &bytes)
    }
    encoded = bytes
  }
}

/// A key that a call was about, and which version of it; never its material.
public struct AuditKey: Sendable {
  let scope: String
  let owner: ArraySlice<UInt8>
  let keyID: ArraySlice<UInt8>
  let version: UInt32
  let operation: String?

  /// - Parameters:
  ///   - scope: `instance` or `shared`.
  ///   - version: 0 where none is known.
  ///   - operation: what a transaction did with it.
  public init(
    scope: String,
    owner: ArraySlice<UInt8>,
    keyID: ArraySlice<UInt8>,
    version: UInt32,
    operation: String? = nil
  ) {
    self.scope = scope
    self.owner = owner
    self.keyID = keyID
    self.version = version
    self.operation = operation
  }

  /// The key of an identity.
  public init(_ identity: KeyIdentity, version: UInt32) {
    self.init(
      scope: identity.encoded.first == 1 ? "shared" : "instance",
      owner: identity.owner,
      keyID: identity.keyID,
      version: version
    )
  }

  /// The same key, and another version.
  public func with(version: UInt32) -> AuditKey {
    AuditKey(scope: scope, owner: owner, keyID: keyID, version: version, operation: operation)
  }

  func append(to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "{"))
    bytes += "\"scope\":\"".utf8
    bytes += scope.utf8
    bytes += "\",\"owner\":".utf8
    AuditText.append(name: owner, to: &bytes)
    bytes += ",\"key_id\":".utf8
    AuditText.append(name: keyID, to: &bytes)
    if version > 0 { AuditRecord.append("version", UInt64(version), to: &bytes) }
    if let operation { AuditRecord.append("op", operation, to: &bytes) }
    bytes.append(UInt8(ascii: "}"))
  }
}

/// What is to be written of one call, or of something that happened to the service.
public struct AuditRecord: Sendable {
  /// Which of the two entries of a change it is.
  public enum Phase: String, Sendable {
    /// Before a change, in strict mode.
    case intent
    /// What it came to.
    case outcome
  }

  /// A value of a member.
  public enum Value: Sendable, Equatable {
    case text(String)
    case number(UInt64)
    case flag(Bool)
    /// Bytes that are text as a rule.
    case name([UInt8])
  }

  /// Unix milliseconds.
  public var milliseconds: UInt64
  /// Nil for what no caller did.
  public var caller: AuditCaller?
  /// What was asked, or what happened, as `fetch` or `tenant-create`.
  public var call: String
  /// Before or after.
  public var phase = Phase.outcome
  /// The key that it was about; more than one in a transaction.
  public var keys: [AuditKey] = []
  /// What else it was about, in this order; names are lower-case ASCII.
  public var details: [(name: String, value: Value)] = []
  /// gRPC's code, as `OK`; nil for an intent.
  public var status: String?
  /// Why it was refused; nil where it was not.
  public var reason: String?
  /// The requests to AWS KMS that it led to.
  public var kmsRequestIDs: [String] = []
  /// W3C trace context; empty where there was none.
  public var trace = ""
  /// Of the keyring; 0 where there is none.
  public var sequence: UInt64 = 0
  /// Serial of the entry of the intent; 0 where there was none.
  public var intent: UInt64 = 0

  /// One without more than that.
  public init(milliseconds: UInt64, caller: AuditCaller?, call: String) {
    self.milliseconds = milliseconds
    self.caller = caller
    self.call = call
  }

  /// Bytes that it takes in a queue, roughly.
  var cost: Int {
    var cost = 256 + trace.utf8.count + kmsRequestIDs.count * 48
    for key in keys { cost += 128 + key.owner.count + key.keyID.count }
    for detail in details {
      if case .text(let text) = detail.value { cost += text.utf8.count }
      cost += 32
    }
    return cost
  }

  /// The members behind those that every line has, each with a comma before it.
  func appendMembers(to bytes: inout [UInt8]) {
    Self.append("phase", phase.rawValue, to: &bytes)
    Self.append("call", call, to: &bytes)
    if let caller { bytes += caller.encoded }
    if keys.count == 1, let key = keys.first {
      bytes += ",\"key\":".utf8
      key.append(to: &bytes)
    } else if !keys.isEmpty {
      bytes += ",\"keys\":[".utf8
      for (index, key) in keys.enumerated() {
        if index > 0 { bytes.append(UInt8(ascii: ",")) }
        key.append(to: &bytes)
      }
      bytes.append(UInt8(ascii: "]"))
    }
    for detail in details {
      switch detail.value {
      case .text(let text): Self.append(detail.name, text, to: &bytes)
      case .number(let number): Self.append(detail.name, number, to: &bytes)
      case .name(let name):
        Self.appendName(detail.name, to: &bytes)
        AuditText.append(name: name[...], to: &bytes)
      case .flag(let flag):
        Self.appendName(detail.name, to: &bytes)
        bytes += (flag ? "true" : "false").utf8
      }
    }
    if let status { Self.append("status", status, to: &bytes) }
    if let reason { Self.append("reason", reason, to: &bytes) }
    if sequence > 0 { Self.append("sequence", sequence, to: &bytes) }
    if intent > 0 { Self.append("intent", intent, to: &bytes) }
    if !kmsRequestIDs.isEmpty {
      Self.appendName("kms_request_ids", to: &bytes)
      bytes.append(UInt8(ascii: "["))
      for (index, id) in kmsRequestIDs.enumerated() {
        if index > 0 { bytes.append(UInt8(ascii: ",")) }
        AuditText.append(id, to: &bytes)
      }
      bytes.append(UInt8(ascii: "]"))
    }
    if !trace.isEmpty { Self.append("trace", trace, to: &bytes) }
  }

  private static func appendName(_ name: String, to bytes: inout [UInt8]) {
    bytes += ",\"".utf8
    bytes += name.utf8
    bytes += "\":".utf8
  }

  static func append(_ name: String, _ value: String, to bytes: inout [UInt8]) {
    appendName(name, to: &bytes)
    AuditText.append(value, to: &bytes)
  }

  static func append(_ name: String, _ value: UInt64, to bytes: inout [UInt8]) {
    appendName(name, to: &bytes)
    AuditText.append(value, to: &bytes)
  }
}
