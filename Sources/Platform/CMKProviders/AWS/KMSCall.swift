internal import HTTPTransport
internal import KeyringCore
internal import SecureMemory

/// The calls that are made of KMS, as its API names them.
enum KMSOperation: String, Sendable {
  case generateDataKey = "GenerateDataKey"
  case generateRandom = "GenerateRandom"
  case encrypt = "Encrypt"
  case decrypt = "Decrypt"
  case reEncrypt = "ReEncrypt"
  case describeKey = "DescribeKey"
  case rotateKeyOnDemand = "RotateKeyOnDemand"
  case scheduleKeyDeletion = "ScheduleKeyDeletion"
}

/// A call of KMS's API, all but the credentials.
struct KMSCall: Sendable {
  let operation: KMSOperation
  /// Of which key; nil: of none.
  let reference: KeyReference?
  let target: KMSTarget
  private let body: Secret

  /// - Parameters:
  ///   - keyMember: what the API calls the member that names the key.
  ///   - fill: writes the other members.
  /// - Throws: `CMKError.unreachable` where there is no memory for it.
  init(
    _ operation: KMSOperation,
    _ reference: KeyReference?,
    at target: KMSTarget,
    keyMember: String = "KeyId",
    _ fill: (inout JSONWriter) -> Void
  ) throws(CMKError) {
    self.operation = operation
    self.reference = reference
    self.target = target
    var writer = JSONWriter()
    if let reference { writer.text(keyMember, "\(reference)") }
    fill(&writer)
    do {
      body = try writer.finished()
    } catch {
      throw .unreachable("KMS cannot be asked: \(error)")
    }
  }

  /// The key and the region, for an error's text.
  var place: String { "\(reference.map { "\($0)" } ?? "no key") in \(target.region)" }

  /// The request, to be signed with these credentials.
  func request(_ credentials: AWSCredentials) -> HTTPRequest {
    var request = HTTPRequest(.post, target.url, scheme: target.scheme)
    request.headers = [
      (name: "Content-Type", value: "application/x-amz-json-1.1"),
      (name: "X-Amz-Target", value: "TrentService.\(operation.rawValue)"),
    ]
    request.body = body
    request.isSentOnce = operation == .rotateKeyOnDemand
    request.signing = RequestSigning(
      region: target.region.text,
      service: "kms",
      accessKeyID: credentials.accessKeyID,
      secretAccessKey: credentials.secretAccessKey,
      sessionToken: credentials.sessionToken
    )
    return request
  }
}
