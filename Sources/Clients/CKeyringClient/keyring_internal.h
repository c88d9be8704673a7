/* SPDX-License-Identifier: MIT */
/* What a `keyring` is made of. */
#ifndef KEYRING_INTERNAL_H
#define KEYRING_INTERNAL_H

#include <pthread.h>
#include <sys/types.h>

#include "cache.h"
#include "config.h"
#include "credentials.h"
#include "dial.h"
#include "failure.h"
#include "keyring.h"
#include "locked_memory.h"
#include "tls.h"

/* An open connection, of the pool or in the hands of one call. */
typedef struct connection {
  struct connection *next; /* in the pool */
  tls_connection tls;
  size_t server; /* which of the list */
  uint64_t last_id;
} connection;

/* What is known of an outage. */
typedef struct outage {
  bool is_on;          /* a call's whole deadline, or a round over all servers, has passed in vain */
  int64_t next_try;    /* until then calls fail at once with `last` */
  int64_t interval_ms; /* the next one's length */
  failure last;
} outage;

struct keyring {
  keyring_config config;
  locked_memory *memory;
  credentials credentials;
  dial_server servers[CONFIG_SERVERS_MOST];
  cache *cache; /* NULL: off */

  pthread_mutex_t lock; /* of what follows */
  pid_t process;        /* whose connections these are */
  bool must_lock;       /* the memory, which this process inherited and has not locked yet */
  connection *idle;     /* the one used last is first */
  int open;             /* of the pool and in use */
  struct waiter *first, **end; /* calls that wait for a connection, the one that waits longest first */
  size_t preferred;     /* the server that answered last */
  outage outage;
};

/* The identity in the certificate: tenant and instance. */
keyring_status keyring_fail(const keyring *k, const failure *f, keyring_error *error);

#endif
