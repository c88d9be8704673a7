internal import Cryptography
internal import KeyringCore

/// Files as MySQL's keyrings write them, made by their documented formats.
public enum MySQLKeyFiles {
  /// A key in one.
  public struct Key: Sendable {
    /// `user@host`; empty for the server itself.
    public var owner: String
    /// Its id.
    public var id: String
    /// `AES`, say.
    public var type: String
    /// Its material.
    public var value: [UInt8]

    /// Puts the parts together.
    public init(_ id: String, owner: String = "", type: String = "AES", value: [UInt8]) {
      self.owner = owner
      self.id = id
      self.type = type
      self.value = value
    }
  }

  /// The keys that a MySQL server has once it encrypts tables, binary logs and persisted variables, and two of its users'.
  public static func keysOfAServer(_ value: (Int) -> [UInt8]) -> [Key] {
    let uuid = "0c5f6c8e-1111-11ef-9d5c-0242ac120002"
    return [
      Key("INNODBKey-\(uuid)-1", value: value(0)),
      Key("MySQLReplicationKey_\(uuid)", value: Array(value(1)[..<16])),
      Key("MySQLReplicationKey_\(uuid)_1", value: value(2)), Key("persisted_variables_key", value: value(3)),
      Key("MyKey", owner: "root@localhost", type: "SECRET", value: value(4)),
      Key("MyKey", owner: "app@%", type: "AES", value: value(5)),
    ]
  }

  /// As `component_keyring_file` 1.0 writes it.
  public static func component(_ keys: [Key]) -> [UInt8] {
    let elements = keys.map { key in
      #"{"user":"\#(key.owner)","data_id":"\#(key.id)","data_type":"\#(key.type)","data":"\#(hexadecimal(key.value).uppercased())","extension":[]}"#
    }
    return Array(#"{"version":"1.0","elements":[\#(elements.joined(separator: ","))]}"#.utf8)
  }

  /// As the plugin `keyring_file` 2.0 writes it, on a machine of this kind.
  public static func plugin(
    _ keys: [Key],
    wordBytes: Int = 8,
    isBigEndian: Bool = false
  ) throws -> [UInt8] {
    func word(_ number: Int) -> [UInt8] {
      let bytes = (0..<wordBytes).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
      return isBigEndian ? bytes.reversed() : bytes
    }
    let obfuscation = Array("*305=Ljt0*!@$Hnm(*-9-w;:".utf8)
    var records: [UInt8] = []
    for key in keys {
      let obfuscated = key.value.enumerated().map { $1 ^ obfuscation[$0 % obfuscation.count] }
      let parts = [Array(key.id.utf8), Array(key.type.utf8), Array(key.owner.utf8), obfuscated]
      let bytes = 5 * wordBytes + parts.reduce(0) { $0 + $1.count }
      let padding = (wordBytes - bytes % wordBytes) % wordBytes
      for number in [bytes + padding] + parts.map(\.count) { records += word(number) }
      records += parts.joined() + [UInt8](repeating: 0, count: padding)
    }
    return try framed(records)
  }

  /// Records between what a file begins and ends with.
  public static func framed(_ records: [UInt8]) throws -> [UInt8] {
    Array("Keyring file version:2.0".utf8) + records + Array("EOF".utf8) + (try SHA256.hash(records).bytes)
  }
}
