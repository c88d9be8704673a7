internal import CMessages
internal import CProtobufC
internal import KeyringCore
public import SecureMemory

/// One key of an import.
public struct ImportedKey: Sendable {
  /// Which key it becomes.
  public let name: KeyName
  /// As it is stored.
  public let type: String
  /// The key material.
  public let value: Secret

  /// Puts the parts together.
  public init(name: KeyName, type: String, value: Secret) {
    self.name = name
    self.type = type
    self.value = value
  }
}

/// What one import may bring: it is one message, one commit, and all of its values are in locked memory at one time.
public enum ImportLimits {
  /// Keys, at most.
  public static let keysMax = 10_000
  /// Locked memory that their values may take together, in bytes: half of what a server has by default, which is what one tenant may take.
  public static let lockedBytesMax = 2 << 20

  /// Over a limit; says which, and what was brought.
  public struct Exceeded: Error, Equatable, CustomStringConvertible {
    /// In words.
    public let description: String
  }

  /// Checks an import before it is sent.
  ///
  /// - Throws: `Exceeded`.
  public static func check(_ keys: [ImportedKey]) throws(Exceeded) {
    guard keys.count <= keysMax else {
      throw Exceeded(description: "one import stores up to \(keysMax) keys, and these are \(keys.count)")
    }
    let locked = keys.reduce(0) { $0 + lockedBytes($1.value.count) }
    guard locked <= lockedBytesMax else { throw Exceeded(description: tooMuch(locked)) }
    let message = messageBytes(of: keys)
    guard message <= Frame.messageBytesMax else {
      throw Exceeded(
        description:
          "one import has up to \(Frame.messageBytesMax) bytes with names and types, and this has \(message)"
      )
    }
  }

  static func tooMuch(_ locked: Int) -> String {
    "one import takes up to \(lockedBytesMax) bytes of locked memory, and this takes \(locked); "
      + "each key counts as the next power of two"
  }

  /// Locked memory that a value takes, in bytes: the arena gives powers of two.
  public static func lockedBytes(_ count: Int) -> Int {
    count <= 32 ? 32 : 1 << (Int.bitWidth - (count - 1).leadingZeroBitCount)
  }

  /// The length of the message, or a little more: a key's tags and lengths have 23 bytes at most, the rest of a request 160.
  static func messageBytes(of keys: [ImportedKey]) -> Int {
    keys.reduce(160) { sum, key in
      sum + 23 + key.name.owner.count + key.name.keyID.count + key.type.utf8.count + key.value.count
    }
  }
}

extension RequestDecoder {
  // SAFETY: the message lives in the arena until the request is decoded; repeated fields have as many elements as their counts say.
  func importedKeys(_ message: Keyring__V1__ImportRequest) throws(FieldError) -> [ImportedKey] {
    let count = unsafe message.n_keys
    guard (1...ImportLimits.keysMax).contains(count) else {
      throw .malformed("an import has 1 to \(ImportLimits.keysMax) keys, not \(count)")
    }
    // Before the first of them is copied: locked memory is everybody's.
    let locked = (0..<count).reduce(0) { sum, index in
      unsafe sum + ImportLimits.lockedBytes(message.keys[index]?.pointee.value.len ?? 0)
    }
    guard locked <= ImportLimits.lockedBytesMax else { throw .malformed(ImportLimits.tooMuch(locked)) }
    var keys: [ImportedKey] = []
    keys.reserveCapacity(count)
    for index in 0..<count {
      guard let store = unsafe message.keys[index]?.pointee else { throw .malformed("a key is empty") }
      do {
        keys.append(
          unsafe ImportedKey(
            name: try name(store.name),
            type: text(store.type),
            value: try secret(store.value)
          )
        )
      } catch let error as FieldError {
        throw error
      } catch {
        throw .memory
      }
    }
    return keys
  }
}
