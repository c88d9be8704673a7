internal import Glibc
internal import SecureMemory
internal import Synchronization

/// A request that was checked and signed, in the form in which libcurl is given it.
struct PreparedRequest: Sendable {
  let method: HTTPRequest.Method
  let url: RequestURL
  let headers: HeaderFields
  let body: Secret?
  let timeoutMilliseconds: Int
  let connectTimeoutMilliseconds: Int
  let responseBytesMax: Int
  let isSentOnce: Bool

  /// Larger requests would need limits of their own; AWS takes no larger one here (KMS: 4,096 bytes and an encryption context).
  private static let bodyBytesMax = 1 << 20

  /// Checks and signs it.
  ///
  /// - Throws: `HTTPError.configuration` where it cannot be sent.
  init(_ request: HTTPRequest) throws(HTTPError) {
    guard request.timeoutMilliseconds > 0, request.connectTimeoutMilliseconds > 0,
      request.responseBytesMax > 0
    else { throw .configuration("a request's limits are positive") }
    guard (request.body?.count ?? 0) <= Self.bodyBytesMax, request.body == nil || request.method != .get
    else {
      throw .configuration("a body has at most 1 MiB, and GET has none")
    }
    url = try RequestURL(request.url, allowsPlain: request.scheme.allowsPlain)
    var headers = try HeaderFields(request)
    try headers.add("Host", .text(url.hostHeader))
    if let signing = request.signing {
      let signer = try RequestSigner(signing, unixSeconds: time(nil))
      try signer.sign(&headers, method: request.method, url: url, body: request.body)
    }
    self.headers = headers
    method = request.method
    body = request.body
    timeoutMilliseconds = min(request.timeoutMilliseconds, 86_400_000)
    connectTimeoutMilliseconds = min(request.connectTimeoutMilliseconds, timeoutMilliseconds)
    responseBytesMax = request.responseBytesMax
    isSentOnce = request.isSentOnce
  }
}

/// One request on its way, and who awaits its response. It is finished once, on the loop's thread.
struct Call: Sendable {
  /// Names one call among all, and remembers that it was cancelled before the loop knew of it.
  final class Ticket: Sendable {
    let isCancelled = Atomic(false)
  }

  let ticket: Ticket
  let request: PreparedRequest
  /// When it must be finished, whatever it waits for.
  let deadline: MonotonicTime
  let continuation: CheckedContinuation<Result<HTTPResponse, HTTPError>, Never>

  var host: String { request.url.host }

  func finish(_ result: Result<HTTPResponse, HTTPError>) { continuation.resume(returning: result) }

  /// The time is over.
  func finishLate() {
    finish(.failure(.unreachable("\(host): no response within \(request.timeoutMilliseconds) ms")))
  }
}
