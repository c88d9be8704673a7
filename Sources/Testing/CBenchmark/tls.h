#ifndef KEYRING_BENCH_TLS_H
#define KEYRING_BENCH_TLS_H

#include "CBenchmark.h"

#include <openssl/ssl.h>

/// Settings as keyringd's: TLS 1.3, its groups, no tickets, certificates on both sides, ALPN keyring/1.
SSL_CTX *bench_context(bench_files files, int server);
/// Blocks until connected and shaken hands; NULL on failure.
SSL *bench_connect(SSL_CTX *context, const char *host, int port);
double bench_now(void);

#endif
