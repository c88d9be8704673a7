#include "tls.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define DEPTH_MAX 256

struct client {
  SSL *ssl;
  size_t held;
  uint32_t next_sent, next_answered;
  double sent_at[DEPTH_MAX];
  uint8_t in[65536];
};

struct load {
  const bench_load_options *options;
  bench_load_result *result;
  uint32_t next_id;
  uint32_t next_store;
  uint8_t *out;
  // Of a paced load: what was sent, and whose turn it is.
  uint64_t paced;
  int turn;
};

#define OUT_BYTES (1 << 20)

// Puts a request into `out`, its id and, for a store, the key's digits patched; returns its length.
static size_t put_request(struct load *load, uint8_t *out) {
  const bench_load_options *o = load->options;
  uint32_t number = load->next_id++;
  int is_store = (int)(number % 100) < o->store_percent;
  size_t bytes = is_store ? o->store_bytes : o->fetch_bytes;
  memcpy(out, is_store ? o->store : o->fetch, bytes);
  uint64_t id = (1ull << 28) + number;  // a varint of five bytes, always
  for (int i = 0; i < 5; i++) {
    out[6 + i] = (uint8_t)((id >> (7 * i) & 0x7f) | (i < 4 ? 0x80 : 0));
  }
  if (is_store) {
    char digits[9];
    snprintf(digits, sizeof digits, "%08x", load->next_store++);
    memcpy(out + o->store_digits_at, digits, 8);
  }
  return bytes;
}

static int send_requests(struct load *load, struct client *c, int count) {
  uint8_t *out = load->out;
  size_t bytes = 0;
  double now = bench_now();
  for (int i = 0; i < count; i++) {
    bytes += put_request(load, out + bytes);
    c->sent_at[c->next_sent++ % DEPTH_MAX] = now;
  }
  size_t done = 0;
  while (done < bytes) {
    int written = SSL_write(c->ssl, out + done, (int)(bytes - done));
    if (written <= 0) {
      int reason = SSL_get_error(c->ssl, written);
      if (reason == SSL_ERROR_WANT_WRITE || reason == SSL_ERROR_WANT_READ) continue;
      return -1;
    }
    done += (size_t)written;
  }
  return 0;
}

// Field 2 of a Reply is its status: there it is an error. It follows field 1, the id.
static int is_error(const uint8_t *message, size_t bytes) {
  size_t at = 1;
  while (at < bytes && message[at] & 0x80) at++;
  return at + 1 < bytes && message[at + 1] == 0x12;
}

// Counts the whole replies held; returns how many, or -1.
static int take_replies(struct load *load, struct client *c) {
  bench_load_result *r = load->result;
  size_t at = 0;
  int count = 0;
  double now = bench_now();
  while (c->held - at >= 5) {
    size_t length = (size_t)c->in[at + 1] << 24 | (size_t)c->in[at + 2] << 16 | (size_t)c->in[at + 3] << 8 | c->in[at + 4];
    if (c->held - at < 5 + length) break;
    r->requests++;
    if (is_error(c->in + at + 5, length)) r->errors++;
    double sent = c->sent_at[c->next_answered++ % DEPTH_MAX];
    if (r->latencies_count < r->latencies_max) r->latencies[r->latencies_count++] = (uint64_t)((now - sent) * 1e9);
    at += 5 + length;
    count++;
  }
  memmove(c->in, c->in + at, c->held - at);
  c->held -= at;
  return count;
}

static int receive(struct load *load, struct client *c) {
  for (;;) {
    int count = SSL_read(c->ssl, c->in + c->held, (int)(sizeof c->in - c->held));
    if (count <= 0) {
      int reason = SSL_get_error(c->ssl, count);
      if (reason == SSL_ERROR_WANT_READ) break;
      fprintf(stderr, "a connection was lost\n");
      return -1;
    }
    c->held += (size_t)count;
    if (!SSL_pending(c->ssl)) break;
  }
  int count = take_replies(load, c);
  if (load->options->requests_per_second > 0) return count;
  return count > 0 ? send_requests(load, c, count) : count;
}

// Sends what is due by now, a request a connection, by turns; what finds all connections full is not sent later.
static int send_due(struct load *load, struct client *clients, double since_start) {
  const bench_load_options *o = load->options;
  uint64_t due = (uint64_t)(since_start * o->requests_per_second);
  for (; load->paced < due; load->paced++) {
    for (int tries = 0; tries < o->connections; tries++) {
      struct client *c = &clients[load->turn++ % o->connections];
      if (c->next_sent - c->next_answered >= (uint32_t)o->depth) continue;
      if (send_requests(load, c, 1) != 0) return -1;
      break;
    }
  }
  return 0;
}

// A context for each identity; NULL on failure.
static SSL_CTX **make_contexts(const bench_load_options *options) {
  SSL_CTX **contexts = calloc((size_t)options->identities_count, sizeof *contexts);
  for (int i = 0; contexts != NULL && i < options->identities_count; i++) {
    contexts[i] = bench_context(options->identities[i], 0);
    if (contexts[i] == NULL) return NULL;
  }
  return contexts;
}

static int connect_all(const bench_load_options *options, SSL_CTX **contexts, struct client *clients, int poll) {
  for (int i = 0; i < options->connections; i++) {
    struct client *c = &clients[i];
    c->ssl = bench_connect(contexts[i % options->identities_count], options->host, options->port);
    if (c->ssl == NULL) {
      fprintf(stderr, "cannot connect to %s:%d\n", options->host, options->port);
      return -1;
    }
    int descriptor = SSL_get_fd(c->ssl);
    fcntl(descriptor, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event);
  }
  return 0;
}

int bench_load(const bench_load_options *options, bench_load_result *result) {
  SSL_CTX **contexts = make_contexts(options);
  struct client *clients = calloc((size_t)options->connections, sizeof *clients);
  struct load load = {
      .options = options, .result = result, .next_store = options->first_store, .out = malloc(OUT_BYTES)};
  if (contexts == NULL || clients == NULL || load.out == NULL || options->depth > DEPTH_MAX) return -1;
  int poll = epoll_create1(0);
  if (connect_all(options, contexts, clients, poll) != 0) return -1;
  double start = bench_now(), end = start + options->seconds;
  int is_paced = options->requests_per_second > 0;
  for (int i = 0; i < options->connections && !is_paced; i++) {
    if (send_requests(&load, &clients[i], options->depth) != 0) return -1;
  }
  while (bench_now() < end) {
    struct epoll_event events[64];
    if (is_paced && send_due(&load, clients, bench_now() - start) != 0) return -1;
    int count = epoll_wait(poll, events, 64, is_paced ? 1 : 1000);
    for (int i = 0; i < count; i++) {
      if (receive(&load, events[i].data.ptr) < 0) return -1;
    }
  }
  result->seconds = bench_now() - start;
  for (int i = 0; i < options->connections; i++) {
    int descriptor = SSL_get_fd(clients[i].ssl);
    SSL_free(clients[i].ssl);
    close(descriptor);
  }
  close(poll);
  free(load.out);
  free(clients);
  for (int i = 0; i < options->identities_count; i++) SSL_CTX_free(contexts[i]);
  free(contexts);
  return 0;
}
