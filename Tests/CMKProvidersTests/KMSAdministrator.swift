import Foundation
import HTTPTransport
import KeyringCore
import KeyringTestSupport
import SecureMemory
import Testing

@testable import CMKProviders

/// Makes, disables and ends CMKs through KMS's API: what the service leaves to whoever administers a tenant's account.
struct KMSAdministrator: Sendable {
  struct Refused: Error { let status: Int, body: String }

  let http: any HTTPSending
  let target: KMSTarget
  let credentials: AWSCredentials

  var steward: CMKConformance.Steward {
    CMKConformance.Steward(
      make: {
        let metadata = try await call("CreateKey", [:])["KeyMetadata"] as? [String: Any]
        return try CMKID(try #require(metadata?["Arn"] as? String))
      },
      disable: { _ = try await call("DisableKey", ["KeyId": id(of: $0)]) },
      enable: { _ = try await call("EnableKey", ["KeyId": id(of: $0)]) },
      scheduleDeletion: {
        _ = try await call("ScheduleKeyDeletion", ["KeyId": id(of: $0), "PendingWindowInDays": 7])
      }
    )
  }

  /// Without the ARN before it, with which an emulator ends in a defect of its own.
  private func id(of cmk: CMKID) -> String { KeyARN(cmk.text)?.id ?? cmk.text }

  private func call(_ operation: String, _ members: [String: Any]) async throws -> [String: Any] {
    var request = HTTPRequest(.post, target.url, scheme: target.scheme)
    request.headers = [
      (name: "Content-Type", value: "application/x-amz-json-1.1"),
      (name: "X-Amz-Target", value: "TrentService.\(operation)"),
    ]
    request.body = try .testing(try JSONSerialization.data(withJSONObject: members))
    request.signing = RequestSigning(
      region: target.region.text,
      service: "kms",
      accessKeyID: credentials.accessKeyID,
      secretAccessKey: credentials.secretAccessKey,
      sessionToken: credentials.sessionToken
    )
    let response = try await http.send(request)
    let body = response.body?.revealed ?? []
    guard response.status == 200 else {
      throw Refused(status: response.status, body: String(decoding: body, as: UTF8.self))
    }
    return body.isEmpty
      ? [:]
      : try JSONSerialization.jsonObject(with: Data(body), options: .fragmentsAllowed)
        as? [String: Any] ?? [:]
  }
}
