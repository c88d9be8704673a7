/* SPDX-License-Identifier: MIT */
/* From `host:port` to a connected socket, by a deadline. */
#include "dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "deadline.h"

/* How long an address is tried alone, before the next one is tried beside it (RFC 8305 says 250 ms). */
enum { HEAD_START_MS = 250 };

bool dial_server_init(dial_server *server, const config_server *at) {
  memset(server, 0, sizeof *server);
  server->at = *at;
  unsigned char address[sizeof(struct in6_addr)];
  bool is_6 = strchr(at->host, ':') != NULL;
  server->is_address = is_6 || inet_pton(AF_INET, at->host, address) == 1;
  (void)snprintf(server->label, sizeof server->label, is_6 ? "[%s]:%s" : "%s:%s", at->host, at->port);
  return pthread_mutex_init(&server->lock, NULL) == 0;
}

void dial_server_destroy(dial_server *server) { pthread_mutex_destroy(&server->lock); }

/* getaddrinfo with one try of one second a name server. Its settings are the thread's own, and are put back: this thread is the
 * caller's. */
static int resolve_bounded(const dial_server *server, struct addrinfo **list) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | (server->is_address ? AI_NUMERICHOST : 0)};
  if (server->is_address || ((_res.options & RES_INIT) == 0 && res_init() != 0)) {
    return getaddrinfo(server->at.host, server->at.port, &hints, list);
  }
  int retrans = _res.retrans, retry = _res.retry;
  _res.retrans = 1;
  _res.retry = 1;
  int result = getaddrinfo(server->at.host, server->at.port, &hints, list);
  _res.retrans = retrans;
  _res.retry = retry;
  return result;
}

static bool resolve(dial_server *server, dial_addresses *addresses, failure *f) {
  struct addrinfo *list = NULL;
  errno = 0;
  int result = resolve_bounded(server, &list);
  int number = errno;
  memset(addresses, 0, sizeof *addresses);
  for (struct addrinfo *at = result == 0 ? list : NULL; at && addresses->count < DIAL_ADDRESSES_MOST; at = at->ai_next) {
    if (at->ai_addrlen > sizeof *addresses->of) continue;
    memcpy(&addresses->of[addresses->count], at->ai_addr, at->ai_addrlen);
    addresses->lengths[addresses->count++] = at->ai_addrlen;
  }
  if (list) freeaddrinfo(list);
  pthread_mutex_lock(&server->lock);
  if (addresses->count > 0) server->last_good = *addresses;
  else *addresses = server->last_good;
  pthread_mutex_unlock(&server->lock);
  if (addresses->count > 0) return true;
  char words[128];
  const char *why = result == EAI_SYSTEM ? strerror_r(number, words, sizeof words) : result == 0 ? "no address" : gai_strerror(result);
  failure_set(f, KEYRING_UNREACHABLE, "the name does not resolve: %s", why);
  return false;
}

static const char *describe(int number, char words[128]) { return strerror_r(number, words, 128); }

/* A socket that is connecting, or connected; -1 and the number of the error. */
static int begin(const dial_addresses *addresses, size_t index, int *number) {
  const struct sockaddr *address = (const struct sockaddr *)&addresses->of[index];
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (fd < 0) {
    *number = errno;
    return -1;
  }
  int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(fd, address, addresses->lengths[index]) == 0 || errno == EINPROGRESS || errno == EINTR) return fd;
  *number = errno;
  (void)close(fd);
  return -1;
}

/* The first of `polls` that is connected; -1 where none is yet. Those that failed are closed. */
static int first_connected(struct pollfd *polls, size_t count, int *number) {
  for (size_t i = 0; i < count; i++) {
    if (polls[i].fd < 0 || polls[i].revents == 0) continue;
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(polls[i].fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
    if (error == 0) return (int)i;
    *number = error;
    (void)close(polls[i].fd);
    polls[i].fd = -1;
  }
  return -1;
}

/* Tries the addresses in their order, each with a head start before the next. */
static int race(const dial_addresses *addresses, int64_t deadline, int *number) {
  struct pollfd polls[DIAL_ADDRESSES_MOST];
  size_t begun = 0;
  int winner = -1;
  while (winner < 0) {
    size_t open = 0;
    for (size_t i = 0; i < begun; i++) open += polls[i].fd >= 0;
    if (begun < addresses->count) {
      polls[begun] = (struct pollfd){.fd = begin(addresses, begun, number), .events = POLLOUT};
      if (polls[begun++].fd < 0) continue;
    } else if (open == 0) {
      break;
    }
    int64_t until = deadline, next = deadline_now() + HEAD_START_MS;
    if (begun < addresses->count && next < until) until = next;
    int left = deadline_left(until);
    int ready = poll(polls, begun, left);
    if (ready > 0) winner = first_connected(polls, begun, number);
    if (winner < 0 && deadline_left(deadline) == 0) {
      *number = ETIMEDOUT;
      break;
    }
  }
  int fd = winner < 0 ? -1 : polls[winner].fd;
  for (size_t i = 0; i < begun; i++) {
    if (polls[i].fd >= 0 && (int)i != winner) (void)close(polls[i].fd);
  }
  return fd;
}

int dial(dial_server *server, int64_t deadline, failure *f) {
  dial_addresses addresses;
  if (!resolve(server, &addresses, f)) return -1;
  int number = 0;
  int fd = race(&addresses, deadline, &number);
  if (fd < 0) {
    char words[128];
    failure_set(f, KEYRING_UNREACHABLE, "%s", number == ETIMEDOUT ? "no connection in time" : describe(number, words));
  }
  return fd;
}
