/* SPDX-License-Identifier: MIT */
/* How a call goes: which server, what is repeated and when, what a failure means.
 *
 * While servers answer, a call that meets none tries until its deadline, with jittered pauses from 50 ms to 1 s. Once one has failed so (or
 * a round over all servers, for those that give up after one), there is an outage: until something succeeds, calls fail at once with the
 * failure known, except one at a time after a pause that grows to 5 s, which makes one round over the servers. So a database that makes a
 * thousand calls while its server is away is not held for a thousand deadlines. */
#include "call.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>
#include <time.h>

#include "deadline.h"
#include "pool.h"

enum {
  PAUSE_FIRST_MS = 50,
  PAUSE_MOST_MS = 1000,
  OUTAGE_FIRST_MS = 250,
  OUTAGE_MOST_MS = 5000,
  REPEATS_AFTER_MOST = 3 /* of a reply that says when to try again */
};

typedef enum next_step {
  STEP_DONE,  /* success, or a failure that is the answer */
  STEP_AGAIN, /* at once: a connection of the pool was dead */
  STEP_LATER, /* after a pause: no server was reached */
  STEP_AFTER  /* when the server said */
} next_step;

void call_init(call *c, call_kind kind, Keyring__V1__Request__CallCase which, Keyring__V1__Reply__ResultCase expected) {
  memset(c, 0, sizeof *c);
  keyring__v1__request__init(&c->request);
  c->request.call_case = which;
  c->expected = expected;
  c->kind = kind;
}

/* RFC 9562: 48 bits of Unix milliseconds, version 7, variant 2, random bits. */
static bool make_idempotency_id(call *c) {
  struct timespec now;
  ERR_clear_error();
  if (clock_gettime(CLOCK_REALTIME, &now) != 0 || RAND_bytes(c->idempotency_id, sizeof c->idempotency_id) != 1) return false;
  uint64_t milliseconds = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
  for (int i = 0; i < 6; i++) c->idempotency_id[i] = (unsigned char)(milliseconds >> (40 - 8 * i));
  c->idempotency_id[6] = 0x70 | (c->idempotency_id[6] & 0x0f);
  c->idempotency_id[8] = 0x80 | (c->idempotency_id[8] & 0x3f);
  c->request.idempotency_id = (ProtobufCBinaryData){sizeof c->idempotency_id, c->idempotency_id};
  return true;
}

/* ---- Outages ---- */

/* False: there is one, and it is not time for another try. Else `*is_probe`: there is one, and this call is the try. */
static bool outage_allows(keyring *k, bool *is_probe, failure *f) {
  pthread_mutex_lock(&k->lock);
  bool allowed = true;
  *is_probe = k->outage.is_on;
  if (k->outage.is_on) {
    allowed = deadline_left(k->outage.next_try) == 0;
    if (allowed) k->outage.next_try = deadline_now() + deadline_jittered(k->outage.interval_ms);
    else *f = k->outage.last;
  }
  pthread_mutex_unlock(&k->lock);
  if (!allowed) failure_add(f, " (found by an earlier call)");
  return allowed;
}

static void outage_begins_or_goes_on(keyring *k, const failure *f) {
  pthread_mutex_lock(&k->lock);
  int64_t interval = k->outage.is_on ? k->outage.interval_ms * 2 : OUTAGE_FIRST_MS;
  k->outage.is_on = true;
  k->outage.interval_ms = interval > OUTAGE_MOST_MS ? OUTAGE_MOST_MS : interval;
  k->outage.next_try = deadline_now() + deadline_jittered(k->outage.interval_ms);
  k->outage.last = *f;
  pthread_mutex_unlock(&k->lock);
}

static void outage_ends(keyring *k) {
  pthread_mutex_lock(&k->lock);
  k->outage.is_on = false;
  pthread_mutex_unlock(&k->lock);
}

/* ---- One try ---- */

/* Whether an answer tells also of the earlier sending of the same change: these are judged after its idempotency id. */
static bool is_conclusive(keyring_status status) {
  switch (status) {
  case KEYRING_OK:
  case KEYRING_KEY_EXISTS:
  case KEYRING_KEY_ABSENT:
  case KEYRING_LENGTH_INVALID:
  case KEYRING_TYPE_INVALID:
  case KEYRING_NAME_INVALID:
  case KEYRING_IDEMPOTENCY_MISMATCH: return true;
  default: return false;
  }
}

