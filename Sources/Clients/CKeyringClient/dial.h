/* SPDX-License-Identifier: MIT */
/* Addresses of a server, and TCP connections to it. */
#ifndef KEYRING_DIAL_H
#define KEYRING_DIAL_H

#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>

#include "config.h"
#include "failure.h"

enum { DIAL_ADDRESSES_MOST = 8 };

typedef struct dial_addresses {
  size_t count;
  socklen_t lengths[DIAL_ADDRESSES_MOST];
  struct sockaddr_storage of[DIAL_ADDRESSES_MOST];
} dial_addresses;

/* One server of the list. */
typedef struct dial_server {
  config_server at;
  char label[272]; /* `host:port`, `[address]:port` */
  bool is_address;
  pthread_mutex_t lock;
  dial_addresses last_good; /* what its name resolved to, for a time when names do not resolve */
} dial_server;

bool dial_server_init(dial_server *server, const config_server *at);
void dial_server_destroy(dial_server *server);

/* A connected, non-blocking, close-on-exec socket; -1: see `f`. */
int dial(dial_server *server, int64_t deadline, failure *f);

#endif
