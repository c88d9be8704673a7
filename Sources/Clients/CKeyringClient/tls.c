/* SPDX-License-Identifier: MIT */
/* TLS 1.3 by OpenSSL over our own BIO: OpenSSL's writes with write(), which raises SIGPIPE in a process that did not ask for it.
 *
 * No key log: no callback for it is set. The SSL's buffers are wiped by SSL_OP_CLEANSE_PLAINTEXT. */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "deadline.h"

static const unsigned char alpn[] = "\x09keyring/1";

/* ---- The BIO; its data is the tls_connection. ---- */

static int socket_write(BIO *bio, const char *bytes, int length) {
  tls_connection *c = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  ssize_t count = send(c->fd, bytes, (size_t)length, MSG_NOSIGNAL);
  if (count >= 0) return (int)count;
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
    BIO_set_retry_write(bio);
    return -1;
  }
  c->number = errno;
  /* A server that has refused our certificate may be gone before we write. OpenSSL takes no call after a write that failed, so it is told
   * that this one did not: what the server said before it went is read next, or that there is nothing. */
  return errno == EPIPE || errno == ECONNRESET ? length : -1;
}

static int socket_read(BIO *bio, char *bytes, int length) {
  tls_connection *c = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  /* One call of OpenSSL reads for as long as there is something to read that is not for us: a peer that never stops sending messages of TLS
   * itself would keep us in it. It is told that there is nothing, and who called it finds that the time is over. */
  if (deadline_left(c->deadline) == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  ssize_t count = recv(c->fd, bytes, (size_t)length, 0);
  if (count == 0) c->is_ended = true;
  if (count >= 0) return (int)count;
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) BIO_set_retry_read(bio);
  else c->number = errno;
  return -1;
}

static long socket_control(BIO *bio, int command, long number, void *pointer) {
  (void)number, (void)pointer;
  const tls_connection *c = BIO_get_data(bio);
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return c->is_ended;
  return 0;
}

/* Each connection has its own, so that nothing is left when the library is unloaded. */
static BIO_METHOD *method_new(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "keyring");
  if (method && BIO_meth_set_write(method, socket_write) == 1 && BIO_meth_set_read(method, socket_read) == 1 &&
      BIO_meth_set_ctrl(method, socket_control) == 1) {
    return method;
  }
  BIO_meth_free(method);
  return NULL;
}

/* ---- Contexts ---- */

SSL_CTX *tls_context_new(void) {
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  if (!context) return NULL;
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CLEANSE_PLAINTEXT);
  SSL_CTX_clear_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  /* One message of TLS itself at a time, so that tls_is_quiet does not take all the time that a call has. */
  SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_keylog_callback(context, NULL);
  if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 && SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
      SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") == 1 &&
      SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn - 1) == 0) {
    return context;
  }
  SSL_CTX_free(context);
  return NULL;
}

/* ---- Errors in words ---- */

