/* SPDX-License-Identifier: MIT */
/* The settings of a keyring, as keyring_config_set checked them. */
#ifndef KEYRING_CONFIG_H
#define KEYRING_CONFIG_H

#include "failure.h"
#include "keyring.h"

enum { CONFIG_SERVERS_MOST = 16 };

typedef struct config_server {
  char host[256];
  char port[8];
} config_server;

struct keyring_config {
  config_server servers[CONFIG_SERVERS_MOST];
  size_t server_count;
  char *certificate;
  char *key;
  char *ca;
  keyring_scope scope;
  int timeout_ms;
  int connect_timeout_ms;
  int connections;
  int64_t cache_ms;
  int64_t cache_outage_ms;
  int cache_keys;
  bool allow_unlocked_memory;
};

/* Copies it into `to`, whose paths are then its own; false: no memory. */
bool config_copy(keyring_config *to, const keyring_config *from);
/* Frees the paths. */
void config_clear(keyring_config *config);

#endif