static next_step step_after_status(call *c, const failure *f) {
  switch ((int)f->status) {
  case KEYRING_SHUTTING_DOWN: return STEP_LATER;
  case KEYRING_OUTCOME_UNKNOWN:
    if (c->kind != CALL_ADMINISTRATOR_CHANGE) c->is_in_doubt = true;
    return c->kind == CALL_ADMINISTRATOR_CHANGE ? STEP_DONE : STEP_LATER;
  case KEYRING_THROTTLED:
  case KEYRING_STORAGE_UNAVAILABLE:
  case KEYRING_KMS_UNREACHABLE:
  case KEYRING_AUDIT_UNAVAILABLE: return f->retry_after_ms > 0 ? STEP_AFTER : STEP_DONE;
  default: return STEP_DONE;
  }
}

/* A reply about the connection that says that no request of it was taken. */
static bool is_before_execution(keyring_status status) {
  return status == KEYRING_THROTTLED || status == KEYRING_REQUEST_MALFORMED || status == KEYRING_MESSAGE_TOO_LARGE;
}

static next_step step_after(keyring *k, call *c, frame_outcome outcome, bool is_fresh, bool is_late, size_t server, failure *f) {
  bool may_repeat = c->kind != CALL_ADMINISTRATOR_CHANGE, is_change = c->kind != CALL_READ;
  switch (outcome) {
  case FRAME_ANSWERED: return f->status == KEYRING_OK ? STEP_DONE : step_after_status(c, f);
  case FRAME_NOT_SENT: return STEP_DONE;
  case FRAME_CONNECTION:
    /* Nothing about a connection says what became of a key. */
    if (is_conclusive(f->status)) failure_set(f, KEYRING_PROTOCOL, "the server says of the connection what can only be said of a key");
    if (is_change && !is_before_execution(f->status)) c->is_in_doubt = true;
    return may_repeat || !c->is_in_doubt ? step_after_status(c, f) : STEP_DONE;
  case FRAME_LOST:
    if (f->status == KEYRING_NO_MEMORY) may_repeat = false;
    else if (is_fresh || is_late) pool_avoid(k, server);
    break;
  case FRAME_BROKEN:
    may_repeat = false; /* but the next call asks another one first */
    pool_avoid(k, server);
    break;
  }
  /* An alert that refuses the certificate comes before anything is executed. */
  if (is_change && f->status != KEYRING_REFUSED) c->is_in_doubt = true;
  if (!may_repeat) return STEP_DONE;
  return is_fresh || is_late ? STEP_LATER : STEP_AGAIN;
}

/* Where there are other servers, a silent one does not get all the time. */
static int64_t attempt_deadline(const keyring *k, const call *c) {
  if (k->config.server_count == 1 || c->kind == CALL_ADMINISTRATOR_CHANGE) return c->deadline;
  return c->deadline - deadline_left(c->deadline) / 2;
}

static next_step attempt(keyring *k, call *c, failure *f) {
  bool is_fresh = false;
  connection *conn = c->held ? *c->held : NULL;
  bool is_page = conn != NULL;
  if (!conn) {
    memset(f, 0, sizeof *f);
    conn = pool_take(k, c->deadline, &is_fresh, f);
    if (!conn) return f->status == KEYRING_UNREACHABLE ? STEP_LATER : STEP_DONE;
  }
  size_t server = conn->server;
  failure_copy_text(f->server, sizeof f->server, k->servers[server].label);
  int64_t until = attempt_deadline(k, c);
  frame_outcome outcome = frame_exchange(k, conn, &c->request, c->expected, c->is_secret, until, &c->reply, f);
  bool is_late = deadline_left(until) == 0;
  /* A connection's certificate is that of its begin, and what is refused may be it alone: a revoked instance that was added again is known
   * by a later one. Nothing was executed. */
  bool is_outdated = outcome == FRAME_ANSWERED && f->status == KEYRING_FORBIDDEN &&
                     credentials_are_newer(&k->credentials, SSL_get_SSL_CTX(conn->tls.ssl));
  if (outcome == FRAME_ANSWERED && f->status != KEYRING_OK && f->status != KEYRING_SHUTTING_DOWN) c->is_refused = true;
  bool is_good = !is_outdated && outcome == FRAME_ANSWERED && f->status != KEYRING_SHUTTING_DOWN;
  if (c->held) *c->held = NULL;
  if (c->held && is_good && f->status == KEYRING_OK) *c->held = conn;
  else pool_give(k, conn, is_good);
  next_step step = is_outdated ? STEP_AGAIN : step_after(k, c, outcome, is_fresh, is_late, server, f);
  return is_page ? STEP_DONE : step;
}

