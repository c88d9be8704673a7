/* SPDX-License-Identifier: MIT */
/* One request and its reply on one connection. */
#ifndef KEYRING_FRAME_H
#define KEYRING_FRAME_H

#include "keyring/v1/keyring.pb-c.h"
#include "keyring_internal.h"

/* Allocations of one reply, in locked memory or not, and at most so many bytes: a message of a few bytes can unpack to many. */
typedef struct frame_memory {
  locked_memory *locked; /* NULL: the heap */
  size_t left;
  bool is_exhausted; /* an allocation failed that was within `left` */
  ProtobufCAllocator allocator;
} frame_memory;

typedef struct frame_reply {
  frame_memory memory;
  Keyring__V1__Reply *message; /* NULL: none */
} frame_reply;

typedef enum frame_outcome {
  FRAME_ANSWERED,   /* with the result or a status */
  FRAME_CONNECTION, /* answered with a reply about the connection (id 0), which has a status */
  FRAME_NOT_SENT,   /* nothing that the server could execute left */
  FRAME_LOST,       /* sent, and the connection ended or was silent */
  FRAME_BROKEN      /* sent, and what came back is no reply to it, or the server refuses us */
} frame_outcome;

/* Sends `request` (its id and timeout are set here) and reads its reply, whose result is `expected` where it has no status. Where `is_secret`,
 * the reply is unpacked into locked memory. Unless it is FRAME_ANSWERED, the connection is of no use any more. */
frame_outcome frame_exchange(keyring *k, connection *c, Keyring__V1__Request *request, Keyring__V1__Reply__ResultCase expected,
                             bool is_secret, int64_t deadline, frame_reply *reply, failure *f);
void frame_reply_free(frame_reply *reply);

#endif
