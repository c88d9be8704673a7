/* Calls of a tenant's administrator: a `keyring` opened with a certificate of `spiffe://<trust-domain>/tenant/<tenant>/admin`
 * (`keyringctl pki issue tenant-admin`). They are about the tenant in that certificate, and such a certificate has no calls on keys.
 * Conventions as in keyring.h. */
#ifndef KEYRING_ADMIN_H
#define KEYRING_ADMIN_H

#include "keyring.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Has the KMS rotate the tenant's CMK; its id (`cmk_id`, may be NULL, NUL-terminated within `cmk_id_capacity`) is unchanged. */
KEYRING_API keyring_status keyring_admin_rotate_cmk(keyring *k, char *cmk_id, size_t cmk_id_capacity,
                                                    keyring_error *error);

/* What keyring_admin_rotate_keys did. */
typedef struct keyring_rotation {
  char cmk_id[2048];
  uint64_t records; /* versions of keys re-encrypted */
} keyring_rotation;

/* Re-encrypts every key of the tenant under a new wrapping key of its present CMK; no key changes, no reader waits. `rotation` may be NULL.
 * KEYRING_CMK_TRANSIENT where the cmk_id in force was set with SET GLOBAL and not persisted. Give it a long `timeout_ms`. */
KEYRING_API keyring_status keyring_admin_rotate_keys(keyring *k, keyring_rotation *rotation, keyring_error *error);

/* SET GLOBAL, SET PERSIST. The server proves a new `cmk_id` against the KMS first, and refuses it with the old value in force. */
typedef enum keyring_persistence {
  KEYRING_GLOBAL = 1, /* until the server restarts */
  KEYRING_PERSIST = 2 /* beyond it */
} keyring_persistence;

KEYRING_API keyring_status keyring_admin_set(keyring *k, const char *name, const char *value,
                                             keyring_persistence persistence, keyring_error *error);

/* A variable of the tenant and where its value comes from (`default`, `file`, `persisted`, `global`). KEYRING_VARIABLE_INVALID where there is no such. */
KEYRING_API keyring_status keyring_admin_get(keyring *k, const char *name, char *value, size_t value_capacity,
                                             char source[32], keyring_error *error);

/* The tenant as keyringd sees it. */
typedef struct keyring_tenant_status {
  char state[32];   /* `cold`, `ready`, `degraded`, `locked`, `quarantined`, `disabled` */
  char reason[512]; /* why it is not ready; `` where it is */
  char cmk_id[2048];
  uint64_t sequence;
  uint64_t keys;
  uint32_t connections;
} keyring_tenant_status;

KEYRING_API keyring_status keyring_admin_status(keyring *k, keyring_tenant_status *status, keyring_error *error);

#ifdef __cplusplus
}
#endif

#endif
