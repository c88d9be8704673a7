/* SPDX-License-Identifier: MIT */
/* A call with its deadline, its repetitions, and what is known of outages. */
#ifndef KEYRING_CALL_H
#define KEYRING_CALL_H

#include "frame.h"

typedef enum call_kind {
  CALL_READ,                /* may be repeated */
  CALL_CHANGE,              /* may be repeated under its idempotency id */
  CALL_ADMINISTRATOR_CHANGE /* may not, once it was sent */
} call_kind;

typedef struct call {
  Keyring__V1__Request request;
  Keyring__V1__Reply__ResultCase expected;
  call_kind kind;
  bool is_secret;    /* the reply has key material */
  bool is_one_round; /* give up after one round over the servers: there is something in the cache */
  int64_t deadline;  /* 0: the configured one, from now */
  frame_reply reply; /* where it succeeds: to be freed */
  /* NULL, or where to keep the connection after success, and take it from if it is there: for pages. */
  connection **held;
  unsigned char idempotency_id[16];
  bool is_in_doubt; /* it was sent, and is not answered */
  bool is_refused;  /* a server has answered with something else than the result, whatever became of a repetition */
} call;

void call_init(call *c, call_kind kind, Keyring__V1__Request__CallCase which, Keyring__V1__Reply__ResultCase expected);

/* KEYRING_OK with c->reply, or see `f`. */
keyring_status call_perform(keyring *k, call *c, failure *f);

#endif
