internal import CCurl
internal import COpenSSL
internal import Glibc
internal import SecureMemory

/// One request under way: libcurl's easy handle, and what its callbacks gather. On the loop's thread.
@safe
final class Transfer {
  /// Where it goes, and on whose word.
  @safe
  struct Route {
    /// Of the target, or of the proxy: in text, where a name was looked up.
    let addresses: [String]
    /// Through which it goes.
    let proxy: RequestURL?
    /// The CA certificates; the transfer takes a reference of its own.
    let trust: OpaquePointer
    let idleSecondsMax: Int
  }

  let call: Call
  let easy: UnsafeMutableRawPointer
  /// Names it among its pool's.
  var id: UInt { unsafe UInt(bitPattern: easy) }
  private var headerLines: UnsafeMutablePointer<curl_slist>?
  private var addressLines: UnsafeMutablePointer<curl_slist>?
  private let errorText: UnsafeMutablePointer<CChar>
  /// libcurl asks for it once it has connected, when `TrustStores` may have let it go for a newer one.
  private let trust: OpaquePointer
  private var response = ResponseParts()
  private var sentBytes = 0

  /// Prepares it; `curl_multi_add_handle` starts it.
  ///
  /// - Throws: `HTTPError.local` when out of memory, `.configuration` where libcurl lacks an option.
  init(_ call: Call, _ route: Route) throws(HTTPError) {
    // SAFETY: the handle, the text, both lists and a reference to the store belong to this object, which frees them when the handle is in no
    // multi handle any more.
    guard let easy = unsafe curl_easy_init() else { throw .local("out of memory") }
    unsafe self.easy = easy
    self.call = call
    unsafe errorText = .allocate(capacity: Int(CURL_ERROR_SIZE))
    unsafe errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    unsafe X509_STORE_up_ref(route.trust)
    unsafe trust = route.trust
    var options = unsafe EasyOptions(easy)
    unsafe options.set(CURLOPT_ERRORBUFFER, pointer: errorText)
    try setTarget(&options, route)
    try setRequest(&options)
    setCallbacks(&options)
    try options.check()
  }

  deinit {
    unsafe curl_easy_cleanup(easy)
    unsafe X509_STORE_free(trust)
    unsafe curl_slist_free_all(headerLines)
    unsafe curl_slist_free_all(addressLines)
    unsafe errorText.deallocate()
  }

  // MARK: Options

  private func setTarget(_ options: inout EasyOptions, _ route: Route) throws(HTTPError) {
    let url = call.request.url
    options.set(CURLOPT_URL, text: url.text)
    options.set(CURLOPT_PROTOCOLS_STR, text: url.isSecure ? "https" : "http")
    options.set(CURLOPT_CONNECTTIMEOUT_MS, call.request.connectTimeoutMilliseconds)
    options.set(CURLOPT_MAXAGE_CONN, route.idleSecondsMax)
    options.set(CURLOPT_FRESH_CONNECT, call.request.isSentOnce ? 1 : 0)
    // Both are set, and empty where there is none: unset, libcurl takes them from the environment.
    options.set(CURLOPT_PROXY, text: route.proxy.map { "http://\($0.host):\($0.port)" } ?? "")
    options.set(CURLOPT_NOPROXY, text: "")
    unsafe options.set(CURLOPT_SSL_CTX_DATA, pointer: UnsafeMutableRawPointer(trust))
    guard !route.addresses.isEmpty else { return }
    let target = route.proxy ?? url
    let line = "\(target.host):\(target.port):\(route.addresses.joined(separator: ","))"
    // SAFETY: the list is this object's; libcurl copies the line.
    guard let list = unsafe curl_slist_append(nil, line) else { throw .local("out of memory") }
    unsafe addressLines = list
    unsafe options.set(CURLOPT_RESOLVE, list: list)
  }

  private func setRequest(_ options: inout EasyOptions) throws(HTTPError) {
    let request = call.request
    // What libcurl would add of its own accord is left out: a type that nobody asked for, and a question before large bodies.
    for field in request.headers.fields { try addLine(field.name + ": ", field.value) }
    for name in ["Content-Type", "Expect"] where !request.headers.contains(name.lowercased()) {
      try addLine("\(name):", .text(""))
    }
    unsafe options.set(CURLOPT_HTTPHEADER, list: headerLines)
    options.set(CURLOPT_MAXFILESIZE_LARGE, offset: request.responseBytesMax)
    guard request.method != .get else { return }
    options.set(CURLOPT_POST, 1)
    options.set(CURLOPT_CUSTOMREQUEST, text: request.method.rawValue)
    options.set(CURLOPT_POSTFIELDSIZE_LARGE, offset: request.body?.count ?? 0)
  }

