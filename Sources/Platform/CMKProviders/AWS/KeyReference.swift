internal import KeyringCore

/// Whose, and where, a KMS resource is: the part of an ARN before the resource.
struct KeyHome: Hashable, Sendable, CustomStringConvertible {
  let region: AWSRegion
  /// 12 digits.
  let account: String

  var description: String { "arn:\(region.partition.rawValue):kms:\(region):\(account)" }

  /// Splits `arn:PARTITION:kms:REGION:ACCOUNT:RESOURCE`; nil where `arn` is none of KMS, or its region is of another partition.
  static func split(_ arn: String) -> (home: KeyHome, resource: String)? {
    let parts = arn.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 6, parts[0] == "arn", parts[2] == "kms", let region = AWSRegion(parts[3]),
      parts[1] == region.partition.rawValue, parts[4].utf8.count == 12,
      parts[4].utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else { return nil }
    return (KeyHome(region: region, account: parts[4]), parts[5])
  }
}

/// The ARN of a KMS key.
struct KeyARN: Hashable, Sendable, CustomStringConvertible {
  let home: KeyHome
  let id: String

  init(home: KeyHome, id: String) {
    self.home = home
    self.id = id
  }

  /// Nil where `text` is no ARN of a key.
  init?(_ text: String) {
    guard let (home, resource) = KeyHome.split(text), resource.hasPrefix("key/") else { return nil }
    let id = String(resource.dropFirst(4))
    guard KeyReference.isKeyID(id) else { return nil }
    self.init(home: home, id: id)
  }

  var description: String { "\(home):key/\(id)" }
  /// True for a multi-Region key: the same key, with the same id, in several regions.
  var isMultiRegion: Bool { id.hasPrefix(KeyReference.multiRegionPrefix) }

  /// The same multi-Region key's replica in another region.
  func replica(in region: AWSRegion) -> KeyARN {
    KeyARN(home: KeyHome(region: region, account: home.account), id: id)
  }
}

/// A cmk_id as AWS KMS takes it for a KeyId.
enum KeyReference: Hashable, Sendable, CustomStringConvertible {
  case id(String)
  case key(KeyARN)
  /// With `alias/` before it.
  case alias(String)
  /// With `alias/` before it.
  case aliasARN(KeyHome, String)

  static let multiRegionPrefix = "mrk-"

  /// - Throws: `CMKError.configuration`.
  init(_ cmk: CMKID) throws(CMKError) {
    let text = cmk.text
    if Self.isKeyID(text) {
      self = .id(text)
    } else if Self.isAlias(text) {
      self = .alias(text)
    } else if let key = KeyARN(text) {
      self = .key(key)
    } else if let (home, resource) = KeyHome.split(text), Self.isAlias(resource) {
      self = .aliasARN(home, resource)
    } else {
      throw .configuration(
        "the cmk_id '\(text)' is none of AWS KMS: that is a key id, a key's ARN, alias/NAME, or an alias's ARN"
      )
    }
  }

  /// As it is sent.
  var description: String {
    switch self {
    case .id(let text), .alias(let text): text
    case .key(let key): key.description
    case .aliasARN(let home, let name): "\(home):\(name)"
    }
  }

  /// The region that it says, if it says one.
  var region: AWSRegion? {
    switch self {
    case .id, .alias: nil
    case .key(let key): key.home.region
    case .aliasARN(let home, _): home.region
    }
  }

  /// Whether a key that KMS names, asked with this reference in `region`, can be the one that was meant. Of an alias, KMS alone knows.
  func isAnswered(by key: KeyARN, in region: AWSRegion) -> Bool {
    switch self {
    case .id(let id): key.id == id && key.home.region == region
    case .key(let asked): key == asked
    case .alias: key.home.region == region
    case .aliasARN(let home, _): key.home == home
    }
  }

  /// Whether what `key` encrypted is this CMK's: of an alias, which may have been moved or made anew since, that cannot be told.
  func mayHaveEncrypted(with key: KeyARN) -> Bool {
    switch self {
    case .id(let id): key.id == id
    case .key(let own) where own.isMultiRegion: key.id == own.id && key.home.account == own.home.account
    case .key(let own): key == own
    case .alias: true
    case .aliasARN(let home, _): key.home.account == home.account
    }
  }

  /// A UUID, or `mrk-` and 32 hexadecimal digits (an emulator writes dashes between these as well).
  static func isKeyID(_ text: String) -> Bool {
    guard text.hasPrefix(multiRegionPrefix) else { return isUUID(text) }
    let rest = String(text.dropFirst(multiRegionPrefix.count))
    return isUUID(rest) || rest.utf8.count == 32 && rest.utf8.allSatisfy(isHexadecimal)
  }

  private static func isUUID(_ text: String) -> Bool {
    let parts = text.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
    return parts.map(\.count) == [8, 4, 4, 4, 12] && parts.allSatisfy { $0.allSatisfy(isHexadecimal) }
  }

  private static func isHexadecimal(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
      || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
  }

  /// `alias/` and a name: 7 to 256 letters, digits, '/', '_' and '-' in all.
  private static func isAlias(_ text: String) -> Bool {
    func isOfAName(_ byte: UInt8) -> Bool {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
      case UInt8(ascii: "0")...UInt8(ascii: "9"): true
      case UInt8(ascii: "/"), UInt8(ascii: "_"), UInt8(ascii: "-"): true
      default: false
      }
    }
    return text.hasPrefix("alias/") && (7...256).contains(text.utf8.count) && text.utf8.allSatisfy(isOfAName)
  }
}
