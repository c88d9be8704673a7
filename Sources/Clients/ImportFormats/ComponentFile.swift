internal import CMKProviders
internal import SecureMemory

/// A file of MySQL's `component_keyring_file`: JSON, `{"version":"1.0","elements":[{"user","data_id","data_type","data","extension":[]}, ...]}`,
/// `data` being the key in hexadecimal digits. It has no checksum: what is damaged within a string and still looks like one is not noticed.
///
/// Source: MySQL 8.0 to 9.7, components/keyrings/common/json_data.
enum ComponentFile {
  private static let members = ["data", "data_id", "data_type", "extension", "user"]

  static func keys(_ content: Secret) throws(ImportError) -> [FoundKey] {
    guard content.count > 0 else { throw .unsupported("the file is empty: it has no keys") }
    do {
      return try keys(JSONObject(content))
    } catch let error as JSONObject.Malformed {
      throw .damaged("this is no file of component_keyring_file, or a damaged one: \(error)")
    } catch let error as ImportError {
      throw error
    } catch {
      throw .unreadable("\(error)")
    }
  }

  private static func keys(_ document: JSONObject) throws -> [FoundKey] {
    guard document.names == ["elements", "version"], let version = try document.text("version"),
      let elements = try document.objects("elements")
    else {
      throw ImportError.unsupported("this is JSON, but no file of component_keyring_file")
    }
    guard version == "1.0" else {
      throw ImportError.unsupported("a file of component_keyring_file of another version than 1.0")
    }
    var keys: [FoundKey] = []
    keys.reserveCapacity(elements.count)
    for (index, element) in elements.enumerated() { keys.append(try key(element, "element \(index + 1)")) }
    return keys
  }

  private static func key(_ element: JSONObject, _ place: String) throws -> FoundKey {
    guard element.names == members, let user = try element.text("user"), let id = try element.text("data_id"),
      let type = try element.text("data_type"), let digits = try element.secret("data"),
      let extensions = try element.count("extension")
    else { throw ImportError.damaged("\(place) does not have user, data_id, data_type, data and extension") }
    guard extensions == 0 else {
      throw ImportError.unsupported("\(place) has an extension: this is a file of another component")
    }
    guard let value = try Hexadecimal.decode(digits) else {
      throw ImportError.damaged("the data of \(place) is not in hexadecimal digits")
    }
    guard !isKMSCiphertext(value) else {
      throw ImportError.unsupported(
        "the data of \(place) is a ciphertext of AWS KMS: this is a file of component_keyring_aws, whose keys only that can open"
      )
    }
    return try FoundKeys.make(
      owner: Array(user.utf8),
      keyID: Array(id.utf8),
      type: Array(type.utf8),
      value: value,
      place: place
    )
  }

  /// component_keyring_aws writes the same JSON with ciphertexts in it. Those of symmetric CMKs are longer than 100 bytes, and begin with these.
  private static func isKMSCiphertext(_ value: Secret) -> Bool {
    // SAFETY: the bytes are read during the call only.
    unsafe value.withUnsafeBytes { bytes in
      guard bytes.count > 100 else { return false }
      return unsafe bytes[0] == 1 && (1...2).contains(bytes[1]) && bytes[3] == 0 && bytes[4] == 0x78
    }
  }
}

/// Hexadecimal digits in locked memory.
enum Hexadecimal {
  /// The bytes that `digits` stand for, of either case; nil where it is none, or has half a byte.
  ///
  /// - Throws: `SecureMemoryError.exhausted`.
  static func decode(_ digits: Secret) throws(SecureMemoryError) -> Secret? {
    guard digits.count % 2 == 0 else { return nil }
    var isHexadecimal = true
    let bytes = try unsafe Secret(count: digits.count / 2) { room in
      // SAFETY: `room` has a byte for each two digits, and both are live for the call.
      unsafe digits.withUnsafeBytes { digits in
        for index in room.indices {
          let high = unsafe nibble(digits[2 * index])
          let low = unsafe nibble(digits[2 * index + 1])
          isHexadecimal = isHexadecimal && high != nil && low != nil
          unsafe room[index] = (high ?? 0) << 4 | (low ?? 0)
        }
      }
    }
    return isHexadecimal ? bytes : nil
  }

  /// By comparisons, not by a table: which cache line is read would tell of a secret.
  private static func nibble(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}