  /// SECRET: the line is made in memory that is wiped; libcurl's copy is of its own allocator, which wipes.
  private func addLine(_ name: String, _ value: HeaderFields.Value) throws(HTTPError) {
    var line = WipedBuffer(capacity: 256)
    line.append(Array(name.utf8))
    switch value {
    case .text(let text): line.append(Array(text.utf8))
    case .secret(let secret): unsafe secret.withUnsafeBytes { unsafe line.append($0) }
    }
    line.append([0])
    // SAFETY: the line ends with zero, and is copied.
    let list = unsafe line.withUnsafeBytes { bytes in
      unsafe curl_slist_append(headerLines, bytes.bindMemory(to: CChar.self).baseAddress)
    }
    guard let list = unsafe list else { throw .local("out of memory") }
    unsafe headerLines = list
  }

  // MARK: Callbacks

  private func setCallbacks(_ options: inout EasyOptions) {
    // SAFETY: this object outlives the handle's use, and is used on the loop's thread alone.
    let this = unsafe Unmanaged.passUnretained(self).toOpaque()
    for data in [CURLOPT_WRITEDATA, CURLOPT_HEADERDATA, CURLOPT_READDATA, CURLOPT_SEEKDATA] {
      unsafe options.set(data, pointer: this)
    }
    options.keep(unsafe keyring_curl_set_on_body(easy) { unsafe Transfer.of($3).takeBody($0, $1 * $2) })
    options.keep(unsafe keyring_curl_set_on_header(easy) { unsafe Transfer.of($3).takeHeader($0, $1 * $2) })
    options.keep(unsafe keyring_curl_set_on_read(easy) { unsafe Transfer.of($3).giveBody($0, $1 * $2) })
    options.keep(unsafe keyring_curl_set_on_seek(easy) { unsafe Transfer.of($0).seekBody(Int($1), $2) })
    let useTrust: curl_ssl_ctx_callback = { _, context, trust in
      guard let context = unsafe context, let trust = unsafe trust else { return CURLE_SSL_CERTPROBLEM }
      unsafe SSL_CTX_set1_cert_store(OpaquePointer(context), OpaquePointer(trust))
      return CURLE_OK
    }
    options.keep(unsafe keyring_curl_set_on_ssl_context(easy, useTrust))
  }

  private static func of(_ this: UnsafeMutableRawPointer?) -> Transfer {
    guard let this = unsafe this else { preconditionFailure("libcurl lost a transfer's data") }
    return unsafe Unmanaged<Transfer>.fromOpaque(this).takeUnretainedValue()
  }

  /// Another count than `count` ends the transfer.
  private func takeBody(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
    let isTaken = unsafe response.append(
      UnsafeRawBufferPointer(start: bytes, count: count),
      max: call.request.responseBytesMax
    )
    return isTaken ? count : count + 1
  }

  private func takeHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
    unsafe response.appendLine(UnsafeRawBufferPointer(start: bytes, count: count)) ? count : count + 1
  }

  /// SECRET: into libcurl's upload buffer, of its own allocator.
  private func giveBody(_ room: UnsafeMutablePointer<CChar>?, _ capacity: Int) -> Int {
    guard let body = call.request.body, let room = unsafe room else { return 0 }
    let count = min(capacity, body.count - sentBytes)
    // SAFETY: `room` has `capacity` bytes, and the body `count` more.
    unsafe body.withUnsafeBytes { bytes in
      unsafe UnsafeMutableRawPointer(room).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: bytes[sentBytes..<sentBytes + count]).baseAddress
          ?? UnsafeRawPointer(room),
        byteCount: count
      )
    }
    sentBytes += count
    return count
  }

  /// Libcurl begins anew on another connection.
  private func seekBody(_ offset: Int, _ origin: Int32) -> Int32 {
    guard origin == SEEK_SET, (0...(call.request.body?.count ?? 0)).contains(offset) else {
      return CURL_SEEKFUNC_FAIL
    }
    sentBytes = offset
    return CURL_SEEKFUNC_OK
  }

  // MARK: Outcome

  /// What came of it, once libcurl says that it ended.
  func outcome(_ code: CURLcode) -> Result<HTTPResponse, HTTPError> {
    let status = Int(unsafe keyring_curl_status(easy))
    do throws(HTTPError) {
      guard code == CURLE_OK else {
        throw unsafe response.refusal(host: call.host) ?? .of(code, said: errorText, host: call.host)
      }
      return .success(try response.whole(status: status, host: call.host))
    } catch {
      return .failure(error)
    }
  }
}
