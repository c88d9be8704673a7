import KeyringCore
import Testing

@Suite struct ProfileTests {
  /// What becomes of a type and a length.
  private enum Verdict { case allowed, type, length }

  private func verdict(_ profile: Profile, _ type: String, _ length: Int, _ source: Profile.Source) throws
    -> Verdict
  {
    do throws(KeyringError) {
      try profile.check(type: try KeyType(type), length: length, source: source)
      return .allowed
    } catch {
      switch error {
      case .typeInvalid: return .type
      case .lengthInvalid: return .length
      default: throw error
      }
    }
  }

  /// MySQL's manual, "Supported Keyring Key Types and Lengths", for keyring_aws: lengths that are the last allowed and the first refused.
  @Test func keyringAWSHasMySQLsTable() throws {
    for source in [Profile.Source.generated, .stored] {
      for length in [16, 24, 32] { #expect(try verdict(.keyringAWS, "AES", length, source) == .allowed) }
      for length in [0, 1, 15, 17, 23, 25, 31, 33, 64, 4096] {
        #expect(try verdict(.keyringAWS, "AES", length, source) == .length, "\(length)")
      }
      #expect(try verdict(.keyringAWS, "SECRET", 1, source) == .allowed)
      #expect(try verdict(.keyringAWS, "SECRET", 0, source) == .length)
      for type in ["RSA", "DSA", "aes", "Secret", "AES ", "X"] {
        #expect(try verdict(.keyringAWS, type, 16, source) == .type, "\(type)")
      }
    }
    #expect(try verdict(.keyringAWS, "SECRET", 1024, .generated) == .allowed)
    #expect(try verdict(.keyringAWS, "SECRET", 1025, .generated) == .length)
    #expect(try verdict(.keyringAWS, "SECRET", 4096, .stored) == .allowed)
    #expect(try verdict(.keyringAWS, "SECRET", 4097, .stored) == .length)
  }

  @Test func generalAndAnyHaveTheirs() throws {
    for source in [Profile.Source.generated, .stored] {
      for type in ["AES", "SECRET", "RSA", "DSA"] {
        for profile in [Profile.general, .any] {
          #expect(try verdict(profile, type, 1, source) == .allowed)
          #expect(try verdict(profile, type, 16_384, source) == .allowed)
          #expect(try verdict(profile, type, 16_385, source) == .length)
          #expect(try verdict(profile, type, 0, source) == .length)
        }
      }
      #expect(try verdict(.general, "MY_TYPE", 1, source) == .type)
      #expect(try verdict(.any, "MY_TYPE", 17, source) == .allowed)
    }
  }

  @Test func typesHave1To127Bytes() throws {
    #expect(throws: KeyringError.self) { try KeyType("") }
    #expect(throws: KeyringError.self) { try KeyType(String(repeating: "a", count: 128)) }
    #expect(throws: KeyringError.self) { try KeyType(String(repeating: "é", count: 64)) }
    #expect(try KeyType(String(repeating: "a", count: 127)).text.count == 127)
  }
}
