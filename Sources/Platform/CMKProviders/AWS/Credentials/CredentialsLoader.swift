internal import HTTPTransport
internal import KeyringCore
internal import KeyringStorage
internal import SecureMemory

/// Has credentials from where they are: over the network, but for fixed ones.
struct CredentialsLoader: Sendable {
  let securityTokens: SecurityTokenService
  /// For the endpoints of containers and instances: no proxy on the way.
  let metadata: any HTTPSending

  /// Credentials of a source.
  ///
  /// - Throws: `CMKError.unreachable` where there is no usable answer; `.configuration` where a file of a token is not there.
  func load(_ source: ResolvedSource) async throws(CMKError) -> AWSCredentials {
    switch source {
    case .fixed(let credentials):
      return credentials
    case .webIdentity(let role, let file):
      // 20,000: WebIdentityToken in the STS API reference.
      let token = try Self.token(file, 4...20_000)
      return try await securityTokens.assume(role, webIdentity: token)
    case .container(let endpoint):
      return try await container(endpoint)
    case .instanceMetadata(let endpoint):
      return try await instanceMetadata(endpoint)
    case .role(let role, let base):
      return try await securityTokens.assume(role, with: load(base))
    }
  }

  /// The one line of a file that the platform renews.
  private static func token(_ file: String, _ lengths: ClosedRange<Int>) throws(CMKError) -> Secret {
    let text = SecretText(try fileContent { () throws(FileError) in try SecretFile.readProvided(file) })
    guard let line = text.lines.first, text.lines.count == 1 else {
      throw .configuration("\(file) holds no token: one line")
    }
    let token = try text.copy(line)
    guard CredentialSyntax.isVisibleText(token, lengths) else {
      throw .configuration(
        "\(file):1: a token is \(lengths.lowerBound) to \(lengths.upperBound) printable characters without a space"
      )
    }
    return token
  }

  // MARK: Container

  private func container(_ endpoint: ContainerEndpoint) async throws(CMKError) -> AWSCredentials {
    var request = HTTPRequest(.get, endpoint.url, scheme: endpoint.isSecure ? .secure : .plainToMetadata)
    request.headers = [("Accept", "application/json")]
    switch endpoint.authorization {
    case .none: break
    case .value(let value):
      guard CredentialSyntax.isVisibleText(value, 1...8192) else {
        throw .configuration("AWS_CONTAINER_AUTHORIZATION_TOKEN is not one printable word")
      }
      request.secretHeaders = [("Authorization", value)]
    case .file(let file):
      request.secretHeaders = [("Authorization", try Self.token(file, 1...8192))]
    }
    return try Self.credentials(await answer(request, "the container endpoint"), "the container endpoint")
  }

  // MARK: Instance metadata

  /// Version 2 alone: a token by PUT, which a request that was forged or forwarded cannot make (Amazon EC2 User Guide).
  private func instanceMetadata(_ endpoint: String) async throws(CMKError) -> AWSCredentials {
    let what = "the instance metadata service"
    var request = metadataRequest(.put, endpoint + "/latest/api/token")
    request.headers = [("X-aws-ec2-metadata-token-ttl-seconds", "60")]
    let token = try await answer(request, what)
    guard CredentialSyntax.isVisibleText(token, 1...4096) else {
      throw .unreachable("\(what) answers something that is no token")
    }
    let path = endpoint + "/latest/meta-data/iam/security-credentials/"
    request = metadataRequest(.get, path)
    request.secretHeaders = [("X-aws-ec2-metadata-token", token)]
    let role = SecretText(try await answer(request, what + " (an instance without a role has none)"))
    guard let line = role.lines.first, (1...64).contains(line.count),
      role.isAll(line, { isAlphanumeric($0) || "_+=,.@-".utf8.contains($0) })
    else { throw .unreachable("\(what) answers something that is no role's name") }
    request = metadataRequest(.get, path + role.publicText(line))
    request.secretHeaders = [("X-aws-ec2-metadata-token", token)]
    return try Self.credentials(await answer(request, what), what)
  }

  private func metadataRequest(_ method: HTTPRequest.Method, _ url: String) -> HTTPRequest {
    var request = HTTPRequest(method, url, scheme: .plainToMetadata)
    request.timeoutMilliseconds = 1000
    request.connectTimeoutMilliseconds = 1000
    return request
  }

  // MARK: Answers

  /// The body of an answer with status 200.
  private func answer(_ request: HTTPRequest, _ what: String) async throws(CMKError) -> Secret {
    let response: HTTPResponse
    do {
      response = try await metadata.send(request)
    } catch {
      throw .unreachable("\(what): \(error)")
    }
    guard response.status == 200, let body = response.body else {
      throw .unreachable("\(what) answers HTTP \(response.status)")
    }
    return body
  }

  /// The credentials in the JSON that both kinds of endpoints answer.
  private static func credentials(_ body: Secret, _ what: String) throws(CMKError) -> AWSCredentials {
    do {
      let answer = try JSONObject(body)
      // The instance metadata service says by it that it has none: AssumeRoleUnauthorizedAccess, say.
      if let code = try answer.text("Code"), code != "Success" {
        throw CMKError.unreachable("\(what) answers \(printable(String(code.prefix(64))))")
      }
      guard let accessKeyID = try answer.secret("AccessKeyId"),
        let secretAccessKey = try answer.secret("SecretAccessKey"), let token = try answer.secret("Token"),
        let expires = try answer.text("Expiration").flatMap(unixMilliseconds)
      else {
        throw CMKError.unreachable("\(what) answers no credentials with a time at which they expire")
      }
      return AWSCredentials(
        accessKeyID: try CredentialSyntax.accessKeyID(accessKeyID, "\(what): AccessKeyId"),
        secretAccessKey: try CredentialSyntax.secretAccessKey(secretAccessKey, "\(what): SecretAccessKey"),
        sessionToken: try CredentialSyntax.sessionToken(token, "\(what): Token"),
        expiresMilliseconds: expires
      )
    } catch let error as JSONObject.Malformed {
      throw .unreachable("\(what): \(error)")
    } catch {
      throw .unreachable("\(error)")
    }
  }
}
