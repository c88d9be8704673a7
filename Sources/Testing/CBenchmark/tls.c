#define _GNU_SOURCE  // sched_setaffinity, accept4
#include "tls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const unsigned char alpn[] = "\x09keyring/1";

static int select_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned int in_length, void *argument) {
  (void)ssl;
  (void)argument;
  return SSL_select_next_proto((unsigned char **)out, out_length, alpn, sizeof alpn - 1, in, in_length) ==
                 OPENSSL_NPN_NEGOTIATED
             ? SSL_TLSEXT_ERR_OK
             : SSL_TLSEXT_ERR_ALERT_FATAL;
}

SSL_CTX *bench_context(bench_files files, int server) {
  SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
  SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384");
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
  if (server) {
    SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
  } else {
    SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn - 1);
  }
  if (SSL_CTX_use_certificate_chain_file(context, files.certificate) != 1 ||
      SSL_CTX_use_PrivateKey_file(context, files.key, SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_load_verify_locations(context, files.authority, NULL) != 1) {
    fprintf(stderr, "cannot load %s, %s or %s\n", files.certificate, files.key, files.authority);
    return NULL;
  }
  return context;
}

SSL *bench_connect(SSL_CTX *context, const char *host, int port) {
  int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  inet_pton(AF_INET, host, &address.sin_addr);
  int one = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  SSL *ssl = SSL_new(context);
  SSL_set_fd(ssl, descriptor);
  if (connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0 || SSL_connect(ssl) != 1) {
    close(descriptor);
    SSL_free(ssl);
    return NULL;
  }
  return ssl;
}

double bench_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int64_t bench_handshakes(const char *host, int port, bench_files files, double seconds) {
  SSL_CTX *context = bench_context(files, 0);
  if (context == NULL) return -1;
  int64_t count = 0;
  for (double end = bench_now() + seconds; bench_now() < end; count++) {
    SSL *ssl = bench_connect(context, host, port);
    if (ssl == NULL) return -1;
    int descriptor = SSL_get_fd(ssl);
    SSL_shutdown(ssl);
    SSL_free(ssl);
    close(descriptor);
  }
  SSL_CTX_free(context);
  return count;
}

int64_t bench_fdatasyncs(const char *directory, size_t bytes, double seconds) {
  char path[4096];
  snprintf(path, sizeof path, "%s/fdatasync-XXXXXX", directory);
  int descriptor = mkstemp(path);
  char *data = calloc(1, bytes);
  if (descriptor < 0 || data == NULL) return -1;
  unlink(path);
  int64_t count = 0;
  for (double end = bench_now() + seconds; bench_now() < end; count++) {
    if (write(descriptor, data, bytes) != (ssize_t)bytes || fdatasync(descriptor) != 0) return -1;
  }
  close(descriptor);
  free(data);
  return count;
}

int bench_pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return sched_setaffinity(0, sizeof set, &set);
}

double bench_cpu_seconds(int pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return -1;
  size_t count = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[count] = 0;
  unsigned long user, system;
  char *rest = strrchr(text, ')');
  if (rest == NULL || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) return -1;
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}
