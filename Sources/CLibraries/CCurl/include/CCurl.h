// libcurl as the module HTTPTransport sees it. curl_easy_setopt and curl_multi_setopt are variadic, which Swift cannot call: one function
// for each type of argument.
#ifndef KEYRING_CCURL_H
#define KEYRING_CCURL_H

#include <curl/curl.h>

/// What became of `keyring_curl_start`.
enum keyring_curl_start {
  keyring_curl_started = 0,
  keyring_curl_failed = 1,
  /// libcurl had been used before, so that it frees memory without wiping it.
  keyring_curl_was_used = 2,
  /// Its TLS is not OpenSSL's, whose objects HTTPTransport hands to it.
  keyring_curl_other_tls = 3,
};

/// Initializes libcurl, once a process, with an allocator that wipes what it frees, whole allocation, and without SSLKEYLOGFILE,
/// which libcurl reads here and nowhere else (Curl_tls_keylog_open in lib/vtls/keylog.c). Not thread-safe.
enum keyring_curl_start keyring_curl_start(void);

static inline CURLcode keyring_curl_set_long(CURL *easy, CURLoption option, long value) {
  return curl_easy_setopt(easy, option, value);
}
static inline CURLcode keyring_curl_set_offset(CURL *easy, CURLoption option, int64_t value) {
  return curl_easy_setopt(easy, option, (curl_off_t)value);
}
/// libcurl copies the text.
static inline CURLcode keyring_curl_set_text(CURL *easy, CURLoption option, const char *value) {
  return curl_easy_setopt(easy, option, value);
}
static inline CURLcode keyring_curl_set_pointer(CURL *easy, CURLoption option, void *value) {
  return curl_easy_setopt(easy, option, value);
}
/// The list must live as long as the transfer.
static inline CURLcode keyring_curl_set_list(CURL *easy, CURLoption option, struct curl_slist *value) {
  return curl_easy_setopt(easy, option, value);
}
static inline CURLcode keyring_curl_set_on_body(CURL *easy, curl_write_callback call) {
  return curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, call);
}
static inline CURLcode keyring_curl_set_on_header(CURL *easy, curl_write_callback call) {
  return curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, call);
}
static inline CURLcode keyring_curl_set_on_read(CURL *easy, curl_read_callback call) {
  return curl_easy_setopt(easy, CURLOPT_READFUNCTION, call);
}
static inline CURLcode keyring_curl_set_on_seek(CURL *easy, curl_seek_callback call) {
  return curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, call);
}
static inline CURLcode keyring_curl_set_on_ssl_context(CURL *easy, curl_ssl_ctx_callback call) {
  return curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, call);
}
/// The system's CA certificates: the path that libcurl was built with, or NULL.
static inline const char *keyring_curl_system_ca_file(void) { return curl_version_info(CURLVERSION_NOW)->cainfo; }
static inline long keyring_curl_status(CURL *easy) {
  long status = 0;
  return curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK ? status : 0;
}

static inline CURLMcode keyring_curl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
  return curl_multi_setopt(multi, option, value);
}
static inline CURLMcode keyring_curl_multi_set_pointer(CURLM *multi, CURLMoption option, void *value) {
  return curl_multi_setopt(multi, option, value);
}
static inline CURLMcode keyring_curl_multi_set_on_socket(CURLM *multi, curl_socket_callback call) {
  return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, call);
}
static inline CURLMcode keyring_curl_multi_set_on_timer(CURLM *multi, curl_multi_timer_callback call) {
  return curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, call);
}

/// The next transfer that ended, taken from the queue: true, with its handle and result; false where there is none.
static inline _Bool keyring_curl_multi_next_ended(CURLM *multi, CURL **easy, CURLcode *result) {
  int left = 0;
  CURLMsg *message;
  while ((message = curl_multi_info_read(multi, &left)) != NULL) {
    if (message->msg == CURLMSG_DONE) {
      *easy = message->easy_handle;
      *result = message->data.result;
      return 1;
    }
  }
  return 0;
}

#endif
