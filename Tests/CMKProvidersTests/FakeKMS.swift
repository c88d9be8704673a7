import Foundation
import HTTPTransport
import KeyringCore
import SecureMemory
import Synchronization
import Testing

@testable import CMKProviders

/// KMS by its documentation, in memory: keys in regions, their states, who may use them, aliases, ciphertexts bound to key and context.
final class FakeKMS: HTTPSending {
  struct Key {
    let account = "111122223333"
    var state = "Enabled"
    /// Access key ids that may use it.
    var principals: Set<String>
  }

  struct Ciphertext {
    let keyID: String
    let context: [String: String]
    let plaintext: [UInt8]
  }

  private struct State {
    /// By region and id.
    var keys: [String: [String: Key]] = [:]
    /// By region and name.
    var aliases: [String: [String: String]] = [:]
    var ciphertexts: [[UInt8]: Ciphertext] = [:]
    var made: UInt64 = 0
  }

  private struct Refusal: Error {
    let code: String
    var message = ""
  }

  private let state = Mutex(State())

  // MARK: Administration

  /// Makes a key, and gives its ARN.
  func make(for principal: String, region: String = "eu-central-1", id: String? = nil) -> String {
    let id = id ?? UUID().uuidString.lowercased()
    state.withLock { $0.keys[region, default: [:]][id] = Key(principals: [principal]) }
    return "arn:aws:kms:\(region):111122223333:key/\(id)"
  }

  func set(_ arn: String, state new: String) throws {
    let key = try #require(KeyARN(arn))
    state.withLock { $0.keys[key.home.region.text]?[key.id]?.state = new }
  }

  func point(alias: String, to arn: String) throws {
    let key = try #require(KeyARN(arn))
    state.withLock { $0.aliases[key.home.region.text, default: [:]][alias] = key.id }
  }

  // MARK: The API

  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse {
    do {
      return try AWSFixture.response(try state.withLock { try Self.answer(request, &$0) })
    } catch let refusal as Refusal {
      let body = "{\"__type\":\"\(refusal.code)\",\"message\":\"\(refusal.message)\"}"
      do {
        return AWSFixture.response(try .testing(body), status: 400)
      } catch {
        throw .unreachable("\(error)")
      }
    } catch {
      throw .unreachable("\(error)")
    }
  }

  private static func answer(_ request: HTTPRequest, _ state: inout State) throws -> [String: Any] {
    let signing = try #require(request.signing)
    let target = request.headers.first { $0.name == "X-Amz-Target" }?.value ?? ""
    let body = try members(request)
    if target == "TrentService.GenerateRandom" {
      return ["Plaintext": AWSFixture.coded(fresh(body["NumberOfBytes"] as? Int ?? 0, &state))]
    }
    if target == "TrentService.CreateKey" {
      let id = UUID().uuidString.lowercased()
      state.keys[signing.region, default: [:]][id] = Key(principals: [signing.accessKeyID])
      return ["KeyMetadata": ["Arn": "arn:aws:kms:\(signing.region):111122223333:key/\(id)"]]
    }
    let name = body["KeyId"] as? String ?? ""
    let (arn, id, key) = try find(name, signing, state)
    if target == "TrentService.DescribeKey" {
      return ["KeyMetadata": ["Arn": arn, "KeyId": id, "KeyState": key.state, "AWSAccountId": key.account]]
    }
    let changes = [
      "DisableKey": "Disabled", "EnableKey": "Enabled", "ScheduleKeyDeletion": "PendingDeletion",
    ]
    if let new = changes[String(target.dropFirst("TrentService.".count))] {
      state.keys[signing.region]?[id]?.state = new
      return [:]
    }
    guard key.state == "Enabled" else {
      if key.state == "Disabled" { throw Refusal(code: "DisabledException", message: "\(arn) is disabled.") }
      throw Refusal(code: "KMSInvalidStateException", message: "\(arn) is pending deletion.")
    }
    let context = body["EncryptionContext"] as? [String: String] ?? [:]
    switch target {
    case "TrentService.GenerateDataKey":
      let plaintext = fresh(body["NumberOfBytes"] as? Int ?? 0, &state)
      let blob = encrypt(Ciphertext(keyID: id, context: context, plaintext: plaintext), &state)
      return ["KeyId": arn, "Plaintext": AWSFixture.coded(plaintext), "CiphertextBlob": blob]
    case "TrentService.Encrypt":
      let blob = encrypt(
        Ciphertext(keyID: id, context: context, plaintext: try decoded(body["Plaintext"])),
        &state
      )
      return ["KeyId": arn, "CiphertextBlob": blob]
    case "TrentService.Decrypt":
      guard let made = state.ciphertexts[try decoded(body["CiphertextBlob"])] else {
        throw Refusal(code: "InvalidCiphertextException")
      }
      guard made.keyID == id else { throw Refusal(code: "IncorrectKeyException") }
      guard made.context == context else { throw Refusal(code: "InvalidCiphertextException") }
      return ["KeyId": arn, "Plaintext": AWSFixture.coded(made.plaintext)]
    case "TrentService.RotateKeyOnDemand":
      return ["KeyId": id]
    default: throw Refusal(code: "UnknownOperationException")
    }
  }

  private static func find(_ name: String, _ signing: RequestSigning, _ state: State) throws -> (
    String, String, Key
  ) {
    let region = signing.region
    var id = name
    if let key = KeyARN(name), key.home.region.text == region { id = key.id }
    if let alias = state.aliases[region]?[String(name.split(separator: ":").last ?? "")] { id = alias }
    guard let key = state.keys[region]?[id] else {
      throw Refusal(code: "NotFoundException", message: "Key '\(name)' does not exist")
    }
    guard key.principals.contains(signing.accessKeyID) else { throw Refusal(code: "AccessDeniedException") }
    return ("arn:aws:kms:\(region):\(key.account):key/\(id)", id, key)
  }

  private static func fresh(_ count: Int, _ state: inout State) -> [UInt8] {
    state.made += 1
    var generator = SystemRandomNumberGenerator()
    return (0..<count).map { _ in UInt8.random(in: 1...255, using: &generator) }
  }

  private static func encrypt(_ ciphertext: Ciphertext, _ state: inout State) -> String {
    let blob = fresh(60, &state)
    state.ciphertexts[blob] = ciphertext
    return AWSFixture.coded(blob)
  }

  private static func decoded(_ member: Any?) throws -> [UInt8] {
    let text = try #require(member as? String)
    return Array(try #require(Data(base64Encoded: text)))
  }
}
