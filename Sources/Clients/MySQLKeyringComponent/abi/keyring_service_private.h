/* SPDX-License-Identifier: MIT */
/* `keyring_service_admin.component_keyring_service`: what component_keyring_service.so tells our second component, which has
 * the SQL functions. Both are built from one source, so this struct may change from version to version; `size` tells the
 * versions apart. */
#ifndef KEYRING_SERVICE_PRIVATE_H
#define KEYRING_SERVICE_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "mysql_component_abi.h"

#define KEYRING_SERVICE_ADMIN "keyring_service_admin.component_keyring_service"

/* The strings are NUL-terminated and never secret; `` where there is nothing to say. */
struct keyring_service_state {
  size_t size;             /* sizeof(struct keyring_service_state) of the caller */
  char status[16];         /* `Active`, or `Disabled`: no configuration, or no call has succeeded since load() */
  char servers[1024];      /* as configured */
  char tenant[64];         /* of the certificate */
  char instance[64];       /* of the certificate */
  char scope[16];          /* `instance` or `shared` */
  char configuration[512]; /* the file in force */
  char last_error[768];    /* the last failure's line, without key material */
  uint64_t last_error_ms;  /* when it was, Unix milliseconds; 0: never */
  uint64_t failures;       /* failed operations since load() */
  uint64_t cache_ms;
  uint64_t cache_outage_ms;
  uint64_t timeout_ms;
  char server[300];        /* asked: which of the servers answered */
  char server_version[64]; /* asked: its version */
  uint64_t not_after;      /* asked: when the certificate ends, Unix seconds */
};

struct keyring_service_admin {
  /* Fills `state`. With `ask` not 0 the server is asked who we are (one round trip, at most timeout_ms): not 0 where it does not
   * answer or refuses, and then `last_error` says why; the rest is filled in any case. */
  mysql_abi_status (*state)(struct keyring_service_state *state, int ask);
};

#endif