/* ---- All of it ---- */

/* Whether the server refuses more than this call: then nothing that was fetched before may be answered out of the cache any more.
 * Of FORBIDDEN only where we wanted to read: an instance may be allowed that alone. (It may be allowed one scope alone, too: who asks for
 * keys of the other one goes without the cache.) */
static bool is_refusal_of_us(const call *c, const failure *f) {
  switch (f->status) {
  case KEYRING_FORBIDDEN: return c->kind == CALL_READ;
  case KEYRING_TENANT_LOCKED:
  case KEYRING_TENANT_DISABLED:
  case KEYRING_TENANT_QUARANTINED: return true;
  case KEYRING_REFUSED: return !f->is_of_stranger;
  default: return false;
  }
}

/* What the caller is told, with the doubt there is. */
static keyring_status conclude(keyring *k, call *c, failure *f) {
  if (is_refusal_of_us(c, f)) cache_drop(k->cache, NULL);
  if (f->status == KEYRING_OK) {
    outage_ends(k);
    return KEYRING_OK;
  }
  /* Whoever says no is there. */
  if (f->status < 1000 || f->status == KEYRING_REFUSED || f->status == KEYRING_PROTOCOL) outage_ends(k);
  if (!c->is_in_doubt || is_conclusive(f->status)) return f->status;
  char text[sizeof f->text];
  failure_copy_text(text, sizeof text, f->text);
  const char *name = failure_known_name(f->status);
  uint32_t retry_after_ms = f->retry_after_ms;
  if (f->status == KEYRING_OUTCOME_UNKNOWN) return f->status;
  failure_set(f, KEYRING_OUTCOME_UNKNOWN, "the change was sent, and its answer is not known: %s: %s", name ? name : "refused", text);
  f->retry_after_ms = retry_after_ms;
  return f->status;
}

/* The pause before the next try; false: there is no time for it, or no use. */
static bool pause_before_next(call *c, next_step step, const failure *f, int64_t *pause, int *repeats_after) {
  int64_t until = deadline_now() + deadline_jittered(*pause);
  if (step == STEP_AFTER) {
    if (++*repeats_after > REPEATS_AFTER_MOST) return false;
    until = deadline_now() + f->retry_after_ms + deadline_jittered(PAUSE_FIRST_MS);
  } else {
    *pause = *pause * 2 > PAUSE_MOST_MS ? PAUSE_MOST_MS : *pause * 2;
  }
  if (until >= c->deadline) return false;
  deadline_sleep_until(until);
  return true;
}

keyring_status call_perform(keyring *k, call *c, failure *f) {
  if (c->deadline == 0) c->deadline = deadline_now() + k->config.timeout_ms;
  if (pool_enter(k, f) != KEYRING_OK) return f->status;
  if (c->kind == CALL_CHANGE && !make_idempotency_id(c)) return failure_set(f, KEYRING_NO_MEMORY, "no random bytes");
  bool is_probe = false;
  if (!(c->held && *c->held) && !outage_allows(k, &is_probe, f)) return f->status;
  bool gives_up = is_probe || c->is_one_round;
  int64_t pause = PAUSE_FIRST_MS;
  int repeats_after = 0, at_once = 0, shut_down = 0;
  for (;;) {
    next_step step = attempt(k, c, f);
    if (step == STEP_DONE) break;
    if (deadline_left(c->deadline) == 0) break;
    /* Each of the pool may be dead once. */
    if (step == STEP_AGAIN && at_once++ <= k->config.connections) continue;
    bool answered = f->status < 1000;
    if (gives_up && !answered) break;
    if (gives_up && f->status == KEYRING_SHUTTING_DOWN && shut_down++ > 0) break;
    if (!pause_before_next(c, step, f, &pause, &repeats_after)) break;
  }
  if (f->status == KEYRING_UNREACHABLE && !f->is_own) outage_begins_or_goes_on(k, f);
  return conclude(k, c, f);
}
