/* SPDX-License-Identifier: MIT */
/* The pool.
 *
 * fork(): no pthread_atfork handler, since one can never be taken back, and would be called after dlclose(). Instead each call compares the
 * process id. */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "deadline.h"

static void close_list(connection *list, bool politely) {
  for (connection *c = list, *next; c; c = next) {
    next = c->next;
    tls_close(&c->tls, politely);
    free(c);
  }
}

keyring_status pool_enter(keyring *k, failure *f) {
  pid_t process = getpid();
  pthread_mutex_lock(&k->lock);
  bool is_child = process != k->process;
  connection *inherited = NULL;
  if (is_child) {
    inherited = k->idle;
    k->idle = NULL;
    k->open = 0;
    k->first = NULL; /* the threads that wait are the parent's */
    k->end = &k->first;
    k->process = process;
    k->must_lock = true;
  }
  /* Until it succeeds every call tries, and fails: the second one must not go on in memory that is not locked. */
  bool is_locked = !k->must_lock || locked_memory_lock_again(k->memory);
  if (is_locked) k->must_lock = false;
  pthread_mutex_unlock(&k->lock);
  close_list(inherited, false);
  if (!is_locked) {
    return failure_set(f, KEYRING_NO_MEMORY, "memory cannot be locked in this process (RLIMIT_MEMLOCK)");
  }
  return KEYRING_OK;
}

/* A call that waits, on its own stack. */
typedef struct waiter {
  struct waiter *next;
  pthread_cond_t called;
} waiter;

static bool is_place(const keyring *k) { return k->idle || k->open < k->config.connections; }

/* Whenever a place may have become free, or the queue's first has changed. */
static void call_first(keyring *k) {
  if (k->first && is_place(k)) pthread_cond_signal(&k->first->called);
}

static void give_place(keyring *k) {
  pthread_mutex_lock(&k->lock);
  k->open--;
  call_first(k);
  pthread_mutex_unlock(&k->lock);
}

static void leave_queue(keyring *k, const waiter *who) {
  waiter **link = &k->first;
  while (*link != who) link = &(*link)->next;
  *link = who->next;
  if (!who->next) k->end = link;
}

/* Until it is our turn; false: not by the deadline. Each in the order in which it came: a thread that gives a connection back and wants one
 * again at once would else get it before those that only begin to wake, each time. */
static bool wait_for_place(keyring *k, int64_t deadline) {
  struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
  waiter own = {.called = PTHREAD_COND_INITIALIZER};
  *k->end = &own;
  k->end = &own.next;
  bool is_ours = false;
  for (bool goes_on = true; goes_on && !is_ours;) {
    goes_on = pthread_cond_clockwait(&own.called, &k->lock, CLOCK_MONOTONIC, &until) == 0;
    is_ours = k->first == &own && is_place(k);
  }
  leave_queue(k, &own);
  pthread_cond_destroy(&own.called);
  return is_ours;
}

/* One of the pool, or (NULL and true) the right to make one. */
static bool take_place(keyring *k, int64_t deadline, connection **result) {
  pthread_mutex_lock(&k->lock);
  bool is_given = (!k->first && is_place(k)) || wait_for_place(k, deadline);
  *result = is_given ? k->idle : NULL;
  if (*result) k->idle = (*result)->next;
  else if (is_given) k->open++;
  call_first(k);
  pthread_mutex_unlock(&k->lock);
  return is_given;
}

/* Of one server's turn: no more than `connect_timeout_ms`, and where others are still to be tried, half of what is left. */
static int64_t turn_ends(const keyring *k, int64_t deadline, bool is_last) {
  int64_t now = deadline_now(), left = deadline - now;
  if (!is_last) left /= 2;
  return now + (left < k->config.connect_timeout_ms ? left : k->config.connect_timeout_ms);
}

