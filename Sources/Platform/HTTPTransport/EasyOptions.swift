internal import CCurl

/// Sets options of an easy handle, and remembers whether one was refused.
@safe
struct EasyOptions {
  private let easy: UnsafeMutableRawPointer
  private var result = CURLE_OK

  /// Sets those that all transfers have in common.
  init(_ easy: UnsafeMutableRawPointer) {
    // SAFETY: the handle outlives this value, which its owner uses to set it up.
    unsafe self.easy = easy
    set(CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1)
    set(CURLOPT_USERAGENT, text: "keyring")
    set(CURLOPT_NOSIGNAL, 1)
    set(CURLOPT_NETRC, Int(CURL_NETRC_IGNORED.rawValue))
    set(CURLOPT_FOLLOWLOCATION, 0)
    set(CURLOPT_BUFFERSIZE, 16_384)
    set(CURLOPT_UPLOAD_BUFFERSIZE, 16_384)
    // The proxy learns the target's name, and no header that is meant for the target.
    set(CURLOPT_HEADEROPT, Int(CURLHEADER_SEPARATE))
    // However busy it is: a CA that was taken away, or a name that moved, is left behind.
    set(CURLOPT_MAXLIFETIME_CONN, 600)
    set(CURLOPT_SSL_VERIFYPEER, 1)
    set(CURLOPT_SSL_VERIFYHOST, 2)
    set(CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
    set(CURLOPT_SSL_SESSIONID_CACHE, 0)
    // CA certificates come from `TrustStores` alone: libcurl neither adds its own to that store nor keeps it.
    set(CURLOPT_CAINFO, text: nil)
    set(CURLOPT_CAPATH, text: nil)
    set(CURLOPT_CA_CACHE_TIMEOUT, 0)
    set(CURLOPT_SSL_OPTIONS, Int(CURLSSLOPT_NO_PARTIALCHAIN))
  }

  mutating func set(_ option: CURLoption, _ value: Int) {
    keep(unsafe keyring_curl_set_long(easy, option, value))
  }

  mutating func set(_ option: CURLoption, offset value: Int) {
    keep(unsafe keyring_curl_set_offset(easy, option, Int64(value)))
  }

  /// libcurl copies the text.
  mutating func set(_ option: CURLoption, text: String?) {
    keep(unsafe keyring_curl_set_text(easy, option, text))
  }

  mutating func set(_ option: CURLoption, pointer: UnsafeMutableRawPointer) {
    keep(unsafe keyring_curl_set_pointer(easy, option, pointer))
  }

  mutating func set(_ option: CURLoption, list: UnsafeMutablePointer<curl_slist>?) {
    keep(unsafe keyring_curl_set_list(easy, option, list))
  }

  /// Notes what came of setting an option elsewhere.
  mutating func keep(_ result: CURLcode) {
    if self.result == CURLE_OK { self.result = result }
  }

  /// - Throws: where an option was refused: libcurl is older than 7.87, or out of memory.
  func check() throws(HTTPError) {
    guard result == CURLE_OK else {
      throw .configuration("libcurl refuses an option: \(unsafe String(cString: curl_easy_strerror(result)))")
    }
  }
}
