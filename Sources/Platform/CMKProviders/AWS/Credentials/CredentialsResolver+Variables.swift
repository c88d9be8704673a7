internal import KeyringCore
internal import SecureMemory

extension CredentialsResolver {
  func value(_ name: String) throws(CMKError) -> Secret? {
    let value = try locked { () throws(SecureMemoryError) in try variable(name) }
    return value?.count == 0 ? nil : value
  }

  /// The value of a variable that is no secret.
  func text(_ name: String) throws(CMKError) -> String? {
    try value(name).map { SecretText($0).publicText(0..<$0.count) }
  }

  func environment() throws(CMKError) -> ResolvedSource? {
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    let (accessKeyID, secretAccessKey) = (try value(names[0]), try value(names[1]))
    guard accessKeyID != nil || secretAccessKey != nil else { return nil }
    guard let accessKeyID, let secretAccessKey else {
      throw .configuration("of \(names[0]) and \(names[1]) one is set and the other is not")
    }
    let token = "AWS_SESSION_TOKEN"
    return .fixed(
      AWSCredentials(
        accessKeyID: try CredentialSyntax.accessKeyID(accessKeyID, names[0]),
        secretAccessKey: try CredentialSyntax.secretAccessKey(secretAccessKey, names[1]),
        sessionToken: try value(token).map { value throws(CMKError) in
          try CredentialSyntax.sessionToken(value, token)
        },
        expiresMilliseconds: nil
      )
    )
  }

  func webIdentity() throws(CMKError) -> ResolvedSource? {
    guard let file = try text("AWS_WEB_IDENTITY_TOKEN_FILE") else { return nil }
    guard let arn = try text("AWS_ROLE_ARN") else {
      throw .configuration("AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not")
    }
    do {
      let role = try AWSRole(arn: arn, externalID: nil, sessionName: text("AWS_ROLE_SESSION_NAME"))
      return .webIdentity(role: role, tokenFile: file)
    } catch {
      throw .configuration("AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME: \(error)")
    }
  }

  func container() throws(CMKError) -> ResolvedSource? {
    let (relative, full) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    let authorization = try containerAuthorization()
    if let path = try text(relative) {
      guard path.hasPrefix("/"), EndpointURL("http://169.254.170.2" + path) != nil else {
        throw .configuration("\(relative) is no path of a URL")
      }
      return .container(
        ContainerEndpoint(url: "http://169.254.170.2" + path, isSecure: false, authorization: authorization)
      )
    }
    guard let url = try text(full) else { return nil }
    guard let parsed = EndpointURL(url), parsed.isSecure || parsed.isLoopback || parsed.isContainerEndpoint
    else {
      throw .configuration(
        "\(full) is https://, or http:// of this machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]"
      )
    }
    return .container(
      ContainerEndpoint(url: url, isSecure: parsed.isSecure, authorization: authorization)
    )
  }

  private func containerAuthorization() throws(CMKError) -> ContainerEndpoint.Authorization {
    if let file = try text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") { return .file(file) }
    return try value("AWS_CONTAINER_AUTHORIZATION_TOKEN").map { .value($0) } ?? .none
  }

  func instanceMetadata() throws(CMKError) -> ResolvedSource? {
    guard try text("AWS_EC2_METADATA_DISABLED")?.lowercased() != "true" else { return nil }
    let name = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
    guard let endpoint = try text(name) else {
      return .instanceMetadata(endpoint: "http://169.254.169.254")
    }
    guard let url = EndpointURL(endpoint), !url.isSecure, url.isLoopback || url.isInstanceMetadata,
      url.path.isEmpty || url.path == "/"
    else {
      throw .configuration("\(name) is http:// of 169.254.169.254, [fd00:ec2::254] or this machine")
    }
    return .instanceMetadata(endpoint: String(endpoint.dropLast(url.path.count)))
  }
}
