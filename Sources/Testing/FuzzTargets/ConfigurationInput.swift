internal import KeyringCore
internal import TenantRegistry

/// A configuration file: its first byte says which.
enum ConfigurationInput {
  static let seeds: [[UInt8]] = [
    "tcmk_id: a\nprofile: any\ninstances: [a, b]\nlimits: {keys: 5}\nwrapping_key_ttl: 5m\nendpoint: https://kms.example\n",
    "t{cmk_id: 'arn:aws:kms:eu:1:key/a', provider: aws, region: eu, anchor: strict, read_only: on, outage_grace: 0}",
    "slisten: 127.0.0.1:1\ntrust_domain: t\ntls: {certificate: c, key: k, client_ca: a}\ntenants_directory: t\nanchor_directory: a\n",
    "p{\"version\": 1, \"variables\": {\"cmk_id\": \"a\", \"wrapping_key_ttl\": \"0\", \"outage_grace\": \"0\"}, \"instances\": [\"a\"], \"disabled\": true}",
  ].map { Array($0.utf8) }

  static func run(_ bytes: [UInt8]) -> Bool {
    guard let kind = bytes.first, let text = String(validating: bytes.dropFirst(), as: UTF8.self) else {
      return false
    }
    do {
      switch kind {
      case UInt8(ascii: "s"): _ = try ServiceConfiguration(yaml: text, file: "f", directory: "/d")
      case UInt8(ascii: "p"): try persisted(text)
      default: try tenant(text)
      }
      return true
    } catch {
      // What is refused is refused in one line that names the file.
      let why = "\(error)"
      precondition(
        !why.contains(where: \.isNewline) && (1...1000).contains(why.count),
        "an error of several lines: \(why)"
      )
      return false
    }
  }

  /// What is in force can be set as it is shown, and then is shown the same.
  private static func tenant(_ text: String) throws {
    let file = try TenantConfiguration(yaml: text, file: "f", allowedEndpoints: ["kms.example"])
    for endpoint in [file.provider.endpoint, file.provider.stsEndpoint].compactMap({ $0 }) {
      precondition(endpoint.hasPrefix("https://kms.example"), "another host passed: \(endpoint)")
    }
    precondition(!file.storageFile.contains("/") && !file.provider.credentialsFile.contains("/"))
    let settings = try TenantSettings(file: file, persisted: PersistedState())
    for name in VariableName.allCases where name.isDynamic && !settings.shown(name).isEmpty {
      let again: TenantSettings
      do {
        again = try settings.setting(name, settings.shown(name), isPersisted: false)
      } catch {
        preconditionFailure("\(name) cannot be set to what it is: \(error)")
      }
      precondition(again.shown(name) == settings.shown(name), "\(name) has two texts")
    }
  }

  /// What is in force is written so that it is read the same.
  private static func persisted(_ text: String) throws {
    var state = try PersistedState(json: text, file: "f", allowedEndpoints: ["kms.example"])
    let file = try TenantConfiguration(yaml: "cmk_id: a", file: "f", allowedEndpoints: [])
    state.variables = try TenantSettings(file: file, persisted: state).persisted
    do {
      let again = try PersistedState(json: state.json, file: "f", allowedEndpoints: ["kms.example"])
      precondition(again == state, "what was written is read as something else")
    } catch {
      preconditionFailure("what was written is not read: \(error)")
    }
  }
}