static keyring_status connect_to(keyring *k, size_t index, int64_t deadline, connection *c, failure *f) {
  dial_server *server = &k->servers[index];
  char trouble[sizeof k->credentials.trouble];
  SSL_CTX *context = credentials_take(&k->credentials, trouble);
  if (!context) return failure_set(f, KEYRING_NO_MEMORY, "no memory for a TLS connection");
  int fd = dial(server, deadline, f);
  keyring_status status = f->status;
  if (fd >= 0) {
    status = tls_open(&c->tls, context, fd, server->at.host, server->is_address, deadline, f);
    c->server = index;
    c->last_id = 0;
    /* A server says what it thinks of our certificate after the handshake, and under its keys (RFC 8446); before, anybody on the way can. */
    f->is_of_stranger = status != KEYRING_OK;
  }
  SSL_CTX_free(context);
  if (status != KEYRING_OK && *trouble) failure_add(f, " (the files of the configuration changed and are not used: %s)", trouble);
  return status;
}

/* How much a failure of one server tells of them all: one that says no is believed before one that is silent. */
static int weight(keyring_status status) {
  switch (status) {
  case KEYRING_UNREACHABLE: return 0;
  case KEYRING_PROTOCOL: return 1;
  default: return 2;
  }
}

/* Tries each server once, from the one that answered last. */
static connection *connect_any(keyring *k, int64_t deadline, failure *f) {
  connection *c = calloc(1, sizeof *c);
  if (!c) {
    failure_set(f, KEYRING_NO_MEMORY, "no memory");
    return NULL;
  }
  pthread_mutex_lock(&k->lock);
  size_t first = k->preferred;
  pthread_mutex_unlock(&k->lock);
  size_t count = k->config.server_count;
  failure worst = {0};
  for (size_t i = 0; i < count; i++) {
    size_t index = (first + i) % count;
    failure now = {0};
    failure_copy_text(now.server, sizeof now.server, k->servers[index].label);
    if (connect_to(k, index, turn_ends(k, deadline, i + 1 == count), c, &now) == KEYRING_OK) {
      pthread_mutex_lock(&k->lock);
      k->preferred = index;
      pthread_mutex_unlock(&k->lock);
      return c;
    }
    if (i == 0 || weight(now.status) > weight(worst.status)) worst = now;
    else if (weight(now.status) == weight(worst.status)) failure_add(&worst, "; %s: %s", now.server, now.text);
    if (deadline_left(deadline) == 0) break;
  }
  free(c);
  *f = worst;
  return NULL;
}

connection *pool_take(keyring *k, int64_t deadline, bool *is_fresh, failure *f) {
  for (;;) {
    connection *c = NULL;
    if (!take_place(k, deadline, &c)) {
      failure_set(f, KEYRING_UNREACHABLE, "all %d connections are in use by other calls", k->config.connections);
      f->is_own = true;
      return NULL;
    }
    *is_fresh = !c;
    if (c) {
      if (tls_is_quiet(&c->tls, deadline)) return c;
      pool_give(k, c, false);
      continue;
    }
    c = connect_any(k, deadline, f);
    if (!c) give_place(k);
    return c;
  }
}

void pool_give(keyring *k, connection *c, bool is_good) {
  if (!is_good) {
    tls_close(&c->tls, true);
    free(c);
    give_place(k);
    return;
  }
  pthread_mutex_lock(&k->lock);
  c->next = k->idle;
  k->idle = c;
  call_first(k);
  pthread_mutex_unlock(&k->lock);
}

void pool_avoid(keyring *k, size_t server) {
  if (k->config.server_count == 1) return;
  connection *list = NULL;
  pthread_mutex_lock(&k->lock);
  if (k->preferred == server) k->preferred = (server + 1) % k->config.server_count;
  for (connection **link = &k->idle; *link;) {
    connection *c = *link;
    if (c->server != server) {
      link = &c->next;
      continue;
    }
    *link = c->next;
    c->next = list;
    list = c;
    k->open--;
  }
  call_first(k);
  pthread_mutex_unlock(&k->lock);
  close_list(list, false);
}

void pool_close_idle(keyring *k) {
  pthread_mutex_lock(&k->lock);
  connection *list = k->idle;
  k->idle = NULL;
  bool is_own = k->process == getpid();
  if (is_own) {
    for (connection *c = list; c; c = c->next) k->open--;
  } else {
    k->open = 0;
    k->first = NULL;
    k->end = &k->first;
  }
  call_first(k);
  pthread_mutex_unlock(&k->lock);
  close_list(list, is_own);
}
