public import SecureMemory

/// What signs a request: AWS Signature Version 4 (AWS General Reference, "Signing AWS API requests"), with all its headers.
public struct RequestSigning: Sendable {
  /// Of the credential scope, `eu-central-1` say.
  public let region: String
  /// Of the credential scope, `kms` or `sts`.
  public let service: String
  /// Not secret; in the request.
  public let accessKeyID: String
  /// Signs; never sent.
  public let secretAccessKey: Secret
  /// Of temporary credentials: sent, and signed, as `x-amz-security-token`.
  public let sessionToken: Secret?

  /// Puts the parts together.
  public init(
    region: String,
    service: String,
    accessKeyID: String,
    secretAccessKey: Secret,
    sessionToken: Secret?
  ) {
    self.region = region
    self.service = service
    self.accessKeyID = accessKeyID
    self.secretAccessKey = secretAccessKey
    self.sessionToken = sessionToken
  }
}

/// One request.
public struct HTTPRequest: Sendable {
  /// What is asked of the resource.
  public enum Method: String, Sendable { case get = "GET", post = "POST", put = "PUT" }

  /// Which URLs it may go to.
  public enum Scheme: Sendable {
    /// `https` alone.
    case secure
    /// Also `http` to 127.0.0.0/8, [::1] and localhost: a KMS on this machine.
    case plainToLoopback
    /// Also `http` to the link-local addresses at which AWS hands out credentials: 169.254.169.254, 169.254.170.2, 169.254.170.23,
    /// [fd00:ec2::254], [fd00:ec2::23], and loopback.
    case plainToMetadata
  }

  /// Method.
  public var method: Method
  /// Absolute, without user name and fragment.
  public var url: String
  /// Which schemes `url` may have.
  public var scheme: Scheme
  /// Names and values; a value that is secret is in `secretHeaders`.
  public var headers: [(name: String, value: String)]
  /// Headers whose value is secret.
  public var secretHeaders: [(name: String, value: Secret)]
  /// Sent with Content-Length; nil: none.
  public var body: Secret?
  /// Nil: not signed.
  public var signing: RequestSigning?
  /// For the whole of it, connecting among it.
  public var timeoutMilliseconds: Int
  /// For connecting and the TLS handshake.
  public var connectTimeoutMilliseconds: Int
  /// True: it goes over a new connection, since libcurl sends a request again by itself where a kept one turns out to be dead.
  public var isSentOnce: Bool
  /// A larger response is an error.
  public var responseBytesMax: Int

  /// A request with the limits of a KMS call: 1 s to connect, 3 s in all, a response of 64 KiB.
  public init(_ method: Method, _ url: String, scheme: Scheme = .secure) {
    self.method = method
    self.url = url
    self.scheme = scheme
    headers = []
    secretHeaders = []
    body = nil
    signing = nil
    isSentOnce = false
    timeoutMilliseconds = 3000
    connectTimeoutMilliseconds = 1000
    responseBytesMax = 65_536
  }
}

/// One response, whatever its status.
public struct HTTPResponse: Sendable {
  /// 100 to 599.
  public let status: Int
  /// Names in lower case; of several of one name the last.
  public let headers: [String: String]
  /// In locked memory; nil where it is empty.
  public let body: Secret?

  /// Puts the parts together.
  public init(status: Int, headers: [String: String], body: Secret?) {
    self.status = status
    self.headers = headers
    self.body = body
  }
}

/// Why there is no response. Texts have no secret and no byte of a body.
public enum HTTPError: Error, Sendable, Equatable, CustomStringConvertible {
  /// No answer, or half of one: name resolution, connecting, TLS, a reset, a time that ran out.
  case unreachable(String)
  /// The response is larger than allowed, or none that HTTP knows.
  case malformed(String)
  /// Nothing of the other side: the request was cancelled, its connections were closed, too many wait, or there is no memory for it.
  case local(String)
  /// The request cannot be made: its URL is not allowed, the CA file is not there.
  case configuration(String)

  /// For a client and the log.
  public var description: String {
    switch self {
    case .unreachable(let why), .malformed(let why), .local(let why), .configuration(let why): why
    }
  }
}

/// Sends requests; each one of these has connections of its own, which no other one uses.
public protocol HTTPSending: Sendable {
  /// Sends one request and awaits its response; redirects are responses.
  func send(_ request: HTTPRequest) async throws(HTTPError) -> HTTPResponse
}
