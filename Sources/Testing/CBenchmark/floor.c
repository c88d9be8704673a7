#define _GNU_SOURCE  // sched_setaffinity, accept4
#include "tls.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define DATA_BYTES 150

struct connection {
  SSL *ssl;
  int shaken;
  size_t held;
  uint8_t in[65536];
};

static uint8_t record_key[32], nonce[12], sealed[48], data[DATA_BYTES];
static EVP_CIPHER *cipher;
static EVP_CIPHER_CTX *opened;

static void seal(void) {
  uint8_t plain[32] = {1};
  int n;
  RAND_bytes(record_key, sizeof record_key);
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  EVP_EncryptInit_ex2(context, cipher, record_key, nonce, NULL);
  EVP_EncryptUpdate(context, NULL, &n, data, DATA_BYTES);
  EVP_EncryptUpdate(context, sealed, &n, plain, 32);
  EVP_EncryptFinal_ex(context, sealed, &n);
  EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, sealed + 32);
  EVP_CIPHER_CTX_free(context);
}

static int open_record(EVP_CIPHER_CTX *context, const EVP_CIPHER *type, const uint8_t *key, uint8_t *out) {
  int n;
  return EVP_DecryptInit_ex2(context, type, key, nonce, NULL) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, sealed + 32) == 1 &&
         EVP_DecryptUpdate(context, NULL, &n, data, DATA_BYTES) == 1 && EVP_DecryptUpdate(context, out, &n, sealed, 32) == 1 &&
         EVP_DecryptFinal_ex(context, out, &n) == 1;
}

static int open_good(uint8_t *out) { return open_record(opened, NULL, NULL, out); }

static int open_plain(uint8_t *out) {
  EVP_CIPHER *fetched = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  int ok = open_record(context, fetched, record_key, out);
  EVP_CIPHER_CTX_free(context);
  EVP_CIPHER_free(fetched);
  return ok;
}

// Answers the whole frames held; 0 when the connection is to end.
static int answer(struct connection *c, int good, size_t reply_bytes) {
  static uint8_t out[1 << 20];
  size_t at = 0, made = 0;
  while (c->held - at >= 5) {
    size_t length = (size_t)c->in[at + 1] << 24 | (size_t)c->in[at + 2] << 16 | (size_t)c->in[at + 3] << 8 | c->in[at + 4];
    if (c->held - at < 5 + length) break;
    uint8_t *reply = out + made;
    memset(reply, 0, reply_bytes);
    reply[4] = (uint8_t)(reply_bytes - 5);
    memcpy(reply + 5, c->in + at + 5, 6);  // the id
    if (!(good ? open_good(reply + reply_bytes - 32) : open_plain(reply + reply_bytes - 32))) return 0;
    at += 5 + length;
    made += reply_bytes;
    if (!good) {
      if (SSL_write(c->ssl, out, (int)made) <= 0) return 0;
      made = 0;
    }
  }
  memmove(c->in, c->in + at, c->held - at);
  c->held -= at;
  return made == 0 || SSL_write(c->ssl, out, (int)made) > 0;
}

static int serve(struct connection *c, int good, size_t reply_bytes) {
  if (!c->shaken) {
    int result = SSL_accept(c->ssl);
    if (result != 1) return SSL_get_error(c->ssl, result) == SSL_ERROR_WANT_READ;
    c->shaken = 1;
  }
  for (;;) {
    int count = SSL_read(c->ssl, c->in + c->held, (int)(sizeof c->in - c->held));
    if (count <= 0) {
      if (SSL_get_error(c->ssl, count) != SSL_ERROR_WANT_READ) return 0;
      break;
    }
    c->held += (size_t)count;
    if (!SSL_pending(c->ssl)) break;
  }
  return answer(c, good, reply_bytes);
}

int bench_floor(bench_files files, int good, size_t reply_bytes, void (*ready)(int port)) {
  SSL_CTX *context = bench_context(files, 1);
  if (context == NULL) return -1;
  signal(SIGPIPE, SIG_IGN);
  cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
  seal();
  opened = EVP_CIPHER_CTX_new();
  EVP_DecryptInit_ex2(opened, cipher, record_key, NULL, NULL);
  int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1024) != 0) return -1;
  getsockname(listener, (struct sockaddr *)&address, &length);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[64];
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  ready(ntohs(address.sin_port));
  for (;;) {
    int count = epoll_wait(poll, events, 64, -1);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c == NULL) {
        int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (descriptor < 0) continue;
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c = calloc(1, sizeof *c);
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, descriptor);
        event.data.ptr = c;
        epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
      } else if (!serve(c, good, reply_bytes)) {
        int descriptor = SSL_get_fd(c->ssl);
        SSL_free(c->ssl);
        close(descriptor);
        free(c);
      }
    }
  }
}