/* What the server's alert says of us. */
static keyring_status explain_alert(tls_connection *c, int alert, failure *f) {
  X509 *certificate = SSL_get_certificate(c->ssl);
  if (certificate && X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    return failure_set(f, KEYRING_REFUSED, "the client's certificate has expired");
  if (certificate && X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    return failure_set(f, KEYRING_REFUSED, "the client's certificate is not valid yet; or this clock is wrong");
  switch (alert) {
  case SSL_AD_HANDSHAKE_FAILURE:
    return failure_set(f, KEYRING_REFUSED, "the server refuses the client's certificate: of another CA, revoked, or not one of its trust domain");
  case SSL_AD_BAD_CERTIFICATE:
  case SSL_AD_UNSUPPORTED_CERTIFICATE:
  case SSL_AD_CERTIFICATE_REVOKED:
  case SSL_AD_CERTIFICATE_EXPIRED:
  case SSL_AD_CERTIFICATE_UNKNOWN:
  case SSL_AD_UNKNOWN_CA:
  case SSL_AD_ACCESS_DENIED:
  case SSL_AD_CERTIFICATE_REQUIRED:
    return failure_set(f, KEYRING_REFUSED, "the server refuses the client's certificate: %s", SSL_alert_desc_string_long(alert));
  case SSL_AD_NO_APPLICATION_PROTOCOL:
    return failure_set(f, KEYRING_PROTOCOL, "the server does not speak keyring/1");
  default:
    return failure_set(f, KEYRING_PROTOCOL, "TLS alert of the server: %s", SSL_alert_desc_string_long(alert));
  }
}

static keyring_status explain_certificate(long result, failure *f) {
  switch (result) {
  case X509_V_ERR_HOSTNAME_MISMATCH:
  case X509_V_ERR_IP_ADDRESS_MISMATCH:
    return failure_set(f, KEYRING_REFUSED, "the server's certificate is not for this name or address");
  case X509_V_ERR_CERT_HAS_EXPIRED:
    return failure_set(f, KEYRING_REFUSED, "the server's certificate has expired");
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
  case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
  case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
  case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    return failure_set(f, KEYRING_REFUSED, "the server's certificate is not of the configured CA");
  default:
    return failure_set(f, KEYRING_REFUSED, "the server's certificate: %s", X509_verify_cert_error_string(result));
  }
}

/* After a call of OpenSSL that failed for good. */
static tls_outcome explain(tls_connection *c, int error, failure *f) {
  unsigned long code = ERR_peek_error();
  int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  long verified = SSL_get_verify_result(c->ssl);
  char words[128];
  c->is_broken = error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
  ERR_clear_error();
  if (error == SSL_ERROR_ZERO_RETURN || c->is_ended || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
    failure_set(f, KEYRING_UNREACHABLE, "the server closed the connection");
    return TLS_LOST;
  }
  if (error == SSL_ERROR_SYSCALL || (reason == 0 && c->number != 0)) {
    failure_set(f, KEYRING_UNREACHABLE, "the connection broke: %s", strerror_r(c->number ? c->number : EIO, words, sizeof words));
    return TLS_LOST;
  }
  if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
    explain_alert(c, reason - SSL_AD_REASON_OFFSET, f);
  } else if (verified != X509_V_OK) {
    explain_certificate(verified, f);
  } else {
    const char *text = ERR_reason_error_string(code);
    failure_set(f, KEYRING_PROTOCOL, "TLS: %s", text ? text : "failed");
  }
  return TLS_REFUSED;
}

/* ---- Waiting ---- */

/* After a call that returned `result`: TLS_DONE where it should be made again. */
static tls_outcome wait_for(tls_connection *c, int result, int64_t deadline, failure *f) {
  int error = SSL_get_error(c->ssl, result);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return explain(c, error, f);
  struct pollfd poll_for = {.fd = c->fd, .events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT};
  for (;;) {
    int left = deadline_left(deadline);
    int ready = left > 0 ? poll(&poll_for, 1, left) : 0;
    if (ready > 0) return TLS_DONE;
    if (deadline_left(deadline) > 0) continue;
    failure_set(f, KEYRING_UNREACHABLE, "no answer in time");
    return TLS_LATE;
  }
}

/* A certificate is for `fe80::1`, not for `fe80::1%eth0`: what follows is this machine's own. */
static bool set_address(X509_VERIFY_PARAM *parameters, const char *host) {
  char address[INET6_ADDRSTRLEN];
  size_t length = strcspn(host, "%");
  if (length >= sizeof address) return false;
  memcpy(address, host, length);
  address[length] = 0;
  return X509_VERIFY_PARAM_set1_ip_asc(parameters, address) == 1;
}

static bool prepare(tls_connection *c, SSL_CTX *context, const char *host, bool is_address) {
  c->method = method_new();
  c->ssl = c->method ? SSL_new(context) : NULL;
  BIO *bio = c->ssl ? BIO_new(c->method) : NULL;
  if (!bio) return false;
  BIO_set_data(bio, c);
  BIO_set_init(bio, 1);
  SSL_set_bio(c->ssl, bio, bio);
  SSL_set_connect_state(c->ssl);
  X509_VERIFY_PARAM *parameters = SSL_get0_param(c->ssl);
  X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (is_address) return set_address(parameters, host);
  return X509_VERIFY_PARAM_set1_host(parameters, host, 0) == 1 && SSL_set_tlsext_host_name(c->ssl, host) == 1;
}

keyring_status tls_open(tls_connection *c, SSL_CTX *context, int fd, const char *host, bool is_address, int64_t deadline, failure *f) {
  memset(c, 0, sizeof *c);
  c->fd = fd;
  c->deadline = deadline;
  ERR_clear_error();
  tls_outcome outcome = TLS_DONE;
  if (!prepare(c, context, host, is_address)) {
    ERR_clear_error();
    failure_set(f, KEYRING_NO_MEMORY, "no memory for a TLS connection");
    outcome = TLS_REFUSED;
  }
  while (outcome == TLS_DONE) {
    ERR_clear_error();
    int result = SSL_do_handshake(c->ssl);
    if (result == 1) break;
    outcome = wait_for(c, result, deadline, f);
    if (outcome == TLS_LATE) failure_set(f, KEYRING_UNREACHABLE, "no TLS handshake in time");
  }
  if (outcome == TLS_DONE) {
    const unsigned char *selected = NULL;
    unsigned int length = 0;
    SSL_get0_alpn_selected(c->ssl, &selected, &length);
    if (length == sizeof alpn - 2 && memcmp(selected, alpn + 1, length) == 0) return KEYRING_OK;
    failure_set(f, KEYRING_PROTOCOL, "the server does not speak keyring/1");
  }
  tls_close(c, false);
  return f->status;
}

tls_outcome tls_write(tls_connection *c, const void *bytes, size_t length, int64_t deadline, failure *f) {
  c->deadline = deadline;
  for (;;) {
    size_t count = 0;
    ERR_clear_error();
    int result = SSL_write_ex(c->ssl, bytes, length, &count);
    if (result == 1) return TLS_DONE; /* without partial writes, all of it */
    tls_outcome outcome = wait_for(c, result, deadline, f);
    if (outcome != TLS_DONE) return outcome;
  }
}

tls_outcome tls_read(tls_connection *c, void *bytes, size_t length, int64_t deadline, failure *f) {
  c->deadline = deadline;
  for (size_t done = 0; done < length;) {
    size_t count = 0;
    ERR_clear_error();
    int result = SSL_read_ex(c->ssl, (unsigned char *)bytes + done, length - done, &count);
    done += count;
    if (result == 1) continue;
    tls_outcome outcome = wait_for(c, result, deadline, f);
    if (outcome != TLS_DONE) return outcome;
  }
  return TLS_DONE;
}

bool tls_is_quiet(tls_connection *c, int64_t deadline) {
  c->deadline = deadline;
  struct pollfd poll_for = {.fd = c->fd, .events = POLLIN};
  if (SSL_pending(c->ssl) == 0 && poll(&poll_for, 1, 0) == 0) return true;
  unsigned char byte;
  size_t count = 0;
  ERR_clear_error();
  int result = SSL_peek_ex(c->ssl, &byte, 1, &count);
  bool is_quiet = result != 1 && SSL_get_error(c->ssl, result) == SSL_ERROR_WANT_READ;
  if (!is_quiet && result != 1) c->is_broken = true;
  ERR_clear_error();
  return is_quiet;
}

void tls_close(tls_connection *c, bool politely) {
  ERR_clear_error();
  if (c->ssl && politely && !c->is_broken && SSL_is_init_finished(c->ssl)) (void)SSL_shutdown(c->ssl);
  SSL_free(c->ssl);
  BIO_meth_free(c->method);
  if (c->fd >= 0) (void)close(c->fd);
  c->ssl = NULL;
  c->method = NULL;
  c->fd = -1;
  ERR_clear_error();
}
