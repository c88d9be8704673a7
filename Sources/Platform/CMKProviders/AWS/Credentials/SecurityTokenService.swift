internal import HTTPTransport
internal import KeyringCore
internal import SecureMemory

/// AWS's Security Token Service (STS API reference, version 2011-06-15): temporary credentials for a role.
struct SecurityTokenService: Sendable {
  /// How long its credentials are good: what a role allows at least, and the most where one role leads to another.
  static let durationSeconds = 3600

  let http: any HTTPSending
  let region: AWSRegion
  /// nil: AWS's own for the region.
  let endpoint: String?
  let tenant: TenantName

  /// AssumeRole, signed with `base`.
  ///
  /// - Throws: `CMKError.unreachable`.
  func assume(_ role: AWSRole, with base: AWSCredentials) async throws(CMKError) -> AWSCredentials {
    var form = form("AssumeRole", role)
    if let externalID = role.externalID { form.add("ExternalId", externalID) }
    var request = try request(form.secret())
    request.signing = RequestSigning(
      region: region.text,
      service: "sts",
      accessKeyID: base.accessKeyID,
      secretAccessKey: base.secretAccessKey,
      sessionToken: base.sessionToken
    )
    let secrets = [base.secretAccessKey] + (base.sessionToken.map { [$0] } ?? [])
    return try await credentials(request, "AssumeRole", secrets)
  }

  /// AssumeRoleWithWebIdentity, which the token alone authorises: not signed.
  ///
  /// - Throws: `CMKError.unreachable`.
  func assume(_ role: AWSRole, webIdentity token: Secret) async throws(CMKError) -> AWSCredentials {
    var form = form("AssumeRoleWithWebIdentity", role)
    form.add("WebIdentityToken", token)
    return try await credentials(request(form.secret()), "AssumeRoleWithWebIdentity", [token])
  }

  private func form(_ action: String, _ role: AWSRole) -> FormBody {
    var form = FormBody()
    form.add("Action", action)
    form.add("Version", "2011-06-15")
    form.add("RoleArn", role.arn)
    form.add("RoleSessionName", role.sessionName(for: tenant))
    form.add("DurationSeconds", "\(Self.durationSeconds)")
    return form
  }

  private func request(_ body: Secret) -> HTTPRequest {
    let url = endpoint ?? "https://sts.\(region).\(region.partition.hostSuffix)/"
    var request = HTTPRequest(.post, url, scheme: endpoint == nil ? .secure : .plainToLoopback)
    request.headers = [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]
    request.body = body
    return request
  }

  private func credentials(
    _ request: HTTPRequest,
    _ action: String,
    _ secrets: [Secret]
  ) async throws(CMKError) -> AWSCredentials {
    let response: HTTPResponse
    do {
      response = try await http.send(request)
    } catch {
      throw .unreachable("STS \(action): \(error)")
    }
    guard response.status == 200, let body = response.body else {
      throw .unreachable("STS \(action): " + refusal(response, secrets))
    }
    do {
      let document = try XMLDocument(body)
      return try credentials(document, "\(action)Response/\(action)Result/Credentials/")
    } catch let error as CMKError {
      throw .unreachable("STS \(action): \(error)")
    } catch {
      throw .unreachable("STS \(action): \(error)")
    }
  }

  private func credentials(_ document: XMLDocument, _ path: String) throws(CMKError) -> AWSCredentials {
    guard let accessKeyID = try document.secret(path + "AccessKeyId"),
      let secretAccessKey = try document.secret(path + "SecretAccessKey"),
      let token = try document.secret(path + "SessionToken"),
      let expires = try document.publicText(path + "Expiration").flatMap(unixMilliseconds)
    else { throw .unreachable("the answer has no credentials with a time at which they expire") }
    return AWSCredentials(
      accessKeyID: try CredentialSyntax.accessKeyID(accessKeyID, "AccessKeyId"),
      secretAccessKey: try CredentialSyntax.secretAccessKey(secretAccessKey, "SecretAccessKey"),
      sessionToken: try CredentialSyntax.sessionToken(token, "SessionToken"),
      expiresMilliseconds: expires
    )
  }

  /// What an answer that is none says of itself, as far as it can be shown.
  private func refusal(_ response: HTTPResponse, _ secrets: [Secret]) -> String {
    let answer = ErrorAnswer(response)
    let place = "HTTP \(response.status)" + (answer.requestID.map { ", request id \($0)" } ?? "")
    guard let code = answer.code else { return place }
    // What AWS says of a wrong signature shows the request as it should have been signed, the session token among it; and what it says of a wrong
    // parameter the parameter.
    let isShown =
      !answer.message.isEmpty && code != "SignatureDoesNotMatch"
      && response.body.map { body in !secrets.contains(where: SecretText(body).contains) } ?? false
    return isShown ? "\(code): \(answer.message) (\(place))" : "\(code) (\(place))"
  }
}
