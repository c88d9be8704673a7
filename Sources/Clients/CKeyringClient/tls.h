/* SPDX-License-Identifier: MIT */
/* One connection: TLS 1.3 over a socket that never blocks and never raises SIGPIPE. */
#ifndef KEYRING_TLS_H
#define KEYRING_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"

/* Does not move: its BIO points at it. */
typedef struct tls_connection {
  SSL *ssl;
  BIO_METHOD *method;
  int fd;
  int64_t deadline; /* of the call that is in hand: nothing is read after it */
  int number;    /* errno of the last read or write that failed */
  bool is_ended; /* the peer's FIN was read */
  bool is_broken; /* OpenSSL allows no more calls on it, not even SSL_shutdown */
} tls_connection;

/* A context with all that is the same for everybody: what TLS, which ALPN, no session kept. NULL: out of memory. */
SSL_CTX *tls_context_new(void);

/* Shakes hands on `fd`, which is closed with the connection and where this fails. `host` is what the server's certificate has to be for. */
keyring_status tls_open(tls_connection *c, SSL_CTX *context, int fd, const char *host, bool is_address, int64_t deadline, failure *f);

typedef enum tls_outcome {
  TLS_DONE,
  TLS_LATE,   /* the deadline has passed */
  TLS_LOST,   /* the connection ended */
  TLS_REFUSED /* the server's alert, or its certificate, says no */
} tls_outcome;

/* All of `length` bytes, or see `f`. */
tls_outcome tls_write(tls_connection *c, const void *bytes, size_t length, int64_t deadline, failure *f);
tls_outcome tls_read(tls_connection *c, void *bytes, size_t length, int64_t deadline, failure *f);

/* False: the peer has closed it, or sent what nobody asked for. Does not wait, and takes no more than until `deadline`. */
bool tls_is_quiet(tls_connection *c, int64_t deadline);

/* `politely`: with close_notify, if that does not wait. Not in the child of a fork, whose parent still speaks on it. */
void tls_close(tls_connection *c, bool politely);

#endif
