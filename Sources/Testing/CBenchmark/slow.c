#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum kind { SILENT, HALF_A_HANDSHAKE, HALF_A_FRAME };

struct slow {
  int descriptor;
  SSL *ssl;
  enum kind kind;
  size_t sent;
  double opened_at;
};

void bench_raise_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static int connect_plain(const char *host, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) return -1;
  int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  if (connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0) return descriptor;
  close(descriptor);
  return -1;
}

static int open_one(struct slow *s, SSL_CTX *context, const char *host, int port, int poll) {
  if (s->kind == HALF_A_FRAME) {
    s->ssl = bench_connect(context, host, port);
    if (s->ssl == NULL) return -1;
    s->descriptor = SSL_get_fd(s->ssl);
  } else {
    s->descriptor = connect_plain(host, port);
    if (s->descriptor < 0) return -1;
  }
  fcntl(s->descriptor, F_SETFL, O_NONBLOCK);
  s->opened_at = bench_now();
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = s};
  return epoll_ctl(poll, EPOLL_CTL_ADD, s->descriptor, &event);
}

// One more byte: of a TLS record that announces a ClientHello of 512 bytes, or of a frame of 256.
static void trickle(struct slow *s) {
  static const uint8_t hello[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
  static const uint8_t frame[] = {0, 0, 0, 1, 0};
  if (s->descriptor < 0 || s->kind == SILENT) return;
  uint8_t byte = 0;
  if (s->kind == HALF_A_HANDSHAKE) {
    if (s->sent < sizeof hello) byte = hello[s->sent];
    if (send(s->descriptor, &byte, 1, MSG_NOSIGNAL) != 1) return;
  } else {
    if (s->sent < sizeof frame) byte = frame[s->sent];
    if (SSL_write(s->ssl, &byte, 1) != 1) return;
  }
  s->sent++;
}

// True once the server has closed it.
static int is_over(struct slow *s) {
  uint8_t bytes[4096];
  if (s->ssl != NULL) {
    int count;
    while ((count = SSL_read(s->ssl, bytes, sizeof bytes)) > 0) {}
    return SSL_get_error(s->ssl, count) != SSL_ERROR_WANT_READ;
  }
  ssize_t count;
  while ((count = recv(s->descriptor, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {}
  return count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static void end(struct slow *s) {
  if (s->ssl != NULL) SSL_free(s->ssl);
  if (s->descriptor >= 0) close(s->descriptor);
  s->ssl = NULL;
  s->descriptor = -1;
}

static void run(struct slow *all, int count, int poll, double until, bench_slow_result *result) {
  double next = bench_now() + 1;
  while (result->closed < count && bench_now() < until) {
    struct epoll_event events[256];
    int ready = epoll_wait(poll, events, 256, 50);
    for (int i = 0; i < ready; i++) {
      struct slow *s = events[i].data.ptr;
      if (s->descriptor < 0 || !is_over(s)) continue;
      double lived = bench_now() - s->opened_at;
      if (lived > result->longest_seconds) result->longest_seconds = lived;
      result->closed++;
      end(s);
    }
    if (bench_now() < next) continue;
    next += 1;
    for (int i = 0; i < count; i++) trickle(&all[i]);
  }
}

int bench_slow_clients(
    const char *host, int port, bench_files files, int count, double seconds, void (*opened)(void *), void *context,
    bench_slow_result *result) {
  SSL_CTX *tls = bench_context(files, 0);
  struct slow *all = calloc((size_t)count, sizeof *all);
  int poll = epoll_create1(EPOLL_CLOEXEC), status = -1;
  *result = (bench_slow_result){0};
  if (tls == NULL || all == NULL || poll < 0) return -1;
  for (int i = 0; i < count; i++) {
    all[i].descriptor = -1;
    all[i].kind = (enum kind)(i % 3);
  }
  // Those that shake hands first: it takes a while, and the others have a deadline.
  for (int turn = HALF_A_FRAME; turn >= SILENT; turn--) {
    for (int i = 0; i < count; i++) {
      if ((int)all[i].kind != turn) continue;
      if (open_one(&all[i], tls, host, port, poll) != 0) {
        fprintf(stderr, "connection %d of %d was not taken\n", result->opened, count);
        goto over;
      }
      result->opened++;
    }
  }
  opened(context);
  double start = bench_now();
  run(all, count, poll, start + seconds, result);
  result->seconds = bench_now() - start;
  status = 0;
over:
  for (int i = 0; i < count; i++) end(&all[i]);
  free(all);
  close(poll);
  SSL_CTX_free(tls);
  return status;
}
